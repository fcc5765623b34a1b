"""A run's report: one HTML page that opens without a network, figures and all."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..metrics import task_score
from ..training.scoring import scores_of_tasks
from .learning_curves import RunHistory, draw_learning_curves, draw_mixture, draw_weights, read_history
from .score_figure import MATPLOTLIB_HELP, can_draw

REPORT_FILE = "report.html"

# A header and rows.
Cells = tuple[Sequence[str], Sequence[Sequence[str]]]
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem .15rem 0; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child, th.name, td.name { text-align: left; }
td.under { color: #b3261e; font-weight: 600; }
figure { margin: 1rem 0; } figcaption, .note { color: #777; font-size: .85rem; }
img { max-width: 100%; background: white; border-radius: 4px; }
pre { white-space: pre-wrap; background: #8881; padding: .8rem; border-radius: 4px; font-size: .8rem; }
"""


@dataclass
class RunReport:
    """The page's contents; what is empty is left out.

    Args:
        title: The model's name.
        entries: `TrainerState.log_history`.
        tasks: The tasks' names.
        summary: Sentences below the title.
        scores: The final scores, header and rows; by default the last of the history.
        score_notes: Lines below them.
        simple: By predictor and task, scores to beat.
        tests: Scores on the test split.
        mixture: The mixture, header and rows.
        parts: The part report's lines.
        findings: What the doctor said.
        settings: The recipe.
        best_step: The step whose model was taken at the end; None for the last one.
    """

    title: str
    entries: Sequence[Mapping[str, Any]]
    tasks: Sequence[str]
    summary: Sequence[str] = ()
    scores: Cells | None = None
    score_notes: Sequence[str] = ()
    simple: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tests: Cells | None = None
    mixture: Cells | None = None
    parts: Sequence[str] = ()
    findings: Sequence[str] = ()
    settings: str = ""
    best_step: int | None = None

    def render(self) -> str:
        """Return the page."""
        history = read_history(self.entries, self.tasks)
        title = html.escape(self.title)
        sections = [
            _section("Scores", _table(self.scores or self._last_scores()), _notes(self.score_notes)),
            _section("Test split (chose nothing)", _table(self.tests)),
            _section("Learning curves", self._curves(history)),
            _section("Mixture", _table(self.mixture), _mixture_figure(history)),
            _section("Weights of the losses", _weights(history)),
            _section("What the parts contribute", _pre(self.parts)),
            _section("Before the first step", _pre(self.findings)),
            _section("Settings", _pre(self.settings.splitlines())),
        ]
        summary = "".join(f"<p>{html.escape(line)}</p>\n" for line in self.summary)
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
            f"<h1>{title}</h1>\n{summary}{''.join(sections)}</body>\n</html>\n"
        )

    def _last_scores(self) -> Cells | None:
        """The scores of the last evaluation that the history holds."""
        for entry in reversed(self.entries):
            if scores := scores_of_tasks(entry, self.tasks)[0]:
                rows = [[task, metric, f"{value:.1f}"] for task, by in scores.items() for metric, value in by.items()]
                return ["task", "metric", "score"], rows
        return None

    def _curves(self, history: RunHistory) -> str:
        if not history.losses and not history.scores:
            return ""
        if not can_draw():
            return f"<p>{html.escape(MATPLOTLIB_HELP)}</p>\n"
        caption = "Validation score (mean of the task's metrics, 0-100) and training loss over the steps."
        simple, best = self.simple, self.best_step
        return _figure(lambda target: draw_learning_curves(target, history, simple, "svg", best), caption)


class RunReportCallback(TrainerCallback):
    """Writes `report.html` into a run's output folder at its end: its evaluations, learning curves, mixture, weights.

    ``hf-mtl train`` writes one with baselines and the part report beside them.
    """

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the page."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            tasks = kwargs["model"].config.task_names
            summary = [f"{state.global_step:,} steps, learning rate {args.learning_rate:g}, seed {args.seed}."]
            report = RunReport(folder.absolute().name, state.log_history, tasks, summary)
            report.best_step = best_step_of(args, state)
            (folder / REPORT_FILE).write_text(report.render(), "utf-8")


def best_step_of(args: Any, state: Any) -> int | None:
    """Return the step whose model a run has at its end, where that may not be the last one."""
    return state.best_global_step if args.load_best_model_at_end else None


def task_scores_of(baselines: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return one score per task of metrics by task; tasks without any are left out."""
    return {name: task_score(scores) for name, scores in baselines.items() if scores}


def _section(title: str, *contents: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{''.join(contents)}" if any(contents) else ""


def _table(cells: Cells | None) -> str:
    if cells is None:
        return ""
    header, rows = cells
    names = [place for place, name in enumerate(header) if name in ("task", "metric", "beats")]

    def cell(tag: str, place: int, text: str) -> str:
        kind = ' class="name"' if place in names else ' class="under"' if text.endswith(("<", "!")) else ""
        # Of an indented name the indent stays.
        indent = "&emsp;" if text.startswith("  ") else ""
        return f"<{tag}{kind}>{indent}{html.escape(text.strip())}</{tag}>"

    lines = [f"<tr>{''.join(cell('th', place, text) for place, text in enumerate(header))}</tr>"]
    lines += [f"<tr>{''.join(cell('td', place, text) for place, text in enumerate(row))}</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>\n"


def _notes(lines: Sequence[str]) -> str:
    return "".join(f'<p class="note">{html.escape(line)}</p>\n' for line in lines)


def _pre(lines: Sequence[str]) -> str:
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>\n" if lines else ""


def _figure(draw: Callable[[io.BytesIO], None], caption: str) -> str:
    target = io.BytesIO()
    draw(target)
    picture = base64.b64encode(target.getvalue()).decode("ascii")
    text = html.escape(caption)
    image = f'<img alt="{text}" src="data:image/svg+xml;base64,{picture}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>\n"


def _mixture_figure(history: RunHistory) -> str:
    if len(history.drawn) < 2 or not can_draw():
        return ""
    caption = "Share of each source among the rows drawn by the mixture's plan, from log to log."
    return _figure(lambda target: draw_mixture(target, history), caption)


def _weights(history: RunHistory) -> str:
    if not history.weights:
        return ""
    if all(len(set(values)) == 1 for _, values in history.weights.values()):
        values = ", ".join(f"{name} {values[0]:g}" for name, (_, values) in history.weights.items())
        return f"<p>They did not change: {html.escape(values)}.</p>\n"
    if not can_draw():
        return f"<p>{html.escape(MATPLOTLIB_HELP)}</p>\n"
    return _figure(lambda target: draw_weights(target, history), "Weight of each task's loss over the steps.")


__all__ = ["REPORT_FILE", "RunReport", "RunReportCallback", "best_step_of", "task_scores_of"]
