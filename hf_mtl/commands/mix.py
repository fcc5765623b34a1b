"""`hf-mtl mix RECIPE`: the mixture of a recipe, without training: rows, share, draws and passes of every task."""

import argparse
from collections.abc import Sequence

from ..data.features import FeatureDataset
from ..modeling.answering import tokenizer_of
from ..modeling.processing_multitask import MultiTaskProcessor
from ..recipe import read_recipe
from ..tables import mixture_table
from ..training.sampling import build_sampler, choose_mixing, run_steps
from .console import quiet_libraries
from .recipe_parts import build_model, read_mixture


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of what is not a recipe's key."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl mix",
        description="Show how often each task of a recipe would be drawn; every key of the recipe can be overridden: "
        "--mixing_strategy temperature, --num_train_epochs 5.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a YAML file, e.g. recipes/support_desk/train.yaml")
    return parser


def main(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Print the mixture."""
    recipe = read_recipe(args.recipe, overrides)
    quiet_libraries()
    mixture = read_mixture(recipe)
    # Rows are cut here as they are in training.
    model = build_model(recipe, mixture)
    processor = MultiTaskProcessor.for_model(model, tokenizer_of(model))
    specs = {spec.name: spec for spec in mixture.specs}
    train = FeatureDataset(processor, specs, mixture.train)
    sampler = build_sampler(train, choose_mixing(None, recipe.training, specs), recipe.training)
    steps = run_steps(sampler, recipe.training)
    print("\n".join(["", *mixture_table(sampler.preview(list(train.sizes), steps), train), "", f"{steps:,} steps"]))
    return 0
