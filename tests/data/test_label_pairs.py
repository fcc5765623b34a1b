"""Every way to write labels beside every other: in training, validation, and rows that are scored or answered later.

Right is what the rows say by their names; where the names are not said, the message asks for them.
"""

import copy

import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from hf_mtl import InputError, TaskSpec, load_mixture
from hf_mtl.data.canonical import canonical_splits, canonical_task
from hf_mtl.data.label_columns import LabelColumn, names_of_feature
from hf_mtl.data.label_form import label_form
from hf_mtl.data.row_places import RowPlaces
from tests.conftest import DATA

SINGLE, MULTI, NUMBER = "single_label_classification", "multi_label_classification", "regression"
TAGS, ANSWER, CHOICE = "token_classification", "question_answering", "multiple_choice"
WORDS = ["first text", "second text", "third text", "fourth text"]


def rows_of(values, feature=None, name="label"):
    columns = {"text": WORDS[: len(values)], name: values}
    return Dataset.from_dict(columns, features=feature and Features({"text": Value("string"), name: feature}))


def names_in(spec, rows):
    """The rows' labels by name."""
    return [[spec.labels[one] for one in label] if isinstance(label, list) else spec.labels[label] for label in rows]


def read(spec, train, other, how):
    """The names of another data set's labels beside training rows, loaded with them or scored later."""
    spec = copy.deepcopy(spec)
    if how == "validation":
        spec, splits = canonical_task(spec, {"train": train, "validation": other}, local=False)
        return names_in(spec, splits["train"]["label"][:]), names_in(spec, splits["validation"]["label"][:])
    spec, splits = canonical_task(spec, {"train": train}, local=False)
    first = splits["train"]
    if how == "checkpoint":
        spec = TaskSpec(**spec.to_config().to_dict())
    later = canonical_splits(spec, {"validation": other}, local=False)["validation"]
    return names_in(spec, first["label"][:]), names_in(spec, later["label"][:])


# no, yes, yes, no in every form.
FORMS = {
    "ids": rows_of([0, 1, 1, 0]),
    "digits": rows_of(["0", "1", "1", "0"]),
    "names": rows_of([0, 1, 1, 0], ClassLabel(names=["no", "yes"])),
    "other order": rows_of([1, 0, 0, 1], ClassLabel(names=["yes", "no"])),
    "texts": rows_of(["no", "yes", "yes", "no"]),
    "booleans": rows_of([False, True, True, False]),
    "boolean texts": rows_of(["False", "True", "True", "False"]),
    "numbered names": rows_of([0, 1, 1, 0], ClassLabel(names=["0", "1"])),
}
NO_YES, ZERO_ONE, BOOLEANS = ["no", "yes", "yes", "no"], ["0", "1", "1", "0"], ["False", "True", "True", "False"]
# By what the training rows name: what the other rows are read as; None is refused.
PAIRS = {
    **{("ids", other): ZERO_ONE for other in ("ids", "digits", "booleans", "numbered names")},
    **{("digits", other): ZERO_ONE for other in ("ids", "digits", "booleans", "numbered names")},
    **{("numbered names", other): ZERO_ONE for other in ("ids", "digits", "booleans", "numbered names")},
    **{("names", other): NO_YES for other in ("ids", "digits", "names", "other order", "texts", "numbered names")},
    **{("texts", other): NO_YES for other in ("names", "other order", "texts")},
    **{("booleans", other): BOOLEANS for other in ("ids", "digits", "booleans", "boolean texts", "numbered names")},
    **{("boolean texts", other): BOOLEANS for other in ("booleans", "boolean texts")},
    # Ids go by the order of the names.
    **{("other order", other): NO_YES for other in ("names", "other order", "texts")},
    **{("other order", other): ["yes", "no", "no", "yes"] for other in ("ids", "digits", "numbered names")},
}
# Ids beside texts have no order, until a checkpoint has one.
OF_CHECKPOINTS = {
    **{("texts", other): NO_YES for other in ("ids", "digits", "numbered names")},
    **{("boolean texts", other): BOOLEANS for other in ("ids", "digits", "numbered names")},
}


