"""Arguments that the tasks cannot serve are refused before a run; some follow from the metric."""

import dataclasses
import json
import signal

import pytest
from transformers import TrainerCallback

from hf_mtl import InputError, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.data.mixture import mixture_from_datasets
from hf_mtl.training.callbacks import InterruptCallback
from hf_mtl.training.run_identity import check_run
from tests.training.test_step_loss import datasets, trainer

EVALUATED = {"eval_strategy": "steps", "eval_steps": 2}


def build(folder, tokenizer, evaluated=("mood", "stars", "tags"), **arguments):
    validation = {name: rows.select(range(8)) for name, rows in datasets().items() if name in evaluated}
    return trainer(folder, tokenizer, validation=validation, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric_for_best_model": "mood_acuracy"}, "mood_accuracy"),
        ({"metric_for_best_model": "mtl_relative"}, "single_task_scores"),
        ({"single_task_scores": {"mood": "90"}}, "expected a number"),
        ({"single_task_scores": {"mood": 0}}, "other than 0"),
        ({"single_task_scores": {"moood": 70}}, "'mood'"),
        ({"single_task_scores": {"mood": {"f1": 70}}}, "accuracy"),
        ({"target_scores": {"mood": "high"}}, "expected a number"),
        ({"target_scores": {"colla": 3}}, "colla"),
        ({"mixing_strategy": "dev_gap", "target_scores": {"mood": 90}, **EVALUATED}, "'stars'"),
        ({"mixing_strategy": "dev_gap", "target_scores": {"mood": 9, "stars": 9, "tags": 9}}, "eval_strategy"),
        ({"tokens_per_batch": 0}, "tokens_per_batch"),
        ({"parts_learning_rate": -1}, "parts_learning_rate"),
        ({"mixing_power": float("nan")}, "mixing_power"),
        ({"mixing_power": -2000.0}, "mixing_power"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps"),
        ({"seed": -1}, "seed"),
        ({"loss_smoothing": 1.5}, "loss_smoothing"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments, message, tmp_path, tokenizer):
    with pytest.raises(InputError, match=message):
        build(tmp_path, tokenizer, **arguments)


@pytest.mark.parametrize("given", ["no", "wandbb", None, ["none", "wandb"], ["tensorboard", "mine"]])
def test_what_cannot_be_reported_to_is_refused(given, tmp_path):
    with pytest.raises(InputError, match="report_to.*`report_to: none`.*tensorboard.*wandb"):
        MultiTaskTrainingArguments(output_dir=str(tmp_path), report_to=given)


@pytest.mark.parametrize(
    ("given", "read"), [("none", []), (["none"], []), ("wandb", ["wandb"]), (["wandb", "mlflow"], ["wandb", "mlflow"])]
)
def test_what_can_be_reported_to_is_kept(given, read, tmp_path):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), report_to=given)
    assert args.report_to == read
    assert dataclasses.replace(args).report_to == read


def test_following_scores_needs_validation_rows(tmp_path, tokenizer, monkeypatch):
    with pytest.raises(InputError, match="'stars' and needs its validation rows"):
        targets = {"mood": 9, "stars": 9, "tags": 9}
        arguments = {"mixing_strategy": "dev_gap", "target_scores": targets, **EVALUATED}
        build(tmp_path, tokenizer, evaluated=("mood", "tags"), **arguments)
    patient = [TaskSpec(name="tags", problem_type="token_classification", columns={"label": "tags"}, patience=2)]
    monkeypatch.setattr("tests.training.test_step_loss.specs", lambda: patient)
    with pytest.raises(InputError, match="patience"):
        build(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("metric", "greater"), [("stars_rmse", False), ("eval_stars_rmse", False), ("mtl_worst", True)]
)
def test_less_of_an_error_is_better(metric, greater, tmp_path):
    arguments = MultiTaskTrainingArguments(output_dir=str(tmp_path), metric_for_best_model=metric)
    assert arguments.greater_is_better is greater or (greater and arguments.greater_is_better is None)


