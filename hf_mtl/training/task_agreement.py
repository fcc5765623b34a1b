"""Model and data must mean the same tasks."""

import dataclasses
from collections.abc import Sequence

import torch

from ..modeling import InputError, MultiTaskAttentionModel, TaskConfig
from ..tasks import TaskSpec


def check_same_tasks(model: MultiTaskAttentionModel, specs: Sequence[TaskSpec]) -> None:
    """Raise `InputError` unless model and data have the same tasks in the same order, with the same labels."""
    names = [spec.name for spec in specs]
    if model.config.task_names != names:
        raise InputError(f"The model has the tasks {model.config.task_names}, the data {names}; expected the same.")
    for task, spec in zip(model.config.task_configs, specs):
        for key in ("problem_type", "labels"):
            if getattr(task, key) != getattr(spec, key):
                raise InputError(
                    f"Task {task.name!r}: the model has {key}={getattr(task, key)!r}, the data {getattr(spec, key)!r}."
                )


def adopt_tasks(specs: Sequence[TaskSpec], tasks: Sequence[TaskConfig]) -> None:
    """Give the task rows what the model holds of its tasks (label statistics, lengths, thresholds): it decides."""
    for spec, task in zip(specs, tasks, strict=True):
        for item in dataclasses.fields(TaskConfig):
            setattr(spec, item.name, getattr(task, item.name))


def train_in_float32(model: MultiTaskAttentionModel) -> None:
    """Make weights float32 that are shorter only because they were stored so: small steps would be lost in them."""
    if not model.has_given_precision and model.dtype in (torch.float16, torch.bfloat16):
        model.float()
