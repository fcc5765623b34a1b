"""A task is read off features that say it; else the message asks."""

import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from hf_mtl import InputError, TaskSpec
from hf_mtl.data.canonical import canonical_inputs, canonical_splits
from hf_mtl.data.column_hints import PAIRS, numbered_choices
from hf_mtl.data.inference import infer_spec
from tests.conftest import DATA

SINGLE, MULTI, NUMBER = "single_label_classification", "multi_label_classification", "regression"
TAGS, ANSWER, CHOICE = "token_classification", "question_answering", "multiple_choice"
TEXT, TEXTS, CLASSES = Value("string"), List(Value("string")), ClassLabel(names=["a", "b"])


def empty(**features):
    return Dataset.from_dict({name: [] for name in features}, features=Features(features))


@pytest.mark.parametrize(
    ("rows", "problem_type", "columns"),
    [
        (empty(text=TEXT, label=Value("bool")), SINGLE, {"text": "text", "label": "label"}),
        (empty(text=TEXT, labels=LargeList(CLASSES)), MULTI, {"label": "labels"}),
        (empty(text=TEXT, labels=List(Value("float32"))), MULTI, {"label": "labels"}),
        (empty(text=TEXT, labels=List(Value("bool"))), MULTI, {"label": "labels"}),
        (empty(text=TEXT, labels=TEXTS), MULTI, {"label": "labels"}),
        (empty(tokens=TEXTS, tags=TEXTS), TAGS, {"tokens": "tokens", "label": "tags"}),
        (empty(tokens=TEXTS, upos=List(CLASSES)), TAGS, {"tokens": "tokens", "label": "upos"}),
        (empty(question_stem=TEXT, choices={"text": TEXTS, "label": TEXTS}, answerKey=TEXT, id=TEXT), CHOICE,
         {"text": "question_stem", "choices": "choices.text", "label": "answerKey"}),
        (Dataset.from_dict({"text": ["w", "x", "y", "z"], "label": ["a", "b", "a", "b"]}), SINGLE, {"text": "text"}),
    ],
)  # fmt: skip
def test_what_features_say(rows, problem_type, columns, capsys):
    spec = infer_spec("task", rows)
    assert (spec.problem_type, columns.items() <= spec.columns.items()) == (problem_type, True)
    printed = capsys.readouterr().out
    assert problem_type in printed and all(column in printed for column in columns.values())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "+".join(pair))
def test_names_that_are_a_pair(pair):
    for order in (pair, pair[::-1]):
        spec = infer_spec("task", empty(**dict.fromkeys(order, TEXT), label=CLASSES, idx=TEXT))
        assert (spec.columns["text"], spec.columns["text_pair"]) == pair


@pytest.mark.parametrize("column", ["label_text", "reason", "guid", "url", "lang", "title", "source", "text_2"])
def test_another_column_of_texts_is_asked_for(column):
    for order in (("text", column), (column, "text")):
        with pytest.raises(InputError) as error:
            infer_spec("film", empty(**dict.fromkeys(order, TEXT), label=CLASSES))
        for part in ("'film'", "text", column, "TaskSpec(name='film'", "'text_pair'"):
            assert part in str(error.value)


@pytest.mark.parametrize(
    "rows",
    [
        empty(text=TEXT, label=Value("int64")),
        empty(text=TEXT),
        empty(label=CLASSES),
        # As many texts as rows, or numbers with a point, are no names of classes.
        Dataset.from_dict({"text": list("abcdef"), "label": [f"answer {number}" for number in range(6)]}),
        Dataset.from_dict({"text": list("abcdef"), "label": ["1.5", "2.0"] * 3}),
        Dataset.from_dict({"text": list("abcdef"), "label": ["one"] * 6}),
        # Which of several columns is the label?
        empty(text=TEXT, label=CLASSES, labels=CLASSES),
        empty(tokens=TEXTS, pos_tags=List(CLASSES), ner_tags=List(CLASSES)),
    ],
)
def test_what_features_do_not_say(rows):
    with pytest.raises(InputError, match="TaskSpec"):
        infer_spec("task", rows)


WORD_PIECES = {name: List(Value("int32")) for name in ("input_ids", "attention_mask", "token_type_ids")}


