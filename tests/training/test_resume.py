"""A run that is stopped and continued ends with the bits of one that was not, having drawn the same batches."""

import dataclasses
import hashlib
import itertools
import json
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from hf_mtl import InputError
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS
from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS
from hf_mtl.data.mixing import MIXING_STRATEGIES
from hf_mtl.recipe import is_longer, read_recipe
from hf_mtl.training.checkpoints import _FILES_LIST, _OUTPUT_FILE, _WRITING, last_whole_checkpoint
from tests.conftest import StopAfter
from tests.training.test_step_loss import datasets, trainer

STEPS, STOP = 17, 7
TARGETS = {"mood": 90.0, "stars": 50.0, "tags": 70.0}


@dataclass
class Case:
    """Settings of a run, and after how many steps it is stopped."""

    id: str
    arguments: dict[str, Any] = field(default_factory=dict)
    stop: int = STOP


CASES = [
    *(Case(name, {"mixing_strategy": name}) for name in MIXING_STRATEGIES),
    Case("accumulation", {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}),
    Case("workers", {"dataloader_num_workers": 2}),
    Case("third_pass", {}, stop=15),
    Case("end_of_a_pass", {}, stop=10),
    Case("one_task", {"batch_form": "one_task"}),
    Case("k_tasks", {"batch_form": "k_tasks", "tasks_per_step": 2}),
    Case("token_budget", {"tokens_per_batch": 80}),
    Case("as_drawn", {"length_grouping": False}),
    Case("famo", {"loss_weighting": "famo"}),
    Case("gradvac", {"gradient_balancing": "gradvac", "per_device_train_batch_size": 3}),
]
# The state of every weighting and balancer.
STATES = [
    *(Case(name, {"loss_weighting": name}) for name in LOSS_WEIGHTINGS),
    *(
        Case(name, {"gradient_balancing": name, "per_device_train_batch_size": 3, "learning_rate": 1e-4})
        for name in GRADIENT_BALANCERS
    ),
]
# A pairwise sample: every two settings meet in some case.
PAIRS = [
    Case(f"{mixing}-{form}-{accumulate}", {"mixing_strategy": mixing, "batch_form": form, **split}, stop)
    for number, (mixing, form) in enumerate(
        itertools.product(("annealed", "dev_gap", "temperature", "round_robin"), ("mixed", "one_task", "k_tasks"))
    )
    for accumulate, split, stop in [
        [
            (1, {}, 3),
            (4, {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}, 12),
            (2, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "dataloader_num_workers": 2}, 8),
        ][number % 3]
    ]
]


def build(folder, tokenizer, case: Case):
    validation = {name: rows.select(range(8)) for name, rows in datasets().items()}
    arguments = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "logging_steps": 1,
        "target_scores": TARGETS,
        **case.arguments,
    }
    own = trainer(folder, tokenizer, validation=validation, **arguments)
    # Chance that a checkpoint must remember.
    for module in own.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    drawn = []
    collate = own.data_collator.__call__

    def watched(features):
        drawn.append([entry["feature"]["sequences"] for feature in features for entry in feature["entries"]])
        return collate(features)

    if not case.arguments.get("dataloader_num_workers"):
        own.data_collator = watched
    return own, drawn


def digest(own, folder) -> dict[str, str]:
    """Hashes of all that training changes."""

    def of(values) -> str:
        found = hashlib.sha256()
        for tensor in values:
            found.update(tensor.detach().contiguous().numpy().tobytes())
        return found.hexdigest()

    state = own.optimizer.state_dict()["state"]
    moments = [value for _, own_state in sorted(state.items()) for _, value in sorted(own_state.items())]
    return {
        "weights": of(own.model.state_dict().values()),
        "optimizer": of(torch.as_tensor(value) for value in moments),
        "run": json.dumps(own.run_state()),
    }


# Of cases that differ in one number, one a kind runs by default.
ALIKE = (
    *("temperature", "uniform", "power", "capped", "explicit", "annealed", "dev_gap", "round_robin"),
    *("third_pass", "as_drawn", "k_tasks", "famo"),
)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id, marks=[pytest.mark.slow] * (case.id in ALIKE)) for case in CASES]
)
def test_a_stopped_run_ends_like_one_that_was_not(case, tmp_path, tokenizer):
    check(case, tmp_path, tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*PAIRS, *STATES], ids=lambda case: case.id)
