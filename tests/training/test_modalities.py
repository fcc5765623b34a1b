"""Mixtures of texts, images, sounds and rows of tables, from data sets to answers, in Python."""

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoFeatureExtractor, AutoImageProcessor

from hf_mtl import (
    InputError,
    MultiTaskAttentionModel,
    MultiTaskProcessor,
    MultiTaskTrainer,
    MultiTaskTrainingArguments,
)
from hf_mtl.data.canonical import canonical_task
from hf_mtl.data.mixture import mixture_from_datasets
from hf_mtl.data.table_columns import with_measured_columns
from hf_mtl.tables import dropped_lines
from hf_mtl.tasks import TaskSpec
from tests.modality_data import RESNET, TABLE_TASK, TEXT, WHISPER, images, png, sounds, table, texts, wav

ENCODERS = {"text": TEXT, "image": RESNET, "audio": WHISPER, "table": {"hidden_size": 16, "num_hidden_layers": 1}}


def arguments(folder, **values):
    return MultiTaskTrainingArguments(
        output_dir=str(folder),
        **{
            "max_steps": 12,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 6,
            **values,
        },
    )


def trainer_of_all(folder, **values):
    train = {"mood": texts(), "side": images(), "pitch": sounds(), "old": table()}
    return MultiTaskTrainer(
        ENCODERS, arguments(folder, **values), train_dataset=train, eval_dataset=train, tasks=[TABLE_TASK]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    trainer = trainer_of_all(folder)
    trainer.train()
    trainer.save_model(str(folder))
    return trainer, folder


def rows():
    rng = np.random.default_rng(9)
    return [
        {"text": "this was good"},
        {"image": png(1, rng)},
        {"audio": wav(0, rng)},
        {"age": 70, "kind": "a"},
        {"table": {"age": None, "kind": "q"}},
        {"text": "this was bad", "image": png(0, rng)},
    ]


def test_tasks_are_read_off_features_of_images_and_sounds(trained):
    trainer, _ = trained
    assert {name: spec.input_fields for name, spec in trainer.specs.items()} == {
        "mood": ("text",),
        "side": ("image",),
        "pitch": ("audio",),
        "old": ("table",),
    }
    metrics = trainer.evaluate()
    assert {f"eval_{name}_accuracy" for name in trainer.specs} <= metrics.keys()


def test_a_saved_model_answers_as_before(trained):
    trainer, folder = trained
    answers = trainer.model.eval().predict(rows(), tokenizer=trainer.processing_class)
    assert [set(answer) for answer in answers] == [{"mood"}, {"side"}, {"pitch"}, {"old"}, {"old"}, {"mood", "side"}]
    assert MultiTaskAttentionModel.from_pretrained(folder).predict(rows()) == answers


def test_an_answer_does_not_depend_on_what_else_is_asked(trained):
    model, given = trained[0].model.eval(), rows()
    together = model.predict(given, tokenizer=trained[0].processing_class)
    for row, answers in zip(given, together):
        for task, answer in answers.items():
            single = model.predict(row, tasks=task, tokenizer=trained[0].processing_class)[0][task]
            assert single["label"] == answer["label"] and abs(single["score"] - answer["score"]) < 1e-5


def test_the_processor_of_a_checkpoint_reads_all_and_lies_where_transformers_looks(trained):
    trainer, folder = trained
    processor, model = MultiTaskProcessor.from_pretrained(folder), MultiTaskAttentionModel.from_pretrained(folder)
    batch = processor(rows())
    answers = processor.post_process(model(**batch), batch)
    assert [set(answer) for answer in answers] == [set(answer) for answer in model.predict(rows())]
    assert AutoImageProcessor.from_pretrained(folder).image_mean in ([0.5], (0.5,))
    assert AutoFeatureExtractor.from_pretrained(folder).sampling_rate == 2000


def test_a_run_that_goes_on_ends_as_one_without_a_break(tmp_path):
    whole = trainer_of_all(tmp_path / "whole", save_strategy="steps", save_steps=6)
    whole.train()
    broken = trainer_of_all(tmp_path / "broken")
    broken.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-6"))
    state = broken.model.state_dict()
    assert all(value.equal(state[name]) for name, value in whole.model.state_dict().items())


def test_one_modality_alone_needs_no_texts(tmp_path):
    trainer = MultiTaskTrainer(
        {"image": RESNET}, arguments(tmp_path, max_steps=30), train_dataset={"side": images(80)}
    )
    trainer.train()
    trainer.save_model(str(tmp_path))
    model = MultiTaskAttentionModel.from_pretrained(tmp_path)
    rng = np.random.default_rng(4)
    sides = rng.integers(0, 2, 20).tolist()
    answers = model.predict([{"image": png(side, rng)} for side in sides])
    right = sum(answer["side"]["label"] == ["left", "right"][side] for side, answer in zip(sides, answers))
    assert right >= 18


def test_several_heads_read_one_image_once(tmp_path):
    data = images().add_column("bright", [1.5, 0.5] * 20)
    tasks = [
        TaskSpec(name="side", source="s", problem_type="single_label_classification", columns={"image": "image"}),
        TaskSpec(name="bright", source="s", problem_type="regression", columns={"image": "image", "label": "bright"}),
    ]
    trainer = MultiTaskTrainer({"image": RESNET}, arguments(tmp_path), train_dataset={"s": data}, tasks=tasks)
    assert len(trainer.train_dataset) == 40 and len(trainer.train_dataset[0]["entries"]) == 2
    trainer.train()


def test_columns_are_measured_in_training_rows():
    spec = TaskSpec(**TABLE_TASK)
    _, splits = canonical_task(spec, {"train": table(200)}, local=False)
    columns = with_measured_columns({"table": {}}, [spec], {"old": splits["train"]})["table"]["columns"]
    ages = np.array([age for age in table(200)["age"] if age is not None])
    assert columns[0]["name"] == "age" and columns[0]["has_empty"]
    assert columns[0]["mean"] == pytest.approx(ages.mean()) and columns[0]["scale"] == pytest.approx(ages.std())
    assert columns[1] == {"name": "kind", "kind": "category", "values": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("code", ["1", "2"] * 20, "amounts or codes"),
        ("code", [f"x{place}" for place in range(40)], "another text in every row"),
        ("code", [None] * 40, "is empty in all 40"),
    ],
)
def test_a_column_that_says_too_little_is_asked_about(column, values, message, tmp_path):
    data = Dataset.from_dict({column: values, "label": ["a", "b"] * 20})
    task = TaskSpec(
        name="t", problem_type="single_label_classification", columns={"table": [column], "label": "label"}
    )
    with pytest.raises(InputError, match=message):
        MultiTaskTrainer({"table": {}}, arguments(tmp_path), train_dataset={"t": data}, tasks=[task])


