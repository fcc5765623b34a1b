"""`model.predict` as it is used: with rows as data sets have them, again and again, from several threads."""

import copy
import dataclasses
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import cpu_offload
from datasets import Dataset, DatasetDict

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskProcessor, TaskConfig
from hf_mtl.modeling.input_rows import _likely_field
from tests.conftest import assert_answers_close, build_model, randomise

TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "likeness", "problem_type": "regression", "fields": ["text", "text_pair"]},
    {"name": "names", "problem_type": "token_classification", "labels": ["O", "B-X"]},
    {"name": "pick", "problem_type": "multiple_choice"},
]


@pytest.fixture(scope="module")
def model(tokenizer):
    return randomise(build_model(TASKS, vocab_size=tokenizer.vocab_size, head_dropout=0.5))


@pytest.fixture
def checkpoint(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def loads(monkeypatch):
    """The sources of all tokenizers that models load."""
    sources = []
    load = MultiTaskAttentionModel.load_tokenizer

    def counting(self, *args, **kwargs):
        sources.append(self.encoder_source or self.name_or_path)
        return load(self, *args, **kwargs)

    monkeypatch.setattr(MultiTaskAttentionModel, "load_tokenizer", counting)
    return sources


def test_the_tokenizer_is_loaded_once(checkpoint, loads, tokenizer):
    model = MultiTaskAttentionModel.from_pretrained(checkpoint)
    expected = model.predict("a", tokenizer=tokenizer)
    assert loads == []
    assert [model.predict("a") for _ in range(3)] == [expected] * 3
    assert loads == [str(checkpoint)]


def test_a_given_tokenizer_is_used_for_its_call_alone(checkpoint, tokenizer):
    model = MultiTaskAttentionModel.from_pretrained(checkpoint)
    other = copy.deepcopy(tokenizer)
    other.model_max_length = 4
    expected = model.predict("a b c d")
    assert model.predict("a b c d", tokenizer=other)[0]["mood"]["truncated"]
    assert model.predict("a b c d") == expected


def test_another_source_has_another_tokenizer(checkpoint, loads):
    model = MultiTaskAttentionModel.from_pretrained(checkpoint)
    model.predict("a")
    model.encoder_source = f"{checkpoint}/"
    model.predict("a")
    model.hub_arguments = {**model.hub_arguments, "local_files_only": True}
    model.predict("a")
    assert loads == [str(checkpoint), f"{checkpoint}/", f"{checkpoint}/"]


def test_copies_and_checkpoints_hold_no_tokenizer(checkpoint, loads, tmp_path):
    model = MultiTaskAttentionModel.from_pretrained(checkpoint)
    before = set(vars(model))
    expected = model.predict("a")
    assert set(vars(model)) == before
    twin = copy.deepcopy(model)
    assert twin.predict("a") == expected
    assert len(loads) == 2
    model.save_pretrained(tmp_path / "again")
    assert not list((tmp_path / "again").glob("tokenizer*"))


def test_what_changes_in_the_model_is_read_at_once(checkpoint):
    model = MultiTaskAttentionModel.from_pretrained(checkpoint)
    model.predict("a b c d e")
    task = next(task for task in model.config.task_configs if task.name == "mood")
    model.take_task(dataclasses.replace(task, max_length=4))
    assert model.predict("a b c d e")[0]["mood"]["truncated"]


TABLE = {
    "idx": [4, 9],
    "label": [0, 1],
    "id": ["x1", "x2"],
    "text_id": ["x1", "x2"],
    "ner_tags": [[0], [1, 0]],
    "text": ["a", "b c"],
    "title": ["T", "U"],
    "answers": [{"text": []}, {"text": []}],
}
ROWS = [{name: values[place] for name, values in TABLE.items()} for place in range(2)]
PAIRS = pd.DataFrame({"text": ["a", "b c"], "text_pair": ["d", None], "score": [1.0, np.nan]})

SERVED = {
    "rows of a data set": (ROWS, ["a", "b c"]),
    "a data set": (Dataset.from_dict({**TABLE, "answers": ["", ""]}), ["a", "b c"]),
    "a slice of a data set": (Dataset.from_dict({"text": ["a", "b c"], "label": [0, 1]})[:2], ["a", "b c"]),
    "columns": (TABLE, ["a", "b c"]),
    "columns of arrays": ({"text": np.array(["a", "b c"]), "idx": np.arange(2)}, ["a", "b c"]),
    "columns without rows": ({"text": [], "label": []}, []),
    "columns of words": ({"tokens": [["a"], ["b", "c"]]}, [{"tokens": ["a"]}, {"tokens": ["b", "c"]}]),
    "a row of words": ({"tokens": ["b", "c"], "tags": ["O", "O"]}, [{"tokens": ["b", "c"]}]),
    "columns of choices": (
        {"text": ["a", "b"], "choices": [["c", "d"], ["e", "f"]]},
        [{"text": "a", "choices": ["c", "d"]}, {"text": "b", "choices": ["e", "f"]}],
    ),
    "a table": (pd.DataFrame({"text": ["a", "b c"], "label": [0, 1]}, index=[7, 3]), ["a", "b c"]),
    "an empty cell of a table": (PAIRS, [{"text": "a", "text_pair": "d"}, {"text": "b c"}]),
    "one row": (ROWS[0], ["a"]),
    "an empty text": (["a", ""], [{"text": "a"}, {"text": ""}]),
}


@pytest.mark.parametrize("name", SERVED)
def test_rows_are_served_and_other_columns_left_out(model, tokenizer, name):
    rows, plain = SERVED[name]
    assert model.predict(rows, tokenizer=tokenizer) == model.predict(plain, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ({"txt": "a"}, {}, "unknown input field 'txt'.*Did you mean 'text'"),
        ([{"Text": "a"}], {}, "Did you mean 'text'"),
        ({"text": "a", "text_pairs": "b"}, {}, "unknown input field 'text_pairs'.*Did you mean 'text_pair'"),
        ({"text": "a", "textpair": "b"}, {}, "Did you mean 'text_pair'.*Rename it, or leave it out"),
        ({"text": "a", "token": ["a", "b"]}, {}, "Did you mean 'tokens'"),
        ({"text": "a", "choice": np.array(["a", "b"])}, {}, "Did you mean 'choices'"),
        ({"sentence": "a", "label": 1}, {}, "Row 0: no field; no task can.*mood needs text.*columns sentence: rename"),
        ({"text": "a", "hypothesis": "b"}, {"tasks": "likeness"}, "no field 'text_pair'.*columns hypothesis: rename"),
        ({"text": ["a", "b"], "label": [1]}, {}, "columns of several lengths: text 2, label 1"),
        ({"text": ["a"], "text_pair": "b"}, {}, "columns of several lengths: text 1, text_pair one value"),
        (DatasetDict(train=Dataset.from_dict({"text": ["a"]})), {}, r"splits train; give one: rows\['train'\]"),
        ("a", {"tasks": []}, r"tasks=\[\] names no task"),
        ("a", {"tasks": "mod"}, "Unknown task 'mod'.*Did you mean 'mood'"),
        ("a", {"tasks": ("mood", "pik")}, "Did you mean 'pick'"),
        ("a", {"tasks": 5}, "tasks=5; expected names of tasks"),
    ],
)
def test_what_may_be_meant_otherwise_is_refused(model, tokenizer, rows, options, says):
    with pytest.raises(InputError, match=says):
        model.predict(rows, tokenizer=tokenizer, **options)


