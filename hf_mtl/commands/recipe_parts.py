"""A recipe's rows, its model as it begins, and the report of its run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import set_seed

from ..data.mixture import Mixture, load_mixture
from ..data.table_columns import with_measured_columns
from ..inspection.run_report import RunReport, best_step_of, task_scores_of
from ..modeling.errors import InputError
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..recipe import RECIPE_FILE, Recipe
from ..tables import BaselineScores, Scores, baseline_legend, dropped_lines, mixture_cells, score_cells
from ..training.scoring import mtl_average
from ..training.trainer import MultiTaskTrainer
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
    settings = recipe.model.settings()
    if not {"pooling", "system"} & recipe.values.keys():
        # The encoder says which suits it.
        del settings["pooling"]
    encoder = with_measured_columns(recipe.encoder, mixture.specs, mixture.train)
    return MultiTaskAttentionModel.from_encoder(
        encoder, tasks=tasks, encoder_kwargs=recipe.model.encoder_kwargs(), **settings
    )


def _encoders_of(recipe: Recipe) -> str:
    if isinstance(recipe.encoder, str):
        return recipe.encoder
    return f"encoders of {', '.join(recipe.encoder)}"


def report_of_run(
    trainer: MultiTaskTrainer,
    recipe: Recipe,
    folder: Path,
    results: tuple[Scores, Mapping[str, BaselineScores], Scores],
    findings: Sequence[str],
) -> RunReport:
    """Return the page of a finished run.

    Args:
        trainer: Its trainer, whose `card_values` hold the part report.
        recipe: Its recipe.
        folder: Its folder.
        results: The scores, the baselines' and those of the test split; the latter may be empty.
        findings: What the doctor said.
    """
    scores, baselines, tests = results
    args, state = trainer.args, trainer.state
    shares = trainer.preview_mixture()
    return RunReport(
        title=folder.absolute().name,
        entries=state.log_history,
        tasks=trainer.model.config.task_names,
        summary=[
            *([recipe.data.description.strip()] if recipe.data.description else []),
            f"{len(scores)} tasks on {_encoders_of(recipe)}: {state.global_step:,} steps, learning rate "
            f"{args.learning_rate:g}, seed {args.seed}. Mean over tasks: {mtl_average(scores):.1f}.",
        ],
        scores=score_cells(scores, baselines),
        score_notes=baseline_legend(scores, baselines),
        simple={
            "trivial": task_scores_of({name: simple.trivial for name, simple in baselines.items()}),
            "TF-IDF + linear": task_scores_of(
                {name: simple.tfidf for name, simple in baselines.items() if simple.tfidf}
            ),
        },
        tests=score_cells(tests, {}) if tests else None,
        mixture=mixture_cells(shares, trainer.train_dataset),
        parts=trainer.card_values.get("parts", ()),
        findings=findings,
        best_step=best_step_of(args, state),
        settings=(recipe.folder / RECIPE_FILE).read_text("utf-8"),
    )
