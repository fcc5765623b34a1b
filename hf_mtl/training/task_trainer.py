"""A Trainer's attributes with several tasks, which the parts of the trainer share."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase, Trainer

from ..balancing.gradient_balancing import GradientBalancer
from ..balancing.weighting_base import LossWeighting
from ..data.collator import MultiTaskCollator
from ..data.dataset_forms import Rows
from ..data.features import FeatureDataset
from ..data.mixing import MixingStrategy
from ..data.mixture import Mixture
from ..data.sampler import MixtureBatchSampler
from ..data.streams import StreamedMixture
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.processing_multitask import MultiTaskProcessor
from ..tasks import TaskSpec
from .arguments import MultiTaskTrainingArguments
from .task_freezing import TaskFreezer


class TaskTrainer(Trainer):
    """A Trainer with the attributes that the parts of `MultiTaskTrainer` read of each other."""

    model: MultiTaskAttentionModel
    args: MultiTaskTrainingArguments
    processing_class: PreTrainedTokenizerBase
    processor: MultiTaskProcessor
    data_collator: MultiTaskCollator
    train_dataset: FeatureDataset | StreamedMixture
    eval_dataset: FeatureDataset | None
    mixture: Mixture
    # The tasks of the data by name, with what was measured in training rows.
    specs: dict[str, TaskSpec]
    # By task or source, as they were given beside the training rows.
    test_rows: Mapping[str, Rows]
    sampler: MixtureBatchSampler | StreamedMixture
    mixing: MixingStrategy
    freezer: TaskFreezer
    loss_weighting: LossWeighting
    # What becomes of the tasks' gradients; None sums them.
    balancer: GradientBalancer | None
    # The parameters of each task's own.
    owned: dict[str, list[nn.Parameter]]
    # Where this process's streams stood after the last step.
    stream_state: dict[str, Any] | None
    # The arguments' values when the trainer was made.
    values_given: dict[str, Any]

    def task_scores(self, metrics: Mapping[str, float], prefix: str = "eval") -> dict[str, dict[str, float]]:
        """Return ``{task: {metric: score}}`` from what `evaluate` returned."""
        return {
            name: {metric: metrics[f"{prefix}_{name}_{metric}"] for metric in spec.metric_names}
            for name, spec in self.specs.items()
            if f"{prefix}_{name}_{spec.metric_names[0]}" in metrics
        }
