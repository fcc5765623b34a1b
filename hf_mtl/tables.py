"""The tables that a run prints: the mixture before it, the scores after it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from datasets import Dataset

from .baselines import BaselineTask, tfidf_answers, trivial_answers
from .data.features import FeatureDataset
from .data.label_kinds import label_kind
from .data.mixing import TaskShare
from .data.mixture import Mixture
from .data.overlap import input_keys
from .data.streams import StreamedMixture
from .metrics import METRICS
from .modeling.modalities import MODALITIES, TEXT, modalities_of
from .modeling.tag_spans import spelled_as_bioes
from .paired_intervals import LEVEL, AnsweredRows, PairedScores, paired_scores
from .screen import table
from .tasks import LABEL_FIELD, TaskSpec
from .training.scoring import mtl_average

Scores = Mapping[str, Mapping[str, float]]


def mixture_table(shares: Sequence[TaskShare], data: FeatureDataset | StreamedMixture) -> list[str]:
    """Return what `mixture_cells` returns as lines."""
    return table(*mixture_cells(shares, data))


def mixture_cells(
    shares: Sequence[TaskShare], data: FeatureDataset | StreamedMixture
) -> tuple[list[str], list[list[str]]]:
    """Return a header and rows of the mixture: rows, share of the draws, draws and passes of every source of rows.

    Windows of long contexts, of which several may be of one row, have a column of their own where there are any; so
    have the labels of each head where tasks of one source have labels for some of its rows only.

    Args:
        shares: What `MixtureBatchSampler.preview` returned.
        data: The training rows.
    """
    rows = []
    for share in shares:
        drawn = [f"{100 * share.share:.1f} %", f"{share.draws:,}", f"{share.passes:.2f}"]
        counts = [f"{share.rows:,}", "", ""] if isinstance(data, StreamedMixture) else _counts(share, data)
        rows.append([share.task, *counts, *drawn])
        if not isinstance(data, StreamedMixture) and _has_holes(share.task, data):
            rows += [
                [f"  {name}", "", "", f"{len(data.rows[name]):,}", "", "", ""] for name in data.tasks_of[share.task]
            ]
    header = ["task", "train rows", "windows", "labels", "share", "draws", "passes"]
    keep = [place for place in range(len(header)) if place not in (2, 3) or any(row[place] for row in rows)]
    return [header[place] for place in keep], [[row[place] for place in keep] for row in rows]


def _counts(share: TaskShare, data: FeatureDataset) -> list[str]:
    """A source's rows, its windows where it is divided into any, and nothing of its labels."""
    names = data.tasks_of[share.task]
    if any(data.specs[name].problem.inputs == "windows" for name in names):
        return [f"{max(len(data.rows[name]) for name in names):,}", f"{share.rows:,}", ""]
    return [f"{share.rows:,}", "", ""]


def _has_holes(source: str, data: FeatureDataset) -> bool:
    names = data.tasks_of[source]
    return len(names) > 1 and len({len(data.rows[name]) for name in names} | {data.sizes[source]}) > 1


def dropped_lines(mixture: Mixture) -> list[str]:
    """Say how many training rows stood in a held-out split, and of which tasks; nothing where nobody looked."""
    dropped = {name: count for name, count in mixture.dropped.items() if count}
    lines = ["No training row stands in a held-out split."] if mixture.dropped and not dropped else []
    if dropped:
        parts = ", ".join(f"{name} {count}" for name, count in dropped.items())
        lines = [f"Dropped {sum(dropped.values())} training rows whose input stands in a held-out split: {parts}."]
    uncompared = [name for name in mixture.train if name not in mixture.dropped]
    if mixture.dropped and uncompared:
        lines.append(f"Not compared, since rows of a table may be equal by chance: {', '.join(uncompared)}.")
    return lines


class BaselineScores(NamedTuple):
    """Two simple predictors' scores on a task's validation rows.

    Args:
        trivial: By metric, 0-100, those of the best answer that ignores the input.
        tfidf: Those of TF-IDF and a linear model.
        above: By metric, the sign of the model's difference from both; 0 where its interval holds 0. Empty where
            nothing was compared.
    """

    trivial: Mapping[str, float]
    tfidf: Mapping[str, float]
    above: Mapping[str, tuple[int, int]] = MappingProxyType({})


def score_table(scores: Scores, baselines: Mapping[str, BaselineScores]) -> list[str]:
    """Return what `score_cells` returns as lines, with a word on its marks."""
    return [*table(*score_cells(scores, baselines), left=2), *baseline_legend(scores, baselines)]


def score_cells(scores: Scores, baselines: Mapping[str, BaselineScores]) -> tuple[list[str], list[list[str]]]:
    """Return a header and one line per task and metric: the score, the trivial predictor's and TF-IDF + linear's,
    0-100, and which of them the model beats; scores worse than TF-IDF + linear are marked.

    Args:
        scores: Metrics by task.
        baselines: By task; may be empty.
    """
    rows = []
    for name, task_scores in scores.items():
        simple = baselines.get(name, BaselineScores({}, {}))
        for metric, value in task_scores.items():
            cells = _cells(value, simple.trivial.get(metric), simple.tfidf.get(metric))
            cells[0] += _mark(metric, value, simple) if baselines else ""
            rows.append([name, metric, *cells, _beaten(simple.above.get(metric))])
    compared = {name: simple for name, simple in baselines.items() if name in scores}
    of_simple = [
        _mean_beside(scores, {name: getattr(simple, kind) for name, simple in compared.items()})
        for kind in ("trivial", "tfidf")
    ]
    cells = _cells(mtl_average(scores), *of_simple)
    is_below = of_simple[1] is not None and mtl_average(scores) < of_simple[1]
    cells[0] += ("<" if is_below else " ") if baselines else ""
    rows.append(["mean over tasks", "", *cells, ""])
    header = ["task", "metric", "score", "trivial", "TF-IDF + linear", "beats"]
    keep = [0, 1, 2, *([3] if baselines else [])]
    keep += [4] if any(simple.tfidf for simple in baselines.values()) else []
    keep += [5] if any(simple.above for simple in baselines.values()) else []
    return [header[place] for place in keep], [[row[place] for place in keep] for row in rows]


