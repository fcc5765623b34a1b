"""The page of the table, and the file that other pages read."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems_table.comparison import ERROR_RATE, MOST_SECONDS, Comparison, Table, as_json, statement
from benchmarks.systems_table.data import DATASETS, Budget

BEGINNING = """
# Is a system better than hard sharing?

*Made by `python -m benchmarks.systems_table --data_dir FOLDER --page docs/systems_table.md`, not by hand.*

Every system of [systems.md](systems.md) beside hard sharing, on {sets}, with the encoder
`{encoder}`, on {cores} CPU cores, one thread per run. All systems have the same budget: as many steps, over the same
rows in the same batches, with the same settings, which were set with hard sharing alone on a seed of its own. The
model of the last step is scored, so nothing is chosen on the rows that are scored. A seed draws the training rows,
their order and the start of what is new; systems are compared seed by seed. The budget is small, so that all fit into
two hours: what a system becomes with more rows and settings of its own, the table does not say.

{statements}
"""

READING = """
Scores are 0 to 100, the mean of a task's metrics; *mean* is over tasks, *least* the lowest task's, both then over
seeds. *Difference* is that of the means to hard sharing's, with a 95 % interval for other seeds and other test rows
alike: both are drawn, and crossed, since every seed answers the same rows (Dorfman, Berbaum and Metz 1992, Hillis
2007; rows count by their jackknife pseudovalues). The verdict beside it is Holm's over all systems of the data set,
with an error rate of {rate:g} in all: **better**, **worse**, or nothing where it cannot be told, which is not to say
that there is no difference. *Tasks* counts those whose mean over seeds is higher and lower. *Cost* is the processor's
seconds of training and scoring beside hard sharing's with the same seed, median over seeds; "slow" is more than
{most:g} s per run. *Learned* counts the numbers that learn.
"""


def page(tables: Sequence[Table], encoder: str, cores: int) -> str:
    """Return the page.

    Args:
        tables: A data set each.
        encoder: Its name.
        cores: How many runs went on at once.
    """
    sections = [
        BEGINNING.strip().format(
            sets=" and ".join(f"`{table.dataset}`" for table in tables),
            encoder=encoder,
            cores=cores,
            statements="\n".join(f"- {statement(table)}" for table in tables),
        )
    ]
    for table in tables:
        sections += [f"## {table.dataset}", budget_text(table, DATASETS[table.dataset].budget)]
        sections.append("\n".join(lines_of(table)))
        sections += notes(table)
    sections += ["## How to read it", READING.strip().format(rate=ERROR_RATE, most=MOST_SECONDS)]
    return "\n\n".join(sections) + "\n"


def budget_text(table: Table, budget: Budget) -> str:
    """Return a data set's caps in words."""
    seeds = max(len(line.seeds) for line in table.comparisons)
    return (
        f"{len(table.tasks)} tasks, {budget.train_rows} training rows of each at most; {budget.steps} steps of "
        f"{budget.batch_rows} rows of {budget.max_length} word pieces at most, learning rate "
        f"{budget.learning_rate:g} of the encoder and {budget.parts_learning_rate:g} of all else; "
        f"scored on {table.rows} rows ({DATASETS[table.dataset].rows}, {budget.test_rows} of a task at most); "
        f"{seeds} seed{'s' if seeds > 1 else ''}."
    )


def lines_of(table: Table) -> list[str]:
    """Return a data set's table as Markdown."""
    head = ["system", "mean", "least", "difference", "", "tasks + / −", "cost", "learned"]
    return [_line(head), "|" + "---|" * len(head), *[_line(_cells(line)) for line in table.comparisons]]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: Comparison) -> list[str]:
    verdict = {"better": "**better**", "worse": "**worse**", "same": ""}[line.verdict]
    tasks = "" if line.difference is None else f"{line.wins} / {line.losses}"
    cost = f"{line.cost:.2f}{', slow' if line.is_slow else ''}"
    scores = [f"{line.mean:.1f}", f"{line.least:.1f}"]
    return [f"`{line.system}`", *scores, interval(line), verdict, tasks, cost, f"{line.parameters / 1e6:.1f} M"]


def interval(line: Comparison) -> str:
    """Return a difference with its interval, empty for hard sharing itself."""
    if line.difference is None:
        return ""
    mean, low, high, _ = line.difference
    return f"{mean:+.1f}" if math.isnan(low) else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def notes(table: Table) -> list[str]:
    """Return what the table does not show: systems that are slow, refused, run on fewer seeds, or not run."""
    seeds = max(len(line.seeds) for line in table.comparisons)
    slow = [f"`{line.system}` ({line.seconds:.0f} s)" for line in table.comparisons if line.is_slow]
    fewer = [f"`{line.system}` ({len(line.seeds)})" for line in table.comparisons if len(line.seeds) < seeds]
    missing = [f"`{system}`" for system in table.missing]
    named = {
        f"Slower than {MOST_SECONDS:g} s a run at this budget": slow,
        f"Run with fewer than {seeds} seeds": fewer,
        "Not run": missing,
    }
    lines = [f"{what}: {', '.join(systems)}." for what, systems in named.items() if systems]
    return [*lines, *[f"`{system}` cannot be run here: {why}" for system, why in table.refusals.items()]]


def write_page(tables: Sequence[Table], encoder: str, cores: int, target: Path) -> None:
    """Write the page, and beside it the figures as JSON."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(tables, encoder, cores), "utf-8")
    figures = [as_json(table) for table in tables]
    target.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
