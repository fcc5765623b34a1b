"""The data sets of the table, capped alike for all systems."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hf_mtl.data.mixture import Mixture, load_mixture
from hf_mtl.recipe import read_recipe
from hf_mtl.tasks import TaskSpec

RECIPES = Path(__file__).parent.parent.parent / "recipes"


@dataclass(frozen=True)
class Budget:
    """What every system is given on a data set.

    Args:
        train_rows: Training rows per task, drawn with the seed.
        test_rows: Test rows per task at most, the same for all seeds.
        max_length: Word pieces of a row at most.
        batch_rows: Rows of a step, of all tasks mixed.
        steps: Steps of a run.
        learning_rate: Of the encoder.
        parts_learning_rate: Of everything else.
    """

    train_rows: int
    test_rows: int
    max_length: int
    batch_rows: int
    steps: int
    learning_rate: float
    parts_learning_rate: float


def glue_tasks(data_dir: Path) -> list[TaskSpec]:
    """Return the tasks of recipes/glue_small."""
    return list(read_recipe(RECIPES / "glue_small" / "train.yaml").tasks)


def fdu_tasks(data_dir: Path) -> list[TaskSpec]:
    """Return the domains of recipes/adversarial, their test rows as what is scored."""
    specs = []
    for spec in read_recipe(RECIPES / "adversarial" / "train.yaml").tasks:
        folder = data_dir / str(spec.local_folder)
        files = {"train": str(folder / "train.parquet"), "validation": str(folder / "test.parquet")}
        specs.append(dataclasses.replace(spec, local_folder=None, validation_share=None, data_files=files))
    return specs


@dataclass(frozen=True)
class DataSet:
    """A data set of the table.

    Args:
        tasks: Returns the tasks, given the folder of the data.
        budget: What every system is given.
        rows: Says which rows are scored.
    """

    tasks: Callable[[Path], list[TaskSpec]]
    budget: Budget
    rows: str


# Set with hard sharing alone, on seed 0, which the table does not have: one pass, about 50 seconds.
DATASETS: Mapping[str, DataSet] = {
    "glue_small": DataSet(
        glue_tasks,
        Budget(
            train_rows=192,
            test_rows=200,
            max_length=64,
            batch_rows=8,
            steps=120,
            learning_rate=1e-4,
            parts_learning_rate=3e-3,
        ),
        "validation rows",
    ),
    "fdu_mtl": DataSet(
        fdu_tasks,
        Budget(
            train_rows=75,
            test_rows=56,
            max_length=32,
            batch_rows=8,
            steps=150,
            learning_rate=1e-4,
            parts_learning_rate=3e-3,
        ),
        "test rows, whose like is dropped from all training files",
    ),
}


def read_rows(dataset: DataSet, data_dir: Path) -> Mixture:
    """Return all training rows that stand in no scored split, and the capped rows that are scored."""
    budget = dataset.budget
    specs = [
        dataclasses.replace(spec, max_length=budget.max_length, max_eval_samples=budget.test_rows)
        for spec in dataset.tasks(data_dir)
    ]
    # Files that a task names itself are read in place of the folder's.
    by_name = not any(spec.data_files for spec in specs)
    return load_mixture(specs, str(data_dir) if by_name else None, exclude_overlap=True)


def draw_rows(mixture: Mixture, budget: Budget, seed: int) -> Mixture:
    """Return a mixture with as many training rows of every task, drawn with the seed."""
    train = {
        name: rows.shuffle(seed=seed).select(range(min(budget.train_rows, len(rows))))
        for name, rows in mixture.train.items()
    }
    return dataclasses.replace(mixture, train=train)
