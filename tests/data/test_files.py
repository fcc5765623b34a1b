"""Awkward files: the right rows and their lines, or a message that names file, line and what to write."""

import codecs
import gzip
import json
import re

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl import InputError, TaskSpec, load_mixture
from hf_mtl.data.canonical import canonical_splits
from hf_mtl.data.files import SUFFIXES, iterate_rows, read_file
from hf_mtl.data.json_files import _SQUAD_ROWS
from hf_mtl.data.loading import load_splits

TOKENS = {"tokens": "tokens", "label": "label"}


def rows_of(names, *cells):
    return [dict(zip(names.split(), values)) for values in cells]


def pairs(*cells):
    return rows_of("text label", *cells)


def sentences(*cells):
    return rows_of("tokens label", *cells)


# File, content, rows, the line of each.
TABLES_SERVED = {
    "missing_words_are_words": (
        "a.csv",
        "text,label\nx,NA\ny,None\nz,null\nu,nan\nv,N/A\nw,\n",
        pairs(("x", "NA"), ("y", "None"), ("z", "null"), ("u", "nan"), ("v", "N/A"), ("w", None)),
        [2, 3, 4, 5, 6, 7],
    ),
    "numbers_stay_as_written": (
        "a.csv",
        "text,label\n007,01\n1e3,1.0\nTrue,TRUE\n 1 ,+5\n",
        pairs(("007", "01"), ("1e3", "1.0"), ("True", "TRUE"), (" 1 ", "+5")),
        [2, 3, 4, 5],
    ),
    "quoted_empty_is_empty": ("a.csv", 'text,label\n"",""\n', pairs((None, None)), [2]),
    "separators_quotes_and_lines_in_quotes": (
        "a.csv",
        'text,label\n"a, b",x\n"two\nlines",y\n"so ""called""",z\nplain,w\n',
        pairs(("a, b", "x"), ("two\nlines", "y"), ('so "called"', "z"), ("plain", "w")),
        [2, 3, 5, 6],
    ),
    "quote_inside_a_bare_field": ("a.csv", 'text,label\na 5" pipe,x\n', pairs(('a 5" pipe', "x")), [2]),
    "blank_lines_count": ("a.csv", "\n\ntext,label\n\na,x\n\n\nb,y\n\n", pairs(("a", "x"), ("b", "y")), [5, 8]),
    "crlf": ("a.csv", 'text,label\r\na,x\r\n"b\r\nc",y\r\n', pairs(("a", "x"), ("b\r\nc", "y")), [2, 3]),
    "lone_cr": ("a.csv", "text,label\ra,x\rb,y\r", pairs(("a", "x"), ("b", "y")), [2, 3]),
    "no_end_of_last_line": ("a.csv", "text,label\na,x", pairs(("a", "x")), [2]),
    "odd_line_ends_are_text": ("a.csv", "text,label\na\u2028b\x85c\x0cd,x\n", pairs(("a\u2028b\x85c\x0cd", "x")), [2]),
    "mark": ("a.csv", b"\xef\xbb\xbftext,label\na,x\n", pairs(("a", "x")), [2]),
    "mark_before_quotes": ("a.csv", b'\xef\xbb\xbf"text","label"\n"a","x"\n', pairs(("a", "x")), [2]),
    "utf_16": ("a.csv", codecs.BOM_UTF16_LE + "text,label\né,x\n".encode("utf-16-le"), pairs(("é", "x")), [2]),
    "utf_16_big": ("a.tsv", codecs.BOM_UTF16_BE + "text\tlabel\né\tx\n".encode("utf-16-be"), pairs(("é", "x")), [2]),
    "utf_32": ("a.csv", codecs.BOM_UTF32_LE + "text,label\né,x\n".encode("utf-32-le"), pairs(("é", "x")), [2]),
    "semicolons": ("a.csv", 'text;label\na, b;x\n"c;d";y\n', pairs(("a, b", "x"), ("c;d", "y")), [2, 3]),
    "tabs_in_a_csv": ("a.csv", 'text\tlabel\n"a ""b"" c"\tx\n', pairs(('a "b" c', "x")), [2]),
    "bars": ("a.csv", "text|label\na|x\n", pairs(("a", "x")), [2]),
    "one_column": ("a.csv", "text\na b\nc\n", rows_of("text", ("a b",), ("c",)), [2, 3]),
    "index_of_pandas": ("a.csv", ",text\n0,a\n", [{"Unnamed: 0": "0", "text": "a"}], [2]),
    "capital_ending": ("A.CSV", "text,label\na,x\n", pairs(("a", "x")), [2]),
    "long_field": ("a.csv", f"text,label\n{'long ' * 40_000},x\n", pairs(("long " * 40_000, "x")), [2]),
    "tsv_quotes_are_characters": (
        "a.tsv",
        'text\tlabel\n"Wow, she said\tx\nit was "fine"\ty\n"Never again"\tz\n"\tw\n',
        pairs(('"Wow, she said', "x"), ('it was "fine"', "y"), ('"Never again"', "z"), ('"', "w")),
        [2, 3, 4, 5],
    ),
    "tsv_doubled_quotes_beside_single_ones": (
        "a.tsv",
        'text\tlabel\n"a ""b"" c"\tx\nan 8" disk\ty\n',
        pairs(('"a ""b"" c"', "x"), ('an 8" disk', "y")),
        [2, 3],
    ),
    "tsv_empty_cells": ("a.tsv", "text\tlabel\na\t\n\tNA\n", pairs(("a", None), (None, "NA")), [2, 3]),
    "tsv_crlf_and_blank_lines": (
        "a.tsv",
        "text\tlabel\r\na\tx\r\n\r\nb\ty\r\n",
        pairs(("a", "x"), ("b", "y")),
        [2, 4],
    ),
    "tsv_one_column": ("a.tsv", "text\na b\n", rows_of("text", ("a b",)), [2]),
    "packed_csv": ("a.csv.gz", gzip.compress("text,label\né,x\n".encode()), pairs(("é", "x")), [2]),
    "all_keys": (
        "a.jsonl",
        '{"text": "a"}\n\n{"label": 5, "text": "b"}\n{"text": "c", "more": ["x"]}\n',
        rows_of("text label more", ("a", None, None), ("b", 5, None), ("c", None, ["x"])),
        [1, 3, 4],
    ),
    "whole_and_broken_numbers": (
        "a.jsonl",
        '{"n": 1}\n{"n": 1.5}\n{"n": null}\n',
        rows_of("n", (1.0,), (1.5,), (None,)),
        [1, 2, 3],
    ),
    "whole_numbers_with_holes": (
        "a.jsonl",
        '{"n": 1}\n{"n": null}\n{"n": 3}\n',
        rows_of("n", (1,), (None,), (3,)),
        [1, 2, 3],
    ),
    "flags": ("a.jsonl", '{"n": true}\n{"n": false}\n', rows_of("n", (True,), (False,)), [1, 2]),
    "words_of_missing": (
        "a.jsonl",
        '{"text": "NA", "label": "null"}\n{"text": "", "label": null}\n',
        pairs(("NA", "null"), ("", None)),
        [1, 2],
    ),
    "mark_of_json": ("a.jsonl", b'\xef\xbb\xbf{"text": "a"}\n', rows_of("text", ("a",)), [1]),
    "crlf_of_json": ("a.jsonl", '{"text": "a"}\r\n{"text": "b"}\r\n', rows_of("text", ("a",), ("b",)), [1, 2]),
    "odd_line_ends_in_json": ("a.jsonl", '{"text": "a\u2028b\x85"}\n', rows_of("text", ("a\u2028b\x85",)), [1]),
    "whole_character_in_two_escapes": ("a.jsonl", '{"text": "\\ud83d\\ude00"}\n', rows_of("text", ("😀",)), [1]),
    "list_in_one_line": ("a.json", '[{"text": "a"}, {"text": "b"}]', rows_of("text", ("a",), ("b",)), [1, 1]),
    "list_indented": (
        "a.jsonl",
        '\n[\n  {"text": "a"},\n  {\n    "text": "b"\n  }\n]\n',
        rows_of("text", ("a",), ("b",)),
        [3, 4],
    ),
    "one_object": ("a.json", '{"text": "a"}', rows_of("text", ("a",)), [1]),
    "one_row_of_lists_of_objects": (
        "a.jsonl",
        '{"text": "a", "spans": [{"start": 1}]}\n',
        rows_of("text spans", ("a", [{"start": 1}])),
        [1],
    ),
    "nested": (
        "a.jsonl",
        '{"answers": {"text": ["x"], "answer_start": [3]}}\n{"answers": {"text": [], "answer_start": []}}\n',
        rows_of("answers", ({"text": ["x"], "answer_start": [3]},), ({"text": [], "answer_start": []},)),
        [1, 2],
    ),
    "packed_jsonl": ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n'), rows_of("text", ("a",)), [1]),
}


