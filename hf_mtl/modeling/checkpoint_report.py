"""Whether a checkpoint held what its configuration says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError


def refuse_incomplete(name: str | Path, report: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` if tensors of a checkpoint were missing, unexpected or of another shape."""
    for kind, what in (
        ("missing_keys", "lacks"),
        ("unexpected_keys", "has unexpected"),
        ("mismatched_keys", "has tensors of another shape:"),
    ):
        keys = sorted(key if isinstance(key, str) else key[0] for key in report.get(kind) or ())
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(
                f"The checkpoint {str(name)!r} {what} {', '.join(keys[:3])}{more}; its config.json and its weights do "
                "not belong together. Fetch or save it again."
            )
