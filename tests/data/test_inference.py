"""A task is read off features that say it; else the message asks."""

import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from hf_mtl import InputError
from hf_mtl.data.canonical import canonical_splits
from hf_mtl.data.inference import PAIRS, infer_spec
from tests.conftest import DATA

SINGLE, MULTI, NUMBER = "single_label_classification", "multi_label_classification", "regression"
TAGS, ANSWER, CHOICE = "token_classification", "question_answering", "multiple_choice"
TEXT, TEXTS, CLASSES = Value("string"), List(Value("string")), ClassLabel(names=["a", "b"])


def empty(**features):
    return Dataset.from_dict({name: [] for name in features}, features=Features(features))


@pytest.mark.parametrize(
    ("rows", "problem_type", "columns"),
    [
        (empty(text=TEXT, label=Value("bool")), SINGLE, {"text": "text", "label": "label"}),
        (empty(text=TEXT, labels=LargeList(CLASSES)), MULTI, {"label": "labels"}),
        (empty(text=TEXT, labels=List(Value("float32"))), MULTI, {"label": "labels"}),
        (empty(text=TEXT, labels=List(Value("bool"))), MULTI, {"label": "labels"}),
        (empty(text=TEXT, labels=TEXTS), MULTI, {"label": "labels"}),
        (empty(tokens=TEXTS, tags=TEXTS), TAGS, {"tokens": "tokens", "label": "tags"}),
        (empty(tokens=TEXTS, upos=List(CLASSES)), TAGS, {"tokens": "tokens", "label": "upos"}),
        (empty(question_stem=TEXT, choices={"text": TEXTS, "label": TEXTS}, answerKey=TEXT, id=TEXT), CHOICE,
         {"text": "question_stem", "choices": "choices.text", "label": "answerKey"}),
        (Dataset.from_dict({"text": ["w", "x", "y", "z"], "label": ["a", "b", "a", "b"]}), SINGLE, {"text": "text"}),
    ],
)  # fmt: skip
def test_what_features_say(rows, problem_type, columns, capsys):
    spec = infer_spec("task", rows)
    assert (spec.problem_type, columns.items() <= spec.columns.items()) == (problem_type, True)
    printed = capsys.readouterr().out
    assert problem_type in printed and all(column in printed for column in columns.values())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "+".join(pair))
def test_names_that_are_a_pair(pair):
    for order in (pair, pair[::-1]):
        spec = infer_spec("task", empty(**dict.fromkeys(order, TEXT), label=CLASSES, idx=TEXT))
        assert (spec.columns["text"], spec.columns["text_pair"]) == pair


@pytest.mark.parametrize("column", ["label_text", "reason", "guid", "url", "lang", "title", "source", "text_2"])
def test_another_column_of_texts_is_asked_for(column):
    for order in (("text", column), (column, "text")):
        with pytest.raises(InputError) as error:
            infer_spec("film", empty(**dict.fromkeys(order, TEXT), label=CLASSES))
        for part in ("'film'", "text", column, "TaskSpec(name='film'", "'text_pair'"):
            assert part in str(error.value)


@pytest.mark.parametrize(
    "rows",
    [
        empty(text=TEXT, label=Value("int64")),
        empty(text=TEXT),
        empty(label=CLASSES),
        # As many texts as rows, or numbers with a point, are no names of classes.
        Dataset.from_dict({"text": list("abcdef"), "label": [f"answer {number}" for number in range(6)]}),
        Dataset.from_dict({"text": list("abcdef"), "label": ["1.5", "2.0"] * 3}),
        Dataset.from_dict({"text": list("abcdef"), "label": ["one"] * 6}),
        # Which of several columns is the label?
        empty(text=TEXT, label=CLASSES, labels=CLASSES),
        empty(tokens=TEXTS, pos_tags=List(CLASSES), ner_tags=List(CLASSES)),
    ],
)
def test_what_features_do_not_say(rows):
    with pytest.raises(InputError, match="TaskSpec"):
        infer_spec("task", rows)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not there")
@pytest.mark.parametrize(
    ("name", "problem_type"),
    [("sst2", SINGLE), ("rte", SINGLE), ("qnli", SINGLE), ("mnli", SINGLE), ("boolq", SINGLE), ("stsb", NUMBER),
     ("go_emotions", MULTI), ("wnut17", TAGS), ("squad", None), ("arc_easy", CHOICE), ("openbookqa", CHOICE)],
)  # fmt: skip
def test_real_data_sets(name, problem_type):
    rows = Dataset.from_parquet(str(DATA / name / "validation.parquet")).select(range(50))
    if problem_type is None:
        # SQuAD's title is a third text, and no part of the question.
        assert infer_spec(name, rows).problem_type == ANSWER
        return
    spec = infer_spec(name, rows)
    assert spec.problem_type == problem_type
    assert len(canonical_splits(spec, {"train": rows}, local=False)["train"]) == 50
