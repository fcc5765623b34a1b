"""All systems of a data set beside hard sharing: scores, differences, costs, and what they say in words."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.systems_table.differences import Difference, difference, pseudovalues
from benchmarks.systems_table.runs import BASELINE, Result
from hf_mtl.paired_intervals import holm

# Beyond so many seconds of one run a system is marked as slow.
MOST_SECONDS = 60.0
# What a corrected p value must be below for a difference to be called one.
ERROR_RATE = 0.05


class Comparison(NamedTuple):
    """A system beside hard sharing on a data set.

    Args:
        system: Its name.
        seeds: With which both were run.
        mean: Over seeds of the mean over tasks.
        least: Over seeds of the least task's score.
        difference: To hard sharing, in `mean`; None of hard sharing itself.
        corrected: The difference's p value beside all others of the data set (Holm); NaN with one seed.
        wins: Tasks whose mean over seeds is higher than hard sharing's.
        losses: Tasks whose mean is lower.
        cost: Seconds of a run beside hard sharing's with the same seed, median over seeds.
        seconds: Of a run, median over seeds.
        parameters: How many numbers learn.
    """

    system: str
    seeds: list[int]
    mean: float
    least: float
    difference: Difference | None
    corrected: float
    wins: int
    losses: int
    cost: float
    seconds: float
    parameters: int

    @property
    def is_slow(self) -> bool:
        """Whether a run takes longer than is wanted."""
        return self.seconds > MOST_SECONDS

    @property
    def verdict(self) -> str:
        """Whether the system is better than hard sharing, worse, or neither that can be told."""
        if self.difference is None or not self.corrected < ERROR_RATE:
            return "same"
        return "better" if self.difference.mean > 0 else "worse"


class Table(NamedTuple):
    """A data set's comparisons.

    Args:
        dataset: Its name.
        tasks: Their names.
        rows: Scored rows of all tasks.
        comparisons: Hard sharing first, the others from the best to the worst.
        refusals: By system, why it cannot be run here.
        missing: Systems that are not run, or not on a seed that hard sharing has.
    """

    dataset: str
    tasks: list[str]
    rows: int
    comparisons: list[Comparison]
    refusals: dict[str, str]
    missing: list[str]


def compare(dataset: str, results: Sequence[Result], systems: Sequence[str]) -> Table | None:
    """Return the comparisons of a data set's finished runs; None where hard sharing is not among them.

    Args:
        dataset: Its name.
        results: The runs; a system is compared on the seeds that hard sharing has too.
        systems: All that there are.
    """
    refusals = {result.run.system: result.refusal for result in results if result.refusal}
    by_system: dict[str, dict[int, Result]] = {}
    for result in results:
        if not result.refusal:
            by_system.setdefault(result.run.system, {})[result.run.seed] = result
    if BASELINE not in by_system:
        return None
    baseline = by_system[BASELINE]
    values = {seed: _values(result) for seed, result in baseline.items()}
    lines = [
        _comparison(system, runs, baseline, values)
        for system, runs in by_system.items()
        if runs.keys() & values.keys()
    ]
    others = {line.system: line.difference.p for line in lines if line.difference and line.difference.p >= 0}
    corrected = holm(others)
    lines = [line._replace(corrected=corrected.get(line.system, math.nan)) for line in lines]
    lines.sort(key=lambda line: (line.difference is not None, -line.mean))
    first = next(iter(baseline.values()))
    rows = sum(len(answers.references) for answers in first.tasks.values())
    there = {line.system for line in lines} | refusals.keys()
    missing = [system for system in systems if system not in there]
    return Table(dataset, list(first.tasks), rows, lines, refusals, missing)


def _values(result: Result) -> dict[str, np.ndarray]:
    return {
        name: pseudovalues(answers.metrics, answers.predictions, answers.references)
        for name, answers in result.tasks.items()
    }


def _comparison(
    system: str,
    runs: Mapping[int, Result],
    baseline: Mapping[int, Result],
    baseline_values: Mapping[int, Mapping[str, np.ndarray]],
) -> Comparison:
    seeds = sorted(runs.keys() & baseline.keys())
    scores, others = (np.array([_scores(of[seed]) for seed in seeds]) for of in (runs, baseline))
    to_baseline = None
    if system != BASELINE:
        values = {seed: _values(runs[seed]) for seed in seeds}
        tasks = list(runs[seeds[0]].tasks)
        by_task = [np.stack([values[seed][task] - baseline_values[seed][task] for seed in seeds]) for task in tasks]
        to_baseline = difference(scores, others, by_task)
    by_task_mean = (scores - others).mean(axis=0)
    return Comparison(
        system=system,
        seeds=seeds,
        mean=float(scores.mean()),
        least=float(scores.min(axis=1).mean()),
        difference=to_baseline,
        corrected=math.nan,
        wins=int((by_task_mean > 0).sum()),
        losses=int((by_task_mean < 0).sum()),
        cost=statistics.median(runs[seed].seconds / max(baseline[seed].seconds, 1e-9) for seed in seeds),
        seconds=statistics.median(runs[seed].seconds for seed in seeds),
        parameters=runs[seeds[0]].parameters,
    )


def _scores(result: Result) -> list[float]:
    return [answers.score for answers in result.tasks.values()]


def statement(table: Table) -> str:
    """Return in words which systems differ from hard sharing, and which do not."""
    compared = [line for line in table.comparisons if line.difference is not None]
    seeds = max((len(line.seeds) for line in table.comparisons), default=0)
    if not compared:
        return f"On {table.dataset} nothing but hard sharing was run."
    if seeds < 2:
        return f"On {table.dataset} one seed was run, which tells no difference from chance."
    parts = [
        _sentence("better than hard sharing", [line for line in compared if line.verdict == "better"]),
        _sentence("worse than hard sharing", [line for line in compared if line.verdict == "worse"]),
    ]
    same = [line for line in compared if line.verdict == "same"]
    hints = [line for line in same if line.difference and (line.difference.low > 0 or line.difference.high < 0)]
    parts.append(_sentence("not told apart from it", same))
    text = f"On {table.dataset}, corrected for {len(compared)} comparisons: {'; '.join(parts)}."
    if hints:
        text += f" Taken alone the interval of {_named(hints)} leaves out 0, which among so many may be chance."
    return text


def _sentence(what: str, lines: Sequence[Comparison]) -> str:
    return f"{what}: {_named(lines) if lines else 'none'}"


def _named(lines: Sequence[Comparison]) -> str:
    return ", ".join(f"`{line.system}` ({line.difference.mean:+.1f})" for line in lines if line.difference)


def as_json(table: Table) -> dict[str, Any]:
    """Return what other pages show of a table; numbers that are not there are None."""

    def number(value: float) -> float | None:
        return round(value, 4) if math.isfinite(value) else None

    return {
        "dataset": table.dataset,
        "statement": statement(table),
        "refusals": table.refusals,
        "systems": {
            line.system: {
                "mean": number(line.mean),
                "difference": line.difference and [number(value) for value in line.difference[:3]],
                "verdict": line.verdict,
                "cost": number(line.cost),
            }
            for line in table.comparisons
        },
    }
