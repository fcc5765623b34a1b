"""Small tables of awkward texts, through files of every format and tokenizers of every kind.

What a table says is what is trained on, or an `InputError` comes: texts arrive letter by letter, labels at their row,
a word's tag at a piece of the word, an answer at the pieces that hold it.
"""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_mtl import InputError, TaskSpec, load_mixture
from hf_mtl.data.features import FeatureDataset
from hf_mtl.modeling.processing_multitask import MultiTaskProcessor
from hf_mtl.modeling.words import is_hidden
from tests.small_tokenizers import BUILD, small_tokenizer

SINGLE, NUMBER, TAGS = "single_label_classification", "regression", "token_classification"
ANSWER, CHOICE = "question_answering", "multiple_choice"
NASTY = [
    "plain words", '"so said the clerk', 'she called it "fine"', "NA", "None", "01", "1.0", " led by a blank", "a,b;c",
    "a\tb", "two\nlines", "\ufeffmark", "cafe\u0301 naïve", "दिल्ली में बारिश", "مَطَرٌ فِي", "北京 👍🏽", "Bob\u200b won",
    "'", "\\n", "#", "", " ", "\u2028", "a\x0bb", "word " * 30,
]  # fmt: skip
TEXTS = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORDS = st.sampled_from(
    ["Anna", "in", "दिल्ली", "cafe\u0301", "北京", "👍🏽", "5", "..", "U.S.", "don't", "\u200b"]
) | st.text(st.characters(categories=["L", "N", "M", "P"]), min_size=1, max_size=6)
LABELS = ["good", "NA", "01", "no", "é"]
FUZZ = settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def write(path, rows, draw):
    """Write rows as another program would, in a format that can hold them; return the file."""
    rows = [{name: row[name] for name in sorted(row)} for row in rows]
    flat = all(isinstance(value, str) for row in rows for value in row.values())
    tabbed = flat and not any(
        set("\t\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029") & set(v) for row in rows for v in row.values()
    )
    kind = draw(st.sampled_from(["jsonl", "json", *(["csv"] if flat else []), *(["tsv"] if tabbed else [])]))
    file = path / f"train.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    elif kind == "json":
        file.write_text(json.dumps(rows, indent=draw(st.sampled_from([None, 2]))), "utf-8")
    elif kind == "csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), quoting=draw(st.sampled_from([0, 1])))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = ["\t".join(row.values()) for row in rows]
        file.write_text("\n".join(["\t".join(rows[0]), *lines]) + "\n", "utf-8", newline="\n")
    return file


def features_of(tmp_path_factory, rows, draw, **settings):
    """The canonical rows and features of a table written to a file and read again, or None where it is refused."""
    folder = tmp_path_factory.mktemp("table")
    tokenizer = small_tokenizer(draw(st.sampled_from(list(BUILD))))
    try:
        file = str(write(folder, rows, draw))
        spec = TaskSpec(name="task", data_files={"train": file, "validation": file}, **settings)
        mixture = load_mixture([spec], exclude_overlap=False)
        processor = MultiTaskProcessor(tokenizer, [mixture.specs[0].to_config()])
        data = FeatureDataset(processor, {"task": mixture.specs[0]}, mixture.train, progress=False)
        return mixture.specs[0], mixture.train["task"], data, processor
    except InputError as error:
        assert len(str(error)) > 20
        return None


def pieces_of(tokenizer, *texts, **options):
    """The word pieces of one input; as a batch, since of a single pair an empty second text is no second text."""
    return tokenizer(*([text] for text in texts), **options)["input_ids"][0]


