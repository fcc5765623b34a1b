"""One thing set in two places: equal values are served, others refused with both, and nothing given is written to."""

import copy
import dataclasses

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl import (
    InputError,
    MultiTaskAttentionModel,
    MultiTaskTrainer,
    MultiTaskTrainingArguments,
    TaskConfig,
    TaskSpec,
)
from hf_mtl.data.mixture import load_mixture, mixture_from_datasets
from hf_mtl.tasks import as_spec
from tests.conftest import build_model

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
TEXTS = [f"row {index} of it" for index in range(12)]
CLASSES = {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]}
NUMBERS = {"name": "stars", "problem_type": "regression"}


def moods(labels=None) -> Dataset:
    return Dataset.from_dict({"text": TEXTS, "label": labels or [0, 1] * 6}, features=FEATURES)


def stars(scale: float = 1.0) -> Dataset:
    return Dataset.from_dict({"text": TEXTS, "label": [scale * (100.0 + index) for index in range(12)]})


def build(tmp_path, tokenizer, model, rows, held=None, **options) -> MultiTaskTrainer:
    arguments = options.pop("arguments", {})
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", **arguments
    )
    return MultiTaskTrainer(model, args, train_dataset=rows, eval_dataset=held, processing_class=tokenizer, **options)


def model_of(tokenizer, *tasks, **settings) -> MultiTaskAttentionModel:
    return build_model(list(tasks), vocab_size=tokenizer.vocab_size, **settings)


@pytest.mark.parametrize(
    ("of_model", "of_row", "conflict"),
    [
        ({}, {"max_length": 64}, ("64", "128")),
        ({"max_length": 64}, {"max_length": 128}, ("128", "64")),  # The default, but meant.
        ({"max_length": 64}, {}, None),
        ({"max_length": 64}, {"max_length": 64}, None),
        ({}, {"threshold": 0.3}, ("0.3", "0.5")),
        ({}, {"reads": ["mood"]}, ("mood", "None")),
        ({"class_weights": [1.0, 2.0]}, {"class_weights": [1.0, 3.0]}, ("3.0", "2.0")),
        ({"class_weights": [1.0, 2.0]}, {"class_weights": [1.0, 2.0]}, None),
        ({}, {"labels": ["yes", "no"]}, ("its row says labels=['yes', 'no']", "the model has labels=['no', 'yes']")),
    ],
)
def test_a_row_must_say_what_the_model_holds(of_model, of_row, conflict, tmp_path, tokenizer):
    model = model_of(tokenizer, {**CLASSES, **of_model})
    row = TaskSpec(**{"name": "mood", "problem_type": "single_label_classification", **of_row})
    if conflict is None:
        own = build(tmp_path, tokenizer, model, {"mood": moods()}, tasks=[row])
        assert own.specs["mood"].setting("max_length") == of_model.get("max_length", 128)
        return
    with pytest.raises(InputError, match="mood") as error:
        build(tmp_path, tokenizer, model, {"mood": moods()}, tasks=[row])
    assert all(part in str(error.value) for part in conflict)


def test_inputs_that_the_model_would_not_read_are_named(tmp_path, tokenizer):
    pairs = {"text": TEXTS, "text_pair": TEXTS, "label": [0, 1] * 6}
    rows = {"mood": Dataset.from_dict(pairs, features=Features({**FEATURES, "text_pair": Value("string")}))}
    own = build(tmp_path, tokenizer, model_of(tokenizer, CLASSES), rows)
    assert own.model.config.task_configs[0].input_fields == ("text", "text_pair")
    with pytest.raises(InputError, match="reads text, the data have text, text_pair"):
        build(tmp_path, tokenizer, model_of(tokenizer, {**CLASSES, "fields": ["text"]}), rows)


