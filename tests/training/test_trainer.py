"""The Trainer as a user meets it: tasks read off features, scores by task, the best checkpoint by their mean."""

import copy
import json
import signal

import pytest
import torch
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments, TaskConfig
from hf_mtl.inspection.part_report import PartReport, answer_validation_rows, initial_parts
from hf_mtl.metrics import task_score
from hf_mtl.modeling import InputError
from hf_mtl.training.callbacks import InterruptCallback
from hf_mtl.training.scoring import _relative_improvement
from tests.conftest import build_model
from tests.training.test_step_loss import datasets, trainer


def test_tasks_are_read_off_the_features(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=2)
    assert own.specs["mood"].problem_type == "single_label_classification"
    assert own.specs["mood"].labels == ["no", "yes"]
    assert own.specs["stars"].problem_type == "regression"
    assert own.mixture.train["stars"].num_rows == 12
    assert [share.task for share in own.preview_mixture()] == ["mood", "stars", "tags"]
    assert sum(share.share for share in own.preview_mixture()) == pytest.approx(1)


def evaluated(tmp_path, tokenizer, **arguments):
    validation = {name: rows.select(range(8)) for name, rows in datasets().items()}
    return trainer(tmp_path, tokenizer, validation=validation, per_device_train_batch_size=8, **arguments)


def test_evaluation_scores_every_task_and_changes_nothing(tmp_path, tokenizer):
    own = evaluated(tmp_path, tokenizer, max_steps=1)
    before = copy.deepcopy(own.model.state_dict())
    metrics = own.evaluate()
    own.save_model(str(tmp_path / "saved"))
    scores = own.task_scores(metrics)
    assert scores.keys() == {"mood", "stars", "tags"}
    mean = sum(task_score(own_scores) for own_scores in scores.values()) / 3
    assert metrics["eval_mtl_average"] == pytest.approx(mean)
    assert {"eval_mood_loss", "eval_stars_pearson", "eval_tags_span_f1"} <= metrics.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.model.state_dict().items())


def test_data_sets_by_name_are_scored_together(tmp_path, tokenizer):
    own = evaluated(tmp_path, tokenizer, max_steps=1)
    expected = own.evaluate()
    validation = {name: rows.select(range(8)) for name, rows in datasets().items()}
    found = own.evaluate(validation)
    same = [key for key in expected if "runtime" not in key and "per_second" not in key]
    assert {key: found[key] for key in same} == pytest.approx({key: expected[key] for key in same}, nan_ok=True)
    answers = own.predict({"stars": validation["stars"]})
    assert answers.metrics["test_stars_pearson"] == pytest.approx(expected["eval_stars_pearson"], nan_ok=True)
    assert "test_mood_accuracy" not in answers.metrics
    with pytest.raises(InputError, match="Did you mean 'stars'"):
        own.predict({"star": validation["stars"]})


def test_tasks_may_be_given_as_values(tmp_path, tokenizer):
    rows = {"mood": datasets()["mood"]}
    task = {"name": "mood", "problem_type": "single_label_classification", "weight": 2.0}
    config = TaskConfig(name="mood", problem_type="single_label_classification")
    model = build_model([{**config.to_dict(), "labels": ["no", "yes"]}], vocab_size=tokenizer.vocab_size)
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for given in (task, config):
        own = MultiTaskTrainer(model, args, train_dataset=rows, tasks=[given], processing_class=tokenizer)
        assert own.specs["mood"].setting("weight") == (2.0 if given is task else 1.0)
    with pytest.raises(InputError, match="Did you mean 'weight'"):
        MultiTaskTrainer(model, args, train_dataset=rows, tasks=[{**task, "weigt": 1}], processing_class=tokenizer)


def test_the_report_leaves_no_bar_behind(tmp_path, tokenizer):
    """A bar that went on from one evaluation into the next ran past its end."""
    own = evaluated(tmp_path, tokenizer, max_steps=1)
    bar = ProgressCallback()
    own.add_callback(bar)
    PartReport(initial_parts(own.model)).lines(own, answer_validation_rows(own))
    assert bar.prediction_bar is None


def test_the_best_checkpoint_is_chosen_by_the_mean(tmp_path, tokenizer):
    own = evaluated(
        tmp_path,
        tokenizer,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        logging_steps=1,
        load_best_model_at_end=True,
        learning_rate=1e-3,
    )
    own.add_callback(EarlyStoppingCallback(early_stopping_patience=10))
    own.train()
    means = [entry["eval_mtl_average"] for entry in own.state.log_history if "eval_mtl_average" in entry]
    assert len(means) == 4
    assert own.state.best_metric == pytest.approx(max(means))
    assert own.evaluate()["eval_mtl_average"] == pytest.approx(max(means), abs=1e-4)
    logged = [entry for entry in own.state.log_history if "loss" in entry]
    assert any("loss_mood" in entry for entry in logged)
    json.dumps(own.state.log_history)


def test_new_parts_have_their_own_learning_rate(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, learning_rate=1e-4)
    rates = {name: None for name, _ in own.model.named_parameters()}
    by_id = {id(tensor): name for name, tensor in own.model.named_parameters()}
    for group in own.create_optimizer().param_groups:
        rates.update({by_id[id(tensor)]: group["lr"] for tensor in group["params"]})
    assert {rate for name, rate in rates.items() if name.startswith("mtl.")} == {10 * 1e-4}
    assert {rate for name, rate in rates.items() if name.startswith("encoder.")} == {1e-4}


def test_model_and_data_must_agree(tmp_path, tokenizer):
    rows = datasets()
    with pytest.raises(InputError, match="expected the same"):
        trainer(tmp_path, tokenizer, rows={"mood": rows["mood"], "tags": rows["tags"]})
    with pytest.raises(InputError, match="source of task 'tags'"):
        trainer(tmp_path, tokenizer, rows={"mood": rows["mood"]})


class InterruptedEvaluation(TrainerCallback):
    """A Ctrl-C while rows are answered."""

    def on_prediction_step(self, args, state, control, **kwargs):
        signal.raise_signal(signal.SIGINT)
        self.on_prediction_step = lambda args, state, control, **kwargs: None


def test_an_interrupt_in_the_last_evaluation_leaves_a_checkpoint(tmp_path, tokenizer):
    """After the last step there is no step whose end could save."""
    own = evaluated(tmp_path, tokenizer, max_steps=1, eval_strategy="steps", eval_steps=1, save_strategy="no")
    interrupt = InterruptCallback()
    own.add_callback(interrupt)
    own.add_callback(InterruptedEvaluation)
    own.train()
    assert interrupt.interrupted
    assert (tmp_path / "checkpoint-1" / "model.safetensors").is_file()


def test_relative_improvement_is_the_mean_over_tasks_of_relative_changes():
    """Maninis et al. 2019, section 4: 100 / T sum_t mean_m (-1)^l (M - B) / |B|; a loss that falls is a gain."""
    scores = {"a": {"accuracy": 60.0}, "b": {"pearson": 45.0, "rmse": 2.0}, "c": {"f1": 10.0}}
    single = {"a": 50.0, "b": {"pearson": 50.0, "rmse": 4.0}}
    expected = 100 * (10 / 50 + (-5 / 50 + 2 / 4) / 2) / 2
    assert _relative_improvement(scores, single) == pytest.approx(expected)