@pytest.mark.parametrize("how", ["validation", "predict", "checkpoint"])
@pytest.mark.parametrize("other", FORMS)
@pytest.mark.parametrize("train", FORMS)
def test_classes(train, other, how):
    spec = TaskSpec(name="task", problem_type=SINGLE)
    expected = PAIRS.get((train, other)) or (OF_CHECKPOINTS.get((train, other)) if how == "checkpoint" else None)
    if expected is not None:
        assert read(spec, FORMS[train], FORMS[other], how)[1] == expected
        return
    with pytest.raises(InputError) as error:
        read(spec, FORMS[train], FORMS[other], how)
    assert "'task'" in str(error.value) and ("expected one of" in str(error.value) or "labels" in str(error.value))


@pytest.mark.parametrize("how", ["validation", "predict", "checkpoint"])
@pytest.mark.parametrize("other", ["ids", "names", "other order", "texts", "digits"])
@pytest.mark.parametrize("train", ["names", "other order", "texts"])
def test_given_labels_are_met_by_name(train, other, how):
    """`labels` in another order than the feature's: ids of columns without names are places in `labels`."""
    spec = TaskSpec(name="task", problem_type=SINGLE, labels=["yes", "no", "maybe"])
    expected = ["yes", "no", "no", "yes"] if other in ("ids", "digits") else NO_YES
    assert read(spec, FORMS[train], FORMS[other], how) == (NO_YES, expected)


