"""The one of several caps on a task's rows that holds: what is typed before what the file says, else the smaller."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

CAPS = ("max_train_samples", "max_eval_samples")


def settle_caps(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], caps: Mapping[str, int | None], typed: Collection[str]
) -> tuple[list[dict[str, Any]], dict[str, int | None], list[str]]:
    """Return rows and caps of which the smaller of a row's and the whole recipe's holds, and what to say of it.

    Args:
        rows: The tasks' rows.
        names: Their names.
        caps: The caps of all tasks, by name of `CAPS`.
        typed: What a command line gave, as ``max_train_samples`` and ``tasks.rte.max_train_samples``.
    """
    settled, common, lines = [dict(row) for row in rows], dict(caps), []
    for cap in CAPS:
        of_all = caps[cap]
        typed_rows = [name for name in names if f"tasks.{name}.{cap}" in typed]
        for name, row in zip(names, settled):
            of_row = row.get(cap)
            if of_all is None or of_row is None:
                continue
            if name in typed_rows:
                lines.append(f"Task {name}: --tasks.{name}.{cap} {of_row:,} holds, not the {of_all:,} of all tasks.")
            elif cap in typed:
                lines.append(f"Task {name}: --{cap} {of_all:,} holds, not the {of_row:,} in its row.")
                del row[cap]
            else:
                smaller = f"the smaller of {of_row:,} in its row and {of_all:,} for all tasks"
                lines.append(f"Task {name}: {cap} {min(of_row, of_all):,} holds, {smaller}.")
        if typed_rows and of_all is not None:
            # Written into the other rows, since a cap of all tasks would hold for those that were typed, too.
            for name, row in zip(names, settled):
                if name not in typed_rows:
                    row[cap] = of_all if row.get(cap) is None else min(row[cap], of_all)
            common[cap] = None
    return settled, common, lines
