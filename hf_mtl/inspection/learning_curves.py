"""A run's history as curves: losses, scores, rows drawn and weights by task, and figures of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..metrics import task_score
from ..modeling.errors import InputError
from ..training.scoring import AVERAGE, scores_of_tasks

CURVES_FILE = "learning_curves.png"

# (steps, values)
Curve = tuple[list[int], list[float]]
_Target = Path | IO[bytes]
_BLUE, _GREY, _LIGHT = "#1f5f99", "#8a929b", "#b8bec6"
_PANELS_IN_A_ROW = 4
_MOST_PANELS = 24
_MOST_LINES = 20
# Characters of a panel's title.
_TITLE = 26
_DPI = 110


@dataclass
class RunHistory:
    """A Trainer's log as curves over its steps.

    Args:
        losses: By task, the mean training loss between two logs.
        scores: By task, the validation score, 0-100.
        means: The mean of the tasks' scores.
        drawn: By source, the rows drawn so far.
        weights: By task, the weight of its loss.
    """

    losses: dict[str, Curve] = field(default_factory=dict)
    scores: dict[str, Curve] = field(default_factory=dict)
    means: Curve = field(default_factory=lambda: ([], []))
    drawn: dict[str, Curve] = field(default_factory=dict)
    weights: dict[str, Curve] = field(default_factory=dict)


def read_history(entries: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> RunHistory:
    """Return the curves of a `TrainerState.log_history`.

    Args:
        entries: The history.
        tasks: The tasks' names.
    """
    history = RunHistory()
    for entry in entries:
        step = int(entry.get("step", 0))
        if "loss" in entry:
            for prefix, curves in (("loss_", history.losses), ("rows_", history.drawn), ("weight_", history.weights)):
                for key, value in entry.items():
                    if key.startswith(prefix):
                        _append(curves.setdefault(key.removeprefix(prefix), ([], [])), step, value)
        if f"eval_{AVERAGE}" in entry:
            _append(history.means, step, entry[f"eval_{AVERAGE}"])
            for task, scores in scores_of_tasks(entry, tasks)[0].items():
                _append(history.scores.setdefault(task, ([], [])), step, task_score(scores))
    for curves in (history.losses, history.scores, history.drawn, history.weights):
        # A history that was read back has the keys of its entries sorted.
        curves |= {name: curves.pop(name) for name in tasks if name in curves}
    return history


def _append(curve: Curve, step: int, value: float) -> None:
    """Add a point; the first one of a step stands: at the end of a run a better model may be scored again."""
    if not curve[0] or curve[0][-1] < step:
        curve[0].append(step)
        curve[1].append(value)


def draw_learning_curves(
    target: _Target,
    history: RunHistory,
    simple: Mapping[str, Mapping[str, float]],
    form: str = "png",
    best_step: int | None = None,
) -> None:
    """Draw a panel per task: its training loss, its validation score, and what simple predictors score.

    Args:
        target: A file.
        history: The run's curves.
        simple: By predictor and task, scores to beat, 0-100; may be empty.
        form: ``png`` or ``svg``.
        best_step: The step whose model was taken at the end; None for the last one.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys([*history.losses, *history.scores]))[:_MOST_PANELS]
    if not tasks:
        raise InputError("The run has logged neither losses nor scores; there is nothing to draw.")
    columns = min(len(tasks), _PANELS_IN_A_ROW)
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(max(2.7 * columns + 0.6, 5.6), 2.0 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    handles: dict[str, Any] = {}
    for panel, task in zip(panels, tasks):
        panel.set_title(task if len(task) <= _TITLE else f"{task[: _TITLE - 1]}…", fontsize=9)
        if task in history.losses:
            handles["training loss (right)"] = _draw_loss(panel, history.losses[task])
        if task in history.scores:
            steps, values = history.scores[task]
            handles["validation score (left)"] = panel.plot(
                steps, values, color=_BLUE, marker="o", markersize=3.5, linewidth=1.6, zorder=3
            )[0]
        if best_step is not None:
            handles["the model taken"] = panel.axvline(best_step, color=_GREY, linestyle="-.", linewidth=0.8)
        for style, (name, scores) in zip((":", "--"), simple.items()):
            if task in scores:
                handles[name] = panel.axhline(scores[task], color=_BLUE, linestyle=style, linewidth=1.0, alpha=0.7)
        panel.tick_params(labelsize=7)
        panel.spines["top"].set_visible(False)
    for panel in panels[max(len(tasks) - columns, 0) : len(tasks)]:
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelbottom=True)
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    _save(figure, target, form)


def _draw_loss(panel: Any, curve: Curve) -> Any:
    beside = panel.twinx()
    steps, values = curve
    line = beside.plot(steps, values, color=_LIGHT, linewidth=1.3, marker="." if len(steps) < 3 else None)[0]
    beside.tick_params(labelsize=7, colors=_GREY)
    beside.spines["top"].set_visible(False)
    beside.set_ylim(bottom=0)
    # The score stands before the loss.
    panel.set_zorder(beside.get_zorder() + 1)
    panel.patch.set_visible(False)
    return line


def draw_mixture(target: _Target, history: RunHistory, form: str = "svg") -> None:
    """Draw the share that each source has of the rows drawn between two logs."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.subplots()
    names = list(history.drawn)
    steps = sorted({0, *(step for name in names for step in history.drawn[name][0])})
    # Between two logs of a source its rows are taken to be drawn evenly.
    totals = [np.interp(steps, [0, *history.drawn[name][0]], [0, *history.drawn[name][1]]) for name in names]
    counts = np.diff(np.array(totals, dtype=float), axis=1)
    shares = 100 * counts / np.maximum(counts.sum(axis=0), 1)
    axes.stackplot(
        steps,
        np.concatenate([shares[:, :1], shares], axis=1),
        labels=_labels(names),
        colors=[colormaps["tab20"](place) for place in range(_MOST_LINES)],
        step="pre",
        alpha=0.85,
    )
    axes.set_ylabel("% of the rows drawn", fontsize=8)
    axes.margins(0)
    _finish(figure, axes, target, form)


def draw_weights(target: _Target, history: RunHistory, form: str = "svg") -> None:
    """Draw the weight of each task's loss over the run."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    axes = figure.subplots()
    labels = _labels(list(history.weights))
    for place, (steps, values) in enumerate(history.weights.values()):
        color = colormaps["tab20"](place % _MOST_LINES)
        axes.plot(steps, values, label=labels[place] if place < len(labels) else None, color=color, linewidth=1.4)
    axes.set_ylabel("weight of the loss", fontsize=8)
    axes.set_ylim(bottom=0)
    _finish(figure, axes, target, form)


def _labels(names: Sequence[str]) -> list[str]:
    """The names of a legend: as many as there are colours, and how many more there are."""
    if len(names) <= _MOST_LINES:
        return list(names)
    return [*names[: _MOST_LINES - 1], f"... and {len(names) - _MOST_LINES + 1} more"]


def _finish(figure: Any, axes: Any, target: _Target, form: str) -> None:
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    _save(figure, target, form)


def _save(figure: Any, target: _Target, form: str) -> None:
    from matplotlib import rc_context

    # The same run draws the same file.
    with rc_context({"svg.hashsalt": CURVES_FILE}):
        figure.savefig(target, format=form, dpi=_DPI, metadata={"Software": None} if form == "png" else {"Date": None})
