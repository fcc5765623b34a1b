"""The text of a drafted recipe: why each line says what it says, and what is left to fill in."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..data.task_drafts import BLANK, TaskDraft

EPOCHS = 3
_HELD_OUT = 0.1
_TRAINING = f"""
num_train_epochs: {EPOCHS}
per_device_train_batch_size: 32
per_device_eval_batch_size: 64
learning_rate: 1.0e-4
warmup_steps: 0.06
weight_decay: 0.01
eval_strategy: epoch
save_strategy: epoch
save_total_limit: 2
load_best_model_at_end: true
logging_steps: 50
seed: 42
"""


@dataclass
class Source:
    """Files of one data set by split, or its name on the Hub.

    Args:
        name: What its task is called.
        files: Files by split.
        dataset: The name on the Hub.
        rows: How many rows each split has.
        faults: Lines that cannot be read.
        sample: Some training rows.
    """

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    dataset: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    sample: list[Mapping[str, Any]] = field(default_factory=list)


def recipe_text(
    drafts: Sequence[tuple[Source, TaskDraft]], encoder: Any, folder: str, place: Path, estimate: str
) -> str:
    """Return the recipe's text; paths start in its folder."""
    blank = any(draft.questions for _, draft in drafts)
    lines = [
        "# Drafted by hf-mtl init; read it through." + (f" Lines with {BLANK} are yours to fill in." if blank else "")
    ]
    lines += [*_encoder_lines(encoder), f"output_dir: {_written(folder)}"]
    lines += ["", "tasks:"]
    for source, draft in drafts:
        counts = ", ".join(f"{split} {count:,}" for split, count in source.rows.items() if count)
        origin = source.dataset or ", ".join(map(str, source.files.values()))
        lines.append(f"  # {origin}" + (f" (rows: {counts})" if counts else ""))
        lines.append(f"  - name: {_written(draft.name)}")
        lines.append(_line("problem_type", draft.problem_type, draft))
        if source.dataset is not None:
            lines.append(_line("dataset", source.dataset, draft))
            held_out = "validation" in source.rows
        else:
            files = {split: os.path.relpath(path, place) for split, path in source.files.items()}
            lines.append(_line("data_files", files, draft))
            held_out = "validation" in files
        if not held_out:
            lines.append(
                f"    validation_share: {_HELD_OUT}   # there are no validation rows: a tenth of these is held out"
            )
        lines.append(_line("columns", draft.columns, draft))
        lines += [f"    # Not read: {', '.join(draft.unread)}"] if draft.unread else []
    lines += ["", f"# {estimate}"] if estimate else []
    return "\n".join(lines) + "\n" + _TRAINING


def _encoder_lines(encoder: Any) -> list[str]:
    if isinstance(encoder, str):
        return [f"encoder: {_written(encoder)}   # or any other encoder of the Hub"]
    said = dict.fromkeys(encoder, "or any other encoder of the Hub") | {"table": "its columns are measured"}
    return ["encoder:", *(f"  {name}: {_written(one)}   # {said[name]}" for name, one in encoder.items())]


def _line(key: str, value: Any, draft: TaskDraft) -> str:
    said = draft.questions.get(key) or draft.reasons.get(key)
    return f"    {key}: {_written(value)}" + (f"   # {' '.join(said.split())}" if said else "")


def _written(value: Any) -> str:
    """Return a value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("\n...\n").strip()


__all__ = ["EPOCHS", "Source", "recipe_text"]
