"""Tables of an experiment's figures, and claims beside what is measured."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Claim(NamedTuple):
    """What was published or expected, what is measured, and whether it holds; None where nothing is claimed."""

    text: str
    ours: str
    holds: bool | None = None

    def __str__(self) -> str:
        verdict = {True: "holds", False: "does not reproduce", None: "no claim"}[self.holds]
        return f"- {verdict}: {self.text}: {self.ours}"


def table(*rows: Sequence[str]) -> list[str]:
    """Return a Markdown table, its head the first row."""
    head, *others = [f"| {' | '.join(row)} |" for row in rows]
    return ["", head, f"|{'---|' * len(rows[0])}", *others, ""]


def mean_and_error(values: np.ndarray) -> str:
    """The mean and its standard error."""
    return f"{values.mean():.4f} ± {values.std(ddof=1) / len(values) ** 0.5:.4f}"


def mean_and_range(values: np.ndarray) -> str:
    """The mean, the least and the most."""
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"