def test_metrics_must_fit_the_labels(tmp_path, tokenizer):
    words = {"tokens": [["a", "b"]] * 4, "tags": [["DET", "NOUN"]] * 4}
    from datasets import Dataset

    rows = {"pos": Dataset.from_dict(words)}
    spec = TaskSpec(name="pos", problem_type="token_classification", columns={"label": "tags"})
    assert mixture_from_datasets(rows, None, [spec]).specs[0].metric_names == ["token_accuracy"]
    spec = TaskSpec(name="pos", problem_type="token_classification", columns={"label": "tags"}, metrics=["span_f1"])
    with pytest.raises(InputError, match="token_accuracy"):
        mixture_from_datasets(rows, None, [spec])
    classes = {"one": Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 2]})}
    spec = TaskSpec(name="one", problem_type="single_label_classification", metrics=["f1"])
    with pytest.raises(InputError, match="f1_macro"):
        mixture_from_datasets(classes, None, [spec])


@pytest.mark.parametrize("steps", [5, 10])
def test_a_run_that_is_over_takes_no_step_more(steps, tmp_path, tokenizer):
    """Killed after its last checkpoint; an epoch has 8 steps of 8 rows."""
    arguments = {"max_steps": steps, "save_steps": steps, "lr_scheduler_type": "constant"}
    own = build(tmp_path, tokenizer, **arguments)
    own.train()
    again = build(tmp_path, tokenizer, **arguments)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == steps
    assert not list(tmp_path.glob(f"checkpoint-{steps + 1}"))
    for name, tensor in own.model.state_dict().items():
        assert tensor.equal(again.model.state_dict()[name]), name


class InterruptAt(TrainerCallback):
    """A Ctrl-C during a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("strategy", [{"eval_strategy": "epoch"}, {"eval_strategy": "steps", "eval_steps": 3}])
@pytest.mark.parametrize(
    "step", [pytest.param(3, marks=pytest.mark.slow), 8, pytest.param(10, marks=pytest.mark.slow)]
)
def test_an_interrupt_changes_nothing_of_the_run(strategy, step, tmp_path, tokenizer):
    """The same evaluations at the same steps, and the same weights."""

    def build_run(folder):
        arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "save_strategy": "epoch", **strategy}
        own = build(tmp_path / folder, tokenizer, learning_rate=1e-3, **arguments)
        for module in own.model.modules():
            if type(module).__name__ == "Dropout":
                module.p = 0.1
        return own

    whole = build_run("whole")
    whole.train()
    stopped = build_run("stopped")
    interrupt = InterruptCallback()
    stopped.add_callback(interrupt)
    stopped.add_callback(InterruptAt(step))
    stopped.train()
    assert interrupt.interrupted
    assert stopped.state.global_step == step
    again = build_run("stopped")
    again.train(resume_from_checkpoint=True)

    def scores(own):
        keys = ("step", "eval_mtl_average", "eval_mood_loss")
        history = [{key: entry[key] for key in keys} for entry in own.state.log_history if "eval_mtl_average" in entry]
        return json.dumps(history)

    assert scores(again) == scores(whole)
    for name, tensor in whole.model.state_dict().items():
        assert tensor.equal(again.model.state_dict()[name]), name


def test_the_old_name_of_an_argument_is_read_with_a_warning(tmp_path):
    with pytest.warns(FutureWarning, match="temperature is called mixing_temperature now"):
        args = MultiTaskTrainingArguments(output_dir=str(tmp_path), temperature=5.0)
    assert args.mixing_temperature == 5.0
    assert dataclasses.replace(args).mixing_temperature == 5.0
    with pytest.raises(InputError, match="temperature=5.0 is the old name of mixing_temperature=3.0"):
        MultiTaskTrainingArguments(output_dir=str(tmp_path), temperature=5.0, mixing_temperature=3.0)


def test_a_checkpoint_with_an_old_name_is_continued():
    now = {"arguments": {"mixing_temperature": 5.0}, "tasks": {}, "rows": {}, "settings": {}, "total_steps": 1}
    check_run({**now, "arguments": {"temperature": 5.0}}, now, "out")
    with pytest.raises(InputError, match="mixing_temperature"):
        check_run({**now, "arguments": {"temperature": 4.0}}, now, "out")
