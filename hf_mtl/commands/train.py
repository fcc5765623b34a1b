"""`hf-mtl train RECIPE`: from a recipe to a checkpoint, a table and the next command to type."""

import argparse
import json
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from transformers import set_seed

from ..data.mixture import Mixture
from ..inspection.flag_thresholds import flag_lines
from ..inspection.learning_curves import CURVES_FILE, draw_learning_curves, read_history
from ..inspection.part_report import PartReport, answer_validation_rows, initial_parts, is_logged
from ..inspection.run_report import REPORT_FILE, RunReport
from ..inspection.score_figure import FIGURE_FILE, MATPLOTLIB_HELP, can_draw, draw_scores
from ..modeling.encoder_loading import PACKAGE_PREFIX, find_encoder
from ..modeling.errors import InputError
from ..modeling.hub_push import Push, push_folder
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..recipe import LENGTH_OF_A_RUN, RECIPE_FILE, Recipe, differing_keys, is_longer, read_recipe, saved_values
from ..tables import Scores, baseline_scores, change_table, mixture_table, score_table
from ..training.callbacks import InterruptCallback
from ..training.checkpoints import last_whole_checkpoint
from ..training.ignored_arguments import refuse_ignored_arguments
from ..training.processes import leave_together
from ..training.scoring import AVERAGE, mtl_average
from ..training.trainer import MultiTaskTrainer
from ..training.training_order import Stage, arguments_of, left_out, mixture_of, model_of, tasks_apart
from .console import is_main_process, program, quiet_libraries, say
from .push import lines_of_push
from .recipe_parts import build_model, read_mixture, report_of_run

_RESULTS_FILE = "results.json"
_TEST_RESULTS_FILE = "test_results.json"
_EXAMPLE_LENGTH = 100
_EXAMPLES = {
    "text": '--text "…"',
    "text_pair": '--text_pair "…"',
    "tokens": '--text "…"',
    "question": '--question "…"',
    "context": '--context "…"',
    "choices": '--choices "…" "…"',
    "image": "--image FILE",
    "audio": "--audio FILE",
    "table": "--file ROWS.csv --output ANSWERS.csv",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of what is not a recipe's key."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl train",
        description="Train a recipe. Every key of the recipe can be overridden: --learning_rate 3e-5, "
        "--tasks rte (one task of it), --tasks.rte.weight 2, --tasks.rte.columns.text review. Relative paths of the "
        "recipe start in its folder, those of the command line in the working directory.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a YAML file, e.g. recipes/support_desk/train.yaml")
    return parser


