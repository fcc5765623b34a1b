"""The folder of finished runs, and the running of what it lacks."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.systems_table.runs import BASELINE, Result, Run, TaskAnswers, settings_of
from hf_mtl import InputError


class Folder:
    """Finished runs, a file each, whole from the moment it has its name.

    Args:
        path: Where they lie.
        budgets: What is given by data set, as files say it.

    Raises:
        InputError: A run of another budget lies there.
    """

    def __init__(self, path: Path, budgets: Mapping[str, Mapping[str, Any]]) -> None:
        self.path, self.budgets = path, budgets
        path.mkdir(parents=True, exist_ok=True)

    def place(self, run: Run) -> Path:
        """Return where a run's file lies."""
        return self.path / f"{run.dataset}-{run.system}-{run.seed}.json"

    def read(self, run: Run) -> Result | None:
        """Return a run that is finished, None where it is missing or the system's settings are others now."""
        path = self.place(run)
        if not path.is_file():
            return None
        values = json.loads(path.read_text("utf-8"))
        if values["budget"] != self.budgets[run.dataset]:
            raise InputError(
                f"{path} is of another budget ({values['budget']}) than is wanted now ({self.budgets[run.dataset]}); "
                "choose another --output."
            )
        if values["settings"] != settings_of(run.system):
            return None
        tasks = {name: TaskAnswers(**answers) for name, answers in values.pop("tasks").items()}
        return Result(**{**values, "run": run, "tasks": tasks})

    def write(self, result: Result) -> None:
        """Keep a run that has ended."""
        result = dataclasses.replace(result, budget=dict(self.budgets[result.run.dataset]))
        unfinished = self.place(result.run).with_suffix(".unfinished")
        unfinished.write_text(json.dumps(dataclasses.asdict(result)) + "\n", "utf-8")
        os.replace(unfinished, self.place(result.run))


def planned(datasets: Sequence[str], systems: Sequence[str], seeds: int) -> list[Run]:
    """Return all runs, hard sharing first with each seed, so that what is stopped early compares what it has."""
    ordered = [BASELINE, *[system for system in systems if system != BASELINE]]
    return [Run(dataset, system, seed) for seed in range(1, seeds + 1) for dataset in datasets for system in ordered]


class Outcome(NamedTuple):
    """What a command did not finish.

    Args:
        left: Runs that did not start, because the time was over.
        failures: Runs that raised, and what.
    """

    left: list[Run]
    failures: dict[Run, BaseException]


def run_missing(
    runs: Sequence[Run],
    folder: Folder,
    start: Callable[[Run], Future[Result]],
    workers: int,
    minutes: float | None = None,
) -> Outcome:
    """Run what the folder lacks, and keep each run as it ends.

    Args:
        runs: All that are wanted, in order.
        folder: Of those that are finished.
        start: Begins a run.
        workers: How many run at once.
        minutes: No run starts later than this; None for no end.
    """
    missing = [run for run in runs if folder.read(run) is None]
    begun, waiting, failures = time.monotonic(), list(missing), {}
    running: dict[Future[Result], Run] = {}
    with tqdm(total=len(runs), initial=len(runs) - len(missing), unit="run") as bar:
        while waiting or running:
            while waiting and len(running) < workers and (minutes is None or time.monotonic() - begun < 60 * minutes):
                run = waiting.pop(0)
                running[start(run)] = run
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                bar.set_postfix_str(f"{run.dataset}, {run.system}, seed {run.seed}")
                bar.update()
                if (error := future.exception()) is not None:
                    failures[run] = error
                    bar.write(f"{run.system} on {run.dataset}, seed {run.seed}, failed: {error!r}")
                else:
                    folder.write(future.result())
    return Outcome(waiting, failures)
