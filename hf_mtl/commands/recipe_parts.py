"""A recipe's rows and its model as it begins."""

from collections.abc import Sequence

from transformers import set_seed

from ..data.mixture import Mixture, load_mixture
from ..modeling.errors import InputError
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..recipe import Recipe
from ..tables import dropped_lines
from .console import say


def refuse_output_folder(overrides: Sequence[str]) -> None:
    """Refuse what says where a run goes, where nothing is written.

    Raises:
        InputError: A command line says it.
    """
    for argument in overrides:
        if argument.partition("=")[0] in ("--output_dir", "--push_to_hub"):
            raise InputError(f"{argument}: nothing is written or pushed here; leave it out.")


def read_mixture(recipe: Recipe) -> Mixture:
    """Load the recipe's mixture; say which caps hold and what was dropped."""
    data = recipe.data
    say(*recipe.notes)
    seed = recipe.training.seed
    mixture = load_mixture(
        recipe.tasks, data.data_dir, data.exclude_overlap, data.max_train_samples, data.max_eval_samples, seed
    )
    say(*dropped_lines(mixture))
    return mixture


def build_model(recipe: Recipe, mixture: Mixture) -> MultiTaskAttentionModel:
    """Return a recipe's model as it begins, of all tasks."""
    set_seed(recipe.training.seed)
    tasks = [spec.to_config() for spec in mixture.specs]
    return MultiTaskAttentionModel.from_encoder(
        recipe.encoder, tasks=tasks, encoder_kwargs=recipe.model.encoder_kwargs(), **recipe.model.settings()
    )