def test_settings_resume_together(case, tmp_path, tokenizer):
    check(case, tmp_path, tokenizer)


def check(case: Case, folder, tokenizer) -> None:
    if "gradient_balancing" in case.arguments:
        pytest.importorskip("torchjd", reason="the optional package `torchjd` is not installed")
    # The checkpoint before the stop, and others further on.
    case = dataclasses.replace(case, arguments={"save_steps": case.stop - 1, **case.arguments})
    whole, all_batches = build(folder / "whole", tokenizer, case)
    whole.train()
    stopped, _ = build(folder / "stopped", tokenizer, case)
    stopped.add_callback(StopAfter(case.stop))
    stopped.train()
    # What the killed step had not saved is lost: the run goes on from the step before.
    assert last_whole_checkpoint(folder / "stopped")[0].endswith(f"checkpoint-{case.stop - 1}")
    again, batches = build(folder / "stopped", tokenizer, case)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == STEPS
    assert digest(again, folder) == digest(whole, folder)
    per_step = case.arguments.get("gradient_accumulation_steps", 1)
    # The first batch a trainer looks at is not trained on; evaluation collates too, and is the same in both.
    if batches:
        trained = (STEPS - case.stop + 1) * per_step
        assert batches[-trained:] == all_batches[-trained:]
    logs = [
        [{key: value for key, value in entry.items() if key.startswith(("loss", "grad"))} for entry in history]
        for history in (whole.state.log_history[-8:], again.state.log_history[-8:])
    ]
    assert logs[0][:-1] == logs[1][:-1]


def damage_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def remove_optimizer(folder):
    (folder / "optimizer.pt").unlink()


def remove_list(folder):
    (folder / _FILES_LIST).unlink()


@pytest.mark.parametrize("damage", [damage_weights, remove_optimizer, remove_list], ids=lambda damage: damage.__name__)
def test_a_broken_checkpoint_is_named_and_skipped(damage, tmp_path, tokenizer, capsys):
    own, _ = build(tmp_path, tokenizer, Case("", {"max_steps": 3}))
    own.train()
    damage(tmp_path / "checkpoint-3")
    (tmp_path / _WRITING / "checkpoint-4").mkdir(parents=True)
    found, broken = last_whole_checkpoint(tmp_path)
    assert found == str(tmp_path / "checkpoint-2")
    assert len(broken) == 1
    assert "checkpoint-3" in broken[0]
    again, _ = build(tmp_path, tokenizer, Case("", {"max_steps": 4}))
    again.train(resume_from_checkpoint=True)
    assert "checkpoint-3" in capsys.readouterr().out
    assert last_whole_checkpoint(tmp_path) == (str(tmp_path / "checkpoint-4"), [])
    assert not (tmp_path / _WRITING).exists()


def test_nothing_to_resume_from_is_an_error(tmp_path, tokenizer):
    own, _ = build(tmp_path, tokenizer, Case(""))
    with pytest.raises(InputError, match="no whole checkpoint"):
        own.train(resume_from_checkpoint=True)


def test_old_and_best_checkpoints_are_kept_as_asked(tmp_path, tokenizer):
    """Rotation and the best checkpoint's path work as in Transformers, though checkpoints are written aside."""
    arguments = {"max_steps": 6, "save_total_limit": 2, "eval_steps": 1, "load_best_model_at_end": True}
    own, _ = build(tmp_path, tokenizer, Case("", arguments))
    own.train()
    left = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    best = f"checkpoint-{own.state.best_global_step}"
    assert own.state.best_model_checkpoint == str(tmp_path / best)
    assert left == sorted({"checkpoint-6", best} | ({"checkpoint-5"} if best == "checkpoint-6" else set()))
    for name in left:
        saved = json.loads((tmp_path / name / "trainer_state.json").read_text("utf-8"))
        assert _WRITING not in json.dumps(saved)
    shutil.rmtree(tmp_path / best)