@pytest.mark.parametrize(
    "beside", [{"label": CLASSES}, {"labels": CLASSES, "idx": TEXT}, {"label": TEXT}, {}], ids=list
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_word_pieces_are_no_texts(beside, count):
    columns = list(WORD_PIECES)[:count]
    features = {**beside, **{name: WORD_PIECES[name] for name in columns}}
    rows = Dataset.from_list([{**dict.fromkeys(beside), **dict.fromkeys(columns, [101, 7])}] * 2, Features(features))
    label = next((name for name in beside if name != "idx"), "label")
    of_its_own = TaskSpec(name="film", problem_type=SINGLE, labels=["a", "b"], columns={"label": label})
    calls = [lambda: infer_spec("film", rows), lambda: canonical_inputs(of_its_own, rows, "train")]
    for call in calls:
        with pytest.raises(InputError) as error:
            call()
        assert f"tokenised already ({', '.join(columns)}); give the texts themselves" in str(error.value)
    own = TaskSpec(name="film", problem_type=SINGLE, labels=["a", "b"], columns={"text": columns[-1], "label": label})
    with pytest.raises(
        InputError, match=rf"expected a text\. The rows are tokenised already \({columns[-1]}\); give the"
    ):
        canonical_inputs(own, rows, "train")


def test_texts_beside_word_pieces_are_read(capsys):
    assert infer_spec("film", empty(text=TEXT, label=CLASSES, **WORD_PIECES)).columns["text"] == "text"
    with pytest.raises(InputError) as error:
        infer_spec("film", empty(text=TEXT, kind=CLASSES, **WORD_PIECES))
    assert "tokenised already" not in str(error.value)
    with pytest.raises(InputError, match="no column 'text'.*Name them under `columns:`") as error:
        canonical_inputs(TaskSpec(name="film", problem_type=SINGLE), empty(line=TEXT, **WORD_PIECES), "train")
    assert "tokenised already" not in str(error.value)


CHOICES = {
    "copa": (["premise", "choice1", "choice2", "question"], "premise", ["choice1", "choice2"]),
    "piqa": (["goal", "sol1", "sol2"], "goal", ["sol1", "sol2"]),
    "swag": (["sent1", "sent2", *(f"ending{n}" for n in range(4))], "sent1", [f"ending{n}" for n in range(4)]),
    "siqa": (["context", "answerA", "answerB", "answerC"], "context", [f"answer{letter}" for letter in "ABC"]),
    "medical": (["query", *(f"option_{letter}" for letter in "abcd")], "query", [f"option_{x}" for x in "abcd"]),
    "letters": (["query", *"ABCDE"], "query", list("ABCDE")),
    "many": (["query", *(f"c{n}" for n in range(12))], "query", [f"c{n}" for n in range(12)]),
}


@pytest.mark.parametrize("kind", [CLASSES, Value("int64")], ids=["classes", "numbers"])
@pytest.mark.parametrize("name", CHOICES)
def test_the_task_of_numbered_choices_can_be_typed(name, kind):
    texts, text, choices = CHOICES[name]
    rows = Dataset.from_list([{**{column: f"{column}." for column in texts}, "label": n} for n in (0, 1)])
    rows = rows.cast_column("label", kind)
    begun = TaskSpec(name=name, problem_type=CHOICE, columns={"text": text})
    wrong = TaskSpec(name=name, problem_type=CHOICE, columns={"text": text, "choices": choices[0]})
    calls = [lambda: infer_spec(name, rows)]
    calls += [lambda spec=spec: canonical_splits(spec, {"train": rows}, local=False) for spec in (begun, wrong)]
    for call in calls:
        with pytest.raises(InputError) as error:
            call()
        line = str(error.value).partition("look like the choices of a row: tasks=")[2].removesuffix(".")
        (spec,) = eval(line, {"TaskSpec": TaskSpec})
        assert spec.columns == {"text": text, "choices": choices, "label": "label"}
        read = canonical_splits(spec, {"train": rows}, local=False)["train"]
        assert read[1] == {"text": f"{text}.", "choices": [f"{column}." for column in choices], "label": 1}


def test_choices_are_seen_where_the_label_is_not():
    with pytest.raises(InputError, match=r"'choices': \['option1', 'option2'\], 'label': \.\.\.\}"):
        infer_spec("wino", empty(sentence=TEXT, option1=TEXT, option2=TEXT, answer=TEXT))


@pytest.mark.parametrize(
    "columns",
    [
        *PAIRS,
        ("ctx", "ctx_a", "ctx_b"),
        ("text", "text_1"),
        ("part2", "part3"),
        ("x1", "x3"),
        ("in1", "in2", "out1", "out2"),
        (),
    ],
    ids="+".join,
)
def test_other_columns_are_no_choices(columns):
    assert numbered_choices(columns) == []


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not there")
@pytest.mark.parametrize(
    ("name", "problem_type"),
    [("sst2", SINGLE), ("rte", SINGLE), ("qnli", SINGLE), ("mnli", SINGLE), ("boolq", SINGLE), ("stsb", NUMBER),
     ("go_emotions", MULTI), ("wnut17", TAGS), ("squad", None), ("arc_easy", CHOICE), ("openbookqa", CHOICE)],
)  # fmt: skip
def test_real_data_sets(name, problem_type):
    rows = Dataset.from_parquet(str(DATA / name / "validation.parquet")).select(range(50))
    if problem_type is None:
        # SQuAD's title is a third text, and no part of the question.
        assert infer_spec(name, rows).problem_type == ANSWER
        return
    spec = infer_spec(name, rows)
    assert spec.problem_type == problem_type
    assert len(canonical_splits(spec, {"train": rows}, local=False)["train"]) == 50
