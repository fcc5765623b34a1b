"""No training row of any task stands in a held-out split of any task."""

from pathlib import Path

import pytest
from datasets import Dataset

from hf_mtl import InputError, TaskSpec, load_mixture
from hf_mtl.data.mixture import _build_mixture
from hf_mtl.data.overlap import _MIN_CHARACTERS, _drop_overlap, input_keys

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

ONE = TaskSpec(name="one", problem_type="regression")
TWO = TaskSpec(name="two", problem_type="regression", fields=["text", "text_pair"])
WORDS = TaskSpec(name="words", problem_type="token_classification")
CHOICES = TaskSpec(name="choices", problem_type="multiple_choice")
SPECS = {spec.name: spec for spec in (ONE, TWO, WORDS, CHOICES)}

FIRST, SECOND, THIRD = "The first long sentence.", "A second sentence, as long.", "Something else altogether!"


def rows(*found):
    return Dataset.from_list(list(found))


@pytest.mark.parametrize(
    ("train_task", "train_row", "held_out_task", "held_out_row", "dropped"),
    [
        ("one", {"text": FIRST}, "one", {"text": FIRST}, 1),
        ("one", {"text": FIRST}, "one", {"text": SECOND}, 0),
        # Case, blanks and punctuation do not tell rows apart; letters do.
        ("one", {"text": FIRST}, "one", {"text": "  the FIRST long-sentence"}, 1),
        ("one", {"text": FIRST}, "one", {"text": FIRST + " Indeed."}, 0),
        # So do vowel signs; whether an accent is composed, and joiners, do not.
        ("one", {"text": "किताब मेज पर रखी है"}, "one", {"text": "कताब मेज पर रखी है"}, 0),
        ("one", {"text": "किताब मेज पर रखी है"}, "one", {"text": "किताब, मेज पर रखी है!"}, 1),
        ("one", {"text": "Élisabeth aime le café"}, "one", {"text": "E\u0301lisabeth aime le cafe\u0301"}, 1),
        # Pairs, in either order; half a pair is another row.
        ("two", {"text": FIRST, "text_pair": SECOND}, "two", {"text": FIRST, "text_pair": SECOND}, 1),
        ("two", {"text": FIRST, "text_pair": SECOND}, "two", {"text": SECOND, "text_pair": FIRST}, 1),
        ("two", {"text": FIRST, "text_pair": SECOND}, "two", {"text": FIRST, "text_pair": THIRD}, 0),
        ("one", {"text": FIRST}, "two", {"text": FIRST, "text_pair": SECOND}, 0),
        # Another task's held-out row, and another problem type's.
        ("words", {"tokens": FIRST.split()}, "one", {"text": FIRST}, 1),
        ("one", {"text": FIRST}, "words", {"tokens": FIRST.split()}, 1),
        ("choices", {"text": FIRST, "choices": [SECOND, THIRD]}, "one", {"text": FIRST}, 0),
        (
            "choices",
            {"text": FIRST, "choices": [SECOND, THIRD]},
            "choices",
            {"text": FIRST, "choices": [THIRD, SECOND]},
            1,
        ),
        # Short inputs repeat by chance.
        ("one", {"text": "Thank you."}, "one", {"text": "Thank you."}, 0),
        ("one", {"text": "x" * _MIN_CHARACTERS}, "one", {"text": "x" * _MIN_CHARACTERS}, 1),
        ("one", {"text": "x" * (_MIN_CHARACTERS - 1)}, "one", {"text": "x" * (_MIN_CHARACTERS - 1)}, 0),
        # Letters of any script count.
        ("one", {"text": "Это довольно длинное предложение"}, "one", {"text": "это довольно длинное предложение."}, 1),
    ],
)
def test_drop_overlap(train_task, train_row, held_out_task, held_out_row, dropped):
    other = {"text": "a row that nobody else has", "text_pair": "b", "tokens": ["nobody", "else"], "choices": ["x"]}
    other = {name: other[name] for name in train_row}
    train = {train_task: rows(other, train_row)}
    kept, counts = _drop_overlap(train, [{held_out_task: rows(held_out_row)}], SPECS)
    assert counts == {train_task: dropped}
    assert kept[train_task].to_list() == ([other] if dropped else [other, train_row])


