"""The figure of a model's card: scores beside those of simpler answers, and means without parts of the model."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..metrics import task_score

FIGURE_FILE = "scores.png"
MATPLOTLIB_HELP = "No figure was drawn: matplotlib cannot be imported; type: pip install 'hf_mtl[figures]'."

_Scores = Mapping[str, Mapping[str, float]]
_COLORS = ("#b8bec6", "#7d8fa3", "#1f5f99")
_BAR = 0.26
_MOST_TASKS = 24
# Names of so many tasks stand level beside each other.
_MOST_LEVEL = 5
_DPI = 110


def can_draw() -> bool:
    """Return whether matplotlib is installed, and can be imported beside the other packages."""
    try:
        importlib.import_module("matplotlib.figure")
    except (ImportError, AttributeError, RuntimeError):
        return False
    return True


def draw_scores(target: Path, scores: _Scores, trivial: _Scores, tfidf: _Scores, means: Mapping[str, float]) -> None:
    """Draw a bar per task for the model and for what is simpler, and beside them the mean without parts of the model.

    Args:
        target: A PNG file.
        scores: The model's metrics by task, 0-100; a task's bar is the mean of its metrics.
        trivial: The same of the best answer that ignores the input.
        tfidf: The same of TF-IDF and a linear model.
        means: The mean over tasks of the model as it is, and without parts; may be empty.
    """
    # Its own canvas: no window, and no state that others share.
    from matplotlib.figure import Figure

    tasks = list(scores)[:_MOST_TASKS]
    # Wide enough for the title and the legend of one task.
    width = max(1.8 + 0.75 * len(tasks), 4.4)
    widths = [width, 1.0 + 0.9 * len(means)] if means else [width]
    figure = Figure(figsize=(sum(widths), 3.4), layout="constrained")
    axes = figure.subplots(1, len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    series = {"trivial": trivial, "TF-IDF + linear": tfidf, "this model": scores}
    shown = {name: one for name, one in series.items() if one}
    for place, (name, one) in enumerate(shown.items()):
        bars = [(at, task_score(one[task])) for at, task in enumerate(tasks) if task in one]
        offset = (place - (len(shown) - 1) / 2) * _BAR
        color = _COLORS[list(series).index(name)]
        drawn = axes[0].bar(
            [at + offset for at, _ in bars], [value for _, value in bars], _BAR, label=name, color=color
        )
        if name == "this model":
            axes[0].bar_label(drawn, fmt="%.0f", fontsize=7)
    is_slanted = len(tasks) > _MOST_LEVEL
    axes[0].set_xticks(
        range(len(tasks)), tasks, rotation=25 if is_slanted else 0, ha="right" if is_slanted else "center", fontsize=8
    )
    axes[0].set_title("Validation scores by task (mean of its metrics, 0-100)", fontsize=9)
    figure.legend(fontsize=7, frameon=False, ncols=3, loc="outside lower left")
    if means:
        _draw_means(axes[1], means)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.savefig(target, dpi=_DPI, metadata={"Software": None})


def _draw_means(axis: Any, means: Mapping[str, float]) -> None:
    drawn = axis.bar(
        range(len(means)), list(means.values()), 0.6, color=[_COLORS[2], *[_COLORS[1]] * (len(means) - 1)]
    )
    axis.bar_label(drawn, fmt="%.1f", fontsize=7)
    axis.set_xticks(range(len(means)), [name.replace(" ", "\n") for name in means], fontsize=8)
    axis.set_title("Mean, and without parts", fontsize=9)