# {p, r}, {q}, {} in every form.
P, NAMES = [["p", "r"], ["q"], []], ["p", "q", "r"]
SETS = {
    "ids": rows_of([[0, 2], [1], []]),
    "names": rows_of([[0, 2], [1], []], List(ClassLabel(names=NAMES))),
    "other order": rows_of([[2, 0], [1], []], LargeList(ClassLabel(names=["r", "q", "p"]))),
    "texts": rows_of([["p", "r"], ["q"], []]),
    "flags": rows_of([[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
    "floats": rows_of([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
    "booleans": rows_of([[True, False, True], [False, True, False], [False, False, False]]),
}
NAMED, FLAGS = ("names", "other order", "texts"), ("flags", "floats", "booleans")


@pytest.mark.parametrize("how", ["validation", "predict", "checkpoint"])
@pytest.mark.parametrize("other", SETS)
@pytest.mark.parametrize("train", SETS)
def test_sets_of_labels(train, other, how):
    """With `labels` every form says the same; flags and ids count in their order."""
    spec = TaskSpec(name="task", problem_type=MULTI, labels=NAMES)
    if {train, other} == {"ids", "flags"} and how != "checkpoint":
        # Whole numbers of one task are ids or flags, not both.
        with pytest.raises(InputError, match="validation row 0"):
            read(spec, SETS[train], SETS[other], how)
        return
    first, second = read(spec, SETS[train], SETS[other], how)
    assert ([sorted(row) for row in first], [sorted(row) for row in second]) == (P, P)


@pytest.mark.parametrize("how", ["validation", "predict", "checkpoint"])
@pytest.mark.parametrize("other", SETS)
@pytest.mark.parametrize("train", SETS)
def test_sets_of_labels_without_given_names(train, other, how):
    spec = TaskSpec(name="task", problem_type=MULTI)
    numbered = [["0", "2"], ["1"], []]
    places = {"other order": [["p", "r"], ["q"], []]}.get(train, P)
    if train in NAMED:
        # Ids and flags follow the order of the names, which only texts leave open.
        orderless = train == "texts" and other not in NAMED and how != "checkpoint"
        expected = None if orderless else places if other in NAMED or train != "other order" else P
    else:
        two_forms = {train, other} == {"ids", "flags"} and how != "checkpoint"
        expected = None if other in NAMED or two_forms else numbered
    if expected is None:
        with pytest.raises(InputError, match="'task'"):
            read(spec, SETS[train], SETS[other], how)
        return
    _, found = read(spec, SETS[train], SETS[other], how)
    if train == "other order" and other not in NAMED:
        expected = [["r", "p"], ["q"], []]
    assert [sorted(row) for row in found] == [sorted(row) for row in expected]


@pytest.mark.parametrize(
    ("columns", "labels", "expected"),
    [
        (["p", "q", "r"], None, NAMES),
        (["p", "q", "r"], ["r", "q", "p"], ["r", "q", "p"]),
        (["p", "q", "r"], ["one", "two", "three"], ["one", "two", "three"]),
    ],
)
@pytest.mark.parametrize("values", [(1, 0), (1.0, 0.0), (True, False), ("1", "0"), ("true", "false")])
def test_a_column_per_label(columns, labels, expected, values):
    yes, no = values
    table = {"text": WORDS[:3], "p": [yes, no, no], "q": [no, yes, no], "r": [yes, no, no]}
    spec = TaskSpec(name="task", problem_type=MULTI, columns={"label": columns}, labels=labels)
    spec, splits = canonical_task(spec, {"train": Dataset.from_dict(table)}, local=False)
    rows = splits["train"]
    named = dict(zip(columns, expected if labels == ["one", "two", "three"] else columns))
    assert spec.labels == expected
    read_names = [sorted(row) for row in names_in(spec, rows["label"][:])]
    assert read_names == [sorted(named[one] for one in row) for row in P]


@pytest.mark.parametrize(
    ("values", "settings", "says"),
    [
        ([[0, 1], [1, 0]], {}, ["could be", "label_form: flags", "label_form: ids"]),
        ([[0, 1], [1, 0]], {"labels": ["a", "b"]}, ["could be", "label_form: flags"]),
        ([[1, 1, 0], [0, 1]], {}, ["train row 0", "stands twice"]),
        ([[0], [2, 2]], {}, ["train row 1", "stands twice"]),
        ([["a", "a"]], {}, ["train row 0", "twice"]),
        ([[0, 1, 0], [1, 0, 0]], {"labels": ["a", "b"]}, ["train row 0", "stands twice", "(2 of them)"]),
        ([[1.0, 0.3]], {}, ["train row 0", "0.3", "a 0 or 1"]),
        ([[1.0, 0.0], [1.0]], {"labels": ["a", "b"]}, ["train row 1", "each of 2 labels"]),
        ([[True, None], [True, False]], {}, ["train row 0", "None", "a 0 or 1"]),
        ([[5], [1]], {"labels": ["a", "b"]}, ["train row 0", "from 0 to 1"]),
        ([1, 0], {}, ["train row 0", "a list of labels"]),
        (["a, b", "b"], {}, ["train row 0", "'a, b'", "a list of labels"]),
        ([[0, 1], [1, 0]], {"label_form": "flagged"}, ["label_form", "'flagged'", "ids, flags"]),
        ([[0, 2], [1, 1]], {"label_form": "flags"}, ["2", "a 0 or 1"]),
        # Digits as texts are as open as numbers are.
        ([["1", "0"], ["0", "1"]], {"labels": ["a", "b"]}, ["could be", "label_form: flags"]),
        ([["1", "0"], ["0", "1"]], {}, ["could be", "label_form: flags"]),
        ([["1", "1", "0"], ["0", "1"]], {}, ["train row 0", "stands twice", "label_form: flags"]),
        ([[0, 1], [1, 1]], {"label_form": "ids"}, ["train row 1", "stands twice"]),
    ],
)
def test_sets_that_are_refused(values, settings, says):
    with pytest.raises(InputError) as error:
        canonical_splits(
            TaskSpec(name="task", problem_type=MULTI, **settings), {"train": rows_of(values)}, local=False
        )
    for part in says:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("train", "validation", "says"),
    [
        ([[0], [1], [2], [0, 1, 2]], [[1, 0, 1]], ["validation row 0", "twice"]),
        ([[1, 1, 0], [0, 0, 1]], [[2], [0, 1]], ["validation row 0", "each of 3"]),
        # What only flags can be in training is flags where it could be ids, too.
        ([[1, 1, 0], [0, 0, 1]], [[1, 0, 2]], ["validation row 0", "a 0 or 1"]),
    ],
)
def test_whole_numbers_are_one_form_in_all_splits(train, validation, says):
    spec = TaskSpec(name="task", problem_type=MULTI, labels=["a", "b", "c"])
    with pytest.raises(InputError) as error:
        canonical_splits(spec, {"train": rows_of(train), "validation": rows_of(validation)}, local=False)
    for part in says:
        assert part in str(error.value)


def test_training_rows_say_what_two_numbers_are():
    spec = TaskSpec(name="task", problem_type=MULTI, labels=["a", "b"])
    splits = {"train": rows_of([[1, 1], [0, 0]]), "validation": rows_of([[1, 0], [0, 1]])}
    spec, canonical = canonical_task(spec, splits, local=False)
    assert canonical["validation"]["label"][:] == [[0], [1]]
    later = canonical_splits(spec, {"validation": rows_of([[0, 1]])}, local=False)["validation"]
    assert later["label"][:] == [[1]]


def test_columns_of_flags_by_their_names():
    """ClassLabel columns say no and yes in whatever order; columns inside others keep what tells them apart."""
    answer = ClassLabel(names=["yes", "no"])
    features = Features({"text": Value("string"), "p": answer, "q": answer})
    rows = Dataset.from_dict({"text": WORDS, "p": [0, 1, 1, 0], "q": [1, 1, 0, 0]}, features=features)
    spec = TaskSpec(name="task", problem_type=MULTI, columns={"label": ["p", "q"]})
    assert canonical_splits(spec, {"train": rows}, local=False)["train"]["label"][:] == [[0], [], [1], [0, 1]]
    spec = TaskSpec(name="task", problem_type=MULTI, columns={"label": ["x.a", "y.a"]})
    rows = Dataset.from_dict({"text": WORDS[:2], "x": [{"a": 1}, {"a": 0}], "y": [{"a": 0}, {"a": 1}]})
    spec, splits = canonical_task(spec, {"train": rows}, local=False)
    assert splits["train"]["label"][:] == [[0], [1]]
    assert spec.labels == ["x.a", "y.a"]
    colours = Features({"text": Value("string"), "p": ClassLabel(names=["red", "blue"])})
    spec = TaskSpec(name="task", problem_type=MULTI, columns={"label": ["p"]})
    with pytest.raises(InputError, match="'red'.*a 0 or 1"):
        canonical_splits(spec, {"train": Dataset.from_dict({"text": WORDS[:1], "p": [0]}, features=colours)}, False)


@pytest.mark.parametrize("form", [["0", "1", "1", "0"], [0, 1, 1, 0]])
def test_what_load_mixture_filled_in_is_read_anew(tmp_path, form):
    """A spec that was used before says no more than it was given."""
    spec = TaskSpec(name="task", problem_type=SINGLE, dataset=str(tmp_path))
    for labels in (["no", "yes", "yes", "no"], form):
        for split in ("train", "validation"):
            rows_of(labels).to_parquet(tmp_path / f"{split}.parquet")
        mixture = load_mixture([spec], exclude_overlap=False)
        assert names_in(mixture.specs[0], mixture.train["task"]["label"][:]) == list(map(str, labels))


def test_a_message_names_the_row_of_a_bad_label():
    with pytest.raises(InputError, match=r"train row 2: the label 2\.5 is none"):
        canonical_splits(TaskSpec(name="task", problem_type=SINGLE), {"train": rows_of([1.0, 2.0, 2.5])}, local=False)
    rows = rows_of([1, -1], ClassLabel(names=["no", "yes"]))
    with pytest.raises(InputError, match=r"row 1: the label is -1; .* no label: leave such rows out"):
        canonical_splits(TaskSpec(name="task", problem_type=SINGLE), {"train": rows}, local=False)
    with pytest.raises(InputError, match="-100 stands for no label"):
        canonical_splits(TaskSpec(name="task", problem_type=NUMBER), {"train": rows_of([1.0, -100.0])}, local=False)


@pytest.mark.parametrize("hole", [None, {"l": None}])
def test_a_hole_inside_a_column(hole):
    spec = TaskSpec(name="task", problem_type=SINGLE, source="rows", columns={"label": "m.l"})
    rows = Dataset.from_dict({"text": WORDS[:3], "m": [{"l": "a"}, hole, {"l": "b"}]})
    assert canonical_splits(spec, {"train": rows}, local=False)["train"]["source_row"][:] == [0, 2]


@pytest.mark.parametrize(("form", "expected"), [("ids", [["0", "1"], ["0", "1"]]), ("flags", [["1"], ["0"]])])
def test_label_form_says_which(form, expected):
    spec = TaskSpec(name="task", problem_type=MULTI, label_form=form)
    spec, splits = canonical_task(spec, {"train": rows_of([[0, 1], [1, 0]])}, local=False)
    assert [sorted(row) for row in names_in(spec, splits["train"]["label"][:])] == expected


def test_lists_of_one_label():
    """One id in every row is no row of flags where there are more labels; else it could be that of one label."""
    column = LabelColumn([[0], [1]], None, RowPlaces("train"))
    assert label_form(TaskSpec(name="task", problem_type=MULTI, labels=NAMES), column) == "ids"
    with pytest.raises(InputError, match="could be"):
        label_form(TaskSpec(name="task", problem_type=MULTI), column)


@pytest.mark.parametrize(
    ("feature", "values", "source"),
    [
        (List(ClassLabel(names=["O", "X"])), [[0, 1]], "label"),
        (LargeList(ClassLabel(names=["O", "X"])), [[0, 1]], "label"),
        ({"tags": List(ClassLabel(names=["O", "X"]))}, [{"tags": [0, 1]}], "label.tags"),
        (List({"tag": ClassLabel(names=["O", "X"])}), [[{"tag": 0}, {"tag": 1}]], "label.tag"),
        ({"a": {"b": List(ClassLabel(names=["O", "X"]))}}, [{"a": {"b": [0, 1]}}], "label.a.b"),
    ],
)
def test_names_are_kept_in_lists_and_inside_columns(feature, values, source):
    features = Features({"tokens": List(Value("string")), "label": feature})
    rows = Dataset.from_dict({"tokens": [["a", "b"]], "label": values}, features=features)
    assert names_of_feature(rows.features, source) == ["O", "X"]
    spec = TaskSpec(name="task", problem_type=TAGS, columns={"label": source})
    spec, splits = canonical_task(spec, {"train": rows}, local=False)
    assert splits["train"]["label"][:] == [[0, 1]]
    assert spec.labels == ["O", "X"]


@pytest.mark.parametrize(
    "tags", [["O", None, "B-X"], [0, -100, 1], [0, -1, 1], [0, None, 1]], ids=["None", "-100", "-1", "None of ids"]
)
def test_words_without_a_tag(tags):
    spec = TaskSpec(name="task", problem_type=TAGS)
    rows = Dataset.from_dict({"tokens": [["in", "the", "Hague"]], "label": [tags]})
    spec, splits = canonical_task(spec, {"train": rows}, local=False)
    assert splits["train"]["label"][:] == [[0, -100, 1]]
    assert spec.labels == (["O", "B-X"] if tags[0] == "O" else ["0", "1"])


# Choices in columns of their own.
TWO = {"first": ["w"] * 2, "last": ["z"] * 2}


def keyed(*keys):
    return {"text": ["x", "y"], "label": list(keys)}


def choice_rows(labels, feature=None, **columns):
    table = {"text": ["which?"] * len(labels), **columns, "label": labels}
    rows = Dataset.from_dict(table)
    return rows if feature is None else rows.cast_column("label", feature)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (choice_rows(["0", "3"], choices=[list("wxyz")] * 2), {}, [0, 3]),
        (choice_rows(["A", "D"], choices=[list("wxyz")] * 2), {}, [0, 3]),
        (choice_rows(["w", "z"], choices=[list("wxyz")] * 2), {}, [0, 3]),
        (choice_rows([0, 1], ClassLabel(names=["B", "A"]), choices=[list("wxyz")] * 2), {}, [1, 0]),
        # Names that only number the ids, from 0 or from 1; a choice may be called "0".
        (choice_rows([0, 1], ClassLabel(names=["0", "1"]), choices=[["1", "0"]] * 2), {}, [0, 1]),
        (choice_rows([0, 1], ClassLabel(names=["1", "2"]), choices=[["x", "y"]] * 2), {}, [0, 1]),
        (choice_rows(["2"], choices=[["2", "5"]]), {}, [0]),
        # Keys that are numbers, as numbers and as texts.
        (
            choice_rows([1, 2], choices=[{"text": ["x", "y"], "label": ["1", "2"]}] * 2),
            {"choices": "choices.text"},
            [0, 1],
        ),
        (
            choice_rows([0, 1], choices=[{"text": ["x", "y"], "label": [1, 0]}] * 2),
            {"choices": "choices.text"},
            [1, 0],
        ),
        (
            choice_rows([0, 1], choices=[{"text": ["x", "y"], "label": ["A", "B"]}] * 2),
            {"choices": "choices.text"},
            [0, 1],
        ),
        (choice_rows([0, 1], ClassLabel(names=["right", "wrong"]), choices=[list("wxyz")] * 2), {}, [0, 1]),
        (choice_rows([0, 1], ClassLabel(names=["last", "first"]), **TWO), {"choices": ["first", "last"]}, [1, 0]),
        (choice_rows(["last", "first"], **TWO), {"choices": ["first", "last"]}, [1, 0]),
        # Keys beside the choices: those of ARC begin at 1 in some rows and are letters in others.
        (
            choice_rows(["1", "C"], choices=[{"text": list("wxy"), "label": list(keys)} for keys in ("123", "ABC")]),
            {"choices": "choices.text"},
            [0, 2],
        ),
        (
            choice_rows(["3"], choices=[[{"text": "w", "label": "1"}, {"text": "x", "label": "3"}]]),
            {"choices": "choices.text"},
            [1],
        ),
    ],
)
def test_right_choices(rows, columns, expected):
    spec = TaskSpec(name="task", problem_type=CHOICE, columns=columns)
    assert canonical_splits(spec, {"train": rows}, local=False)["train"]["label"][:] == expected


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        (choice_rows(["4"], choices=[list("wxyz")]), {}, ["'4'", "from 1", "from 0"]),
        (choice_rows(["0", "9"], choices=[list("wxyz")] * 2), {}, ["right choice is 9", "counted from 0"]),
        # Columns that are numbered from 1, and labels that may be.
        (choice_rows(["1"], option1=["w"], option2=["x"]), {"choices": ["option1", "option2"]}, ["'1'", "from 1"]),
        (choice_rows([0], ClassLabel(names=["2", "0"]), choices=[["x", "y"]]), {}, ["'2'", "no place"]),
        (choice_rows(["A"], choices=[["B", "A"]]), {}, ["could be choice 0 or 1"]),
        (choice_rows(["1"], choices=[["1", "2"]]), {}, ["could be choice 0 or 1"]),
        (choice_rows([-1], choices=[["x", "y"]]), {}, ["no label"]),
        (choice_rows(["4"], choices=[{"text": ["w"], "label": ["1"]}]), {"choices": "choices.text"}, ["keys: 1"]),
    ],
)
def test_choices_that_are_refused(rows, columns, says):
    with pytest.raises(InputError) as error:
        canonical_splits(TaskSpec(name="task", problem_type=CHOICE, columns=columns), {"train": rows}, local=False)
    for part in says:
        assert part in str(error.value)