def test_another_tasks_validation_and_test_are_seen():
    """Every task's training rows are held against every task's held-out rows."""
    train = {name: rows(*({"text": text, "label": 0.0} for text in (FIRST, SECOND, THIRD))) for name in ("a", "b")}
    specs = [TaskSpec(name=name, problem_type="regression") for name in train]
    splits = {
        "a": {"train": train["a"], "validation": rows({"text": FIRST.upper(), "label": 0.0})},
        "b": {
            "train": train["b"],
            "validation": rows({"text": "unlike any of them", "label": 0.0}),
            "test": rows({"text": SECOND, "label": 0.0}),
        },
    }
    mixture = _build_mixture(specs, splits, exclude_overlap=True)
    assert mixture.dropped == {"a": 2, "b": 2}
    assert [list(mixture.train[name]["text"]) for name in train] == [[THIRD], [THIRD]]
    with_all = _build_mixture(specs, splits, exclude_overlap=False)
    assert (with_all.dropped, len(with_all.train["a"]), len(with_all.train["b"])) == ({}, 3, 3)


def test_a_cap_on_evaluation_lets_nothing_through():
    train = rows({"text": FIRST, "label": 0.0}, {"text": SECOND, "label": 1.0})
    held_out = rows({"text": THIRD, "label": 0.0}, {"text": FIRST, "label": 0.0})
    spec = TaskSpec(name="a", problem_type="regression", max_eval_samples=1)
    mixture = _build_mixture([spec], {"a": {"train": train, "validation": held_out}})
    assert (len(mixture.validation["a"]), mixture.dropped) == (1, {"a": 1})
    assert list(mixture.train["a"]["text"]) == [SECOND]


@pytest.mark.skipif(not (SHARED_DATA / "stsb").is_dir(), reason="needs the MRPC and STS-B files beside the repository")
def test_mrpc_and_stsb_share_over_a_hundred_rows():
    """Known from the data sets: STS-B took sentence pairs of MRPC, across their splits."""
    columns = {"text": "sentence1", "text_pair": "sentence2", "label": "label"}

    def specs():
        return [
            TaskSpec(name="mrpc", problem_type="single_label_classification", columns=columns),
            TaskSpec(name="stsb", problem_type="regression", columns=columns),
        ]

    alone = sum(load_mixture([spec], str(SHARED_DATA)).dropped[spec.name] for spec in specs())
    both = load_mixture(specs(), str(SHARED_DATA))
    assert sum(both.dropped.values()) - alone > 100
    seen = {key for spec in both.specs for key in input_keys(both.validation[spec.name], spec)}
    left = {
        key
        for spec in both.specs
        for key in input_keys(both.train[spec.name], spec)
        if len(key) >= _MIN_CHARACTERS and key in seen
    }
    assert not left


def split_rows(*texts):
    return rows(*({"text": text, "label": 0.0} for text in texts))


def overlapping(shared, alone):
    """Splits of two tasks: training rows of `a` that stand in held-out splits, of its own and of `b`, and others."""
    texts = [f"a long sentence of number {number}" for number in range(shared)]
    only_a = [f"another long sentence of number {number}" for number in range(alone)]
    return {
        "a": {"train": split_rows(*texts, *only_a), "validation": split_rows(texts[0], "one that is held out")},
        "b": {
            "train": split_rows("what b alone learns from"),
            "validation": split_rows("what b alone is asked"),
            "test": split_rows(*texts),
        },
    }


@pytest.mark.parametrize(
    ("shared", "alone", "said", "left"),
    [
        (3, 3, None, 3),
        (1, 5, None, 5),
        (4, 3, True, 3),
        (4, 3, False, 7),
        (4, 0, False, 4),
    ],
)
def test_what_is_dropped_by_what_was_said(shared, alone, said, left):
    specs = [TaskSpec(name=name, problem_type="regression") for name in "ab"]
    mixture = _build_mixture(specs, overlapping(shared, alone), exclude_overlap=said)
    assert len(mixture.train["a"]) == left
    assert mixture.dropped == ({} if said is False else {"a": shared, "b": 0})


@pytest.mark.parametrize(
    ("shared", "alone", "said", "advice"),
    [
        (4, 3, None, ("exclude_overlap: true", "exclude_overlap=True", "exclude_overlap: false")),
        (4, 0, None, ("None would be left", "exclude_overlap: false")),
        (4, 0, True, ("None would be left", "exclude_overlap: false", "--exclude_overlap false")),
    ],
)
def test_most_rows_are_not_dropped_without_being_asked_to(shared, alone, said, advice):
    specs = [TaskSpec(name=name, problem_type="regression") for name in "ab"]
    with pytest.raises(InputError) as error:
        _build_mixture(specs, overlapping(shared, alone), exclude_overlap=said)
    counts = f"{shared} of its {shared + alone} training rows"
    for part in (
        f"Task 'a': {counts}",
        "1 in the validation split of 'a'",
        f"{shared} in the test split of 'b'",
        *advice,
    ):
        assert part in str(error.value)
    assert "Task 'b':" not in str(error.value)
    assert ("exclude_overlap: true" in str(error.value)) is (alone > 0)
