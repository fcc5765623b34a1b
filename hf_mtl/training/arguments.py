"""Training arguments: those of Transformers, and what several tasks add."""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments

from ..balancing.loss_weighting import LOSS_WEIGHTINGS
from ..data.sampler import MIXING_STRATEGIES
from ..modeling import InputError
from ..modeling.configuration_multitask import check_choice
from ..modeling.step_loss import LOSS_REDUCTIONS


@dataclass
class MultiTaskTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the settings of a mixture; an epoch draws as many rows as the tasks have together."""

    mixing_strategy: str = field(
        default="proportional", metadata={"help": "How often each task is drawn: proportional or temperature."}
    )
    temperature: float = field(
        default=2.0, metadata={"help": "Of temperature mixing: 1 is proportional, large values approach uniform."}
    )
    loss_weighting: str = field(default="fixed", metadata={"help": "Where task weights come from: fixed."})
    loss_reduction: str = field(
        default="rows",
        metadata={"help": "rows: a task counts by its rows in the step; tasks: every task counts the same."},
    )
    parts_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of everything but the encoder; by default 10 times --learning_rate."},
    )
    length_grouping: bool = field(
        default=True, metadata={"help": "Whether rows of similar length share a batch (less padding)."}
    )
    metric_for_best_model: str | None = field(
        default="mtl_average", metadata={"help": "eval_mtl_average is the mean of the tasks' scores."}
    )

    def __post_init__(self) -> None:
        check_choice("mixing_strategy", self.mixing_strategy, MIXING_STRATEGIES)
        check_choice("loss_weighting", self.loss_weighting, LOSS_WEIGHTINGS)
        check_choice("loss_reduction", self.loss_reduction, LOSS_REDUCTIONS)
        for name in ("temperature", "learning_rate", "per_device_train_batch_size"):
            if not float(getattr(self, name)) > 0:
                raise InputError(f"{name}={getattr(self, name)!r}; expected a number > 0.")
        super().__post_init__()
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        # Rows are features with routing, which no signature of the model names.
        self.remove_unused_columns = False
        if self.parts_learning_rate is None:
            self.parts_learning_rate = 10 * self.learning_rate