def answer_rows(*answers):
    return Dataset.from_list([{"question": "who?", "context": "This is Bob.", "label": answer} for answer in answers])


@pytest.mark.parametrize(
    ("answers", "expected", "null"),
    [
        ([{"text": ["Bob"], "answer_start": [8]}], [(["Bob"], [8])], False),
        ([{"text": ["Bob"], "answer_start": [8]}, {"text": [], "answer_start": []}], [(["Bob"], [8]), ([], [])], True),
        ([[{"text": "Bob", "answer_start": 8}], []], [(["Bob"], [8]), ([], [])], True),
        ([{"text": "Bob", "answer_start": 8}], [(["Bob"], [8])], False),
    ],
)
def test_answers(answers, expected, null):
    spec = TaskSpec(name="task", problem_type=ANSWER)
    spec, splits = canonical_task(spec, {"train": answer_rows(*answers)}, local=False)
    labels = splits["train"]["label"][:]
    assert [(label["text"], label["answer_start"]) for label in labels] == expected
    assert spec.null_answer is null


def test_a_null_answer_that_was_given_stays():
    spec = TaskSpec(name="task", problem_type=ANSWER, null_answer=False)
    spec, _ = canonical_task(spec, {"train": answer_rows({"text": [], "answer_start": []})}, local=False)
    assert spec.null_answer is False


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        (["0.5", "-3"], None, [0.5, -3.0]),
        (["1e-3", " 2 "], None, [0.001, 2.0]),
        ([0, 2], ClassLabel(names=["-1", "0", "1"]), [-1.0, 1.0]),
    ],
)
def test_numbers(values, feature, expected):
    spec = TaskSpec(name="task", problem_type=NUMBER)
    rows = rows_of(values, feature)
    assert canonical_splits(spec, {"train": rows}, local=False)["train"]["label"][:] == expected