def test_settings_beside_a_model(tmp_path, tokenizer):
    rows = {"mood": moods()}
    model = model_of(tokenizer, CLASSES, pooling="mean")
    build(tmp_path, tokenizer, model, rows, model_settings={"pooling": "mean"})
    with pytest.raises(InputError, match="pooling='first_token', the model has pooling='mean'"):
        build(tmp_path, tokenizer, model, rows, model_settings={"pooling": "first_token"})
    with pytest.raises(InputError, match="Did you mean 'pooling'"):
        build(tmp_path, tokenizer, model, rows, model_settings={"poling": "mean"})
    with pytest.raises(InputError, match=r"model_settings=\{'dtype': \.\.\.\}"):
        build(tmp_path, tokenizer, model, rows, model_settings={"dtype": "bfloat16"})
    # Of an encoder that is named they load it.
    with pytest.raises(InputError, match="There is no folder './nowhere'"):
        build(tmp_path, tokenizer, "./nowhere", rows, model_settings={"dtype": "bfloat16", "system": "mmoe"})


def test_rows_and_tasks_beside_a_mixture(tmp_path, tokenizer):
    mixture = mixture_from_datasets({"mood": moods()}, {"mood": moods()})
    before = copy.deepcopy(mixture.specs)
    build(tmp_path, tokenizer, model_of(tokenizer, CLASSES), mixture, {"mood": moods()})
    with pytest.raises(InputError, match="5 rows of task 'mood', the mixture has 12"):
        build(tmp_path, tokenizer, model_of(tokenizer, CLASSES), mixture, {"mood": moods().select(range(5))})
    row = TaskSpec(name="mood", problem_type="single_label_classification", weight=3.0)
    with pytest.raises(InputError, match=r"weight=3\.0, the mixture weight=1\.0"):
        build(tmp_path, tokenizer, model_of(tokenizer, CLASSES), mixture, tasks=[row])
    bare = mixture_from_datasets({"mood": moods()}, None)
    own = build(tmp_path, tokenizer, model_of(tokenizer, CLASSES), bare, moods().select(range(5)))
    assert len(own.mixture.validation["mood"]) == 5
    assert bare.validation == {}
    assert mixture.specs == before


def test_measured_values_reach_a_head_that_has_not_learned(tmp_path, tokenizer):
    """Of numbers from 100 to 111 the loss of a head at zero is 1, the variance of standardised labels."""
    model = model_of(tokenizer, NUMBERS, {**CLASSES})
    labels = [0] * 9 + [1] * 3
    row = TaskSpec(name="mood", problem_type="single_label_classification", balance_classes=True)
    rows = {"stars": stars(), "mood": moods(labels)}
    own = build(tmp_path, tokenizer, model, rows, {"stars": stars()}, tasks=[row], arguments={"max_steps": 3})
    assert model.config.tasks[0]["label_mean"] == pytest.approx(105.5)
    assert model.mtl.heads["regression"].standards.tolist() == [pytest.approx([105.5, 3.4520525])]
    assert model.config.tasks[1]["class_weights"] == pytest.approx([12 / 18, 12 / 6])
    assert model.mtl.heads["single_label_classification"].class_weights.tolist() == [pytest.approx([12 / 18, 2.0])]
    assert own.evaluate()["eval_stars_loss"] == pytest.approx(1.0, abs=0.3)
    # Not trained yet: the statistics of other rows take their place.
    build(tmp_path, tokenizer, model, {"stars": stars(10.0), "mood": moods(labels)}, tasks=[row])
    assert model.config.tasks[0]["label_mean"] == pytest.approx(1055.0)


def test_a_trained_head_keeps_its_own(tmp_path, tokenizer):
    own = build(
        tmp_path, tokenizer, model_of(tokenizer, NUMBERS, CLASSES), {"stars": stars(), "mood": moods()},
        arguments={"max_steps": 2, "learning_rate": 1e-3},
    )  # fmt: skip
    own.train()
    own.save_model(str(tmp_path / "saved"))
    model = MultiTaskAttentionModel.from_pretrained(tmp_path / "saved")
    again = build(tmp_path, tokenizer, model, {"stars": stars(1000.0), "mood": moods()})
    assert again.specs["stars"].label_mean == pytest.approx(105.5)
    assert again.model.mtl.heads["regression"].standards[0, 0].item() == pytest.approx(105.5)
    row = TaskSpec(name="mood", problem_type="single_label_classification", balance_classes=True)
    with pytest.raises(InputError, match="balance_classes=True.*class_weights=None"):
        build(tmp_path, tokenizer, model, {"stars": stars(), "mood": moods()}, tasks=[row])


