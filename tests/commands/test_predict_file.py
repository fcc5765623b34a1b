"""Files of any size: parts are kept, runs go on, processes share, and the output is one and the same."""

import csv
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset

from hf_mtl.cli import main
from hf_mtl.commands import predict_file
from hf_mtl.modeling.answering import Answerer
from tests.conftest import TASKS, build_model, randomise
from tests.distributed.test_two_processes import torchrun

ROOT = Path(__file__).parents[2]
ROWS = 30


@pytest.fixture(scope="module")
def checkpoint(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    randomise(build_model([TASKS[0], TASKS[3], TASKS[4]], vocab_size=tokenizer.vocab_size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Stopped(BaseException):
    """No error that a program catches."""


def rows(count: int = ROWS) -> list[dict]:
    """Rows of many lengths, one in seven without a text."""
    words = ["the", "race", "was", "held", "in", "Amsterdam", "and", "Bob", "won", "it", "by", "5", "km"]
    return [
        {"id": number, "text": None if number % 7 == 3 else " ".join((words * 3)[: number % 31 + 1])}
        for number in range(count)
    ]


def write_rows(path: Path, values: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in values), "utf-8")
    return path


@pytest.fixture
def file(tmp_path):
    return write_rows(tmp_path / "in.jsonl", rows())


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(predict_file, "_ROWS_OF_PART", 4)


def predict(checkpoint: Path, file: Path, output: Path, *arguments: str) -> int:
    return main(
        ["predict", str(checkpoint), "--file", str(file), "--output", str(output), "--device", "cpu", *arguments]
    )


def test_parts_are_the_whole_in_order(checkpoint, file, tmp_path, small_parts):
    assert predict(checkpoint, file, tmp_path / "out.jsonl") == 1
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [{key: row[key] for key in ("id", "text")} for row in written] == rows()
    assert [row["id"] for row in written if "error" in row] == [3, 10, 17, 24]
    assert "in.jsonl, line 4: text=None" in written[3]["error"]
    assert not (tmp_path / "out.jsonl.parts").exists()


def test_a_run_that_was_stopped_goes_on(checkpoint, file, tmp_path, small_parts, monkeypatch, capfd):
    predict(checkpoint, file, tmp_path / "whole.jsonl")
    answer, calls = Answerer.answer_checked, []

    def stopping(self, *arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise Stopped
        return answer(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Answerer, "answer_checked", stopping)
        with pytest.raises(Stopped):
            predict(checkpoint, file, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    capfd.readouterr()
    assert predict(checkpoint, file, tmp_path / "out.jsonl") == 1
    assert "Going on: 12 of 30 rows are answered." in capfd.readouterr().err
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("what", ["file", "model", "tasks"])
def test_parts_of_another_run_are_refused(checkpoint, file, tokenizer, tmp_path, monkeypatch, capfd, what):
    def stop(self):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(predict_file.FileAnswers, "finish", stop)
        with pytest.raises(Stopped):
            predict(checkpoint, file, tmp_path / "out.jsonl")
    arguments = []
    if what == "file":
        write_rows(file, rows()[::-1])
    elif what == "model":
        checkpoint = tmp_path / "other"
        randomise(build_model([TASKS[0], TASKS[3], TASKS[4]], vocab_size=tokenizer.vocab_size), 0.3).save_pretrained(
            checkpoint
        )
        tokenizer.save_pretrained(checkpoint)
    else:
        arguments = ["--tasks", "intent"]
    assert predict(checkpoint, file, tmp_path / "out.jsonl", *arguments) == 2
    assert f"holds parts of another run (it differs in: {what})" in capfd.readouterr().err


def test_a_table_has_a_column_per_key_of_an_answer(checkpoint, file, tmp_path):
    predict(checkpoint, file, tmp_path / "out.jsonl")
    predict(checkpoint, file, tmp_path / "out.csv")
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [int(row["id"]) for row in table] == list(range(ROWS))
    for row, right in zip(table, written):
        if "error" in right:
            assert row["error"] == right["error"] and row["intent.label"] == ""
        else:
            assert row["intent.label"] == right["answers"]["intent"]["label"] and row["error"] == ""
            assert float(row["stars.value"]) == right["answers"]["stars"]["value"]
            assert json.loads(row["names.tags"]) == right["answers"]["names"]["tags"]


def test_two_runs_do_not_write_one_output(checkpoint, file, tmp_path, monkeypatch, capfd):
    answer, codes = Answerer.answer_checked, []

    def answering(self, *arguments):
        if not codes:
            codes.append(None)
            codes.append(predict(checkpoint, file, tmp_path / "out.jsonl"))
        return answer(self, *arguments)

    monkeypatch.setattr(Answerer, "answer_checked", answering)
    assert predict(checkpoint, file, tmp_path / "out.jsonl") == 1
    assert codes == [None, 2] and "Another run is writing" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_lists_in_cells_and_columns_by_other_names(checkpoint, tmp_path, capfd):
    (tmp_path / "in.csv").write_text('body,tokens\na race,"[""Bob"", ""won""]"\n')
    columns = ("--columns", "text=body")
    assert predict(checkpoint, tmp_path / "in.csv", tmp_path / "out.jsonl", *columns) == 0
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert row["answers"]["names"]["tokens"] == ["Bob", "won"] and row["body"] == "a race" and "text" not in row
    twice = ("--columns", "text=body", "text=tokens")
    assert predict(checkpoint, tmp_path / "in.csv", tmp_path / "none.jsonl", *twice) == 2
    assert "two columns for text: body and tokens" in capfd.readouterr().err
    (tmp_path / "in.jsonl").write_text(json.dumps({"tokens": '["Bob"]'}) + "\n")
    assert predict(checkpoint, tmp_path / "in.jsonl", tmp_path / "typed.jsonl") == 1
    assert "expected a list of texts" in capfd.readouterr().err
    for given, message in (
        ("text", "expected FIELD=COLUMN"),
        ("txt=body", "input field 'txt'"),
        ("text=b", "column of"),
    ):
        assert predict(checkpoint, tmp_path / "in.csv", tmp_path / "none.jsonl", "--columns", given) == 2
        assert message in capfd.readouterr().err


def test_a_file_without_a_tasks_columns_or_with_its_answers_is_refused(checkpoint, tmp_path, capfd):
    (tmp_path / "in.csv").write_text("tokens,intent.label\n[],x\n")
    assert predict(checkpoint, tmp_path / "in.csv", tmp_path / "out.jsonl", "--tasks", "intent") == 2
    assert "has no column 'text', which task 'intent' needs" in capfd.readouterr().err
    assert predict(checkpoint, tmp_path / "in.csv", tmp_path / "out.csv") == 2
    assert "'intent.label', a name that answers of task 'intent' may have" in capfd.readouterr().err


def test_parquet_is_read_with_its_dates(checkpoint, tmp_path, capfd):
    day = datetime.datetime(2026, 1, 2)
    Dataset.from_dict({"text": ["a race", None], "day": [day, day]}).to_parquet(tmp_path / "in.parquet")
    assert predict(checkpoint, tmp_path / "in.parquet", tmp_path / "out.jsonl") == 1
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert first["day"] == str(day) and set(first["answers"]) == {"intent", "stars", "names"}
    assert "in.parquet, row 2: text=None" in second["error"]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    assert predict(checkpoint, tmp_path / "bad.parquet", tmp_path / "none.jsonl") == 2
    assert "cannot be read as parquet" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "out.tsv"), "expected a file that ends in .jsonl, .ndjson, .csv"),
        (("--device", "cuda:99"), "--device cuda:99"),
        (("--device", "gpu"), "--device gpu"),
    ],
)
def test_what_cannot_be_written_or_computed_on_is_refused(checkpoint, file, tmp_path, capfd, arguments, message):
    assert predict(checkpoint, file, tmp_path / "out.jsonl", *arguments) == 2
    assert message in capfd.readouterr().err


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.mark.slow
def test_killed_twice_and_shared_by_two_processes_it_is_the_same(checkpoint, tmp_path):
    count = 5 * predict_file._ROWS_OF_PART
    file = write_rows(tmp_path / "in.jsonl", [row for row in rows(count) if row["text"]])
    count = len(file.read_text().splitlines())
    outputs = {name: tmp_path / f"{name}.jsonl" for name in ("whole", "killed", "shared")}

    def command(name: str) -> list[str]:
        arguments = [str(checkpoint), "--file", str(file), "--output", str(outputs[name]), "--device", "cpu"]
        return ["-m", "hf_mtl.cli", "predict", *arguments]

    def run(name: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, *command(name)], cwd=ROOT, env=environment())

    assert run("whole").wait() == 0
    for parts in (1, 3):
        process = run("killed")
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("killed.jsonl.parts/0*.json"))) < parts and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not outputs["killed"].exists()
    assert run("killed").wait() == 0
    shared = torchrun(*command("shared"))
    said = shared.communicate()[0]
    assert shared.returncode == 0, said
    whole = outputs["whole"].read_bytes()
    assert whole.count(b"\n") == count
    assert outputs["killed"].read_bytes() == whole and outputs["shared"].read_bytes() == whole