def entries(data):
    return [(item["sequences"], item["entries"][0]) for item in data.__getitems__(list(range(len(data))))]


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_texts_and_classes_or_numbers(tmp_path_factory, data):
    pair, numbers = data.draw(st.booleans()), data.draw(st.booleans())
    labels = st.sampled_from(["2.5", "-1", "1e-3", "0"]) if numbers else st.sampled_from(LABELS)
    columns = {"text": TEXTS, **({"text_pair": TEXTS} if pair else {}), "label": labels}
    rows = data.draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=5))
    most = data.draw(st.sampled_from([8, 128]))
    fields = {"fields": ["text", "text_pair"]} if pair else {}
    made = features_of(
        tmp_path_factory, rows, data.draw, problem_type=NUMBER if numbers else SINGLE, max_length=most, **fields
    )
    if made is None:
        return
    spec, canonical, features, processor = made
    assert [row["text"] for row in canonical] == [row["text"] for row in rows]
    for row, (sequences, entry) in zip(rows, entries(features), strict=True):
        texts = (row["text"], row["text_pair"]) if pair else (row["text"],)
        expected = pieces_of(processor.tokenizer, *texts, truncation=True, max_length=most)
        assert sequences == [expected or [processor.tokenizer.pad_token_id]]
        assert entry["feature"]["truncated"] == (len(pieces_of(processor.tokenizer, *texts)) > most)
        label = entry["labels"]
        assert (label == float(row["label"])) if numbers else (spec.labels[label] == row["label"])


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_tags_of_words(tmp_path_factory, data):
    words = st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-X", "I-X", None])), min_size=1, max_size=6)
    tables = data.draw(st.lists(words, min_size=1, max_size=4))
    rows = [{"tokens": [word for word, _ in row], "label": [tag for _, tag in row]} for row in tables]
    made = features_of(tmp_path_factory, rows, data.draw, problem_type=TAGS, labels=["O", "B-X", "I-X"])
    if made is None:
        return
    spec, _, features, processor = made
    for row, (sequences, entry) in zip(rows, entries(features), strict=True):
        text = " ".join(row["tokens"])
        offsets = processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        positions = entry["feature"]["positions"]
        start, taken = 0, set()
        for word, tag, position in zip(row["tokens"], row["label"], positions, strict=True):
            end = start + len(word)
            if position >= 0:
                first, past = offsets[position]
                # The piece reaches into the word, or stands at it where its offsets leave letters out.
                assert first <= end and past >= start
                expected = -100 if tag is None else spec.labels.index(tag)
                assert position in taken or entry["labels"][position] == expected
                taken.add(position)
            start = end + 1
        assert all(label == -100 for place, label in enumerate(entry["labels"]) if place not in taken)
        assert len(entry["labels"]) == len(sequences[0])


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_answers_in_contexts(tmp_path_factory, data):
    context = data.draw(TEXTS | st.lists(WORDS, min_size=3, max_size=12).map(" ".join))
    spans = st.tuples(st.integers(0, len(context)), st.integers(0, len(context))).map(sorted)
    start, end = data.draw(spans)
    answers = {"text": [context[start:end]] if end > start else [], "answer_start": [start] if end > start else []}
    rows = [{"question": data.draw(TEXTS), "context": context, "label": answers}]
    settings = {"problem_type": ANSWER, "max_length": data.draw(st.sampled_from([24, 384])), "stride": 4}
    made = features_of(tmp_path_factory, rows, data.draw, **settings)
    if made is None:
        return
    visible = [place for place in range(start, end) if not is_hidden(context[place])]
    for _, entry in entries(made[2]):
        first, last = entry["labels"]
        offsets = entry["feature"]["offsets"]
        if (first, last) == (0, 0):
            assert offsets[0][0] < 0
            continue
        assert visible, "an answer that nobody can see is no answer"
        # The pieces from first to last are all that hold a part of the answer.
        parts = [place for place, (one, past) in enumerate(offsets) if any(one <= seen < past for seen in visible)]
        assert (parts[0], parts[-1]) == (first, last)


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_choices(tmp_path_factory, data):
    choices = st.lists(TEXTS, min_size=2, max_size=4)
    row = st.fixed_dictionaries({"text": TEXTS, "choices": choices, "label": st.integers(0, 3)})
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    made = features_of(tmp_path_factory, rows, data.draw, problem_type=CHOICE, max_length=64)
    if made is None:
        # Refused is a place beyond the choices, or nothing is.
        assert any(row["label"] >= len(row["choices"]) for row in rows)
        return
    for row, (sequences, entry) in zip(rows, entries(made[2]), strict=True):
        tokenizer = made[3].tokenizer
        pieces = [pieces_of(tokenizer, row["text"], one, truncation=True, max_length=64) for one in row["choices"]]
        assert sequences == [ids or [tokenizer.pad_token_id] for ids in pieces]
        assert entry["labels"] == row["label"]
