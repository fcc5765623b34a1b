"""`hf-mtl evaluate CHECKPOINT --recipe RECIPE`: the table of scores again."""

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from datasets import Dataset

from ..data.mixture import Mixture
from ..modeling.errors import InputError, check_choice
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.task_config import TaskConfig
from ..recipe import RECIPE_FILE, Recipe, read_recipe
from ..tables import baseline_scores, score_table
from ..training.scoring import answered_rows
from ..training.trainer import MultiTaskTrainer
from .checkpoint_loading import checkpoint_file, load_checkpoint
from .console import quiet_libraries
from .recipe_parts import read_mixture, refuse_output_folder

_SPLITS = ("validation", "test")
# What a task is read and answered with, which training did not fix.
_ANSWERING = ("max_length", "stride", "threshold", "max_answer_length", "num_best", "null_answer")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of what is not a recipe's key."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl evaluate",
        description="Score a checkpoint on a recipe's held-out rows; every key of the recipe can be overridden.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", help="the folder that training named, or owner/name of the Hub")
    parser.add_argument("--recipe", help=f"a YAML file; by default {RECIPE_FILE} beside the checkpoint")
    parser.add_argument("--split", choices=_SPLITS, default=_SPLITS[0], help="the rows to score (default: validation)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="the tasks to score; by default all")
    parser.add_argument("--revision", help="of the Hub: a branch, tag or commit")
    parser.add_argument("--subfolder", default="", help="where in the folder or repository the checkpoint lies")
    return parser


def main(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Score and print; nothing is written."""
    refuse_output_folder(overrides)
    with tempfile.TemporaryDirectory() as folder:
        return _evaluate(args, [*overrides, "--output_dir", folder])


def _evaluate(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    recipe = read_recipe(args.recipe or _recipe_beside(args), overrides)
    if args.recipe is None and not Path(args.checkpoint).is_dir():
        _check_files(args.checkpoint, recipe)
    quiet_libraries()
    model, tokenizer = load_checkpoint(args.checkpoint, recipe.model.trust_remote_code, args.revision, args.subfolder)
    for spec in recipe.tasks:
        check_choice("task of the recipe (the checkpoint has others):", spec.name, model.config.task_names)
    if [spec.name for spec in recipe.tasks] != model.config.task_names:
        raise InputError(
            f"The checkpoint has the tasks {', '.join(model.config.task_names)}, the recipe "
            f"{', '.join(spec.name for spec in recipe.tasks)}; expected the same in the same order."
        )
    _override_tasks(model, recipe, overrides)
    for name in args.tasks or ():
        check_choice("task", name, model.config.task_names)
    mixture = read_mixture(recipe)
    rows = _rows_to_score(mixture, args.split, args.tasks)
    trainer = MultiTaskTrainer(model, recipe.training, train_dataset=mixture, processing_class=tokenizer)
    output = trainer.predict(trainer.features_of(rows), metric_key_prefix="eval")
    scores = trainer.task_scores(output.metrics or {})
    answered = answered_rows(trainer.specs, rows, cast(Any, output.predictions))
    scored = dataclasses.replace(mixture, validation=rows)
    baselines = baseline_scores(scored, answered) if recipe.data.baselines else {}
    if args.split != _SPLITS[0]:
        print(f"\nThe {args.split} split:")
    print("\n".join(["", *score_table(scores, baselines)]))
    return 0


def _rows_to_score(mixture: Mixture, split: str, tasks: Sequence[str] | None) -> dict[str, Dataset]:
    """Return the rows to score by task.

    Raises:
        InputError: A task that was named has none, or no task has.
    """
    rows = mixture.test if split == "test" else mixture.validation
    for name in tasks or ():
        if name not in rows:
            raise InputError(f"Task {name!r} has no {split} rows; its `splits:` or `data_files:` name none.")
    by_task = {name: of_task for name, of_task in rows.items() if tasks is None or name in tasks}
    if not by_task:
        raise InputError(f"No task has {split} rows; name them in the recipe: `splits: {{{split}: SPLIT}}`.")
    return by_task


def _recipe_beside(args: argparse.Namespace) -> Path:
    """Return the recipe that lies beside a checkpoint.

    Raises:
        InputError: There is none, or no checkpoint.
    """
    path = checkpoint_file(args.checkpoint, RECIPE_FILE, args.revision, args.subfolder)
    if path is None:
        raise InputError(f"There is no {RECIPE_FILE} beside the checkpoint {args.checkpoint!r}; type --recipe FILE.")
    return path


def _check_files(checkpoint: str, recipe: Recipe) -> None:
    """Check that a recipe of the Hub names no files that whoever trained it kept.

    Raises:
        InputError: It does.
    """
    for spec in recipe.tasks:
        missing = [Path(path).name for path in (spec.data_files or {}).values() if not Path(path).exists()]
        if missing:
            raise InputError(
                f"Task {spec.name!r} of the recipe in {checkpoint} reads files that were not pushed: "
                f"{', '.join(missing)}. Give yours, with the same labels: --tasks.{spec.name}.data_files "
                "'{train: FILE, validation: FILE}' of every such task, or --recipe FILE."
            )


def _override_tasks(model: MultiTaskAttentionModel, recipe: Recipe, overrides: Sequence[str]) -> None:
    """Give a model what a command line says of how its tasks read and answer.

    Raises:
        InputError: It says something else that the model holds: that was trained.
    """
    trained = {item.name for item in dataclasses.fields(TaskConfig)} - set(_ANSWERING)
    for spec, row in zip(recipe.tasks, cast(list[dict], model.config.tasks)):
        for argument in overrides:
            key = argument.partition("=")[0].removeprefix(f"--tasks.{spec.name}.")
            if key in trained and getattr(spec, key) != row.get(key):
                raise InputError(
                    f"{argument}: the checkpoint was trained with {key}={row.get(key)!r}. What a model holds of its "
                    f"tasks stays but for {', '.join(_ANSWERING)}."
                )
            if key in _ANSWERING:
                row[key] = getattr(spec, key)
