"""`hf-mtl train RECIPE`: from a recipe to a checkpoint, a table and the next command to type."""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils.logging import disable_progress_bar

from ..data.mixture import Mixture, load_mixture
from ..model_card import write_model_card
from ..modeling import InputError, MultiTaskAttentionModel
from ..modeling.encoders import find_encoder
from ..recipe import Recipe, differing_keys, read_recipe, saved_values
from ..report import baseline_scores, dropped_lines, mixture_table, score_table, truncation_lines
from ..training.callbacks import InterruptCallback
from ..training.evaluation import AVERAGE, mtl_average
from ..training.part_report import PartReport, initial_parts
from ..training.trainer import MultiTaskTrainer

RESULTS_FILE = "results.json"
TEST_RESULTS_FILE = "test_results.json"
EXAMPLES = {
    "text": '--text "…"',
    "text_pair": '--text_pair "…"',
    "tokens": '--text "…"',
    "question": '--question "…"',
    "context": '--context "…"',
    "choices": '--choices "…" "…"',
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of what is not a recipe's key."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl train",
        description="Train a recipe. Every key of the recipe can be overridden: --learning_rate 3e-5, "
        "--tasks rte (one task of it), --tasks.rte.weight 2.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a YAML file, e.g. recipes/support_desk/train.yaml")
    return parser


def main(known: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Train; a folder that holds this recipe's unfinished run is continued, another one is refused."""
    recipe = read_recipe(known.recipe, overrides)
    folder = recipe.folder
    if finished := check_output_folder(folder, recipe):
        print(f"This run is finished: {finished}. To train again, choose another --output_dir.")
        return 0
    find_encoder(recipe.encoder)
    quiet_libraries()
    mixture = read_mixture(recipe)
    set_seed(recipe.training.seed)
    interrupt = InterruptCallback()
    trainer = build_trainer(recipe, mixture, interrupt)
    print("\n".join([*truncation_lines(trainer), "", *mixture_table(trainer.preview_mixture())]), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(folder)
    start = initial_parts(trainer.model)
    checkpoint = get_last_checkpoint(str(folder))
    if checkpoint:
        print(f"Continuing from {checkpoint}.")
    trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.interrupted:
        print(
            f"Interrupted; a usable checkpoint lies in {get_last_checkpoint(str(folder))}. "
            "Type the same command again to continue.",
            file=sys.stderr,
        )
        return 130
    finish(trainer, recipe, folder, PartReport(start))
    return 0


def check_output_folder(folder: Path, recipe: Recipe) -> Path | None:
    """Return the results of a finished run of this recipe, if the folder holds one.

    Raises:
        InputError: The folder holds something else; the message names what differs.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    before = saved_values(folder)
    if before is None:
        raise InputError(
            f"The output folder {str(folder)!r} is not empty and no run of hf-mtl; choose another --output_dir."
        )
    if differing := differing_keys(before, recipe.values):
        raise InputError(
            f"The output folder {str(folder)!r} holds another recipe's run; it differs in {', '.join(differing)}. "
            "Choose another --output_dir."
        )
    return folder / RESULTS_FILE if (folder / RESULTS_FILE).is_file() else None


def quiet_libraries() -> None:
    """Leave the screen to what a user needs: progress of training and what we print."""
    datasets.disable_progress_bars()
    disable_progress_bar()  # of loading and saving weights, which takes a moment
    logging.getLogger("transformers").setLevel(logging.ERROR)


def read_mixture(recipe: Recipe) -> Mixture:
    """Load the recipe's mixture and say what was dropped."""
    data = recipe.data
    seed = recipe.training.seed
    mixture = load_mixture(
        recipe.tasks, data.data_dir, data.exclude_overlap, data.max_train_samples, data.max_eval_samples, seed
    )
    print("\n".join(dropped_lines(mixture)), flush=True)
    return mixture


def build_trainer(recipe: Recipe, mixture: Mixture, interrupt: InterruptCallback) -> MultiTaskTrainer:
    """Wrap the recipe's encoder for the mixture's tasks."""
    tasks = [spec.to_config() for spec in mixture.specs]
    model = MultiTaskAttentionModel.from_encoder(recipe.encoder, tasks=tasks, **recipe.model.settings())
    return MultiTaskTrainer(model, recipe.training, mixture, callbacks=[interrupt])


def finish(trainer: MultiTaskTrainer, recipe: Recipe, folder: Path, report: PartReport) -> None:
    """Save the chosen model, score it, and print what a user wants to know."""
    trainer.model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    scores = trainer.task_scores(trainer.evaluate())
    baselines = baseline_scores(trainer.mixture) if recipe.data.baselines else {}
    print("\n".join(["", *score_table(scores, baselines)]), flush=True)
    _write_scores(folder / RESULTS_FILE, scores)
    if trainer.mixture.test:
        output = trainer.predict(trainer.features_of(trainer.mixture.test), metric_key_prefix="test")
        tested = trainer.task_scores(output.metrics or {}, "test")
        print("\n".join(["", "Test split (never used to choose):", *score_table(tested, {})]), flush=True)
        _write_scores(folder / TEST_RESULTS_FILE, tested)
    if recipe.data.report_parts and trainer.model.num_tasks > 1:
        print("\n".join(["", *report.lines(trainer, mtl_average(scores))]), flush=True)
    write_model_card(folder, trainer, scores, recipe.encoder)
    print(f"\nThe checkpoint lies in {folder}. Ask it:\n  {next_command(trainer, folder)}")


def next_command(trainer: MultiTaskTrainer, folder: Path) -> str:
    """Return a command that answers the first task, ready to type."""
    spec = trainer.mixture.specs[0]
    row = trainer.mixture.validation[spec.name][0]
    if "text" in row and len(spec.input_fields) == 1:
        return f"hf-mtl predict {folder} --text {json.dumps(row['text'].strip(), ensure_ascii=False)}"
    return f"hf-mtl predict {folder} {' '.join(EXAMPLES[name] for name in spec.input_fields)}"


def _write_scores(path: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    values = {**scores, f"eval_{AVERAGE}": mtl_average(scores)}
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