def test_a_field_that_no_task_of_the_call_reads_may_be_like_any(model, tokenizer):
    row = {"text": "a", "text_pairs": "b", "token": ["c"]}
    assert model.predict(row, "mood", tokenizer) == model.predict("a", "mood", tokenizer)


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("texts", "text"),
        ("text_a", "text"),
        ("contexts", "context"),
        ("Question", "question"),
        *((name, None) for name in ("id", "text_id", "label", "idx", "title", "tags", "answers", "question_type", "")),
    ],
)
def test_names_that_are_like_fields(column, field):
    assert _likely_field(column, ("text", "text_pair", "tokens", "question", "context", "choices")) == field


@pytest.mark.parametrize(
    "tasks", ["names", ["names"], ("names",), {"names"}, {"names": 1}.keys(), iter(["names"]), np.array(["names"])]
)
def test_tasks_in_any_collection(model, tokenizer, tasks):
    (answer,) = model.predict("a", tasks=tasks, tokenizer=tokenizer)
    assert list(answer) == ["names"]


def test_every_module_is_in_its_mode_again(tokenizer):
    model = randomise(build_model(TASKS, vocab_size=tokenizer.vocab_size, head_dropout=0.5))
    expected = model.eval().predict(["a", "b"], tokenizer=tokenizer)
    model.train()
    model.encoder.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    assert model.predict(["a", "b"], tokenizer=tokenizer) == expected
    assert {name: module.training for name, module in model.named_modules()} == modes
    model.encoder.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.predict("a", tokenizer=tokenizer)
    assert {name: module.training for name, module in model.named_modules()} == modes


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.05)])
def test_every_precision_answers(model, tokenizer, dtype, tolerance):
    rows = [{"text": "to Lima", "text_pair": "or not", "choices": ["x", "y"]}]
    other = copy.deepcopy(model).to(dtype)
    found, expected = (one.predict(rows, ["mood", "pick"], tokenizer) for one in (other, model))
    for task in ("mood", "pick"):
        assert found[0][task]["score"] == pytest.approx(expected[0][task]["score"], abs=tolerance)


