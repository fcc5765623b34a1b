"""Data sets that are read as they come: exact shares, every row once a pass, resumed at any batch, divided."""

import json
from collections import Counter
from itertools import islice

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.data.batch_forms import StepShape
from hf_mtl.data.mixing import MIXING_STRATEGIES, MixingOptions
from hf_mtl.data.mixture import mixture_from_streams
from hf_mtl.data.streams import STREAM_STATE, WINDOW_STEPS, StreamedMixture
from hf_mtl.modeling.processing_multitask import MultiTaskProcessor
from tests.conftest import build_model

MOODS, STARS = 90, 40
TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
    {"name": "stars", "problem_type": "regression"},
]
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})


def streams(shards: int = 2) -> dict:
    """Rows that name themselves: a number in the text."""
    moods = {
        "text": [f"mood {index} " + "so " * (index % 9) for index in range(MOODS)],
        "label": [0, 1] * (MOODS // 2),
    }
    stars = {"text": [f"star {index}" for index in range(STARS)], "label": [float(index) for index in range(STARS)]}
    return {
        "mood": Dataset.from_dict(moods, features=FEATURES).to_iterable_dataset(num_shards=shards),
        "stars": Dataset.from_dict(stars).to_iterable_dataset(num_shards=shards),
    }


def stream(tokenizer, process=(0, 1), form="mixed", shards=2, **shares) -> StreamedMixture:
    mixture = mixture_from_streams(streams(shards), None)
    specs = {spec.name: spec for spec in mixture.specs}
    mixing = MIXING_STRATEGIES["explicit"](MixingOptions(shares=shares, tasks=("mood", "stars")))
    processor = MultiTaskProcessor(tokenizer, mixture.specs)
    return StreamedMixture(processor, specs, mixture.streams, mixing, StepShape(4, 2), form=form, process=process)


def batches(own, number, tokenizer) -> list[list[str]]:
    return [texts(batch, tokenizer) for batch in islice(own, number)]


def texts(batch, tokenizer) -> list[str]:
    """The first two words of each row: its task and its number."""
    return [
        " ".join(text.split()[:2]) for text in tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    ]


@pytest.mark.parametrize("form", ["mixed", "one_task"])
def test_rows_come_once_a_pass_in_their_shares(form, tokenizer):
    own = stream(tokenizer, form=form, mood=3.0, stars=1.0)
    window = 2 * WINDOW_STEPS
    for number in range(1, 4):
        found = Counter(sum(batches(own, number * window, tokenizer), []))
        for task, size, share in (("mood", MOODS, 0.75), ("star", STARS, 0.25)):
            counts = [found[f"{task} {index}"] for index in range(size)]
            assert max(counts) - min(counts) <= 1
            assert abs(sum(counts) - number * window * 4 * share) <= 4
    if form == "one_task":
        assert all(len({text.split()[0] for text in batch}) == 1 for batch in batches(own, window, tokenizer))
    assert own.drawn(number * WINDOW_STEPS).tolist() == [900, 300]


@pytest.mark.parametrize("stop", [0, 1, 37, 99, 100, 101, 260])
def test_any_batch_is_where_a_stream_can_go_on(stop, tokenizer):
    """Steps of two batches: after the second of step k, the first of step k + 1."""
    stop -= stop % 2
    own = stream(tokenizer, mood=3.0, stars=1.0)
    found = list(islice(own, stop + 20))
    again = stream(tokenizer, mood=3.0, stars=1.0)
    state = found[stop + 1][STREAM_STATE]
    again.load_state(json.loads(json.dumps(state)))
    expected = [texts(batch, tokenizer) for batch in found[stop + 2 :]]
    assert batches(again, len(expected), tokenizer) == expected


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_processes_read_their_own_parts(shards, tokenizer):
    """Between them, every row of a pass; neither reads the other's; both draw the same tasks."""
    parts = [stream(tokenizer, (rank, 2), shards=shards) for rank in (0, 1)]
    for name, size in (("mood", MOODS), ("stars", STARS)):
        for epoch in range(3):
            for part in parts:
                part.streams[name].set_epoch(epoch)
            read = [[row["text"] for row in part.streams[name]] for part in parts]
            assert len(read[0]) + len(read[1]) == len({*read[0], *read[1]}) == size
    drawn = [sum(batches(part, WINDOW_STEPS * 2, tokenizer), []) for part in parts]
    first, second = (Counter(text.split()[0] for text in texts) for texts in drawn)
    assert first == second


def test_a_trainer_trains_on_streams_and_resumes(tmp_path, tokenizer):
    def build(steps):
        arguments = MultiTaskTrainingArguments(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            disable_tqdm=True,
            max_steps=steps,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            mixing_strategy="uniform",
            save_strategy="steps",
            save_steps=4,
            lr_scheduler_type="constant",
        )
        model = build_model(TASKS, vocab_size=tokenizer.vocab_size)
        # Chance that a checkpoint must remember.
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        return MultiTaskTrainer(model, arguments, train_dataset=streams(), processing_class=tokenizer)

    whole = build(10)
    whole.train()
    again = build(10)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert again.state.global_step == 10
    for name, tensor in whole.model.state_dict().items():
        assert tensor.equal(again.model.state_dict()[name]), name
    assert [share.draws for share in whole.preview_mixture()] == [40, 40]


def test_what_streams_cannot_do_is_said(tmp_path, tokenizer):
    rows = streams()

    def stream_trainer(folder, tokenizer, rows, **settings):
        arguments = MultiTaskTrainingArguments(output_dir=str(folder), use_cpu=True, **settings)
        model = build_model(TASKS, vocab_size=tokenizer.vocab_size)
        return MultiTaskTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)

    with pytest.raises(InputError, match="max_steps"):
        stream_trainer(tmp_path, tokenizer, rows, mixing_strategy="uniform")
    with pytest.raises(InputError, match="uniform, explicit, round_robin"):
        stream_trainer(tmp_path, tokenizer, rows, max_steps=3)
    with pytest.raises(InputError, match="to_iterable_dataset"):
        mixture_from_streams({**rows, "stars": Dataset.from_dict({"text": ["a"], "label": [1.0]})}, None)
    unnamed = Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]}).to_iterable_dataset()
    spec = TaskSpec(name="mood", problem_type="single_label_classification")
    with pytest.raises(InputError, match="labels"):
        mixture_from_streams({"mood": unnamed}, None, [spec])
    answers = Dataset.from_dict(
        {"question": ["q"], "context": ["c"], "answers": [{"text": ["c"], "answer_start": [0]}]}
    ).to_iterable_dataset()
    found = mixture_from_streams({"span": answers}, None)
    processor = MultiTaskProcessor(tokenizer, found.specs)
    mixing = MIXING_STRATEGIES["uniform"](MixingOptions())
    with pytest.raises(InputError, match="windows"):
        StreamedMixture(processor, {"span": found.specs[0]}, found.streams, mixing, StepShape(4))


