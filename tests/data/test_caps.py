"""Caps: which rows they leave, the same for all tasks of a source, and none of a class lost to the order of a file."""

import pytest
from datasets import Dataset

from hf_mtl import InputError, TaskSpec, load_mixture
from hf_mtl.data.caps import drawn_rows
from hf_mtl.data.mixture import _build_mixture
from hf_mtl.tasks import ROW_FIELD

ROWS = 60


def column(places):
    """Rows of one label column of a source: those at these places have a label."""
    return Dataset.from_dict(
        {
            "text": [f"the text of row number {place}" for place in places],
            "label": [float(place) for place in places],
            ROW_FIELD: list(places),
        }
    )


def spec_of(name, source=None, **settings):
    return TaskSpec(name=name, problem_type="regression", source=source, **settings)


def places_of(rows):
    return [int(label) for label in rows["label"]]


def draw(tasks, caps, seed=1):
    """The places that each task has left."""
    specs = [spec_of(name, source) for name, (source, _) in tasks.items()]
    rows = {name: column(places) for name, (_, places) in tasks.items()}
    left = drawn_rows(rows, {**dict.fromkeys(tasks), **caps}, specs, seed, "max_train_samples")
    return {name: places_of(rows) for name, rows in left.items()}


def test_a_part_is_drawn_in_order_and_by_the_seed():
    tasks = {"a": ("a", range(ROWS))}
    left = draw(tasks, {"a": 20})["a"]
    assert len(left) == 20
    assert left == sorted(left) != list(range(20))
    assert left == draw(tasks, {"a": 20})["a"]
    assert left != draw(tasks, {"a": 20}, seed=2)["a"]
    assert draw(tasks, {"a": ROWS})["a"] == draw(tasks, {})["a"] == list(range(ROWS))


def test_tasks_of_one_source_have_the_same_rows():
    """Also where each lacks labels that the other has: a row that is left trains every task it has a label for."""
    evens, most = set(range(0, ROWS, 2)), set(range(10, ROWS))
    tasks = {"a": ("shared", evens), "b": ("shared", most), "other": ("other", range(ROWS))}
    left = {name: set(places) for name, places in draw(tasks, dict.fromkeys(tasks, 20)).items()}
    drawn = left["a"] | left["b"]
    assert len(drawn) == 20
    assert left["a"] == drawn & evens
    assert left["b"] == drawn & most
    assert len(left["other"]) == 20


@pytest.mark.parametrize(
    ("caps", "counts"), [({"a": 20}, (20, ROWS)), ({"a": 20, "b": 40}, (20, 40)), ({}, (ROWS, ROWS))]
)
def test_the_smaller_cap_leaves_rows_that_the_other_task_has_too(caps, counts):
    left = draw({"a": ("shared", range(ROWS)), "b": ("shared", range(ROWS))}, caps)
    assert (len(left["a"]), len(left["b"])) == counts
    assert set(left["a"]) <= set(left["b"])


def test_a_task_without_a_label_in_the_rows_that_are_drawn():
    with pytest.raises(
        InputError, match="Task 'b' has no label in the 1 rows that max_train_samples leaves of the 60"
    ):
        draw({"a": ("shared", range(ROWS)), "b": ("shared", [7])}, {"a": 1, "b": 1})


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_rows_are_a_part_of_all_whatever_the_seed(split):
    """A file sorted by class keeps nearly all classes; its first rows would be of the first ones."""
    held_out = column(range(1000, 1770))
    splits = {"a": {"train": column(range(ROWS)), "validation": held_out, split: held_out}}
    specs = [spec_of("a", max_eval_samples=500)]
    first, second = (getattr(_build_mixture(specs, splits, seed=seed), split)["a"] for seed in (1, 2))
    assert places_of(first) == places_of(second) == sorted(places_of(first))
    assert len(first) == 500
    # Ten rows for each of 77 classes; the first 500 rows would hold 50 of them.
    assert len({place // 10 for place in places_of(first)}) == 77


def test_held_out_rows_of_one_source_are_the_same():
    held_out = column(range(1000, 1100))
    specs = [spec_of(name, "shared") for name in "ab"]
    splits = {name: {"train": column(range(ROWS)), "validation": held_out} for name in "ab"}
    validation = _build_mixture(specs, splits, max_eval_samples=10).validation
    assert len(validation["a"]) == 10
    assert places_of(validation["a"]) == places_of(validation["b"])


@pytest.mark.parametrize(("own", "of_all", "expected"), [(5, 2, 2), (2, 5, 2), (None, 4, 4), (3, None, 3)])
def test_the_smaller_of_two_caps_holds(own, of_all, expected):
    splits = {"a": {"train": column(range(ROWS)), "validation": column(range(1000, 1020))}}
    specs = [spec_of("a", max_train_samples=own, max_eval_samples=own)]
    mixture = _build_mixture(specs, splits, max_train_samples=of_all, max_eval_samples=of_all)
    assert (len(mixture.train["a"]), len(mixture.validation["a"])) == (expected, expected)


def test_a_file_with_two_label_columns(tmp_path):
    """From files to a mixture: what one task has left of a source, the other has."""
    lines = ["text,mood,stars"] + [
        f"the text of row {row},{'bad' if row % 2 else 'good'},{row}.0" for row in range(ROWS)
    ]
    for split in ("train", "validation"):
        text = "\n".join(lines).replace("the text", f"the {split} text")
        (tmp_path / f"{split}.csv").write_text(text + "\n", "utf-8")
    shared = {"dataset": str(tmp_path), "source": "reviews"}
    mood = TaskSpec(name="mood", problem_type="single_label_classification", columns={"label": "mood"}, **shared)
    stars = TaskSpec(name="stars", problem_type="regression", columns={"label": "stars"}, **shared)
    mixture = load_mixture([mood, stars], max_train_samples=20, max_eval_samples=10)
    for rows, count in ((mixture.train, 20), (mixture.validation, 10)):
        assert len(rows["mood"]) == count
        assert list(rows["mood"]["text"]) == list(rows["stars"]["text"])
