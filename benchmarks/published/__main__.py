"""Runs the experiments of published behaviour; see `benchmarks.published`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import benchmarks.published
from benchmarks.published.clusters import cluster_claims, cluster_table, draw, run_clusters
from benchmarks.published.experts import BATCH_SIZE, EPOCHS, expert_claims, expert_table, run_experts
from benchmarks.published.keywords import keyword_claims, keyword_table, run_keywords
from benchmarks.published.signs import run_signs, sign_claims, sign_table
from benchmarks.published.tables import Claim

SEEDS = 16


class Experiment(NamedTuple):
    """What is run, and what is printed of it."""

    run: Callable[..., Any]
    table: Callable[[Any], list[str]]
    claims: Callable[[Any], list[Claim]]


EXPERIMENTS = {
    "experts": Experiment(run_experts, expert_table, expert_claims),
    "clusters": Experiment(run_clusters, cluster_table, cluster_claims),
    "signs": Experiment(run_signs, sign_table, sign_claims),
    "keywords": Experiment(run_keywords, keyword_table, keyword_claims),
}


def main() -> None:
    """Run the experiments; print a table of each and what holds of what was published or expected."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.published",
        description=benchmarks.published.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each experiment, at least 2")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of `experts`")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="of `experts`")
    parser.add_argument("--picture", type=Path, help="a PNG file to draw the maps of `clusters` to; needs matplotlib")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.experiments:
        experiment = EXPERIMENTS[name]
        start = time.perf_counter()
        options = {"epochs": given.epochs, "batch_size": given.batch_size} if name == "experts" else {}
        results = experiment.run(range(given.seeds), **options)
        print(f"\n{name}, {given.seeds} seeds, {time.perf_counter() - start:.0f} s")
        print("\n".join([*experiment.table(results), *map(str, experiment.claims(results))]), flush=True)
        if name == "clusters" and given.picture:
            draw(results, given.picture)
            print(f"The picture lies in {given.picture}.")


if __name__ == "__main__":
    main()
