"""Defaults that follow from other arguments follow them when they change; schedules know which way is better."""

import copy
import dataclasses
import json
import pickle

import pytest

from hf_mtl import InputError, MultiTaskTrainingArguments
from hf_mtl.training.checks import scheduler_options
from tests.training.test_step_loss import datasets, trainer


def arguments(tmp_path, **given) -> MultiTaskTrainingArguments:
    return MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **given)


def set_after(args, **changes):
    for name, value in changes.items():
        setattr(args, name, value)
    return args


def copied_first(args, **changes):
    return set_after(pickle.loads(pickle.dumps(copy.deepcopy(args))), **changes)


@pytest.mark.parametrize("change", [set_after, dataclasses.replace, copied_first])
def test_derived_values_follow(change, tmp_path):
    args = arguments(tmp_path, learning_rate=1e-4, global_batch_size=64)
    assert args.parts_learning_rate == pytest.approx(1e-3)
    assert args.gradient_accumulation_steps == 8
    other = change(args, learning_rate=5e-5, per_device_train_batch_size=16)
    assert other.parts_learning_rate == pytest.approx(5e-4)
    assert other.gradient_accumulation_steps == 4
    json.loads(other.to_json_string())


@pytest.mark.parametrize("change", [set_after, dataclasses.replace, copied_first])
def test_given_values_stay(change, tmp_path):
    args = arguments(tmp_path, learning_rate=1e-4, parts_learning_rate=0.5, gradient_accumulation_steps=3)
    other = change(args, learning_rate=5e-5)
    assert (other.parts_learning_rate, other.gradient_accumulation_steps) == (0.5, 3)


def test_the_better_direction_follows_the_metric(tmp_path):
    args = arguments(tmp_path)
    for metric, greater in (
        ("mtl_average", True),
        ("stars_rmse", False),
        ("eval_mood_loss", False),
        ("mtl_worst", True),
    ):
        args.metric_for_best_model = metric
        assert args.greater_is_better is greater
    assert arguments(tmp_path, metric_for_best_model="stars_rmse", greater_is_better=False).greater_is_better is False


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric_for_best_model": "stars_rmse", "greater_is_better": True}, "greater_is_better=True contradicts"),
        ({"metric_for_best_model": "mtl_average", "greater_is_better": False}, "from which True follows"),
        ({"global_batch_size": 64, "gradient_accumulation_steps": 2}, "from which 8 follows"),
        ({"global_batch_size": 63}, "no multiple"),
    ],
)
def test_values_that_contradict_are_named(given, message, tmp_path):
    with pytest.raises(InputError, match=message):
        arguments(tmp_path, **given)
    arguments(tmp_path, global_batch_size=64, gradient_accumulation_steps=8)


def test_changes_reach_a_trainer_that_was_made_before(tmp_path, tokenizer):
    own = trainer(
        tmp_path, tokenizer, max_steps=2, learning_rate=1e-4, lr_scheduler_type="constant", save_strategy="no"
    )
    own.args.learning_rate = 5e-5
    own.args.max_steps = 1
    own.train()
    rates = {group["lr"] for group in own.optimizer.param_groups}
    assert sorted(rates) == pytest.approx([5e-5, 5e-4])
    assert own.state.global_step == 1


@pytest.mark.parametrize(
    ("metric", "options", "mode"),
    [
        ("mtl_average", None, "max"),
        ("stars_pearson", {"patience": 0}, "max"),
        ("mood_loss", {"mode": "min"}, "min"),
        ("mtl_average", {"mode": "min"}, None),
    ],
)
@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_follows_the_metrics_direction(schedule, metric, options, mode, tmp_path):
    args = arguments(
        tmp_path, lr_scheduler_type=schedule, lr_scheduler_kwargs=options, metric_for_best_model=metric,
        eval_strategy="steps", eval_steps=1,
    )  # fmt: skip
    if mode is None:
        with pytest.raises(InputError, match="mode='min', and of metric_for_best_model='mtl_average' more is better"):
            scheduler_options(args)
    else:
        assert scheduler_options(args) == {**(options or {}), "mode": mode}


@pytest.mark.parametrize(
    "follower",
    [{"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}, {"load_best_model_at_end": True}],
)
def test_what_follows_a_metric_needs_one(follower, tmp_path):
    with pytest.raises(InputError, match=f"metric_for_best_model=None beside {next(iter(follower))}="):
        arguments(tmp_path, metric_for_best_model=None, **follower)
    changed = arguments(tmp_path, **{"eval_strategy": "epoch", "save_strategy": "epoch", **follower})
    changed.metric_for_best_model = None
    with pytest.raises(InputError, match="metric_for_best_model=None beside"):
        changed.check_derived()


def test_without_a_follower_there_may_be_no_metric(tmp_path, tokenizer):
    validation = {"mood": datasets()["mood"].select(range(4))}
    given = {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no"}
    own = trainer(tmp_path, tokenizer, validation=validation, metric_for_best_model=None, **given)
    assert own.train().global_step == 1


def test_a_plateau_of_scores_is_where_they_stop_rising(tmp_path, tokenizer, monkeypatch):
    """Scores that rise at every evaluation keep the rate; those that fall reduce it."""
    rates = {}
    for name, step in (("rising", 1.0), ("falling", -1.0)):
        own = trainer(
            tmp_path, tokenizer, validation={"mood": datasets()["mood"].select(range(4))}, max_steps=4,
            lr_scheduler_type="reduce_lr_on_plateau", lr_scheduler_kwargs={"patience": 0, "factor": 0.5},
            eval_strategy="steps", eval_steps=1, learning_rate=1e-3, save_strategy="no",
        )  # fmt: skip
        evaluate = own.evaluate
        monkeypatch.setattr(
            own,
            "evaluate",
            lambda own=own, step=step, evaluate=evaluate, **given: {
                **evaluate(**given),
                "eval_mtl_average": 50 + step * own.state.global_step,
            },
        )
        own.train()
        rates[name] = min(group["lr"] for group in own.optimizer.param_groups)
        assert own.args.lr_scheduler_kwargs == {"patience": 0, "factor": 0.5}
    assert rates == {"rising": 1e-3, "falling": pytest.approx(1e-3 / 8)}
