"""A Trainer whose parameters learn at rates of their own, on a schedule that knows which metric it follows."""

from typing import Any, cast

import torch
from torch import nn
from transformers.trainer_utils import SchedulerType

from ..modeling import InputError
from .arguments import MultiTaskTrainingArguments
from .evaluation_loop import EvaluatingTrainer
from .parameter_groups import parameter_groups

# Schedules that wait for a metric to stop getting better.
FOLLOWING = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)


class OptimizingTrainer(EvaluatingTrainer):
    """A Trainer with a rate for the encoder, one for everything behind it, and one for a task that gives its own."""

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer: the encoder at `learning_rate`, everything else at `parts_learning_rate`, and a task's
        own parameters at the rate its row gives.
        """
        if self.optimizer is not None:
            return self.optimizer
        given, opt_model = self.optimizer_cls_and_kwargs, self.model if model is None else model
        optimizer_class, options = given or self.get_optimizer_cls_and_kwargs(self.args, cast(Any, opt_model))
        decayed = set(self.get_decay_parameter_names(opt_model))
        groups = parameter_groups(opt_model, self.args, self.specs.values(), decayed)
        # Groups that options hold are taken in the place of Transformers' own.
        self.optimizer_cls_and_kwargs = optimizer_class, {**options, "params": groups}
        try:
            return super().create_optimizer(model)
        finally:
            self.optimizer_cls_and_kwargs = given

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule; one that follows a metric waits for it to rise, or to fall where less is better."""
        given = self.args.lr_scheduler_kwargs
        self.args.lr_scheduler_kwargs = scheduler_options(self.args)
        try:
            return super().create_scheduler(num_training_steps, optimizer)
        finally:
            self.args.lr_scheduler_kwargs = given


def scheduler_options(args: MultiTaskTrainingArguments) -> Any:
    """Return `lr_scheduler_kwargs`, with the direction of the metric where the schedule follows one.

    Raises:
        InputError: They give another direction.
    """
    options = args.lr_scheduler_kwargs
    if args.lr_scheduler_type not in FOLLOWING:
        return options
    mode = "max" if args.greater_is_better else "min"
    given = dict(options) if isinstance(options, dict) else {}
    if given.get("mode", mode) != mode:
        raise InputError(
            f"lr_scheduler_kwargs say mode={given['mode']!r}, and of metric_for_best_model="
            f"{args.metric_for_best_model!r} {'more' if mode == 'max' else 'less'} is better; write mode={mode!r}, or "
            "leave it out."
        )
    return {**given, "mode": mode}
