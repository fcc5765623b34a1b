"""The shipped synthetic data: splits share nothing, labels are valid, the files are what the grammar writes."""

import json
from pathlib import Path

import pytest

from hf_mtl.data import support_desk
from hf_mtl.data.support_desk.generate import build, report, seen_share, write
from hf_mtl.data.support_desk.grammar import SPLITS, PhraseBank, normalised

FOLDER = Path(support_desk.__file__).parent
TASKS = ("intent", "urgency", "entities", "flags")


def shipped(task: str, split: str) -> list[dict]:
    lines = (FOLDER / task / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def text_of(row: dict) -> str:
    return normalised(row["text"] if "text" in row else " ".join(row["tokens"]))


@pytest.fixture(scope="module")
def rows():
    return build()


def test_the_files_are_what_the_grammar_writes(rows, tmp_path):
    write(rows, tmp_path)
    for task in TASKS:
        for split in SPLITS:
            name = f"{task}/{split}.jsonl"
            assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_there_are_at_least_3000_rows():
    assert sum(len(shipped(task, split)) for task in TASKS for split in SPLITS) >= 3000


def test_splits_share_no_template_and_no_slot_value():
    train, validation = (PhraseBank(split) for split in SPLITS)
    assert not train.templates() & validation.templates()
    assert not train.slot_values() & validation.slot_values()


def test_no_validation_text_stands_in_train():
    train = {text_of(row) for task in TASKS for row in shipped(task, "train")}
    assert not train & {text_of(row) for task in TASKS for row in shipped(task, "validation")}


def test_labels_are_the_same_in_both_splits():
    for task, key in (("intent", "label"), ("flags", "labels"), ("entities", "tags")):
        found = []
        for split in SPLITS:
            labels = [row[key] for row in shipped(task, split)]
            flat = labels if key == "label" else [item for label in labels for item in label]
            found.append(set(flat))
        assert found[0] == found[1], task
    assert all(0 <= row["label"] <= 10 for split in SPLITS for row in shipped("urgency", split))


def test_tags_are_well_formed():
    for split in SPLITS:
        for row in shipped("entities", split):
            assert len(row["tokens"]) == len(row["tags"])
            for before, tag in zip(["O", *row["tags"]], row["tags"]):
                if tag.startswith("I-"):
                    assert before[2:] == tag[2:], row


@pytest.mark.parametrize(("size", "most"), [(2, 0.12), (3, 0.03)])
def test_few_ngrams_of_validation_stand_in_train(rows, size, most):
    for task in TASKS:
        assert seen_share(rows[task], size) <= most


def test_the_readme_shows_the_measured_shares(rows):
    assert report(rows) in (FOLDER / "README.md").read_text("utf-8")
