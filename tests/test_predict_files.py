"""Rows to predict, from files and in Python: one that cannot be answered is named, the others are answered."""

import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from hf_mtl import InputError
from hf_mtl.cli import main
from hf_mtl.commands import answer_tally
from hf_mtl.modeling.answering import Answerer
from tests.conftest import build_model

TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "likeness", "problem_type": "regression", "fields": ["text", "text_pair"]},
    {"name": "names", "problem_type": "token_classification", "labels": ["O", "B-X"]},
    {"name": "pick", "problem_type": "multiple_choice"},
]


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(TASKS, vocab_size=tokenizer.vocab_size)


@pytest.fixture(scope="module")
def checkpoint(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def answer_file(checkpoint, tmp_path, capsys):
    """Answer a file; return the exit code, the rows written, and what was said."""

    def answer(name, content, *arguments):
        path, output = tmp_path / name, tmp_path / "answers.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        typed = ["predict", str(checkpoint), "--file", str(path), "--output", str(output), *arguments]
        code = main(typed)
        said = capsys.readouterr()
        lines = output.read_text("utf-8").splitlines() if output.exists() else []
        messages = [line for line in said.err.splitlines() if line.startswith("hf-mtl predict:")]
        return code, [json.loads(line) for line in lines], [line.replace(f"{tmp_path}/", "") for line in messages]

    return answer


FILES = {
    "in.jsonl": '{"id": 7, "text": "a"}\n\n{"text": "b"}\n',
    "in.json": '[{"id": 7, "text": "a"}, {"text": "b"}]',
    "in.csv": "id,text\n7,a\n,b\n",
    "in.tsv": "id\ttext\n7\ta\n\tb\n",
    "in.csv.gz": gzip.compress(b"id;text\n7;a\n;b\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_is_answered_alike_and_other_columns_are_kept(answer_file, model, tokenizer, name):
    code, rows, said = answer_file(name, FILES[name])
    assert (code, said) == (0, [])
    answers = [row.pop("answers") for row in rows]
    first = {"id": 7 if name.startswith("in.j") else "7", "text": "a"}
    second = {"text": "b"} if name.startswith("in.j") else {"id": None, "text": "b"}
    assert rows == [first, second]
    expected = model.predict(["a", "b"], tokenizer=tokenizer)
    assert [set(answer) for answer in answers] == [{"mood", "names"}] * 2
    for answer, right in zip(answers, expected):
        assert answer["mood"]["label"] == right["mood"]["label"]
        assert answer["mood"]["score"] == pytest.approx(right["mood"]["score"], abs=1e-5)


BAD_LINES = [
    ('{"text": 5}', "text=5; expected a text"),
    ('{"text": null}', "text=None; no task can be answered from that: mood needs text"),
    ('{"txt": "a"}', "unknown input field 'txt'"),
    ('{"sentence": "a"}', "no field; no task can be answered"),
    ('{"text_pair": "a"}', "text_pair='a'; no task can be answered from that: mood needs text; likeness needs text"),
    ('{"tokens": ["a", 1]}', "tokens=['a', 1]; expected a list of texts"),
    ('{"tokens": "a b"}', "tokens='a b'; expected a list of texts"),
    ('{"text": "a", "choices": []}', "choices=[]; expected a list of texts that is not empty"),
    ('["a"]', '["a"] is no object'),
    ('{"text": ', "no valid JSON"),
    ('{"text": "a", "text": "b"}', "the key 'text' stands twice"),
    ('{"text": "\\ud83d"}', "half of a character"),
]


@pytest.mark.parametrize("batch_size", ["1", "32"])
def test_bad_rows_are_named_in_their_places_and_the_others_are_answered(answer_file, batch_size):
    good = '{"text": "fine", "id": 1}'
    lines = [line for bad, _ in BAD_LINES for line in (bad, "", good)]
    code, rows, said = answer_file("in.jsonl", "\n".join(lines), "--batch_size", batch_size)
    assert code == 1
    assert len(rows) == 2 * len(BAD_LINES)
    assert len(said) == len(BAD_LINES) + 1
    assert said[-1].startswith(f"hf-mtl predict: {len(BAD_LINES)} of {len(rows)} rows not answered")
    for index, (bad, reason) in enumerate(BAD_LINES):
        place = f"in.jsonl, line {3 * index + 1}"
        assert said[index].startswith(f"hf-mtl predict: {place}") and reason in said[index]
        bad_row, good_row = rows[2 * index : 2 * index + 2]
        assert reason in bad_row.pop("error") and "answers" not in bad_row
        readable = not any(word in reason for word in ("JSON", "object", "twice", "half"))
        assert bad_row == (json.loads(bad) if readable else {})
        assert good_row.keys() == {"text", "id", "answers"} and "mood" in good_row["answers"]


@pytest.mark.parametrize(
    ("name", "content", "arguments", "line", "reason"),
    [
        ("in.csv", "text,id\na,1\nb\nc,3\n", (), 3, "1 fields; expected 2"),
        ("in.csv", 'text,id\na,1\n"b"x,2\nc,3\n', (), 3, "a quoted field ends within the line"),
        ("in.csv", "text,id\na,1\n,2\nc,3\n", (), 3, "text=None; no task can be answered"),
        ("in.tsv", "text\tid\na\t1\n\nb\t2\t3\nc\t3\n", (), 4, "3 fields; expected 2"),
        ("in.json", '[{"text": "a"},\n 5,\n {"text": "c"}]', (), 2, "5 is no object"),
        (
            "in.jsonl",
            '{"text": "a", "text_pair": "b"}\n{"text": "b"}\n{"text": "c", "text_pair": "d"}\n',
            ("--tasks", "likeness"),
            2,
            "'text_pair'",
        ),
    ],
)
def test_one_bad_row_of_every_format(answer_file, name, content, arguments, line, reason):
    code, rows, said = answer_file(name, content, *arguments)
    assert code == 1
    assert ["error" in row for row in rows] == [False, True, False]
    assert f"{name}, line {line}" in rows[1]["error"] and reason in rows[1]["error"]
    assert len(said) == 2 and f"{name}, line {line}" in said[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.csv", "sentence,label\na,1\n", "columns sentence, label; the tasks read text,"),
        ("in.csv", 'text\na\n"b\nc\n', "line 3: a quoted field opens here"),
        ("in.csv", "text\ncafé\n".encode("latin1"), "line 2: byte 0xe9"),
        ("in.csv", "text,error\na,b\n", "a column 'error'"),
        ("in.csv", "text\n", "holds no rows"),
        ("in.jsonl", "", "holds no rows"),
        ("in.jsonl", "a\nb\n", "line 1: no valid JSON"),
        ("in.conll", "a O\n", "'.conll' is not read here; expected one of .jsonl"),
        ("in.xlsx", "", "pd.read_excel"),
    ],
)
def test_files_of_which_nothing_can_be_answered_are_refused(answer_file, name, content, says):
    code, rows, said = answer_file(name, content)
    assert (code, rows, len(said)) == (2, [], 1)
    assert says in said[0]


def test_a_row_that_fails_in_a_batch_spoils_no_other(answer_file, monkeypatch):
    """What only the encoding of a row shows comes after its fields were checked."""
    answer = Answerer.answer_checked

    def failing(self, rows, *arguments):
        if any(row["text"] == "odd" for row in rows):
            raise InputError("too odd")
        return answer(self, rows, *arguments)

    monkeypatch.setattr(Answerer, "answer_checked", failing)
    code, rows, said = answer_file("in.jsonl", '{"text": "a"}\n{"text": "odd"}\n{"text": "b"}\n')
    assert code == 1
    assert [set(row) - {"text"} for row in rows] == [{"answers"}, {"error"}, {"answers"}]
    assert said[0] == "hf-mtl predict: in.jsonl, line 2: too odd"


def test_rows_that_a_task_cannot_answer_are_counted_with_the_fields_they_lack(checkpoint, tmp_path, capsys):
    path, output = tmp_path / "in.csv", tmp_path / "answers.jsonl"
    path.write_text("text,text_pair\na,b\na,\n,b\nc,\n")
    typed = ["predict", str(checkpoint), "--file", str(path), "--output", str(output)]
    assert main(typed) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if " rows not answered: " in line]
    assert said == [
        "likeness: 2 of 4 rows not answered: 2 without text_pair",
        "pick: 3 of 4 rows not answered: 3 without choices",
    ]
    answers = [json.loads(line).get("answers", {}) for line in output.read_text("utf-8").splitlines()]
    assert ["likeness" in answer for answer in answers] == [True, False, False, False]


def test_what_json_lacks_is_written_as_null(checkpoint, tmp_path):
    path, output = tmp_path / "in.jsonl", tmp_path / "answers.jsonl"
    path.write_text('{"text": "a", "id": NaN, "more": {"scores": [Infinity, 0.5]}}\n')
    assert main(["predict", str(checkpoint), "--file", str(path), "--output", str(output)]) == 0
    row = json.loads(output.read_text("utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert (row["id"], row["more"]) == (None, {"scores": [None, 0.5]})


def test_many_bad_rows_are_counted_and_the_first_are_printed(answer_file):
    bad = answer_tally._MOST_ERRORS + 5
    code, rows, said = answer_file("in.jsonl", '{"text": "a"}\n' + '{"text": 1}\n' * bad)
    assert code == 1 and sum("error" in row for row in rows) == bad
    assert len(said) == answer_tally._MOST_ERRORS + 2
    assert said[-2] == "hf-mtl predict: ... and 5 rows more."


SERVED = {
    "texts": ["a", "b"],
    "tuple": ("a", "b"),
    "numpy_texts": np.array(["a", "b"]),
    "series": pd.Series(["a", "b"], index=[5, 3]),
    "generator": (text for text in ("a", "b")),
    "data_set": Dataset.from_dict({"text": ["a", "b"]}),
    "records": pd.DataFrame({"text": ["a", "b"]}).to_dict("records"),
    "numpy_text_in_a_row": [{"text": np.str_("a")}, {"text": np.str_("b"), "text_pair": None}],
}


@pytest.mark.parametrize("name", SERVED)
def test_rows_of_every_kind_are_served(model, tokenizer, name):
    answers = model.predict(SERVED[name], tokenizer=tokenizer)
    assert answers == model.predict([{"text": "a"}, {"text": "b"}], tokenizer=tokenizer)


def test_words_in_an_array_are_words(model, tokenizer):
    rows = [{"tokens": np.array(["to", "Lima"], dtype=object)}]
    assert model.predict(rows, tokenizer=tokenizer) == model.predict([{"tokens": ["to", "Lima"]}], tokenizer=tokenizer)


def test_an_empty_text_of_a_json_file_is_answered(answer_file):
    code, rows, _ = answer_file("in.jsonl", '{"text": ""}\n{"text": "a", "text_pair": ""}\n')
    assert code == 0
    assert [set(row["answers"]) for row in rows] == [{"mood", "names"}, {"mood", "names", "likeness"}]


def test_an_empty_cell_is_no_text(answer_file):
    code, rows, said = answer_file("in.csv", "text,text_pair\na,\n,a\n")
    assert code == 1
    assert set(rows[0]["answers"]) == {"mood", "names"}
    assert "line 3: text=None" in said[0]


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([5], {}, "Row 0 is 5; expected a text, or a mapping of input fields"),
        (["a", None], {}, "Row 1 is None; expected a text"),
        (["a", ("b", "c")], {}, "Row 1 is ('b', 'c'); expected a text"),
        ([math.nan], {}, "Row 0 is nan"),
        (None, {}, "The rows are None; expected a text"),
        (5, {}, "The rows are 5; expected a text"),
        (b"a", {}, "Row 0 is b'a'; expected a text"),
        ({"text": None}, {}, "Row 0: text=None; no task can be answered from that: mood needs text"),
        ({}, {}, "Row 0: no field; no task can be answered"),
        (["a", {"tokens": []}], {}, "Row 1: tokens=[]; expected a list of texts that is not empty"),
        (
            [{"text": ["a", "b"]}],
            {},
            "Row 0: text=['a', 'b']; expected a text. Several rows are a list",
        ),
        ({"text": "a", "text_pair": math.nan}, {}, "Row 0: text_pair=nan; expected a text"),
        (["a", {"txt": "b"}], {}, "Row 1: unknown input field 'txt'; expected text,"),
        (["\ud83d"], {}, "half of a character"),
        (
            ["a", {"text": "b"}],
            {"tasks": ["likeness"]},
            "Row 0: no field 'text_pair', which task 'likeness' needs",
        ),
        ([], {"tasks": ["mod"]}, "Did you mean 'mood'"),
    ],
)
def test_rows_that_cannot_be_answered_are_named(model, tokenizer, rows, options, says):
    with pytest.raises(InputError) as error:
        model.predict(rows, tokenizer=tokenizer, **options)
    assert says in str(error.value)