@pytest.mark.parametrize(
    ("values", "feature", "says"),
    [
        ([0, 1], ClassLabel(names=["one star", "two stars"]), "one star, two stars"),
        (["1,5", "2"], None, "train row 0"),
        (["nan", "2"], None, "train row 0"),
        (["1_000", "2"], None, "train row 0"),
        (["", "2"], None, "train row 0"),
    ],
)
def test_what_is_no_number(values, feature, says):
    with pytest.raises(InputError, match=says):
        canonical_splits(TaskSpec(name="task", problem_type=NUMBER), {"train": rows_of(values, feature)}, local=False)


def test_holes_of_class_labels_are_minus_one():
    spec = TaskSpec(name="task", problem_type=SINGLE, source="rows")
    rows = rows_of([1, -1, 0], ClassLabel(names=["no", "yes"]))
    found = canonical_splits(spec, {"train": rows}, local=False)["train"]
    assert (found["label"][:], found["source_row"][:]) == ([1, 0], [0, 2])


def test_names_that_do_not_match_are_both_listed():
    rows = {"train": FORMS["names"], "validation": rows_of([0, 1], ClassLabel(names=["negative", "positive"]))}
    with pytest.raises(InputError) as error:
        canonical_splits(TaskSpec(name="task", problem_type=SINGLE), rows, local=False)
    for part in ("'task'", "validation", "no, yes", "negative, positive", "labels"):
        assert part in str(error.value)