def short(folder, tokenizer, rows=None, **arguments):
    """Four steps of four rows, a checkpoint after every second."""
    given = {"max_steps": 4, "per_device_train_batch_size": 4, "save_steps": 2, "logging_steps": 1, **arguments}
    return trainer(folder, tokenizer, rows=rows, save_strategy="steps", learning_rate=1e-3, **given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    """A finished run, and what it returned."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, short(folder, tokenizer).train()


def test_a_finished_run_returns_what_it_returned(finished, tmp_path, tokenizer):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    assert short(folder, tokenizer).train(resume_from_checkpoint=True) == finished[1]
    assert finished[1].metrics["train_loss"] == finished[1].training_loss > 0
    # Killed after its last checkpoint: the mean of the losses that were logged.
    (folder / "checkpoint-4" / _OUTPUT_FILE).unlink()
    found = short(folder, tokenizer).train(resume_from_checkpoint=True)
    assert found.global_step == 4
    assert found.training_loss == pytest.approx(finished[1].training_loss, rel=1e-5)


def others(change):
    return {**datasets(), "mood": change(datasets()["mood"])}


@pytest.mark.parametrize(
    ("arguments", "rows", "message"),
    [
        ({"loss_weighting": "dwa"}, None, "loss_weighting = 'fixed', this one has 'dwa'"),
        ({"gradient_balancing": "pcgrad"}, None, "gradient_balancing = None, this one has 'pcgrad'"),
        ({"mixing_strategy": "uniform"}, None, "mixing_strategy = 'proportional', this one has 'uniform'"),
        ({"seed": 1}, None, "seed = 42, this one has 1"),
        ({"learning_rate": 2e-3}, None, "learning_rate = 0.001, this one has 0.002"),
        ({"per_device_train_batch_size": 8}, None, "= 4, this one has 8"),
        ({}, others(lambda rows: rows.select(range(20))), r"Task 'mood'.*24 then, 20 now"),
        ({}, others(lambda rows: rows.select(range(23, -1, -1))), r"Task 'mood'.*24, as many as then"),
        ({}, others(lambda rows: rows.map(lambda row: {"text": row["text"] + "!"})), "Task 'mood'"),
    ],
)
def test_another_run_is_refused_by_name(arguments, rows, message, finished, tokenizer):
    if "gradient_balancing" in arguments:
        pytest.importorskip("torchjd", reason="the optional package `torchjd` is not installed")
    given = {"max_steps": 6, "learning_rate": 1e-3, **arguments}
    rate = given.pop("learning_rate")
    own = short(finished[0], tokenizer, rows, **given)
    own.args.learning_rate = rate
    with pytest.raises(InputError, match=message):
        own.train(resume_from_checkpoint=True)


def test_what_does_not_make_a_run_may_change(finished, tmp_path, tokenizer):
    """Longer, split otherwise, saved and logged at other steps: the rates are those of the longer schedule."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    changes = {"max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    again = short(folder, tokenizer, save_steps=3, logging_steps=2, **changes)
    again.train(resume_from_checkpoint=True)
    whole = short(tmp_path / "whole", tokenizer, max_steps=8, logging_steps=1)
    whole.train()
    rates = {entry["step"]: entry["learning_rate"] for entry in whole.state.log_history if "learning_rate" in entry}
    logged = {entry["step"]: entry["learning_rate"] for entry in again.state.log_history[4:] if "loss" in entry}
    assert logged == {step: pytest.approx(rates[step]) for step in (6, 8)}
    saved = {path.name for path in folder.glob("checkpoint-*")}
    assert saved == {"checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-8"}
    assert again.sampler.drawn(8).tolist() == whole.sampler.drawn(8).tolist()


@pytest.mark.slow
def test_a_longer_run_does_not_draw_again_what_was_drawn(tmp_path, tokenizer):
    short(tmp_path, tokenizer, mixing_strategy="annealed").train()
    with pytest.raises(InputError, match="4 steps, this one has 6"):
        short(tmp_path, tokenizer, mixing_strategy="annealed", max_steps=6).train(resume_from_checkpoint=True)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, tokenizer):
    with pytest.raises(InputError, match="holds no trainer_state.json"):
        short(tmp_path, tokenizer).train(resume_from_checkpoint=str(tmp_path))


@pytest.mark.parametrize(
    ("before", "now", "longer"),
    [
        ({"num_train_epochs": 2}, "3", True),
        ({}, "4", True),  # The default is 3.
        ({"num_train_epochs": 3}, "2", False),
        ({"num_train_epochs": 2, "max_steps": 5}, "3", False),
    ],
)
def test_the_program_goes_on_to_be_longer(before, now, longer):
    recipe = read_recipe("recipes/support_desk/train.yaml", ["--num_train_epochs", now])
    assert is_longer(before, recipe) is longer
