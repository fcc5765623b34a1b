"""A run goes on with the tasks, labels and settings that it began with; what changes no step may change."""

import json
import shutil

import pytest
from datasets import Dataset

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.training.checkpoints import _FILES_LIST, _RUN_STATE_FILE, list_files
from hf_mtl.training.run_identity import _TASK_KEYS, check_run, run_arguments, run_settings, run_tasks
from tests.conftest import build_model

ROWS = Dataset.from_dict({"text": [f"row {index} of it" for index in range(8)], "label": [0, 1] * 4})
MOOD = {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]}
TONE = {**MOOD, "name": "tone"}
HASHES = {"mood": ["a", 8], "tone": ["b", 8]}


def state(tasks=(MOOD, TONE), model=None, rows=None, total_steps=4, **arguments):
    """What a checkpoint keeps of a run, through a file."""
    args = MultiTaskTrainingArguments(output_dir="unused", use_cpu=True, report_to="none", **arguments)
    config = build_model([MOOD], **(model or {})).config
    run = {
        "arguments": run_arguments(args),
        "tasks": run_tasks([TaskSpec(**task) for task in tasks]),
        "settings": run_settings(config),
        "rows": HASHES if rows is None else rows,
        "total_steps": total_steps,
    }
    return json.loads(json.dumps(run))


@pytest.mark.parametrize(
    ("change", "before", "now"),
    [
        ({"labels": ["off", "on"]}, ["no", "yes"], ["off", "on"]),
        ({"labels": ["yes", "no"]}, ["no", "yes"], ["yes", "no"]),
        ({"max_length": 64}, 128, 64),
        ({"stride": 8}, 64, 8),
        ({"fields": ["text", "text_pair"]}, ["text"], ["text", "text_pair"]),
        ({"reads": ["mood"]}, None, ["mood"]),
        ({"weight": 2.0}, 1.0, 2.0),
        ({"share": 3.0}, 1.0, 3.0),
        ({"learning_rate": 1e-3}, None, 1e-3),
        ({"balance_classes": True}, False, True),
        ({"class_weights": [1.0, 2.0]}, None, [1.0, 2.0]),
        ({"source": "mood"}, "tone", "mood"),
    ],
)
def test_a_task_that_trains_otherwise_is_refused_by_key_and_values(change, before, now):
    with pytest.raises(InputError) as error:
        check_run(state(), state([MOOD, {**TONE, **change}]), "folder")
    assert f"{next(iter(change))} = {before!r} of task 'tone', this one has {now!r}" in str(error.value)


def test_what_answers_and_scores_may_change():
    changes = {"threshold": 0.3, "metrics": ["f1"], "num_best": 5, "patience": 2, "max_answer_length": 9}
    assert not set(changes) & set(_TASK_KEYS)
    # A source that is a task's own name is the one it has without.
    check_run(state(), state([MOOD, {**TONE, **changes, "source": "tone"}]), "folder")


@pytest.mark.parametrize(
    "tasks", [[MOOD], [TONE, MOOD], [MOOD, {**TONE, "name": "taste"}], [MOOD, TONE, {**TONE, "name": "b"}]]
)
@pytest.mark.parametrize("older", [False, True])
def test_other_tasks_are_refused_with_both_lists(tasks, older):
    names = [task["name"] for task in tasks]
    then, now = state(), state(tasks, rows={name: ["a", 8] for name in names})
    if older:
        del then["tasks"], then["settings"]
    with pytest.raises(InputError, match=f"the tasks mood, tone, this one has {', '.join(names)};"):
        check_run(then, now, "folder")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("warmup_steps", 2),
        ("adam_beta1", 0.8),
        ("adam_beta2", 0.9),
        ("adam_epsilon", 1e-6),
        ("max_grad_norm", 0.5),
        ("weight_decay", 0.1),
        ("optim_args", "a=1"),
        ("lr_scheduler_kwargs", {"num_cycles": 2}),
        ("neftune_noise_alpha", 5.0),
        ("loss_reduction", "tasks"),
        ("balanced_parameters", "last"),
    ],
)
def test_other_steps_are_refused_by_name(name, value):
    before, given = state(), {name: value}
    now = state(**given)
    with pytest.raises(InputError) as error:
        check_run(before, now, "folder")
    assert f"{name} = {before['arguments'][name]!r}, this one has {now['arguments'][name]!r}" in str(error.value)
    # A checkpoint that does not keep it says nothing against it.
    del before["arguments"][name]
    check_run(before, now, "folder")


def test_a_run_of_another_length_may_have_other_steps_of_its_schedule():
    schedule = [
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": steps}}
        for steps in (2, 4)
    ]
    then, now, longer = state(**schedule[0]), state(**schedule[1]), state(total_steps=8, **schedule[1])
    check_run(then, longer, "folder")
    with pytest.raises(InputError, match="lr_scheduler_kwargs"):
        check_run(then, now, "folder")


def test_other_parts_and_streams_are_refused():
    with pytest.raises(InputError, match="self_attention_prior = 0.9, this one has 0.5"):
        check_run(state(), state(model={"self_attention_prior": 0.5}), "folder")
    with pytest.raises(InputError, match="'mood'.*were in memory.*now they are a stream"):
        check_run(state(), state(rows={}), "folder")


def trainer(folder, tokenizer, tasks=("mood", "tone"), labels=("no", "yes"), **arguments):
    rows = [{**MOOD, "name": name, "labels": list(labels)} for name in tasks]
    args = MultiTaskTrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="steps",
        **{"save_steps": 1, "max_steps": 2, **arguments},
    )  # fmt: skip
    model = build_model(rows, vocab_size=tokenizer.vocab_size)
    data = {name: ROWS.select(range(8 - number)) for number, name in enumerate(tasks)}
    return MultiTaskTrainer(
        model, args, train_dataset=data, tasks=[TaskSpec(**row) for row in rows], processing_class=tokenizer
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("finished")
    trainer(folder, tokenizer).train()
    return folder


@pytest.mark.parametrize("max_steps", [2, 3])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("mood", "taste")}, "the tasks mood, tone, this one has mood, taste"),
        ({"labels": ("off", "on")}, r"labels = \['no', 'yes'\] of task 'mood', this one has \['off', 'on'\]"),
    ],
)
def test_another_run_is_refused_whether_over_or_not(changes, message, max_steps, finished, tokenizer):
    with pytest.raises(InputError, match=message):
        trainer(finished, tokenizer, max_steps=max_steps, **changes).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_an_older_version_goes_on(finished, tmp_path, tokenizer):
    folder = shutil.copytree(finished, tmp_path / "run")
    path = folder / "checkpoint-2" / _RUN_STATE_FILE
    kept = json.loads(path.read_text("utf-8"))
    del kept["run"]["tasks"], kept["run"]["settings"], kept["run"]["arguments"]["warmup_steps"]
    path.write_text(json.dumps(kept), "utf-8")
    (path.parent / _FILES_LIST).unlink()
    list_files(path.parent)
    again = trainer(folder, tokenizer, max_steps=3, warmup_steps=1)
    assert again.train(resume_from_checkpoint=True).global_step == 3


def test_no_steps_are_steps_by_epochs(tmp_path, tokenizer):
    """15 rows in batches of 8 are two steps an epoch."""
    own = trainer(tmp_path, tokenizer, max_steps=0, num_train_epochs=2, per_device_train_batch_size=8)
    assert own.train().global_step == own.total_steps() == 4
