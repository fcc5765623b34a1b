"""The identity of a run that is continued: its tasks and rows, and the settings that its steps follow from."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from ..data.fingerprint import fingerprint_rows
from ..modeling.configuration_multitask import OLD_SETTINGS, MultiTaskAttentionConfig
from ..modeling.errors import InputError
from ..tasks import ROW_SETTINGS, TaskSpec
from .arguments import OLD_NAMES, MultiTaskTrainingArguments

# Settings from which the rows of every step follow, and what a step makes of them. Others (how often is logged, saved
# and evaluated, workers, precision, the length of the run) take effect where the run goes on.
_RUN_ARGUMENTS = (
    "loss_weighting",
    "loss_weighting_learning_rate",
    "loss_weighting_temperature",
    "loss_smoothing",
    "loss_reduction",
    "gradnorm_alpha",
    "gradient_balancing",
    "gradient_balancing_options",
    "balanced_parameters",
    "mixing_strategy",
    "mixing_temperature",
    "mixing_power",
    "mixing_cap",
    "target_scores",
    "batch_form",
    "tasks_per_step",
    "tokens_per_batch",
    "length_grouping",
    "image_augmentation",
    "seed",
    "data_seed",
    "optim",
    "optim_args",
    "optim_target_modules",
    "learning_rate",
    "parts_learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "neftune_noise_alpha",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
)
# Of a task's row, what training reads; other keys load, choose, answer and score.
_TASK_KEYS = (
    "problem_type",
    "labels",
    "fields",
    "max_length",
    "stride",
    "reads",
    "source",
    "learning_rate",
    "class_weights",
    *ROW_SETTINGS,
    "label_mean",
    "label_scale",
)
# Of `lr_scheduler_kwargs`, numbers of steps: a run of another length has others.
_STEPS_OF_SCHEDULE = ("num_stable_steps", "num_decay_steps")
# How a step is divided may change; its rows may not.
_STEP_ROWS = "per_device_train_batch_size x gradient_accumulation_steps x processes"


def run_arguments(args: MultiTaskTrainingArguments) -> dict[str, Any]:
    """Return the settings that a continued run must share, as JSON values."""
    values = {name: getattr(args, name) for name in _RUN_ARGUMENTS}
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return _as_json({**{name: getattr(value, "value", value) for name, value in values.items()}, _STEP_ROWS: rows})


def run_tasks(specs: Iterable[TaskSpec]) -> dict[str, dict[str, Any]]:
    """Return by task what a continued run must share of its row, as JSON values."""
    tasks = {}
    for spec in specs:
        values = {key: spec.setting(key) for key in _TASK_KEYS}
        # Labels that are no numbers are trained as they are.
        standard = {"label_mean": spec.label_mean or 0.0, "label_scale": spec.label_scale or 1.0}
        tasks[spec.name] = {**values, **standard, "fields": spec.input_fields, "source": spec.source_name}
    return _as_json(tasks)


def run_settings(config: MultiTaskAttentionConfig) -> dict[str, Any]:
    """Return the settings of the model's parts, which a continued run must share, as JSON values."""
    others = {item.name for item in dataclasses.fields(PreTrainedConfig)} | {"encoder_config", "tasks"}
    names = [item.name for item in dataclasses.fields(config) if item.name not in others]
    return _as_json({name: getattr(config, name) for name in names})


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Values as a checkpoint gives them back."""
    return json.loads(json.dumps(values, default=str))


def fingerprints(rows: Mapping[str, Dataset]) -> dict[str, list[Any]]:
    """Return by task a hash of its training rows, and how many they are."""
    return {name: [fingerprint_rows(task_rows), len(task_rows)] for name, task_rows in rows.items()}


def check_run(then: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Raise `InputError` unless a run may go on from a checkpoint.

    Args:
        then: What the checkpoint keeps: ``arguments``, ``rows`` by task and ``total_steps``; ``tasks`` and the
            model's ``settings`` too, unless it is of an older version.
        now: The same of this run.
        folder: The checkpoint.
    """
    _check_names(then, now, folder)
    for task, values in then.get("tasks", {}).items():
        _check_values(f" of task {task!r}", values, now["tasks"][task], folder)
    settings = {OLD_SETTINGS.get(name, name): value for name, value in then.get("settings", {}).items()}
    _check_values("", settings, now["settings"], folder)
    longer = then["total_steps"] != now["total_steps"]
    arguments = {OLD_NAMES.get(name, name): value for name, value in then["arguments"].items()}
    _check_values("", _lasting(arguments, longer), _lasting(now["arguments"], longer), folder)
    _check_rows(then["rows"], now["rows"], folder)


def _check_names(then: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    # Older checkpoints name tasks beside the hashes of their rows, which streams have none of.
    key = "tasks" if "tasks" in then else "rows"
    before, names = list(then[key]), list(now[key])
    if before != names and before and names:
        raise InputError(
            f"The checkpoint {folder!r} is of a run with the tasks {', '.join(before)}, this one has "
            f"{', '.join(names)}; a run goes on with the tasks that it began with, in their order. Name them so, or "
            "begin a new run in another output_dir."
        )


def _check_values(of: str, then: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Raise `InputError` for a value that differs; one that the checkpoint does not keep is not compared."""
    for name, before in then.items():
        value = now.get(name, before)
        if value != before:
            raise InputError(
                f"The checkpoint {folder!r} is of a run with {name} = {before!r}{of}, this one has {value!r}; a run "
                f"goes on as it began. Set {name} to {before!r}, or begin a new run in another output_dir."
            )


def _lasting(arguments: Mapping[str, Any], longer: bool) -> dict[str, Any]:
    """Arguments that a run of this length must share."""
    options = arguments.get("lr_scheduler_kwargs")
    if not longer or not isinstance(options, dict):
        return dict(arguments)
    kept = {name: value for name, value in options.items() if name not in _STEPS_OF_SCHEDULE}
    return {**arguments, "lr_scheduler_kwargs": kept}


def _check_rows(then: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    for name in [*then, *(name for name in now if name not in then)]:
        if (name in then) != (name in now):
            before, rows = ("in memory", "a stream") if name in then else ("a stream", "in memory")
            raise InputError(
                f"Task {name!r}: its training rows were {before} in the run of the checkpoint {folder!r}, now they "
                f"are {rows}, and are drawn in another order. Give them as then, or begin a new run in another "
                "output_dir."
            )
        (before, count), (hashed, rows) = then[name], now[name]
        if hashed != before:
            what = f"{count} then, {rows} now" if rows != count else f"{rows}, as many as then; others, or reordered"
            raise InputError(
                f"Task {name!r}: its training rows are not those of the checkpoint {folder!r} ({what}). Train on the "
                "rows that it was trained on, or begin a new run in another output_dir."
            )