def _mean_beside(scores: Scores, simple: Scores) -> float | None:
    """The mean over tasks of a simple predictor's scores; None where it has others than the model."""
    if any(simple.get(name, {}).keys() != metrics.keys() for name, metrics in scores.items()):
        return None
    return mtl_average(simple)


def _mark(metric: str, value: float, simple: BaselineScores) -> str:
    if _is_worse(metric, value, simple.trivial.get(metric)):
        return "!"
    return "<" if _is_worse(metric, value, simple.tfidf.get(metric)) else " "


def _is_worse(metric: str, value: float, other: float | None) -> bool:
    return other is not None and (value < other if METRICS[metric].higher_is_better else value > other)


def _beaten(signs: tuple[int, int] | None) -> str:
    if signs is None:
        return "-"
    names = [name for sign, name in zip(signs, ("trivial", "TF-IDF")) if sign > 0]
    return "both" if len(names) == 2 else (names[0] if names else "neither")


def baseline_legend(scores: Scores, baselines: Mapping[str, BaselineScores]) -> list[str]:
    """Say which scores are marked, and what it takes to beat a baseline."""
    lines = []
    marked: dict[str, list[str]] = {"!": [], "<": []}
    for name, task_scores in scores.items():
        for metric, value in task_scores.items():
            mark = _mark(metric, value, baselines.get(name, BaselineScores({}, {})))
            marked.get(mark, []).append(f"{name} ({metric})")
    for mark, of_what in (("!", "the best answer that ignores the input"), ("<", "TF-IDF + linear")):
        if marked[mark]:
            lines.append(f"{mark} worse than {of_what}: {', '.join(marked[mark])}")
    if any(simple.above for simple in baselines.values()):
        lines.append(
            f"beats: by more than the {100 * LEVEL:.0f} % interval of the difference over the validation rows"
        )
    return lines


def change_table(before: Scores, after: Scores) -> list[str]:
    """Return one line per task and metric of `after`, with what it was before where that is known."""
    rows = []
    for name, task_scores in after.items():
        earlier = before.get(name, {})
        rows += [[name, metric, *_cells(earlier.get(metric), value)] for metric, value in task_scores.items()]
    shared = {name: task_scores for name, task_scores in before.items() if name in after}
    rows.append(["mean over tasks", "", *_cells(mtl_average(shared) if shared else None, mtl_average(after))])
    return table(["task", "metric", "before", "after"], rows)


def _cells(*values: float | None) -> list[str]:
    return ["-" if value is None else f"{value:.1f}" for value in values]


def baseline_scores(
    mixture: Mixture, answered: Mapping[str, AnsweredRows] = MappingProxyType({})
) -> dict[str, BaselineScores]:
    """Return what the trivial predictor and TF-IDF + linear get on each task's validation rows.

    Args:
        mixture: The rows.
        answered: By task, the model's answers to the same validation rows, to compare with; may be empty.
    """
    baselines = {}
    for spec in mixture.specs:
        if spec.name not in mixture.validation or label_kind(spec).baseline_field is None:
            continue
        validation = mixture.validation[spec.name]
        task = _baseline_task(spec, mixture.train[spec.name], validation)
        # One answer for all rows has scores too: all of them tie.
        trivial = trivial_answers(task)
        decided = replace(task, metrics=tuple(name for name in task.metrics if not METRICS[name].reads_scores))
        arms = [trivial]
        if TEXT in modalities_of(spec.input_fields) and decided.metrics:
            arms.append(tfidf_answers(decided))
        above: dict[str, tuple[int, int]] = {}
        if spec.name in answered:
            keys = input_keys(validation, spec)
            signs = [_signs(paired_scores(answered[spec.name], rows, keys)) for rows in arms]
            # Nothing simple reads images, sounds and tables.
            of_tfidf = signs[1] if len(signs) > 1 else {}
            above = {metric: (sign, of_tfidf.get(metric, 0)) for metric, sign in signs[0].items()}
        tfidf = arms[1].score() if len(arms) > 1 else {}
        baselines[spec.name] = BaselineScores(trivial.score(), tfidf, above)
    return baselines


def _signs(paired: PairedScores) -> dict[str, int]:
    """By metric, whether a difference is for the better (1), for the worse (-1), or neither."""
    signs = {metric: paired.difference(metric).sign for metric in paired.values if metric}
    return {metric: sign if METRICS[metric].higher_is_better else -sign for metric, sign in signs.items()}


def _baseline_task(spec: TaskSpec, train: Dataset, validation: Dataset) -> BaselineTask:
    return BaselineTask(
        name=spec.name,
        problem_type=spec.problem_type,
        labels=spelled_as_bioes(spec.labels) if spec.problem.labels == "tags" and spec.labels else spec.labels,
        metrics=tuple(spec.metric_names),
        train=_baseline_rows(spec, train),
        validation=_baseline_rows(spec, validation),
    )


def _baseline_rows(spec: TaskSpec, rows: Dataset) -> list[dict[str, Any]]:
    name = label_kind(spec).baseline_field or LABEL_FIELD
    texts = [key for key in spec.input_fields if key not in MODALITIES]
    plain = rows.select_columns([*texts, LABEL_FIELD])
    return [{**{key: row[key] for key in texts}, name: row[LABEL_FIELD]} for row in plain]