@pytest.mark.parametrize("name", TABLES_SERVED)
def test_awkward_tables_are_read_as_they_stand(tmp_path, name):
    file, content, rows, lines = TABLES_SERVED[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read, places = read_file(path, "train")
    assert read.to_list() == rows
    assert read.column_names == list(rows[0])
    assert [places.name(index) for index in range(len(rows))] == [f"{path}, line {line}" for line in lines]
    # What `predict` reads is the same, but for the columns that a row of JSON lacks.
    filled = [{name: row.values.get(name) for name in rows[0]} for row in iterate_rows(path)]
    assert filled == rows and [row.line for row in iterate_rows(path)] == lines


CONLL = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n"
CONLLU = (
    "# sent_id = 1\n# text = Don't go\n1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_\n1\tDo\tdo\tAUX\t_\t_\t_\t_\t_\t_\n"
    "2\tn't\tnot\tPART\t_\t_\t_\t_\t_\t_\n2.1\tyou\tyou\tPRON\t_\t_\t_\t_\t_\t_\n3\tgo\tgo\tVERB\t_\t_\t_\t_\t_\t_\n\n"
    "# newpar\n1\t#\t#\tSYM\t_\t_\t_\t_\t_\t_\n"
)
NAMED = sentences((["EU", "rejects"], ["B-ORG", "O"]), (["Peter"], ["B-PER"]))
WORDS = [["Do", "n't", "go"], ["#"]]
PARTS = [["AUX", "PART", "VERB"], ["SYM"]]

CONLL_SERVED = {
    "first_and_last_column": ("a.conll", CONLL, {}, NAMED, [3, 7]),
    "packed": ("a.conll.gz", gzip.compress(CONLL.encode()), {}, NAMED, [3, 7]),
    "crlf": ("a.iob", CONLL.replace("\n", "\r\n"), {}, NAMED, [3, 7]),
    "tabs": ("a.bio", "EU\tB-ORG\nrejects\tO\n\nPeter\tB-PER", {}, NAMED, [1, 4]),
    "chosen_column": (
        "a.conll",
        CONLL,
        {"label": 1},
        [{"tokens": ["EU", "rejects"], "1": ["NNP", "VBZ"]}, {"tokens": ["Peter"], "1": ["NNP"]}],
        [3, 7],
    ),
    "text_by_numbers": (
        "a.txt",
        CONLL,
        {"tokens": 0, "label": -1},
        [{"0": ["EU", "rejects"], "-1": ["B-ORG", "O"]}, {"0": ["Peter"], "-1": ["B-PER"]}],
        [3, 7],
    ),
    "tsv_by_numbers": (
        "a.tsv",
        '"\tO\nEU\tB-ORG\n',
        {"tokens": 0, "label": 1},
        [{"0": ['"', "EU"], "1": ["O", "B-ORG"]}],
        [1],
    ),
    "notes_and_hashes": (
        "a.conll",
        "# id = 7\n#\tO\nday\tO\n\n# a note\n#wow\tB-X\n",
        {},
        sentences((["#", "day"], ["O", "O"]), (["#wow"], ["B-X"])),
        [2, 6],
    ),
    "comments_of_ontonotes": (
        "a.conll",
        "#begin document (a); part 000\nEU B-ORG\n\n#end document\n# newdoc\nPeter B-PER\n",
        {},
        sentences((["EU"], ["B-ORG"]), (["Peter"], ["B-PER"])),
        [2, 6],
    ),
    "notes_before_the_first_token": (
        "a.conll",
        "# made by hand, in 2020\n#\n-DOCSTART-\n\n# NN O\nEU NNP B-ORG\n",
        {},
        sentences((["#", "EU"], ["O", "B-ORG"])),
        [5],
    ),
    "tokens_that_look_like_notes": (
        "a.conll",
        "# id = 7\tO\n#\tO\n\n#id=7\tB-X\n",
        {},
        sentences((["# id = 7", "#"], ["O", "O"]), (["#id=7"], ["B-X"])),
        [1, 4],
    ),
    "hashes_alone": ("a.conll", "# NN O\n", {}, sentences((["#"], ["O"])), [1]),
    "cells_that_look_like_ids": (
        "a.conll",
        "1.5 km O\n1-2 h B-X\n\n1 cm O\n2.5 mm O\n",
        {"tokens": 1, "label": 2},
        [{"1": ["km", "h"], "2": ["O", "B-X"]}, {"1": ["cm", "mm"], "2": ["O", "O"]}],
        [1, 4],
    ),
    "no_break_space_in_a_token": ("a.conll", "10\u00a0000 B-N\n", {}, sentences((["10\u00a0000"], ["B-N"])), [1]),
    "conllu_by_name": ("a.conllu", CONLLU, {"label": "upos"}, rows_of("tokens upos", *zip(WORDS, PARTS)), [4, 10]),
    "conllu_by_number": (
        "a.conll",
        CONLLU,
        {"tokens": 1, "label": 3},
        rows_of("1 3", *zip(WORDS, PARTS)),
        [4, 10],
    ),
}


@pytest.mark.parametrize("name", CONLL_SERVED)
def test_sentences_of_conll_files(tmp_path, name):
    file, content, columns, rows, lines = CONLL_SERVED[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read, places = read_file(path, "train", {**TOKENS, **columns})
    assert read.to_list() == rows
    assert [places.name(index) for index in range(len(rows))] == [f"{path}, line {line}" for line in lines]


LATIN = "text,label\ncafé noir,good\n".encode("latin1")
SQUAD = (
    '{"version": "1.1", "data": [{"title": "a", "paragraphs": [{"context": "it is Bob", "qas": '
    '[{"question": "who", "id": "1", "answers": [{"text": "Bob", "answer_start": 6}]}]}]}]}'
)
REFUSED = {
    "latin1": ("a.csv", LATIN, "line 2: byte 0xe9 at offset 14 is no UTF-8", "iconv -f latin1 -t utf-8"),
    "latin1_after_a_mark": ("a.csv", codecs.BOM_UTF8 + LATIN, "line 2: byte 0xe9 at offset 17"),
    "latin1_packed": ("a.csv.gz", gzip.compress(LATIN), "line 2: byte 0xe9 at offset 14", "gunzip", "iconv"),
    "latin1_far_down": ("a.jsonl", b'{"a": 1}\r\n' * 5000 + b'{"a": "\xe9"}', "line 5001: byte 0xe9 at offset 50007"),
    "half_of_utf_16": ("a.csv", codecs.BOM_UTF16_LE + b"t\x00e", "is no UTF-16 (its byte-order mark says UTF-16)"),
    "utf_16_without_mark": ("a.csv", "text,label\n".encode("utf-16-le"), "line 1: a NUL byte", "iconv -f utf-16"),
    "nul_byte": ("a.jsonl", b'{"text": "a"}\n{"text": "\0"}\n', "line 2: a NUL byte"),
    "cut_gz": ("a.csv.gz", gzip.compress(b"text,label\n" * 99)[:-9], "cannot be unpacked"),
    "no_gz": ("a.csv.gz", b"text,label\n", "cannot be unpacked", "gzip"),
    "too_many_fields": (
        "a.csv",
        "text,label\n\na, b,x\n",
        "line 3: 3 fields; expected 2",
        "(text, label)",
        'quotes: "a, b"',
    ),
    "too_few_fields": ("a.csv", "text,label\na,x\nb\n", "line 3: 1 fields; expected 2"),
    "open_quote": ("a.csv", 'text,label\na,x\n"so said,y\nb,z\n', "line 3: a quoted field opens here", "not closed"),
    "open_quote_far_into_a_row": (
        "a.csv",
        'text,label\n"a\nb","c\nd,x\n',
        "line 3: a quoted field opens here",
        "not closed",
    ),
    "quote_closed_by_another": (
        "a.csv",
        'text,label\n"Wow,x\nb,y\nsay "hi"\n',
        "line 2: a quoted field opens here and ends within line 4",
    ),
    "backslash_quotes": ("a.csv", 'text,label\n"a \\"b\\" c",x\n', "line 2: a quoted field ends within", "doubled"),
    "broken_header": ("a.csv", '"text"x,label\na,b\n', "line 1: a quoted field ends within the line"),
    "name_twice": ("a.csv", "text,text\na,b\n", "line 1: the header names two columns 'text'"),
    "name_missing": ("a.csv", "text,label,\na,x,\n", "line 1: column 3 of 3 has no name"),
    "two_separators": (
        "a.csv",
        "text;label|more\na;b|c\n",
        "line 1: the header 'text;label|more' has no comma",
        "';' or '|'",
    ),
    "other_separator_then_ragged": ("a.csv", "text;label\na;b;c\n", "line 2: 3 fields; expected 2", "a; b"),
    "commas_in_a_tsv": ("a.tsv", "text,label\na,x\n", "line 1: the header has no tab: 'text,label'", ".csv"),
    "tsv_without_header": (
        "a.tsv",
        "gj04\t1\t\tOur friends\n",
        "line 1: column 3 of 4 has no name",
        "names in the first line",
    ),
    "tsv_ragged": ("a.tsv", "text\tlabel\n\na\tb\tc\n", "line 3: 3 fields; expected 2", "no tabs inside"),
    "tsv_quoted_as_csv": (
        "a.tsv",
        'text\tlabel\nplain\tx\n"a ""b"" c"\ty\n',
        "line 3: the fields are quoted",
        "Call the file .csv",
        "QUOTE_NONE",
    ),
    "tsv_quoted_header": ("a.tsv", '"text"\t"label"\n"a"\t"x"\n', "line 1: the fields are quoted", ".csv"),
    "tsv_quoted_line_end": (
        "a.tsv",
        'text\tlabel\n"two\nlines"\tx\n',
        "line 2: 1 fields; expected 2",
        "quoted as in a csv",
    ),
    "broken_json": ("a.jsonl", '{"text": "a"}\n\n{"text": \n', "line 3: no valid JSON", "one object per line"),
    "no_object": ("a.jsonl", '{"text": "a"}\n["b"]\n', 'line 2: ["b"] is no object', "one object per line"),
    "text_alone": ("a.json", '"a"\n', 'line 1: "a" is no object'),
    "key_twice": ("a.jsonl", '{"text": "a", "label": 1, "label": 2}\n', "line 1: the key 'label' stands twice"),
    "key_twice_inside": ("a.json", '[{"a": 1},\n{"b": {"c": 1, "c": 2}}]', "line 2: the key 'c' stands twice"),
    "texts_and_numbers": (
        "a.jsonl",
        '{"label": null}\n{"label": 1}\n{"label": "a"}\n',
        "line 3: label is 'a', a text; line 2 has 1, a number",
    ),
    "truths_and_numbers": (
        "a.jsonl",
        '{"label": 1.5}\n{"label": true}\n',
        "line 2: label is True, true or false; line 1 has 1.5, a number",
    ),
    "kinds_inside_a_list": (
        "a.jsonl",
        '{"tags": ["a"]}\n{"tags": ["b", 1]}\n',
        "line 2: tags[] is 1, a number; line 1 has 'a', a text",
    ),
    "lists_and_texts": (
        "a.jsonl",
        '{"tags": ["a"]}\n{"tags": "b"}\n',
        "line 2: tags is 'b', a text; line 1 has ['a'], a list",
    ),
    "huge_number": (
        "a.jsonl",
        '{"id": 1}\n{"id": 18446744073709551616}\n',
        "line 2: id is 18446744073709551616",
        "64 bits",
        "in quotes",
    ),
    "half_a_character": ("a.jsonl", '{"text": "\\ud83d"}\n', "line 1: \\ud83d is half of a character"),
    "rows_under_a_key": (
        "a.json",
        '{"version": 1, "data": [{"text": "a"}]}',
        "line 1: the file is one object, whose rows stand under 'data'",
        "jq -c '.data[]'",
    ),
    "rows_under_a_key_indented": (
        "a.json",
        '{\n "data": [\n  {"text": "a"}\n ]\n}\n',
        "rows stand under 'data'",
        "jq",
    ),
    "object_over_lines": ("a.json", '{\n "text": "a"\n}\n', "line 1: the file is one object over several lines", "jq"),
    "broken_list": ("a.json", '[\n{"text": "a"},\n{"text" "b"}\n]', "line 3: no valid JSON in a list of objects"),
    "cut_list": ("a.json", '[\n{"text": "a"}\n', "line 3: no valid JSON", "the file ends"),
    "list_of_texts": ("a.json", '["a", "b"]', 'line 1: "a" is no object'),
    "text_after_a_list": (
        "a.json",
        '[{"text": "a"}]\n[{"text": "b"}]\n',
        "line 2: the list of objects ends before this line",
    ),
    "comma_after_the_last": ("a.json", '[{"text": "a"},\n]', "line 2: no valid JSON: a comma stands before the ']'"),
    "squad": ("a.json", SQUAD, "line 1: ", "question, context and answers", "json.dumps", "rajpurkar/squad"),
    "squad_indented": ("a.json", SQUAD.replace(", ", ",\n"), "line 1: ", "question, context and answers"),
    "articles_of_squad": ("a.jsonl", SQUAD[SQUAD.index("[") + 1 : -2], "line 1: ", "question, context and answers"),
    "deep_list": (
        "a.jsonl",
        '{"a": 1}\n{"a": 2, "b": ' + "[" * 300 + "]" * 300 + "}\n",
        "line 2: b has 300 lists or objects",
    ),
    "deep_fractions": ("a.json", '[{"b": ' + "[" * 900 + "1.5" + "]" * 900 + "}]", "line 1: b has 900 lists"),
    "zip": ("a.zip", "", "'.zip', which is not read", "Unpack"),
    "excel": ("a.xlsx", "", "'.xlsx', which is not read", "pd.read_excel", "csv"),
    "pickle": ("a.pkl", "", "'.pkl', which is not read", "pd.read_pickle"),
    "text": ("a.txt", "a b\n", "'.txt'", "columns: {tokens: 0, label: -1}"),
    "no_ending": ("rows", "", "no ending", ".jsonl"),
    "unknown_ending": ("a.dat", "", "'.dat', which is not read", ".csv"),
    "packed_parquet": ("a.parquet.gz", "", "gunzip"),
    "conll_for_another_task": ("a.conll", CONLL, "CoNLL", "token_classification"),
    "no_parquet": ("a.parquet", "no parquet", "cannot be read as parquet"),
    "no_arrow": ("a.arrow", "no arrow", "cannot be read as arrow"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused_say_where_and_what_to_write(tmp_path, monkeypatch, name):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    file, content, *says = REFUSED[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        read_file(path, "train")
    for part in [str(path), *says]:
        assert part in str(error.value)


CONLL_REFUSED = {
    "ragged": ("a.conll", "EU B-ORG\n\nrejects VBZ O\n", {}, "line 3: 3 columns; expected 2", "blanks"),
    "blanks_among_tabs": ("a.conll", "EU\tB-ORG\nrejects O\n", {}, "line 2: 1 columns; expected 2", "tabs"),
    "note_within_a_sentence": ("a.conll", "EU\tB-ORG\n# note\n", {}, "line 2: 1 columns; expected 2"),
    "hash_of_a_token_of_two_words": (
        "a.conll",
        "EU B-ORG\n\n#New York B-LOC\nis O\n",
        {},
        "line 3: 3 columns; expected 2",
    ),
    "hash_of_a_first_token": ("a.conll", "#New York B-LOC\nis O\n", {}, "line 2: 2 columns; expected 3"),
    "hash_without_a_tag": ("a.conll", "EU B-ORG\n\n#wow\n", {}, "line 3: 1 columns; expected 2"),
    "one_column": ("a.conll", "EU\nrejects\n", {}, "line 1: 1 column,", "columns: {tokens: 0, label: -1}"),
    "no_such_column": ("a.conll", CONLL, {"label": 7}, "line 3: 4 columns", "column 7"),
    "one_column_twice": ("a.conll", "EU B-ORG\n", {"tokens": 1}, "same one"),
    "name_for_a_number": ("a.conll", CONLL, {"label": "ner"}, "column of label is 'ner'", "label: -1"),
    "conllu_without_label": ("a.conllu", CONLLU, {}, "column of label is 'label'", "label: upos"),
    "ids_for_tokens": ("a.conll", "1\tDo\tAUX\n2\tgo\tVERB\n\n1\tNo\tINTJ\n", {}, "numbers of words", "tokens: 0"),
    "empty_tag": ("a.conll", "EU\tB-ORG\nrejects\t\n", {}, "line 2: column -1 is empty"),
}


@pytest.mark.parametrize("name", CONLL_REFUSED)
def test_conll_files_that_are_refused(tmp_path, name):
    file, content, columns, *says = CONLL_REFUSED[name]
    path = tmp_path / file
    path.write_text(content, "utf-8")
    with pytest.raises(InputError) as error:
        read_file(path, "train", {**TOKENS, **columns})
    for part in [str(path), *says]:
        assert part in str(error.value)


def test_what_is_advised_for_files_of_squad_makes_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text(SQUAD)
    rows = eval(re.search(r"Python: (.*), each by", _SQUAD_ROWS)[1], {"json": json})
    spec = TaskSpec(name="span", problem_type="question_answering", columns={"label": "answers"})
    (row,) = canonical_splits(spec, {"train": Dataset.from_list(rows)}, local=False)["train"]
    answers = {"text": ["Bob"], "answer_start": [6]}
    assert row == {"question": "who", "context": "it is Bob", "label": answers}


def test_paragraphs_of_a_row_are_a_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "paragraphs": [{"context": "b"}]}\n')
    assert read_file(path, "train")[0].to_list() == [{"text": "a", "paragraphs": [{"context": "b"}]}]


def test_parquet_and_arrow_files_keep_their_features(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.to_parquet(str(tmp_path / "a.parquet"))
    rows.save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "a.parquet", tmp_path / "saved" / "data-00000-of-00001.arrow"):
        read, places = read_file(path, "train")
        assert read.features == features and read.to_list() == rows.to_list()
        assert places.name(1) == f"{path}, row 2"


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(InputError, match="is a folder; expected a file"):
        read_file(tmp_path, "train")


def spec_of(folder, **settings):
    values = {"name": "mood", "problem_type": "single_label_classification", "dataset": str(folder), **settings}
    return TaskSpec(**values)


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        ("text,label\nfine,good\n\n,bad\n", {}, "line 4: text is None; expected a text"),
        ("text,label\nfine,good\n", {"labels": ["bad"]}, "line 2: the label is 'good'; expected one of bad"),
        (
            "text,mood\na,\n\nb,good\nc,ugly\n",
            {"source": "reviews", "columns": {"label": "mood"}, "labels": ["good"]},
            "line 5: the label is 'ugly'",
        ),
    ],
)
def test_rows_that_a_task_cannot_use_are_named_by_file_and_line(tmp_path, content, settings, says):
    """Also where rows without a label were left out before."""
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(content, "utf-8")
    spec = spec_of(tmp_path, **settings)
    splits, local, places = load_splits(spec)
    with pytest.raises(InputError) as error:
        canonical_splits(spec, splits, local, places)
    assert f"{tmp_path}/train.csv, {says}" in str(error.value)


def test_two_files_of_one_split_are_refused_and_other_names_are_listed(tmp_path):
    (tmp_path / "dev.tsv").write_text("text\tlabel\na\tx\n", "utf-8")
    with pytest.raises(InputError, match=r"holds no train or validation file .*; it holds dev\.tsv.*data_files"):
        load_splits(spec_of(tmp_path))
    for name in ("train.csv", "train.csv.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"holds train\.csv and train\.csv\.gz; expected one file for train"):
        load_splits(spec_of(tmp_path))


def test_token_tasks_read_conll_files_of_a_recipe(tmp_path):
    """One file, two tasks: each names its column of tags by number."""
    for split in ("train", "validation"):
        (tmp_path / f"{split}.conll").write_text(CONLL, "utf-8")
    specs = [
        spec_of(tmp_path, name="names", problem_type="token_classification"),
        spec_of(tmp_path, name="parts", problem_type="token_classification", columns={"label": 1}),
    ]
    mixture = load_mixture(specs, exclude_overlap=False)
    assert specs[0].labels == ["O", "B-ORG", "B-PER"] and specs[1].labels == ["NNP", "VBZ"]
    assert mixture.train["names"].to_list() == sentences((["EU", "rejects"], [1, 0]), (["Peter"], [2]))
    assert mixture.train["parts"].to_list() == sentences((["EU", "rejects"], [0, 1]), (["Peter"], [0]))


def test_every_row_of_a_text_format_is_read_once_whatever_its_size(tmp_path):
    """Blocks of any reader end somewhere; no row is lost or cut there."""
    rows = [{"text": f"row {index} é{'x' * (index % 97)}", "label": str(index % 3)} for index in range(20_000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    for suffix, mark in ((".csv", ","), (".tsv", "\t")):
        lines = "".join(f"{row['text']}{mark}{row['label']}\n" for row in rows)
        (tmp_path / f"a{suffix}").write_text(f"text{mark}label\n{lines}", "utf-8")
    for suffix in (".jsonl", ".json", ".csv", ".tsv"):
        assert suffix in SUFFIXES
        assert read_file(tmp_path / f"a{suffix}", "train")[0].to_list() == rows