def test_messages_name_file_and_line():
    spec = TaskSpec(name="task", problem_type=SINGLE, labels=["no", "yes"])
    places = {"train": RowPlaces("train", "train.csv", [2, 5, 6, 9])}
    with pytest.raises(InputError, match=r"'task', train\.csv, line 6: the label is 'perhaps'"):
        canonical_splits(spec, {"train": rows_of(["no", "yes", "perhaps", "no"])}, False, places)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not there")
def test_boolq_of_numbers_names_and_booleans():
    """The real labels of BoolQ, told as ids, names and booleans, are the same classes."""
    named = Dataset.from_parquet(str(DATA / "boolq" / "validation.parquet")).select(range(200))
    columns = {"text": "question", "text_pair": "passage"}
    answers = []
    for feature in (named.features["label"], Value("bool")):
        spec = TaskSpec(name="boolq", problem_type=SINGLE, columns=columns)
        rows = (
            named
            if isinstance(feature, ClassLabel)
            else named.cast_column("label", Value("int64")).cast_column("label", feature)
        )
        spec, splits = canonical_task(spec, {"train": named, "validation": rows}, local=False)
        answers.append(names_in(spec, splits["validation"]["label"][:]))
    assert answers[0] == answers[1] and len(set(answers[0])) == 2