def test_weights_that_are_fetched_when_they_are_read(model, tokenizer):
    expected = model.predict(["a", "b c"], ["mood", "names"], tokenizer)
    other = copy.deepcopy(model)
    cpu_offload(other.encoder, torch.device("cpu"))
    assert other.device.type == "meta"
    assert_answers_close(other.predict(["a", "b c"], ["mood", "names"], tokenizer), expected, 1e-5)


def test_one_thread_at_a_time_calls_a_tokenizer(model, tokenizer, monkeypatch):
    """A tokenizer is told of truncation and then called; in between another thread would tell it otherwise."""
    call, inside, counts = type(tokenizer).__call__, [], []

    def slow(self, *args, **kwargs):
        inside.append(None)
        counts.append(len(inside))
        time.sleep(0.005)
        inside.pop()
        return call(self, *args, **kwargs)

    processor = MultiTaskProcessor.for_model(model, tokenizer)
    monkeypatch.setattr(type(tokenizer), "__call__", slow)
    columns = {"text": ["word " * 80], "question": ["who?"], "context": ["Bob"]}
    span = TaskConfig(name="span", problem_type="question_answering", max_length=20)
    threads = [
        threading.Thread(target=processor.features, args=(task, columns))
        for task in (processor.tasks["mood"], processor.tasks["names"], span) * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 15 and max(counts) == 1


@pytest.mark.parametrize("beside", [{}, {"label": 1}, {"idx": 3, "attention_mask": [1, 1]}], ids=list)
def test_word_pieces_are_no_row(beside, tokenizer):
    model = build_model(TASKS[:2], vocab_size=tokenizer.vocab_size)
    with pytest.raises(
        InputError, match=r"needs text.*Give the texts, which are tokenised here; .* model\(\*\*inputs\)"
    ):
        model.predict([{**beside, "input_ids": [101, 102]}], tokenizer=tokenizer)
    with pytest.raises(InputError, match="It has the columns line: rename"):
        model.predict([{**beside, "input_ids": [101, 102], "line": "a"}], tokenizer=tokenizer)
