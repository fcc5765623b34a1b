"""A Trainer whose parameters learn at rates of their own, on a schedule that knows which metric it follows."""

from collections.abc import Collection, Iterable
from typing import Any, cast

import torch
from torch import nn

from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.task_tensors import owner_of, owners_by_key
from ..tasks import TaskSpec
from .arguments import MultiTaskTrainingArguments
from .checks import scheduler_options
from .task_trainer import TaskTrainer


class OptimizingTrainer(TaskTrainer):
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
        groups = _parameter_groups(opt_model, self.args, self.specs.values(), decayed)
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


def _parameter_groups(
    model: nn.Module, args: MultiTaskTrainingArguments, specs: Iterable[TaskSpec], decayed: Collection[str]
) -> list[dict[str, Any]]:
    """Return an optimizer's groups: the encoder at `learning_rate`, everything behind it and encoders of fresh weights
    beside it at `parts_learning_rate`, and a task's own parameters at the rate its row gives.

    Args:
        model: The model, wrapped or not.
        args: The rates and the weight decay.
        specs: The tasks.
        decayed: Names of the parameters that weight decay reaches.
    """
    rates = {spec.name: spec.learning_rate for spec in specs if spec.learning_rate is not None}
    owners = owners_by_key(rates)
    new = (".mtl.", ".encoder.projections.", *_fresh_encoders(model))
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_new = any(mark in f".{name}" for mark in new)
            shared = args.parts_learning_rate if is_new else args.learning_rate
            rate = rates.get(owner_of(name, owners) or "", shared)
            assert rate is not None
            groups.setdefault((float(rate), name in decayed), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": args.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]


def _fresh_encoders(model: nn.Module) -> list[str]:
    """The parts of names by which the parameters of encoders of fresh weights are told."""
    wrapped = next((part for part in model.modules() if isinstance(part, MultiTaskAttentionModel)), None)
    rows = wrapped.config.modalities or [] if wrapped is not None else []
    if len(rows) == 1:
        return [".encoder."] if rows[0].get("is_fresh") else []
    return [f".encoder.encoders.{row['name']}." for row in rows if row.get("is_fresh")]
