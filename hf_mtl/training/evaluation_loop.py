"""A Trainer's evaluation: all tasks' rows in one loop, decoded, scored, averaged."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from ..data.canonical import canonical_splits
from ..data.collator import MultiTaskCollator
from ..data.features import FeatureDataset
from ..modeling import InputError, MultiTaskAttentionModel
from ..modeling.configuration_multitask import check_choice
from ..modeling.processing_multitask import MultiTaskProcessor
from ..tasks import TaskSpec
from .arguments import MultiTaskTrainingArguments
from .checkpoints import CheckpointingTrainer
from .evaluation import AnswerCollector, flat_scores, score_answers
from .evaluation_batches import EvaluationBatches, evaluation_loader


class EvaluatingTrainer(CheckpointingTrainer):
    """A Trainer that answers the rows of all tasks in one loop and scores every task."""

    model: MultiTaskAttentionModel
    args: MultiTaskTrainingArguments
    eval_dataset: FeatureDataset | None
    data_collator: MultiTaskCollator
    processor: MultiTaskProcessor
    specs: dict[str, TaskSpec]

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Answer the rows of all tasks in one loop, score each task, and average.

        Returns predictions as decoded answers by task, and as metrics ``<prefix>_<task>_<metric>`` (0-100),
        ``<prefix>_<task>_loss``, ``<prefix>_mtl_average``, ``<prefix>_mtl_worst`` and, where single-task scores are
        given, ``<prefix>_mtl_relative``.
        """
        data = cast(FeatureDataset, dataloader.dataset)
        model = self._wrap_model(self.model, training=False)
        model.eval()
        self.callback_handler.eval_dataloader = dataloader
        losses = torch.zeros(2, len(self.processor.tasks))
        answered: list[tuple[Any, Any]] = []
        counted = cast(EvaluationBatches, dataloader.batch_sampler).counted
        for number, (entries, batch) in enumerate(dataloader):
            logits, sums = self._answer_batch(model, batch)
            if number < counted:
                answered.append((entries, logits))
                losses += sums
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        collector = AnswerCollector(data.specs, data.rows)
        for entries, logits in gather_object(answered):
            collector.add(entries, logits)
        answers = collector.answers()
        scores = score_answers(data.specs, data.rows, answers)
        metrics = flat_scores(scores, cast(Any, self.args.single_task_scores))
        sums, counts = self.accelerator.reduce(losses.to(self.args.device), reduction="sum").tolist()
        for name, total, count in zip(self.processor.tasks, sums, counts):
            if count:
                metrics[f"{name}_loss"] = total / count
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        return EvalLoopOutput(cast(Any, answers), label_ids=None, metrics=metrics, num_samples=len(data))

    @torch.no_grad()
    def _answer_batch(self, model: nn.Module, batch: dict[str, Any]) -> tuple[list[Any], torch.Tensor]:
        """The logits of a batch's entries in order, and (2, tasks) loss sums and label counts."""
        batch = self._prepare_inputs(batch)
        with self.compute_loss_context_manager():
            outputs = model(**batch)
        logits = MultiTaskAttentionModel.ordered_logits(outputs.entry_logits, batch["routing"])
        return logits, torch.stack([outputs.task_loss_sums, outputs.task_label_counts]).cpu()

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score every task on the validation rows, or on data sets by task name, which are scored together."""
        return super().evaluate(self._features(eval_dataset), *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return this process's part of the rows of all tasks, longest last, entries' features beside each batch."""
        data = self._features(eval_dataset) if eval_dataset is not None else self.eval_dataset
        if data is None:
            raise InputError("There are no validation rows; give eval_dataset={task: Dataset}.")
        return evaluation_loader(data, self.data_collator, self.args)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Return the rows of all tasks of a test split."""
        return self.get_eval_dataloader(test_dataset)

    def _features(self, given: Any) -> Any:
        """Data sets by task name or source as features; anything else as it is."""
        if not isinstance(given, Mapping):
            return given
        known = dict.fromkeys(name for spec in self.specs.values() for name in (spec.name, spec.source_name))
        for name in given:
            check_choice("task of the data sets", name, known)
        rows = {}
        for spec in self.specs.values():
            own = next((given[name] for name in (spec.name, spec.source_name) if name in given), None)
            if own is not None:
                rows[spec.name] = canonical_splits(spec, {"validation": own}, local=False)["validation"]
        return self.features_of(rows)

    def features_of(self, rows: Mapping[str, Dataset]) -> FeatureDataset:
        """Return canonical rows by task as a data set that `evaluate` and `predict` take."""
        return FeatureDataset(self.processor, self.specs, rows)

    def task_scores(self, metrics: Mapping[str, float], prefix: str = "eval") -> dict[str, dict[str, float]]:
        """Return ``{task: {metric: score}}`` from what `evaluate` returned."""
        return {
            name: {metric: metrics[f"{prefix}_{name}_{metric}"] for metric in spec.metric_names}
            for name, spec in self.specs.items()
            if f"{prefix}_{name}_{spec.metric_names[0]}" in metrics
        }
