"""What a recipe's YAML says: numbers and words by key, keys that stand twice, and texts that are no YAML."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mtl import InputError
from hf_mtl.recipe import read_recipe
from hf_mtl.recipe_format.yaml_reading import read_yaml, write_yaml

HEAD = "encoder: some/encoder\nreport_to: none\n"
ROW = "- name: mood\n  problem_type: single_label_classification\n  dataset: some/set\n"


@pytest.fixture
def read(tmp_path):
    """Read a recipe with lines beside its own, or as a whole."""

    def read_text(lines="", row="", whole=None):
        path = tmp_path / "train.yaml"
        below = "".join(f"  {line}\n" for line in row.splitlines())
        path.write_text(f"{HEAD}output_dir: out\n{lines}\ntasks:\n{ROW}{below}" if whole is None else whole, "utf-8")
        return read_recipe(path)

    return read_text


def value(recipe, key):
    return {**vars(recipe.model), **vars(recipe.data), **vars(recipe.training)}[key]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1e-6", 1e-6),
        ("1E-6", 1e-6),
        ("1e5", 1e5),
        ("2E-3", 2e-3),
        ("+1e-3", 1e-3),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.0e-4", 1e-4),
        ("3", 3.0),
        ("'1e-4'", 1e-4),
        # A needless zero is no octal number, as it was in YAML 1.1.
        ("010", 10.0),
    ],
)
def test_a_number(read, written, expected):
    recipe = read(f"learning_rate: {written}", row=f"weight: {written}")
    assert (value(recipe, "learning_rate"), recipe.tasks[0].weight) == (expected, expected)


@pytest.mark.parametrize("written", ["null", "~", ""])
def test_nothing_is_the_default(read, written):
    recipe = read(f"learning_rate: {written}", row=f"max_train_samples: {written}")
    assert (value(recipe, "learning_rate"), recipe.tasks[0].max_train_samples) == (5e-5, None)


# Of which Python's `float` makes numbers, or which are none that can be reckoned with.
NO_NUMBERS = ["1_000", "4_2", "'1_0.5'", "\u0663", "inf", "nan", ".inf", "-.inf", ".nan", "1e999"]


@pytest.mark.parametrize("written", ["fast", "true", "no", "1:30", "0x1F", "2024-01-01", "1e", "[1]"] + NO_NUMBERS)
@pytest.mark.parametrize("key", ["learning_rate", "weight", "max_steps", "max_length"])
def test_what_is_no_number(read, key, written):
    lines = {"row" if key in ("weight", "max_length") else "lines": f"{key}: {written}"}
    with pytest.raises(InputError, match=rf"{key}.*expected a (whole )?number such as"):
        read(**lines)


@pytest.mark.parametrize(("written", "expected"), [("1e5", 100_000), ("100.0", 100), ("'7'", 7), ("010", 10)])
def test_a_whole_number(read, written, expected):
    for steps in (
        value(read(f"max_steps: {written}"), "max_steps"),
        read(row=f"max_length: {written}").tasks[0].max_length,
    ):
        assert (steps, type(steps)) == (expected, int)
    with pytest.raises(InputError, match=r"max_steps is 1.5; expected a whole number"):
        read("max_steps: 1.5")


@pytest.mark.parametrize("typed", ["1_000", "inf", "nan", "1e999"])
@pytest.mark.parametrize("key", ["learning_rate", "seed", "tasks.mood.weight"])
def test_what_is_typed_and_no_number(tmp_path, key, typed):
    (tmp_path / "train.yaml").write_text(f"{HEAD}output_dir: out\ntasks:\n{ROW}", "utf-8")
    with pytest.raises(InputError, match=rf"--{key} is .*expected a (whole )?number such as"):
        read_recipe(tmp_path / "train.yaml", [f"--{key}", typed])


@pytest.mark.parametrize("written", ["text", "[text, label]", "7"])
@pytest.mark.parametrize(
    ("key", "example"),
    [
        ("columns", "{text: COLUMN, label: COLUMN}"),
        ("local_columns", "{text: COLUMN, label: COLUMN}"),
        ("data_files", "{train: FILE, validation: FILE}"),
        ("splits", "{train: SPLIT, validation: SPLIT}"),
    ],
)
def test_what_is_no_mapping(read, key, example, written):
    with pytest.raises(InputError) as error:
        read(row=f"{key}: {written}")
    assert str(error.value).endswith(f"expected a mapping such as {example}.")


def test_a_whole_number_of_many_digits_is_not_rounded(read):
    assert value(read("mixing_cap: '12345678901234567891'"), "mixing_cap") == 12345678901234567891


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *((word, True) for word in ("true", "True", "yes", "Yes", "on", "ON", "y", "1", "'true'")),
        *((word, False) for word in ("false", "FALSE", "no", "off", "Off", "n", "0", "'no'")),
    ],
)
def test_a_boolean(read, written, expected):
    recipe = read(f"length_grouping: {written}", row=f"balance_classes: {written}")
    assert value(recipe, "length_grouping") is expected
    assert recipe.values["length_grouping"] is expected
    assert recipe.tasks[0].balance_classes is expected


@pytest.mark.parametrize("key", ["bf16", "balance_classes", "exclude_overlap"])
def test_what_is_no_boolean(read, key):
    with pytest.raises(InputError, match=rf"{key}.* is 'maybe'; expected true or false"):
        read(**{"row" if key == "balance_classes" else "lines": f"{key}: maybe"})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[no, yes]", ["no", "yes"]),
        ("[on, off, y, n]", ["on", "off", "y", "n"]),
        ("[true, False]", ["true", "False"]),
        ("[0, 1]", ["0", "1"]),
        ("[01, 02]", ["01", "02"]),
        ("[1.0, 2.50]", ["1.0", "2.50"]),
        ("[1e5, 1E5]", ["1e5", "1E5"]),
        ("[+1, -1]", ["+1", "-1"]),
        ("[0x1F, 0o17]", ["0x1F", "0o17"]),
        ("[1:30, 12:00]", ["1:30", "12:00"]),
        ("[2024-01-01, 2024-01-02]", ["2024-01-01", "2024-01-02"]),
        ("[.inf, .nan, NaN]", [".inf", ".nan", "NaN"]),
        ("[NA, None, nan]", ["NA", "None", "nan"]),
        ("[=, <<]", ["=", "<<"]),
        ("['null', \"~\"]", ["null", "~"]),
        ("\n- no\n- yes", ["no", "yes"]),
        ("null", None),
        ("", None),
    ],
)
def test_labels_are_words_as_they_are_written(read, written, expected):
    assert read(row=f"labels: {written}").tasks[0].labels == expected


@pytest.mark.parametrize(
    ("row", "line", "says"),
    [
        ("labels: [null, yes]", 9, "'null' is nothing where a word is meant"),
        ("labels: [no, ~]", 9, "'~' is nothing"),
        ("labels:\n- NULL\n- a", 10, '"NULL"'),
        ("labels:\n- a\n-", 11, "a word is missing"),
        ("columns: {text: null}", 9, '"null"'),
    ],
)
def test_a_word_that_is_missing_is_asked_for(read, row, line, says):
    with pytest.raises(InputError, match=rf"(?s)train.yaml: .*\(line {line}, .*put it in quotes") as error:
        read(row=row)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("row", "key", "expected"),
    [
        ("columns: {text: 1, label: no}", "columns", {"text": "1", "label": "no"}),
        ("splits: {validation: 1}", "splits", {"validation": "1"}),
        ("subset: 1.0", "subset", "1.0"),
        ("source: 2024-01-01", "source", "2024-01-01"),
        ("metrics: [accuracy]", "metrics", ["accuracy"]),
        ("class_weights: [1e0, 2E-1]", "class_weights", [1.0, 0.2]),
    ],
)
def test_values_of_a_row(read, row, key, expected):
    assert getattr(read(row=row).tasks[0], key) == expected


def test_names_of_tasks_are_words(read):
    rows = "- {name: on, problem_type: regression}\n- {name: no, problem_type: regression, reads: [on]}\n"
    tasks = read(whole=f"{HEAD}output_dir: out\ntasks:\n{rows}").tasks
    assert [(task.name, task.reads) for task in tasks] == [("on", None), ("no", ["on"])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run_name: 1e5", "1e5"),
        ("run_name: 010", "010"),
        ("run_name: on", "on"),
        ("save_strategy: no", "no"),
        ("label_names: [1, no]", ["1", "no"]),
        ("gate: none", "none"),
        ("lr_scheduler_kwargs: {num_cycles: 2, power: 1e-3}", {"num_cycles": 2, "power": 1e-3}),
        ("single_task_scores: {on: 6e1}", {"on": 60.0}),
        ("tf32: off", False),
    ],
)
def test_values_of_the_whole_recipe(read, line, expected):
    key = line.partition(":")[0]
    recipe = read(line)
    assert value(recipe, key) == recipe.values[key] == expected


@pytest.mark.parametrize(
    ("lines", "row", "says"),
    [
        ("seed: 1\nseed: 2", "", "the key 'seed' stands twice, first in line 4, again (line 5, column 1)"),
        ("", "weight: 1\nweight: 1", "the key 'weight' stands twice, first in line 9"),
        ("", "columns: {text: a, text: b}", "the key 'text' stands twice"),
        ("lr_scheduler_kwargs: {1: a, '1': b}", "", "the key '1' stands twice"),
        ("\tseed: 1", "", "line 4, column 1). Indent with blanks"),
        ("", "columns:\n\ttext: a", "line 10, column 3). Indent with blanks"),
        ("run_name: a: b", "", "line 4, column 12). Put a text that holds `: ` in quotes"),
        ("run_name: @home", "", "line 4, column 11). Put the text in quotes"),
        ("run_name: 'open", "", "unexpected end of stream"),
        ("run_name: *nobody", "", "undefined alias 'nobody' (line 4"),
        ("run_name: !home x", "", "unknown tag '!home' (line 4"),
        ("seed: !!int x", "", "'x' is no int (line 4"),
        ("{a: 1}: 2", "", "a key that is no text (line 4"),
        ("run_name: \a", "", "special characters are not allowed"),
        ("labels: [a, b]", "", "--tasks.<name>.labels"),
        ("", "labels: yes", "labels of task 'mood' is 'yes'; expected a list such as [yes]"),
        ("", "metrics: accuracy", "expected a list such as [accuracy]"),
        ("", "data_files: train.csv", "expected a mapping such as"),
    ],
)
def test_what_cannot_be_read(read, lines, row, says):
    with pytest.raises(InputError) as error:
        read(lines, row)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("whole", "says"),
    [
        ("", "an empty file"),
        ("# a comment\n", "an empty file"),
        ("---\n", "an empty file"),
        ("- encoder\n", "`key: value` lines"),
        ("just text", "`key: value` lines"),
        (HEAD, "a list of task rows under `tasks:`, such as `- name: rte`"),
        (HEAD + "tasks: {mood: {weight: 2}}\n", "a list of task rows"),
        (HEAD + "tasks: [null]\n", "found None"),
        (f"{HEAD}tasks:\n{ROW}---\n{HEAD}", "A recipe is one document"),
        (
            f"{HEAD}tasks:\n- &a {{name: a, problem_type: regression, reads: *a}}\n",
            "an alias stands inside what it names",
        ),
        (f"{HEAD}tasks:\n- name: a\n  dataset: some/set\n", "task 'a' needs 'problem_type'"),
    ],
)
def test_a_file_that_is_no_recipe(read, whole, says):
    with pytest.raises(InputError) as error:
        read(whole=whole)
    assert says in str(error.value)


def test_a_row_without_problem_type_is_told_all_of_them(read):
    from hf_mtl.modeling.problem_types import PROBLEM_TYPES

    with pytest.raises(InputError) as error:
        read(whole=f"{HEAD}tasks:\n- name: a\n  dataset: some/set\n")
    assert len(PROBLEM_TYPES) == 7
    assert all(name in str(error.value) for name in PROBLEM_TYPES)
    assert "`problem_type: `" in str(error.value)


@pytest.mark.parametrize("before", ["", "---\n", "\ufeff", "# first a comment\n", "%YAML 1.1\n---\n"])
def test_what_may_stand_before_a_recipe(read, before):
    assert read(whole=f"{before}{HEAD}output_dir: out\ntasks:\n{ROW}").encoder == "some/encoder"


@pytest.mark.parametrize(("encoding", "says"), [("latin-1", "byte 12 is 0xf6"), ("utf-16", "byte 1 is 0xff")])
def test_a_file_in_another_encoding(tmp_path, encoding, says):
    path = tmp_path / "train.yaml"
    path.write_bytes("run_name: töne\n".encode(encoding))
    with pytest.raises(InputError, match=f"no UTF-8 text: {says}. Save it as UTF-8"):
        read_recipe(path)


def test_anchors_and_merged_rows(read):
    rows = "- &one {name: one, problem_type: regression, weight: 2, metrics: [pearson]}\n- {<<: *one, name: two}\n"
    recipe = read(whole=f"{HEAD}output_dir: out\ntasks:\n{rows}")
    assert [(task.name, task.weight, task.metrics) for task in recipe.tasks] == [
        ("one", 2, ["pearson"]),
        ("two", 2, ["pearson"]),
    ]


WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["no", "1e5", "010", "0x1F", "1:30", "2024-01-01", "~", "null", ".inf", "<<", "=", "1_000", "- a", "a: b"]
    ),
)
VALUES = st.one_of(
    WORDS, st.booleans(), st.integers(), st.floats(allow_nan=False), st.none(), st.lists(WORDS, max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_what_is_written_is_read_again(values):
    again = read_yaml(write_yaml(values), "text", lambda keys: False)
    assert again == values
    assert [type(item) for item in again.values()] == [type(item) for item in values.values()]


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=4))
def test_words_that_are_written_are_read_again(words):
    assert read_yaml(write_yaml({"labels": words}), "text", lambda keys: keys == ("labels",)) == {"labels": words}


def test_a_number_that_is_none():
    assert math.isnan(read_yaml("x: .NaN", "text", lambda keys: False)["x"])