def test_values_given_to_a_model_are_not_measured_away(tmp_path, tokenizer):
    model = model_of(tokenizer, {**NUMBERS, "label_mean": 3.0, "label_scale": 2.0})
    own = build(tmp_path, tokenizer, model, {"stars": stars()})
    assert (own.specs["stars"].label_mean, model.config.tasks[0]["label_scale"]) == (3.0, 2.0)


def test_nothing_given_is_written_to(tmp_path, tokenizer):
    """Two trainers with one list of rows: each measures its own data."""
    rows = [TaskSpec(**NUMBERS), TaskSpec(name="mood", problem_type="single_label_classification")]
    values, settings = copy.deepcopy(rows), {"pooling": "mean"}
    means = []
    for scale in (1.0, 1000.0):
        data = {"stars": stars(scale), "mood": moods()}
        model = model_of(tokenizer, NUMBERS, CLASSES, **settings)
        own = build(tmp_path, tokenizer, model, data, data, tasks=rows, model_settings=settings)
        means.append(own.specs["stars"].label_mean)
        assert set(data) == {"stars", "mood"}
        assert data["stars"].column_names == ["text", "label"]
    assert means == pytest.approx([105.5, 105500.0])
    assert rows == values
    assert settings == {"pooling": "mean"}
    task = TaskConfig(**CLASSES)
    assert as_spec(task).labels is not task.labels
    row = {"name": "mood", "problem_type": "single_label_classification", "columns": {"label": "label"}}
    assert as_spec(row).columns is not row["columns"]


def test_loading_fills_in_labels_and_nothing_else(tmp_path):
    moods().to_json(tmp_path / "mood.jsonl")
    stars().to_json(tmp_path / "stars.jsonl")
    rows = [
        TaskSpec(
            name="mood", problem_type="single_label_classification", balance_classes=True,
            data_files=dict.fromkeys(("train", "validation"), str(tmp_path / "mood.jsonl")),
        ),
        TaskSpec(**NUMBERS, data_files=dict.fromkeys(("train", "validation"), str(tmp_path / "stars.jsonl"))),
    ]  # fmt: skip
    expected = copy.deepcopy(rows)
    mixture = load_mixture(rows, exclude_overlap=False)
    # Whoever loads rows by a task asks it what their ids mean.
    assert (expected[0].labels, rows[0].labels) == (None, ["0", "1"])
    assert rows == [dataclasses.replace(expected[0], labels=["0", "1"], measured=("labels",)), expected[1]]
    assert mixture.specs[1].label_mean == pytest.approx(105.5)
    assert mixture.specs[0].class_weights == pytest.approx([1.0, 1.0])


def test_weights_and_balance_do_not_go_together(tmp_path):
    row = TaskSpec(
        name="mood", problem_type="single_label_classification", class_weights=[1.0, 5.0], balance_classes=True
    )
    with pytest.raises(InputError, match=r"class_weights=\[1.0, 5.0\] and balance_classes=True"):
        mixture_from_datasets({"mood": moods()}, None, [row])


@pytest.mark.parametrize(
    ("problem_type", "expected"), [("question_answering", 384), ("regression", 128), ("token_classification", 128)]
)
def test_a_problem_type_has_one_default_length(problem_type, expected):
    for kind in (TaskConfig, TaskSpec):
        assert kind(name="a", problem_type=problem_type).setting("max_length") == expected
        assert kind(name="a", problem_type=problem_type, max_length=99).setting("max_length") == 99
    saved = TaskConfig(name="a", problem_type=problem_type, max_length=128).to_dict()
    assert TaskConfig.from_dict(saved).max_length == 128


def test_what_is_no_model_is_refused(tmp_path, tokenizer):
    with pytest.raises(InputError, match="Linear; expected an encoder's name"):
        build(tmp_path, tokenizer, torch.nn.Linear(2, 2), {"mood": moods()})
