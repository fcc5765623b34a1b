"""Whatever a data set calls its columns, they become input fields and checked labels."""

import math

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_mtl import InputError, TaskSpec
from hf_mtl.data.canonical import canonical_splits, canonical_task
from hf_mtl.data.inference import infer_spec

SINGLE, MULTI, NUMBER = "single_label_classification", "multi_label_classification", "regression"
TAGS, ANSWER, CHOICE = "token_classification", "question_answering", "multiple_choice"


def spec_of(problem_type, **settings):
    return TaskSpec(name="task", problem_type=problem_type, **settings)


def convert(spec, train, validation=None, local=False):
    """The canonical training rows of columns (and validation rows, where given)."""
    splits = {"train": train if isinstance(train, Dataset) else Dataset.from_dict(train)}
    if validation is not None:
        splits["validation"] = validation if isinstance(validation, Dataset) else Dataset.from_dict(validation)
    return {split: rows[:] for split, rows in canonical_splits(spec, splits, local).items()}


def labels_of(spec, train):
    """The label names that a task has with training rows."""
    rows = train if isinstance(train, Dataset) else Dataset.from_dict(train)
    return canonical_task(spec, {"train": rows}, local=False)[0].labels


def named(feature, **columns):
    """A data set whose label column has the given feature."""
    features = Features({"text": Value("string"), "label": feature})
    return Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize(
    ("train", "labels", "ids"),
    [
        ({"text": ["a", "b", "c"], "label": ["no", "yes", "no"]}, ["no", "yes"], [0, 1, 0]),
        ({"text": ["a", "b", "c"], "label": [2, 0, 1]}, ["0", "1", "2"], [2, 0, 1]),
        # Ids with gaps name the classes; a code is no count.
        ({"text": ["a", "b", "c"], "label": [2, 0, 2]}, ["0", "2"], [1, 0, 1]),
        ({"text": ["a", "b", "c"], "label": [50000, 1001, 50000]}, ["1001", "50000"], [1, 0, 1]),
        (named(ClassLabel(names=["yes", "no"]), text=["a", "b"], label=[0, 1]), ["yes", "no"], [0, 1]),
        # A class that no row has keeps its place.
        (named(ClassLabel(names=["x", "y", "z"]), text=["a", "b"], label=[2, 0]), ["x", "y", "z"], [2, 0]),
    ],
)
def test_classes(train, labels, ids):
    spec = spec_of(SINGLE)
    assert convert(spec, train)["train"]["label"] == ids
    assert labels_of(spec, train) == labels


def test_given_labels_set_the_order():
    spec = spec_of(SINGLE, labels=["yes", "no"])
    rows = {"text": ["a", "b"], "label": ["no", "yes"]}
    assert convert(spec, rows)["train"]["label"] == [1, 0]
    assert labels_of(spec, rows) == ["yes", "no"]


def test_validation_uses_the_names_of_training():
    spec = spec_of(SINGLE)
    found = convert(spec, {"text": ["a", "b"], "label": ["b", "a"]}, {"text": ["c"], "label": ["b"]})
    assert (found["train"]["label"], found["validation"]["label"]) == ([1, 0], [1])


@pytest.mark.parametrize(
    ("problem_type", "train", "labels", "ids"),
    [
        (MULTI, {"text": ["a", "b"], "label": [["x", "y"], []]}, ["x", "y"], [[0, 1], []]),
        (MULTI, {"text": ["a", "b"], "label": [[2], [0, 1]]}, ["0", "1", "2"], [[2], [0, 1]]),
        (MULTI, named(List(ClassLabel(names=["x", "y"])), text=["a"], label=[[1]]), ["x", "y"], [[1]]),
        # "O" is the first tag, whatever the alphabet says.
        (TAGS, {"tokens": [["in", "Oslo"]], "label": [["O", "B-CITY"]]}, ["O", "B-CITY"], [[0, 1]]),
        (TAGS, {"tokens": [["in", "Oslo"]], "label": [[0, 3]]}, ["0", "3"], [[0, 1]]),
    ],
)
def test_lists_of_labels(problem_type, train, labels, ids):
    spec = spec_of(problem_type)
    assert convert(spec, train)["train"]["label"] == ids
    assert labels_of(spec, train) == labels


