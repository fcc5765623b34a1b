"""Model and data must mean the same tasks, and nothing may be set in two places in two ways."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from transformers.utils.logging import get_logger

from ..data.fingerprint import fingerprint_rows
from ..data.mixture import Mixture
from ..modeling.errors import InputError, check_choice
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.task_config import TaskConfig
from ..tasks import TaskSpec, tasks_by_source

logger = get_logger(__name__)

# What is measured in training rows where nobody gives it.
_STATISTICS = ("label_mean", "label_scale", "class_weights", "null_answer")
# Compared by themselves: always, whoever wrote them.
_ALWAYS_COMPARED = ("name", "problem_type", "labels", "fields")

_KEPT = [item.name for item in dataclasses.fields(TaskConfig)]


def agree_with_model(model: MultiTaskAttentionModel, mixture: Mixture, written: Collection[str] = ()) -> Mixture:
    """Return the mixture in the model's order of tasks, after both agree on what the tasks are.

    Args:
        model: The model.
        mixture: The trainer's own mixture, whose task rows take over what the model holds.
        written: Names of the tasks whose rows the caller wrote.

    Raises:
        InputError: They have other tasks, or a task row gives a value that the model has otherwise.
    """
    mixture = _in_order(mixture, model.config.task_names)
    _check_same_tasks(model, mixture.specs, written)
    _train_in_float32(model)
    return dataclasses.replace(mixture, specs=_agree_on_tasks(model, mixture.specs, written))


def _in_order(mixture: Mixture, names: Sequence[str]) -> Mixture:
    """Return a mixture whose tasks stand in another order, if they are the same tasks."""
    by_name = {spec.name: spec for spec in mixture.specs}
    if by_name.keys() != set(names) or list(by_name) == list(names):
        return mixture
    sources = list(tasks_by_source([by_name[name] for name in names]))

    def ordered(rows: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
        return {name: rows[name] for name in order if name in rows}

    return dataclasses.replace(
        mixture,
        specs=[by_name[name] for name in names],
        train=ordered(mixture.train, names),
        validation=ordered(mixture.validation, names),
        test=ordered(mixture.test, names),
        streams=ordered(mixture.streams, sources),
    )


def _check_same_tasks(model: MultiTaskAttentionModel, specs: Sequence[TaskSpec], written: Collection[str]) -> None:
    """Raise `InputError` unless model and data have the same tasks, with the same labels.

    Args:
        model: The model.
        specs: The tasks of the data.
        written: Names of the tasks whose rows the caller wrote.
    """
    names = [spec.name for spec in specs]
    if model.config.task_names != names:
        raise InputError(
            f"The model has the tasks {model.config.task_names}, the data {names}; expected the same, in any order."
        )
    for task, spec in zip(model.config.task_configs, specs):
        for key in ("problem_type", "labels"):
            value, of_model = getattr(spec, key), getattr(task, key)
            if value == of_model:
                continue
            if spec.name in written and key in spec.given:
                raise InputError(
                    f"Task {task.name!r}: its row says {key}={value!r}, the model has {key}={of_model!r}. Write what "
                    "the model has, or give the encoder's name as `model` to build another one."
                )
            raise InputError(f"Task {task.name!r}: the model has {key}={of_model!r}, the data {value!r}.")


def _agree_on_tasks(
    model: MultiTaskAttentionModel, specs: Sequence[TaskSpec], written: Collection[str]
) -> list[TaskSpec]:
    """Return task rows with what the model holds; heads that have not learned yet take the label statistics of the
    data.

    Args:
        model: The model.
        specs: The task rows.
        written: Names of the tasks whose rows the caller wrote; the others were read off features.

    Raises:
        InputError: A row gives a value that the model has otherwise.
    """
    agreed = []
    for spec, task in zip(specs, model.config.task_configs, strict=True):
        learned = model.has_learned(spec.name)
        if spec.name in written:
            _refuse_other_values(spec, task, learned)
        if not learned:
            task = _take_measured(model, spec, task)
        if task.input_fields != spec.input_fields:
            raise InputError(
                f"Task {spec.name!r}: the model reads {', '.join(task.input_fields)}, the data have "
                f"{', '.join(spec.input_fields)}. Build the model with fields={list(spec.input_fields)!r} in its "
                f"task, or name the columns of {', '.join(task.input_fields)} alone."
            )
        taken = spec.with_measured(**{name: getattr(task, name) for name in _KEPT})
        # What the row gives stays given.
        agreed.append(dataclasses.replace(taken, measured=tuple(set(taken.measured) - spec.given.keys())))
    return agreed


def _train_in_float32(model: MultiTaskAttentionModel) -> None:
    """Make weights float32 that are shorter only because they were stored so: small steps would be lost in them."""
    if not model.has_given_precision and model.dtype in (torch.float16, torch.bfloat16):
        logger.warning(
            f"The checkpoint's weights, stored in {model.dtype}, are trained in float32; to train them as they are "
            f"stored, load it with from_pretrained(folder, dtype={model.dtype})."
        )
        model.float()


def _refuse_other_values(spec: TaskSpec, task: TaskConfig, learned: bool) -> None:
    for key, value in spec.given.items():
        if key not in _KEPT or key in _ALWAYS_COMPARED or value == getattr(task, key):
            continue
        if key in _STATISTICS and not learned and getattr(task, key) is None:
            continue
        raise InputError(
            f"Task {spec.name!r}: its row says {key}={value!r}, the model has {key}={getattr(task, key)!r}. Leave it "
            f"out of the row, or build the model with it: MultiTaskAttentionModel.from_encoder(..., tasks=[TaskConfig("
            f"name={spec.name!r}, ..., {key}={value!r})])."
        )
    if spec.balance_classes and learned and task.class_weights is None:
        raise InputError(
            f"Task {spec.name!r}: its row says balance_classes=True, the model was trained with class_weights=None. "
            "Leave balance_classes out, or begin from the encoder."
        )


def _take_measured(model: MultiTaskAttentionModel, spec: TaskSpec, task: TaskConfig) -> TaskConfig:
    """Give the model what its configuration of a task leaves open, and return the task."""
    values: dict[str, Any] = {}
    if spec.name in model.measured_tasks or all(getattr(task, key) is None for key in _STATISTICS):
        values = {key: getattr(spec, key) for key in _STATISTICS}
    if task.fields is None:
        values["fields"] = list(spec.input_fields)
    taken = dataclasses.replace(task, **values)
    if taken != task:
        model.take_task(taken)
        model.measured_tasks.add(spec.name)
    return taken


def check_settings(model: MultiTaskAttentionModel, settings: Mapping[str, Any] | None) -> None:
    """Raise `InputError` for `model_settings` beside a model that has others."""
    for key, value in (settings or {}).items():
        check_choice("setting", key, type(model.config).__dataclass_fields__)
        if getattr(model.config, key) != value:
            raise InputError(
                f"model_settings say {key}={value!r}, the model has {key}={getattr(model.config, key)!r}. Leave "
                "model_settings out, or give the encoder's name as `model` to build another one."
            )


def check_rows_of_mixture(mixture: Mixture, tasks: Sequence[TaskSpec]) -> None:
    """Raise `InputError` for `tasks` beside a mixture whose rows say otherwise."""
    rows = {spec.name: spec for spec in mixture.specs}
    for task in tasks:
        check_choice("task in `tasks` beside a mixture:", task.name, rows)
        for key, value in task.given.items():
            other = rows[task.name].setting(key)
            if value != other:
                raise InputError(
                    f"Task {task.name!r}: `tasks` say {key}={value!r}, the mixture {key}={other!r}. Leave `tasks` "
                    "out; a mixture holds its tasks, so load it with these rows: load_mixture([...])."
                )


def join_validation(mixture: Mixture, given: Mapping[str, Any]) -> None:
    """Add validation rows to those of a mixture.

    Args:
        mixture: The trainer's own mixture.
        given: Canonical rows by task.

    Raises:
        InputError: The mixture has other validation rows of a task.
    """
    for name, rows in given.items():
        held = mixture.validation.get(name)
        if held is not None and fingerprint_rows(held) != fingerprint_rows(rows):
            raise InputError(
                f"eval_dataset has {len(rows)} rows of task {name!r}, the mixture has {len(held)} validation rows of "
                "it, and they differ. Leave eval_dataset out, or score other rows with trainer.evaluate(...)."
            )
        mixture.validation[name] = rows