def test_rows_that_cannot_be_read_are_named(trained):
    model, tokenizer = trained[0].model, trained[0].processing_class
    for row, message in (
        ({"image": b"no image"}, "row 0: the image is .*no image that Pillow can read"),
        ({"image": "nowhere.png"}, "'nowhere.png'; No such file"),
        ({"image": np.zeros((3, 3), dtype="float32")}, "of uint8, found float32"),
        ({"audio": b"no sound"}, "no wav file"),
        ({"audio": {"array": [0.0] * 50, "sampling_rate": 44100}}, "44,100 samples per second"),
        ({"table": {"age": 3}}, "it lacks 'kind'; write None"),
        ({"table": {"age": "old", "kind": "a"}}, "'age' is 'old'; expected a number"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(row, tokenizer=tokenizer)


def test_a_task_whose_modality_has_no_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match="'side' reads image"):
        MultiTaskTrainer(TEXT, arguments(tmp_path), train_dataset={"side": images()})


@pytest.mark.parametrize(
    ("name", "problem_type"), [("fine_label", "single_label_classification"), ("b", "regression")]
)
def test_the_only_column_beside_an_image_is_its_label(tmp_path, name, problem_type):
    data = images().rename_columns({"image": "img", "label": "fine_label"})
    data = data if name == "fine_label" else data.remove_columns("fine_label").add_column("b", [0.5, 1.5] * 20)
    spec = MultiTaskTrainer({"image": RESNET}, arguments(tmp_path), train_dataset={"x": data}).specs["x"]
    assert spec.problem_type == problem_type and spec.columns == {"image": "img", "label": name}


def test_several_columns_beside_an_image_are_asked_about(tmp_path):
    data = images().rename_columns({"image": "img", "label": "fine"}).add_column("coarse", [0, 1] * 20)
    with pytest.raises(InputError, match="columns={'image': 'img', 'label': ...}"):
        MultiTaskTrainer({"image": RESNET}, arguments(tmp_path), train_dataset={"x": data})


def test_rows_of_a_table_that_repeat_are_no_leaks():
    data, task = {"old": table(40)}, TaskSpec(**TABLE_TASK)
    kept = mixture_from_datasets(data, data, [task], exclude_overlap=None)
    assert len(kept.train["old"]) == 40 and kept.dropped == {} and dropped_lines(kept) == []
    with pytest.raises(InputError, match="None would be left"):
        mixture_from_datasets(data, data, [task], exclude_overlap=True)