@pytest.mark.parametrize("label", [[1, 2], [1.5, 2.0]])
def test_numbers(label):
    spec = spec_of(NUMBER)
    rows = {"text": ["a", "b"], "label": label}
    assert convert(spec, rows)["train"]["label"] == [float(value) for value in label]
    assert labels_of(spec, rows) is None


@pytest.mark.parametrize(
    ("label", "index"), [("A", 0), ("B", 1), ("C", 2), (0, 0), (2, 2)], ids=["A", "B", "C", "first", "third"]
)
def test_right_choices(label, index):
    train = {"text": ["which?"], "choices": [["x", "y", "z"]], "label": [label]}
    assert convert(spec_of(CHOICE), train)["train"]["label"] == [index]


def test_answers():
    answers = {"text": ["Bob"], "answer_start": [8]}
    train = {"question": ["who?"], "context": ["This is Bob."], "answers": [answers]}
    spec = spec_of(ANSWER, columns={"label": "answers"})
    assert convert(spec, train)["train"]["label"] == [answers]


@pytest.mark.parametrize(
    ("columns", "train", "field", "values"),
    [
        ({"text": "sentence"}, {"sentence": ["a"]}, "text", ["a"]),
        ({}, {"text": ["a"], "idx": [7]}, "text", ["a"]),
        ({"text": "data.body"}, {"data": [{"body": "a", "title": "b"}]}, "text", ["a"]),
    ],
)
def test_columns(columns, train, field, values):
    found = convert(spec_of(NUMBER, columns=columns), {**train, "label": [0.5]})["train"]
    assert found[field] == values
    assert set(found) == {field, "label"}


@pytest.mark.parametrize(
    ("columns", "train"),
    [
        ({"choices": "choices.text"}, {"choices": [{"text": ["x", "y"], "label": ["A", "B"]}]}),
        ({"choices": ["first", "second"]}, {"first": ["x"], "second": ["y"]}),
        ({"choices": ["options.a", "options.b"]}, {"options": [{"a": "x", "b": "y"}]}),
    ],
)
def test_choices_from_inside_a_column_and_from_several(columns, train):
    found = convert(spec_of(CHOICE, columns=columns), {"text": ["which?"], **train, "label": [1]})["train"]
    assert found["choices"] == [["x", "y"]]


def test_local_columns_replace_columns_only_there():
    train = {"sentence": ["a"], "body": ["b"], "label": [0.5]}
    for local, text in ((False, "a"), (True, "b")):
        spec = spec_of(NUMBER, columns={"text": "sentence"}, local_columns={"text": "body"})
        assert convert(spec, train, local=local)["train"]["text"] == [text]


