"""`hf-mtl evaluate CHECKPOINT --recipe RECIPE`: the table of scores again."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ..modeling.errors import InputError, check_choice
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.task_config import TaskConfig
from ..recipe import RECIPE_FILE, Recipe, read_recipe
from ..tables import baseline_scores, score_table
from ..training.trainer import MultiTaskTrainer
from .console import quiet_libraries
from .mix import read_mixture
from .predict import load_checkpoint

# What a task is read and answered with, which training did not fix.
_ANSWERING = ("max_length", "stride", "threshold", "max_answer_length", "num_best", "null_answer")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of what is not a recipe's key."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl evaluate",
        description="Score a checkpoint on a recipe's validation rows; every key of the recipe can be overridden.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", help="the folder that training named, or owner/name of the Hub")
    parser.add_argument("--recipe", help=f"a YAML file; by default {RECIPE_FILE} beside the checkpoint")
    return parser


def main(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Score and print."""
    if args.recipe is None and not Path(args.checkpoint).is_dir():
        raise InputError(f"{args.checkpoint!r} is no folder, beside which a recipe lies; name one: --recipe FILE.")
    recipe_file = args.recipe or Path(args.checkpoint) / RECIPE_FILE
    recipe = read_recipe(recipe_file, overrides)
    quiet_libraries()
    model, tokenizer = load_checkpoint(args.checkpoint, recipe.model.trust_remote_code)
    for spec in recipe.tasks:
        check_choice("task of the recipe (the checkpoint has others):", spec.name, model.config.task_names)
    if [spec.name for spec in recipe.tasks] != model.config.task_names:
        raise InputError(
            f"The checkpoint has the tasks {', '.join(model.config.task_names)}, the recipe "
            f"{', '.join(spec.name for spec in recipe.tasks)}; expected the same in the same order."
        )
    _override_tasks(model, recipe, overrides)
    mixture = read_mixture(recipe)
    trainer = MultiTaskTrainer(model, recipe.training, train_dataset=mixture, processing_class=tokenizer)
    scores = trainer.task_scores(trainer.evaluate())
    baselines = baseline_scores(mixture) if recipe.data.baselines else {}
    print("\n".join(["", *score_table(scores, baselines)]))
    return 0


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
