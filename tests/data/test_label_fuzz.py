"""Small tables of any labels in any form: what they say is what is read, or an `InputError` comes."""

import math

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_mtl import InputError, TaskSpec
from hf_mtl.data.canonical import canonical_task

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
POOL = [
    "a",
    "b",
    "no",
    "yes",
    "0",
    "1",
    "2",
    "7",
    "-1",
    "01",
    "True",
    "False",
    "true",
    "O",
    "B-X",
    "é",
    "हिंदी",
    " a",
    "NA",
    "nan",
]
NAMES = st.lists(st.sampled_from(POOL) | st.text(min_size=1, max_size=6), min_size=1, max_size=4, unique=True)
JUNK = st.sampled_from([None, "", "no such class", -1, -100, 10**15, math.nan, 0.5, [], [0], True, "01", {"a": 1}])
FUZZ = settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def single_columns(draw, names):
    """A column of classes: what it says, its values and its feature."""
    truth = draw(st.lists(st.sampled_from(names), min_size=1, max_size=6))
    form = draw(st.sampled_from(["ids", "names", "texts"]))
    if form == "names":
        order = draw(st.permutations(names))
        return truth, [order.index(name) for name in truth], ClassLabel(names=order)
    return truth, [names.index(name) for name in truth] if form == "ids" else truth, None


@st.composite
def label_sets(draw, names):
    """A column of sets of labels likewise."""
    truth = draw(st.lists(st.lists(st.sampled_from(names), unique=True), min_size=1, max_size=6))
    form = draw(st.sampled_from(["ids", "names", "texts", "flags", "booleans", "floats"]))
    order = draw(st.permutations(names)) if form == "names" else list(names)
    if form in ("ids", "names"):
        feature = List(ClassLabel(names=order)) if form == "names" else List(Value("int64"))
        return truth, [[order.index(name) for name in row] for row in truth], feature
    if form == "texts":
        return truth, truth, List(Value("string"))
    kind = {"flags": int, "booleans": bool, "floats": float}[form]
    return truth, [[kind(name in row) for name in names] for row in truth], None


def table(values, feature):
    features = feature and Features({"text": Value("string"), "label": feature})
    texts = [f"row {index}" for index in range(len(values))]
    rows = Dataset.from_dict({"text": texts, "label": values}, features=features)
    rows.info.description = "flags" if feature is None else "ids"
    return rows


def read_names(spec, rows):
    return [
        sorted(spec.labels[one] for one in label) if isinstance(label, list) else spec.labels[label]
        for label in rows["label"]
    ]


def numbers_are_names(names, values):
    """Where all names are numbers, a number is a name: what was meant as an id says another class, or none."""
    plain = [item for value in values for item in (value if isinstance(value, list) else [value])]
    ids = any(isinstance(item, int) and not isinstance(item, bool) for item in plain)
    return ids and all(map(is_whole, names))


def form_of_numbers(rows):
    """How lists of whole numbers were drawn: `label_sets` gives ids a feature, and flags none."""
    items = [item for label in rows["label"] if isinstance(label, list) for item in label]
    if not items or not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        return None
    return None if "ClassLabel" in str(rows.features["label"]) else rows.info.description


def is_whole(name):
    digits = name.removeprefix("-")
    return digits.isdecimal() and digits.isascii() and str(int(name)) == name


@pytest.mark.slow
@pytest.mark.parametrize("problem_type", [SINGLE, MULTI])
@FUZZ
@given(data=st.data())
def test_two_splits_say_what_is_read(problem_type, data):
    """Training and validation, each in a form of its own, with `labels` given or not."""
    names = data.draw(NAMES)
    columns = single_columns if problem_type == SINGLE else label_sets
    splits, truths, plain = {}, {}, False
    for split in ("train", "validation"):
        truths[split], values, feature = data.draw(columns(names))
        splits[split] = table(values, feature)
        plain = plain or (numbers_are_names(names, values) and names != [str(i) for i in range(len(names))])
    labels = data.draw(st.sampled_from([None, names]))
    spec = TaskSpec(name="task", problem_type=problem_type, labels=labels)
    try:
        spec, canonical = canonical_task(spec, splits, local=False)
    except InputError as error:
        assert "'task'" in str(error) or "labels" in str(error)
        return
    if len({form_of_numbers(rows) for rows in splits.values()} - {None}) > 1:
        # Whole numbers of one task are ids or flags in all splits; these are not.
        return
    pairs = set()
    for split, rows in canonical.items():
        expected = [sorted(row) if isinstance(row, list) else row for row in truths[split]]
        if labels is not None and not plain:
            assert read_names(spec, rows) == expected
        pairs |= set(zip(map(str, expected), map(str, read_names(spec, rows))))
    orders = [own.features["label"] for own in splits.values() if "ClassLabel" in str(own.features["label"])]
    # Ids and flags that name nothing follow the order of the task's names.
    in_order = all(getattr(order, "feature", order).names == names for order in orders)
    if in_order and not any(map(is_whole, names)):
        # Whatever the classes are called, they keep apart what the rows of both splits keep apart.
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_what_is_no_label_is_never_read(data):
    """One row of junk: it is refused, or read as the name that it is; the other rows say what they said."""
    names = data.draw(NAMES)
    truth, values, feature = data.draw(single_columns(names))
    junk, place = data.draw(JUNK), data.draw(st.integers(0, len(values) - 1))
    values = [*values[:place], junk, *values[place + 1 :]]
    try:
        rows = table(values, feature)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, TypeError, OverflowError):
        return
    spec = TaskSpec(name="task", problem_type=SINGLE, labels=list(names))
    try:
        spec, splits = canonical_task(spec, {"train": rows}, local=False)
    except InputError:
        return
    # Arrow may have made another value of it, which then is what the data set says.
    held = rows["label"][place]
    allowed = {
        str(held),
        *([names[int(held)]] if isinstance(held, (int, float)) and 0 <= int(held) < len(names) else []),
    }
    if isinstance(held, bool):
        allowed |= {name for name in names if name.casefold() == str(held).casefold()}
    if feature is not None:
        allowed |= {feature.names[held]}
    elif isinstance(held, str) and held.isdecimal():
        allowed |= {names[int(held)]} if int(held) < len(names) else set()
    assert read_names(spec, splits["train"])[place] in allowed
    if feature is not None or not numbers_are_names(names, values):
        others = [index for index in range(len(values)) if index != place]
        assert [read_names(spec, splits["train"])[index] for index in others] == [truth[index] for index in others]