@pytest.mark.parametrize(
    ("problem_type", "train", "says"),
    [
        (SINGLE, {"txt": ["a"], "label": [0]}, ["no column 'text'", "Did you mean 'txt'", "txt, label"]),
        (SINGLE, {"text": ["a"], "lable": [0]}, ["no column 'label'", "Did you mean 'lable'"]),
        (SINGLE, {"text": ["a", None], "label": [0, 1]}, ["train row 1", "text is None"]),
        (SINGLE, {"text": [5], "label": [0]}, ["train row 0", "text is 5", "expected a text"]),
        (SINGLE, {"text": ["a", "b"], "label": [0, -1]}, ["label -1", ">= 0"]),
        (SINGLE, {"text": ["a", "b"], "label": [0, -2]}, ["label -2", ">= 0"]),
        (SINGLE, {"text": ["a", "b"], "label": [0.5, 1.0]}, ["label 0.5"]),
        (SINGLE, {"text": ["a", "b"], "label": ["x", None]}, ["train row 1", "label is None"]),
        (SINGLE, {"text": ["a", "b"], "label": [1, None]}, ["train row 1", "label is None"]),
        (SINGLE, {"text": ["a"], "label": [None]}, ["label None"]),
        (SINGLE, {"text": ["a"], "label": [[0]]}, ["label [0]"]),
        (MULTI, {"text": ["a", "b"], "label": [[0], None]}, ["train row 1", "None", "a list"]),
        (MULTI, {"text": ["a"], "label": ["x"]}, ["train row 0", "'x'", "a list of labels"]),
        (NUMBER, {"text": ["a", "b"], "label": [0.5, math.nan]}, ["train row 1", "nan", "finite number"]),
        (NUMBER, {"text": ["a", "b"], "label": [0.5, math.inf]}, ["train row 1", "inf", "finite number"]),
        (NUMBER, {"text": ["a"], "label": ["0,5"]}, ["train row 0", "'0,5'", "finite number"]),
        (NUMBER, {"text": ["a"], "label": [True]}, ["train row 0", "True", "finite number"]),
        (TAGS, {"tokens": [["a", "b"]], "label": [["O"]]}, ["train row 0", "1 tags for 2 tokens"]),
        (TAGS, {"tokens": [[]], "label": [[]]}, ["label"]),
        (TAGS, {"tokens": ["a b"], "label": [["O"]]}, ["tokens is 'a b'", "list of texts"]),
        (CHOICE, {"text": ["a"], "choices": [["x", "y"]], "label": [2]}, ["right choice is 2", "2 choices"]),
        (CHOICE, {"text": ["a"], "choices": [["x", "y"]], "label": ["C"]}, ["right choice is 2", "2 choices"]),
        (CHOICE, {"text": ["a"], "choices": [["x", "y"]], "label": ["Z"]}, ["'Z'", "A, B"]),
        (CHOICE, {"text": ["a"], "choices": [["x", "y"]], "label": [-1]}, ["-1", "0 or more"]),
        (ANSWER, {"question": ["who?"], "context": ["Bob."], "label": ["Bob"]}, ["'Bob'", "answer_start"]),
        (
            ANSWER,
            {"question": ["who?"], "context": ["Bob."], "label": [{"text": ["Bob"], "answer_start": [1]}]},
            ["'Bob'", "character 1"],
        ),
    ],
)
def test_what_cannot_be_used(problem_type, train, says):
    with pytest.raises(InputError) as error:
        convert(spec_of(problem_type), train)
    for part in ["'task'", *says]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("label", "says"), [(2, ["from 0 to 1"]), (-1, ["from 0 to 1"]), ("maybe", ["one of no, yes"]), (None, ["None"])]
)
def test_a_label_that_training_lacks(label, says):
    with pytest.raises(InputError) as error:
        convert(spec_of(SINGLE), {"text": ["a", "b"], "label": ["no", "yes"]}, {"text": ["c"], "label": [label]})
    for part in ["'task'", "validation row 0", *says]:
        assert part in str(error.value)


def test_the_row_with_the_empty_label_is_named():
    """One empty cell makes a column of whole numbers one of floats (csv), and the message still finds the cell."""
    train = {"text": ["a", "b", "c"], "label": [0.0, math.nan, 1.0]}
    with pytest.raises(InputError) as error:
        convert(spec_of(SINGLE), train)
    assert "nan" in str(error.value)


@pytest.mark.parametrize(
    ("features", "problem_type", "columns"),
    [
        ({"sentence": Value("string"), "label": ClassLabel(names=["a", "b"])}, SINGLE, {"text": "sentence"}),
        (
            {"s1": Value("string"), "s2": Value("string"), "label": Value("float32"), "idx": Value("int32")},
            NUMBER,
            {"text": "s1", "text_pair": "s2"},
        ),
        ({"text": Value("string"), "labels": List(ClassLabel(names=["a", "b"]))}, MULTI, {"label": "labels"}),
        ({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O"]))}, TAGS, {"label": "ner_tags"}),
        (
            {"question": Value("string"), "choices": List(Value("string")), "label": Value("int64")},
            CHOICE,
            {"text": "question"},
        ),
        (
            {
                "question": Value("string"),
                "context": Value("string"),
                "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
            },
            ANSWER,
            {"label": "answers"},
        ),
    ],
)
def test_a_task_is_read_off_its_features(features, problem_type, columns):
    spec = infer_spec("task", Dataset.from_dict({name: [] for name in features}, features=Features(features)))
    assert spec.problem_type == problem_type
    assert columns.items() <= spec.columns.items()


def test_features_that_do_not_say_enough():
    with pytest.raises(InputError, match="TaskSpec"):
        infer_spec("task", Dataset.from_dict({"text": ["a"], "label": [1]}))