def main(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Train; a folder that holds this recipe's unfinished run is continued, another one is refused."""
    code = _train(read_recipe(args.recipe, overrides))
    leave_together()
    return code


def _train(recipe: Recipe) -> int:
    """Train what a recipe says, stage by stage; return 0, or 130 after an interrupt."""
    refuse_ignored_arguments(recipe.training)
    folder = recipe.folder
    if finished := _check_output_folder(folder, recipe):
        say(f"This run is finished: {finished}. To train again, choose another --output_dir.")
        if recipe.training.push_to_hub and is_main_process():
            _push(recipe)
        return 0
    for name in recipe.encoder_names:
        find_encoder(name)
    quiet_libraries()
    stages = _stages(recipe)
    mixture = read_mixture(recipe)
    whole = build_model(recipe, mixture)
    if whole.mtl.conditioning.conditions_encoder:
        many = f"all {whole.num_tasks} tasks take {whole.num_tasks} passes"
        say(f"Token states depend on the task: a row is encoded once for each task it is answered for, {many}.")
    for stage in stages:
        if stage.tasks is not None:
            # What a later stage cannot do is said before the first one.
            model_of(whole, stage.tasks)
            arguments_of(recipe.training, stage.tasks, whole.config.task_names, folder / stage.name)
    first, scores = None, {}
    for place, stage in enumerate(stages):
        if len(stages) > 1:
            say("", f"Stage {place + 1} of {len(stages)}: {stage.name or 'the last'}")
        trained, scores[stage.name] = _run_stage(recipe, stage, whole, first, mixture)
        if trained is None:
            say("Type the same command again to continue.", stream=sys.stderr)
            return 130
        first = first or trained
    if stages[-1].name:
        after = {name: task_scores for stage in stages[1:] for name, task_scores in scores[stage.name].items()}
        say("", "Before and after each task trained on alone:", *change_table(scores[stages[0].name], after))
        if is_main_process():
            _write_scores(folder / _RESULTS_FILE, after)
    return 0


def _stages(recipe: Recipe) -> list[Stage]:
    """Return a run's stages; raise `InputError` where several models would be pushed to one repository."""
    stages = recipe.stages()
    if recipe.training.push_to_hub and stages[-1].name:
        raise InputError(
            f"training_order={recipe.data.training_order} trains a model for each task; leave push_to_hub out, and "
            f"push those that you want: hf-mtl push {recipe.folder / stages[-1].name} USER/NAME."
        )
    return stages


def _run_stage(
    recipe: Recipe,
    stage: Stage,
    whole: MultiTaskAttentionModel,
    first: MultiTaskAttentionModel | None,
    mixture: Mixture,
) -> tuple[MultiTaskAttentionModel | None, Scores]:
    """Train one stage, or read it where it is finished; return its model and scores, None after an interrupt.

    Args:
        recipe: The recipe.
        stage: The stage.
        whole: A model of all tasks, as it begins.
        first: What the first stage trained, if this is a later one.
        mixture: The rows of all tasks.
    """
    folder, args, names = recipe.folder / stage.name, recipe.training, [spec.name for spec in mixture.specs]
    if stage.name and (folder / _RESULTS_FILE).is_file():
        say(f"It is finished: {folder / _RESULTS_FILE}.")
        finished = MultiTaskAttentionModel.from_pretrained(folder, **recipe.model.encoder_kwargs())
        return finished, _read_scores(folder / _RESULTS_FILE)
    model, whole_mixture = first or whole, mixture
    if stage.tasks is not None:
        if gone := left_out(whole, stage.tasks):
            say(f"A model of {', '.join(stage.tasks)} alone has no {', '.join(gone)}: it goes on from the rest.")
        model, names = model_of(whole, stage.tasks, first), list(stage.tasks)
        mixture = mixture_of(mixture, names)
    if stage.name:
        # What is pushed is the last stage's model.
        args = arguments_of(args, names, [spec.name for spec in whole_mixture.specs], folder, push_to_hub=False)
        set_seed(args.seed)
    interrupt = InterruptCallback()
    with stage.trained(model):
        trainer = MultiTaskTrainer(model, args, train_dataset=mixture, callbacks=[interrupt])
        trainer.card_values = _card_values(recipe)
        say("", *mixture_table(trainer.preview_mixture(), trainer.train_dataset))
        checkpoint, broken = last_whole_checkpoint(folder)
        if checkpoint:
            trainer.check_checkpoint(Path(checkpoint))
        if is_main_process():
            _prepare_folder(folder, recipe)
            if stage.name:
                recipe.of_stage(names, args).save(folder)
        start, findings = initial_parts(model), []
        say(*broken)
        if checkpoint:
            say(f"Continuing from {checkpoint}.")
        elif recipe.data.doctor:
            say("", *(findings := trainer.doctor().lines()), "")
        trainer.train(resume_from_checkpoint=checkpoint)
        if interrupt.interrupted:
            say(f"Interrupted; a usable checkpoint lies in {last_whole_checkpoint(folder)[0]}.", stream=sys.stderr)
            return None, {}
        # Apart, no task reads another: there is nothing to report of what mixes them.
        report = PartReport(start) if recipe.data.report_parts and stage.trained is not tasks_apart else None
        return model, _finish(trainer, recipe, folder, report, findings)


def _prepare_folder(folder: Path, recipe: Recipe) -> None:
    """Make a stage's folder, without the results of a shorter run that goes on, and save the recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_RESULTS_FILE, _TEST_RESULTS_FILE):
        (folder / name).unlink(missing_ok=True)
    recipe.save(recipe.folder)


def _check_output_folder(folder: Path, recipe: Recipe) -> Path | None:
    """Return the results of a finished run of this recipe, if the folder holds one.

    Raises:
        InputError: The folder holds something else; the message names what differs.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not is_main_process():
        # The first process may be writing the recipe this very moment; it is the one that refuses.
        return folder / _RESULTS_FILE if (folder / _RESULTS_FILE).is_file() else None
    before = saved_values(folder)
    if before is None:
        raise InputError(
            f"The output folder {str(folder)!r} is not empty and no run of hf-mtl; choose another --output_dir."
        )
    longer = is_longer(before, recipe)
    differing = [key for key in differing_keys(before, recipe.values) if not (longer and key in LENGTH_OF_A_RUN)]
    if differing:
        raise InputError(
            f"The output folder {str(folder)!r} holds another recipe's run; it differs in {', '.join(differing)}. "
            "Choose another --output_dir."
        )
    if longer and (folder / _RESULTS_FILE).is_file():
        if last_whole_checkpoint(folder)[0] is None:
            raise InputError(
                f"The run in {str(folder)!r} is finished and holds no whole checkpoint from which a longer one could "
                "go on. Choose another --output_dir."
            )
        return None
    return folder / _RESULTS_FILE if (folder / _RESULTS_FILE).is_file() else None


def _finish(
    trainer: MultiTaskTrainer, recipe: Recipe, folder: Path, parts: PartReport | None, findings: Sequence[str]
) -> Scores:
    """Save the chosen model, score it, print what a user wants to know, and return the scores."""
    if is_main_process():
        trainer.model.save_pretrained(folder)
        if trainer.processing_class is not None:
            trainer.processing_class.save_pretrained(folder)
    answers = answer_validation_rows(trainer)
    if not is_logged(trainer):
        trainer.log(answers.metrics)
    scores, tests = trainer.task_scores(answers.metrics), {}
    baselines = {}
    if is_main_process():
        baselines = baseline_scores(trainer.mixture, answers.rows) if recipe.data.baselines else {}
        trainer.card_values["trivial"] = {name: simple.trivial for name, simple in baselines.items()}
        trainer.card_values["tfidf"] = {name: simple.tfidf for name, simple in baselines.items() if simple.tfidf}
        say("", *score_table(scores, baselines))
    if trainer.mixture.test:
        output = trainer.predict(trainer.features_of(trainer.mixture.test), metric_key_prefix="test")
        tests = trainer.card_values["test"] = trainer.task_scores(output.metrics or {}, "test")
        say("", "Test split (never used to choose):", *score_table(tests, {}))
        if is_main_process():
            _write_scores(folder / _TEST_RESULTS_FILE, tests)
    if flags := flag_lines(trainer, answers.rows, str(folder)):
        say("", *flags)
    if parts is not None and trainer.model.num_tasks > 1:
        trainer.card_values["parts"] = parts.lines(trainer, answers)
        say("", *trainer.card_values["parts"])
    if is_main_process():
        report = report_of_run(trainer, recipe, folder, (scores, baselines, tests), findings)
        report.score_notes = [*report.score_notes, *flags]
        (folder / REPORT_FILE).write_text(report.render(), "utf-8")
        _draw(trainer, folder, scores, parts.means if parts is not None else {}, report)
        trainer.create_model_card()
        trainer.save_state()
        # Last of all: with it the run counts as finished.
        _write_scores(folder / _RESULTS_FILE, scores)
        say("", f"Curves and tables of the run: {folder / REPORT_FILE}")
        say(f"The checkpoint lies in {folder}. Ask it:", f"  {_next_command(trainer, folder)}")
        if trainer.args.push_to_hub:
            _push(recipe, str(trainer.hub_model_id))
    return scores


def _draw(
    trainer: MultiTaskTrainer, folder: Path, scores: Scores, means: Mapping[str, float], report: RunReport
) -> None:
    """Draw the card's figures, where matplotlib is installed."""
    if not can_draw():
        say("", MATPLOTLIB_HELP)
        return
    trivial, tfidf = (trainer.card_values.get(key, {}) for key in ("trivial", "tfidf"))
    draw_scores(folder / FIGURE_FILE, scores, trivial, tfidf, means)
    history = read_history(report.entries, report.tasks)
    figures = {"Scores by task, beside simpler answers": FIGURE_FILE}
    if history.losses or history.scores:
        draw_learning_curves(folder / CURVES_FILE, history, report.simple, best_step=report.best_step)
        figures["Learning curves by task"] = CURVES_FILE
    trainer.card_values["figures"] = figures


def _card_values(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe says on its model's card."""
    values = {
        "languages": recipe.data.language,
        "license": recipe.data.license,
        "description": recipe.data.description,
        "command": f"hf-mtl train {shlex.quote(f'{recipe.folder}/{RECIPE_FILE}')} --output_dir out/again",
        "reads_hub": recipe.data.data_dir is None,
        "encoder": _package_encoder(next(iter(recipe.encoder_names), "")),
    }
    return {key: value for key, value in values.items() if value is not None}


def _package_encoder(name: str) -> str | None:
    """Return what a card calls an encoder that lies in a Python package; None for others."""
    if not name.startswith(PACKAGE_PREFIX):
        return None
    return f"the checkpoint in the Python package `{name.removeprefix(PACKAGE_PREFIX).partition('/')[0]}`"


def _push(recipe: Recipe, repo_id: str | None = None) -> None:
    """Push a finished run's folder, and say where it is."""
    args = recipe.training
    push = Push(
        recipe.folder,
        repo_id or args.hub_model_id or recipe.folder.absolute().name,
        token=args.hub_token,
        private=args.hub_private_repo,
        revision=args.hub_revision,
        commit_message="End of training",
    )
    if constants.HF_HUB_OFFLINE:
        say("", "HF_HUB_OFFLINE=1: nothing is pushed. To push it, type:", f"  {push.command()}")
        return
    say("", *lines_of_push(push, push_folder(push)))


def _next_command(trainer: MultiTaskTrainer, folder: Path) -> str:
    """Return a command that answers the first task, ready to type."""
    spec = trainer.mixture.specs[0]
    row = trainer.mixture.validation[spec.name][0]
    if "text" in row and len(spec.input_fields) == 1:
        text = textwrap.shorten(row["text"], _EXAMPLE_LENGTH, placeholder=" …")
        return f"{program()} predict {shlex.quote(str(folder))} --text {shlex.quote(text)}"
    return f"{program()} predict {shlex.quote(str(folder))} {' '.join(_EXAMPLES[name] for name in spec.input_fields)}"


def _read_scores(path: Path) -> Scores:
    """Return the scores that a finished run wrote."""
    return {
        name: task_scores
        for name, task_scores in json.loads(path.read_text("utf-8")).items()
        if isinstance(task_scores, Mapping)
    }


def _write_scores(path: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    values = {**scores, f"eval_{AVERAGE}": mtl_average(scores)}
    path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
