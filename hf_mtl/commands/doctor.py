"""`hf-mtl doctor RECIPE`: what would go wrong in a run, before it is one; nothing is trained or written."""

import argparse
import tempfile
from collections.abc import Sequence

from ..recipe import read_recipe
from ..tables import mixture_table
from ..training.ignored_arguments import refuse_ignored_arguments
from ..training.trainer import MultiTaskTrainer
from .console import quiet_libraries, say
from .recipe_parts import build_model, read_mixture, refuse_output_folder


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of what is not a recipe's key."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl doctor",
        description="Look a recipe's run over without training it: data, arguments, which parts the losses reach, "
        "what a step costs. Every key of the recipe can be overridden. The exit code is 1 where something was found.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a YAML file, e.g. recipes/support_desk/train.yaml")
    return parser


def main(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Diagnose, and print."""
    refuse_output_folder(overrides)
    with tempfile.TemporaryDirectory() as folder:
        recipe = read_recipe(args.recipe, [*overrides, "--output_dir", folder, "--push_to_hub", "false"])
        refuse_ignored_arguments(recipe.training)
        quiet_libraries()
        mixture = read_mixture(recipe)
        trainer = MultiTaskTrainer(build_model(recipe, mixture), recipe.training, train_dataset=mixture)
        say("", *mixture_table(trainer.preview_mixture(), trainer.train_dataset))
        diagnosis = trainer.doctor()
    say("", *diagnosis.lines())
    if not diagnosis.findings:
        say("Nothing was found. To train: hf-mtl train " + args.recipe)
    return 1 if diagnosis.findings else 0
