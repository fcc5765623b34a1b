"""Whether a checkpoint held what its configuration says, by the names of now or of earlier versions."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError

# Names of parameters in earlier versions, as patterns, and what they are called now: PEFT takes modules whose names
# end in "score" for classifiers, and those that it is told to adapt by name ("query") for linear layers.
OLD_NAMES = {
    r"\bmtl\.(interaction(?:\.layers\.\d+)?)\.query\.task_": r"mtl.\1.queries.task_",
    r"\bmtl\.(interaction(?:\.layers\.\d+)?)\.key\.task_": r"mtl.\1.keys.task_",
    r"\bmtl\.(interaction(?:\.layers\.\d+)?)\.value\.task_": r"mtl.\1.values.task_",
    r"\bmtl\.((?:\w+\.)*gate)\.score\.": r"mtl.\1.scores.",
    r"\bmtl\.((?:\w+\.)*aggregation)\.score\.": r"mtl.\1.scores.",
    r"\bmtl\.((?:\w+\.)*scores)\.task_to_score\.": r"mtl.\1.task_to_scores.",
    r"\bmtl\.((?:\w+\.)*\w*scorer)\.score\.": r"mtl.\1.scores.",
}


def current_name(name: str) -> str:
    """Return what a parameter is called now, by its name or an earlier one."""
    for old, new in OLD_NAMES.items():
        name = re.sub(old, new, name)
    return name


def rename_old(module: Any, state_dict: dict[str, Any], prefix: str, *given: Any) -> None:
    """Give the tensors that are loaded into a module the names of now; a hook of `load_state_dict`."""
    for name in [name for name in state_dict if name.startswith(prefix) and current_name(name) != name]:
        state_dict[current_name(name)] = state_dict.pop(name)


def refuse_incomplete(name: str | Path, report: Mapping[str, Any], settings: Iterable[str] = ()) -> None:
    """Raise `CheckpointError` if tensors of a checkpoint were missing, unexpected or of another shape.

    Args:
        name: The checkpoint.
        report: What Transformers says of its tensors.
        settings: Names of settings that were given in the place of those that it holds.
    """
    given = ", ".join(f"{name}=" for name in settings)
    for kind, what in (
        ("missing_keys", "lacks"),
        ("unexpected_keys", "has unexpected"),
        ("mismatched_keys", "has tensors of another shape:"),
    ):
        keys = sorted(key if isinstance(key, str) else key[0] for key in report.get(kind) or ())
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            why = (
                f"{given} asks for other parts than it was saved with. Leave it out, or begin from the encoder: "
                "MultiTaskAttentionModel.from_encoder(name, tasks=[...])."
                if given
                else "its config.json and its weights do not belong together. Fetch or save it again."
            )
            raise CheckpointError(f"The checkpoint {str(name)!r} {what} {', '.join(keys[:3])}{more}; {why}")