def test_a_window_may_lack_a_tasks_labels(tokenizer):
    """Two label columns, one of them empty from some row on."""
    rows = {
        "text": [f"row {index}" for index in range(900)],
        "mood": [index % 2 for index in range(900)],
        "stars": [float(index) if index < 50 else None for index in range(900)],
    }
    features = Features({"text": Value("string"), "mood": ClassLabel(names=["no", "yes"]), "stars": Value("float64")})
    specs = [
        TaskSpec(name="mood", problem_type="single_label_classification", columns={"label": "mood"}),
        TaskSpec(name="stars", source="mood", problem_type="regression", columns={"label": "stars"}),
    ]
    given = {"mood": Dataset.from_dict(rows, features=features).to_iterable_dataset()}
    mixture = mixture_from_streams(given, None, specs)
    mixing = MIXING_STRATEGIES["uniform"](MixingOptions(tasks=("mood",)))
    own = StreamedMixture(
        MultiTaskProcessor(tokenizer, mixture.specs),
        {spec.name: spec for spec in mixture.specs},
        mixture.streams,
        mixing,
        StepShape(8),
    )
    found = list(islice(own, 2 * WINDOW_STEPS))
    numbered = ["regression" in batch["routing"] for batch in found]
    assert any(numbered[:WINDOW_STEPS])
    assert not any(numbered[WINDOW_STEPS:])
    assert own.drawn(10).tolist() == [80]


def test_labels_must_be_named_for_the_column_they_are_of(tokenizer):
    features = Features({"text": Value("string"), "mood": ClassLabel(names=["no", "yes"]), "topic": Value("string")})
    rows = Dataset.from_dict({"text": ["a", "b"], "mood": [0, 1], "topic": ["x", "y"]}, features=features)
    spec = TaskSpec(name="topic", problem_type="single_label_classification", columns={"label": "topic"})
    with pytest.raises(InputError, match="does not tell all its labels"):
        mixture_from_streams({"topic": rows.to_iterable_dataset()}, None, [spec])
    mapped = rows.to_iterable_dataset().map(lambda row: row)
    with pytest.raises(InputError, match="does not say its features"):
        mixture_from_streams({"topic": mapped}, None)


def test_a_function_needs_sizes(tmp_path, tokenizer):
    arguments = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_steps=2)
    model = build_model(TASKS, vocab_size=tokenizer.vocab_size)
    with pytest.raises(InputError, match="sizes"):
        MultiTaskTrainer(
            model,
            arguments,
            train_dataset=streams(),
            processing_class=tokenizer,
            mixing=lambda sizes, progress: [1, 1],
        )


def test_a_stream_goes_on_on_as_many_processes(tmp_path, tokenizer):
    arguments = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, max_steps=2, save_steps=1, mixing_strategy="uniform"
    )
    model = build_model(TASKS, vocab_size=tokenizer.vocab_size)
    MultiTaskTrainer(model, arguments, train_dataset=streams(), processing_class=tokenizer).train()
    folder = tmp_path / "checkpoint-1"
    (folder / "process_state_1.json").write_text((folder / "process_state_0.json").read_text())
    again = MultiTaskTrainer(model, arguments, train_dataset=streams(), processing_class=tokenizer)
    with pytest.raises(InputError, match="written by 2 processes"):
        again.train(resume_from_checkpoint=str(folder))
