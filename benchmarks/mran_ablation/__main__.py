"""Runs the ablation of MRAN and writes its page; see `benchmarks.mran_ablation`."""

import argparse
import time
from pathlib import Path

import torch

import benchmarks.mran_ablation
from benchmarks.mran_ablation.arms import BATCH_SIZE, EPOCHS, LEARNING_RATE, WIDTH, run_ablation
from benchmarks.mran_ablation.schools import CLUSTERS, FEATURES, HELD_OUT, NOISE, SCHOOLS, SHARES, school_sizes
from benchmarks.mran_ablation.verdicts import ERROR_RATE, answers, error_table

SEEDS = 10

PAGE = """
# MRAN beside its own ablations

*Made by `python -m benchmarks.mran_ablation --page docs/mran_ablation.md`, not by hand.*

MRAN (Zhao et al. 2019) relates tasks to tasks, features to features and tasks to features. Its paper takes its modules
apart on regression data such as School; here this is done with the library's `task_interaction: mran`, on school-like
data whose relations are known, {seeds} seeds, one CPU core.

{answers}

{table}

Explained variance is 100 (1 - squared error / variance of the scores) over all test students, the mean over seeds;
RMSE likewise. *MRAN explains more by* is paired over seeds, which draw the schools, the students and the start, with
Student's 95 % interval; the last column is Holm's over all lines, with an error rate of {rate:g} in all. No more than
{ceiling:.0f} can be explained: the rest is noise.

The data: {schools} schools in {clusters} clusters of {features} features each student, {least} to {most} training
students, {total} in all, and {validation} and {test} more of each school for validation and test. Of the variance that
can be explained {shared:.0%} are linear and shared by all schools, {cluster:.0%} by those of a cluster, {school:.0%} a
school's own, {nonlinear:.0%} a wave that a cluster shares, and {level:.0%} the schools' levels.

The arms: one shared layer of {width} (ReLU), a layer of {width} per school on it (*a layer per school*), MRAN on the
states that these give, and a linear head per school. *Hard sharing* has no layers per school; *single task* has
nothing but a layer and a head per school. AdamW, {rate_of_learning:g}, {epochs} passes in batches of {batch} students
of all schools mixed, the epoch by validation, alike for all arms. MRAN enters by a scale of each task's own that
starts at zero, as everywhere in the library, so that it begins as *a layer per school*.
"""


def page(errors, seeds: int, epochs: int) -> str:
    """Return the page of an ablation's errors by arm."""
    sizes = school_sizes()
    return (
        PAGE.strip().format(
            seeds=seeds,
            answers="\n".join(answers(errors)),
            table="\n".join(error_table(errors)).strip(),
            rate=ERROR_RATE,
            ceiling=100 * sum(SHARES.values()) / (sum(SHARES.values()) + NOISE),
            schools=SCHOOLS,
            clusters=CLUSTERS,
            features=FEATURES,
            least=sizes.min(),
            most=sizes.max(),
            total=sizes.sum(),
            **HELD_OUT,
            **SHARES,
            width=WIDTH,
            rate_of_learning=LEARNING_RATE,
            epochs=epochs,
            batch=BATCH_SIZE,
        )
        + "\n"
    )


def main() -> None:
    """Run all arms, print what they show, and write the page."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.mran_ablation",
        description=benchmarks.mran_ablation.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="at least 2")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--page", type=Path, help="the page to write")
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error(f"--seeds {given.seeds}; expected 2 at least, since arms are compared over seeds.")
    torch.set_num_threads(1)
    start = time.process_time()
    errors = run_ablation(range(given.seeds), given.epochs)
    print("\n".join([*error_table(errors), *answers(errors), f"{time.process_time() - start:.0f} s of one core"]))
    if given.page:
        given.page.write_text(page(errors, given.seeds, given.epochs), "utf-8")


if __name__ == "__main__":
    main()
