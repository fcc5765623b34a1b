"""`hf-mtl mix RECIPE`: the mixture of a recipe, without training: rows, share, draws and passes of every task."""

import argparse
from collections.abc import Sequence

from transformers import AutoTokenizer

from ..data.features import FeatureDataset
from ..modeling.encoder_limits import check_tokenizer, limits_of
from ..modeling.encoder_loading import find_encoder, load_encoder
from ..modeling.processing_multitask import MultiTaskProcessor
from ..recipe import read_recipe
from ..tables import mixture_table
from ..training.sampling import build_sampler, choose_mixing, run_steps
from .console import quiet_libraries
from .recipe_parts import read_mixture


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
    # How long rows may be is what the encoder reads, so that they are cut here as they are in training.
    tower, loading = recipe.model.settings()["tower"], recipe.model.encoder_kwargs()
    limits = limits_of(load_encoder(recipe.encoder, pooler=False, tower=tower, **loading))
    tokenizer = AutoTokenizer.from_pretrained(
        find_encoder(recipe.encoder), trust_remote_code=recipe.model.trust_remote_code
    )
    check_tokenizer(limits, tokenizer, recipe.tasks)
    mixture = read_mixture(recipe)
    processor = MultiTaskProcessor(tokenizer, mixture.specs, limits.positions)
    specs = {spec.name: spec for spec in mixture.specs}
    train = FeatureDataset(processor, specs, mixture.train)
    sampler = build_sampler(train, choose_mixing(None, recipe.training, specs), recipe.training)
    steps = run_steps(sampler, recipe.training)
    print("\n".join(["", *mixture_table(sampler.preview(list(train.sizes), steps), train), "", f"{steps:,} steps"]))
    return 0
