"""What a run must keep when it is continued: its rows, and the settings that a checkpoint's state follows from."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from ..data.fingerprint import fingerprint_rows
from ..modeling import InputError
from .arguments import MultiTaskTrainingArguments

# Settings from which the rows of every step follow, and those whose state a checkpoint holds. Others (how often is
# logged, saved and evaluated, workers, precision, clipping, the length of the run) take effect where the run goes on.
RUN_ARGUMENTS = (
    "loss_weighting",
    "loss_weighting_learning_rate",
    "loss_weighting_temperature",
    "loss_smoothing",
    "gradnorm_alpha",
    "gradient_balancing",
    "gradient_balancing_options",
    "mixing_strategy",
    "temperature",
    "mixing_power",
    "mixing_cap",
    "target_scores",
    "batch_form",
    "tasks_per_step",
    "tokens_per_batch",
    "length_grouping",
    "seed",
    "data_seed",
    "optim",
    "learning_rate",
    "parts_learning_rate",
    "weight_decay",
    "lr_scheduler_type",
)
# How a step is divided may change; its rows may not.
STEP_ROWS = "per_device_train_batch_size x gradient_accumulation_steps x processes"


def run_arguments(args: MultiTaskTrainingArguments) -> dict[str, Any]:
    """Return the settings that a continued run must share, as JSON values."""
    values = {name: getattr(args, name) for name in RUN_ARGUMENTS}
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {**{name: getattr(value, "value", value) for name, value in values.items()}, STEP_ROWS: rows}


def fingerprints(rows: Mapping[str, Dataset]) -> dict[str, list[Any]]:
    """Return by task a hash of its training rows, and how many they are."""
    return {name: [fingerprint_rows(own), len(own)] for name, own in rows.items()}


def check_run(then: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Raise `InputError` unless a run may go on from a checkpoint.

    Args:
        then: What the checkpoint keeps: ``arguments``, and ``rows`` by task.
        now: The same of this run.
        folder: The checkpoint.
    """
    for name, before in then["arguments"].items():
        value = now["arguments"].get(name, before)
        if value != before:
            raise InputError(
                f"The checkpoint {folder!r} is of a run with {name} = {before!r}, this one has {value!r}; a run "
                f"goes on as it began. Set {name} to {before!r}, or begin a new run in another output_dir."
            )
    for name, (known, count) in then["rows"].items():
        if name in now["rows"] and now["rows"][name][0] != known:
            rows = now["rows"][name][1]
            what = f"{count} then, {rows} now" if rows != count else f"{rows}, as many as then; others, or reordered"
            raise InputError(
                f"Task {name!r}: its training rows are not those of the checkpoint {folder!r} ({what}). Train on the "
                "rows that it was trained on, or begin a new run in another output_dir."
            )
