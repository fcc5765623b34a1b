"""What is trained on is what was said, whatever a tokenizer says of its pieces: words, answers, empty texts."""

import re

import numpy as np
import pytest

from hf_mtl import InputError, TaskConfig
from hf_mtl.modeling.label_checks import IGNORED_LABEL
from hf_mtl.modeling.piece_places import answer_pieces, first_pieces, piece_places
from hf_mtl.modeling.problem_heads import QuestionAnsweringHead, TokenClassificationHead
from hf_mtl.modeling.processing_multitask import MultiTaskProcessor
from hf_mtl.modeling.words import word_spans
from tests.small_tokenizers import BARE, BUILD, TEXT, small_tokenizer

WORDS = [TEXT[start:end] for start, end in word_spans(TEXT)]
QUESTION = "who won the race"


def processor(name: str, problem_type: str, **settings) -> tuple[MultiTaskProcessor, TaskConfig]:
    labels = [f"T{number}" for number in range(len(WORDS))] if problem_type == "token_classification" else None
    settings = {"max_length": 500, **settings}
    task = TaskConfig(name="task", problem_type=problem_type, labels=labels, **settings)
    return MultiTaskProcessor(small_tokenizer(name), [task]), task


def plain(name: str, text: str) -> str:
    """A text without blanks, as the tokenizer's normalizer has it."""
    normalizer = small_tokenizer(name).backend_tokenizer.normalizer
    return "".join(
        (normalizer.normalize_str(text) if normalizer else text).translate({0x200B: "", ord("▁"): ""}).split()
    )


def read(name: str, pieces: list[int]) -> str:
    """What word pieces spell, without blanks."""
    tokenizer = small_tokenizer(name)
    text = tokenizer.decode(pieces, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return plain(name, text)


@pytest.mark.parametrize("name", BUILD)
def test_a_words_label_stands_at_its_first_piece(name):
    """The pieces from one word's label to the next word's spell the word."""
    own, task = processor(name, "token_classification")
    (feature,) = own.features(task, {"tokens": [WORDS], "label": [list(range(len(WORDS)))]})
    positions, labels = feature["positions"], feature["labels"]
    assert [labels[place] for place in positions] == list(range(len(WORDS)))
    assert len(labels) - labels.count(IGNORED_LABEL) == len(WORDS) == feature["words_read"]
    pieces = feature["sequences"][0]
    for word, first, past in zip(WORDS, positions, [*positions[1:], len(pieces)]):
        assert read(name, pieces[first:past]) == plain(name, word)
    scores = np.zeros((len(pieces), len(WORDS)))
    scores[positions, range(len(WORDS))] = 1
    answer = TokenClassificationHead.answer(task, [scores], {"tokens": WORDS}, [feature])
    assert answer["tags"] == task.labels and "truncated" not in answer


def _answer(task: TaskConfig, features: list, window: int, labels: list[int]) -> dict:
    """The answer of a model that is sure of the pieces of one window."""
    scores = [np.zeros((len(feature["offsets"]), 2)) for feature in features]
    scores[window][labels[0], 0] = scores[window][labels[1], 1] = 9
    return QuestionAnsweringHead.answer(task, scores, {"context": TEXT}, features)


@pytest.mark.parametrize("name", BUILD)
def test_an_answer_is_labelled_and_read_back(name):
    """Every run of one to three words between blanks, with and without the blanks at its ends."""
    own, task = processor(name, "question_answering", max_answer_length=200)
    spans = [match.span() for match in re.finditer(r"[^\s\u200b]+", TEXT)]
    for length, margin in ((1, 0), (2, 0), (3, 1), (1, 1)):
        for first in range(len(spans) - length + 1):
            start, end = spans[first][0], spans[first + length - 1][1]
            said = TEXT[max(start - margin, 0) : end + margin]
            answers = {"text": [said], "answer_start": [max(start - margin, 0)]}
            row = {"question": [QUESTION], "context": [TEXT], "label": [answers]}
            (feature,) = own.features(task, row)
            begin, last = feature["labels"]
            assert read(name, feature["sequences"][0][begin : last + 1]) == plain(name, TEXT[start:end])
            answer = _answer(task, [feature], 0, feature["labels"])
            assert answer["answer"] == TEXT[start:end] == TEXT[answer["start"] : answer["end"]]
            assert (answer["start"], answer["end"]) == (start, end)


def _context_pieces(feature: dict) -> list[int]:
    return [piece for piece, place in zip(feature["sequences"][0], feature["offsets"]) if place != [-1, -1]]


@pytest.mark.parametrize("name", BUILD)
def test_a_window_is_labelled_where_it_holds_the_answer_whole(name):
    own, task = processor(name, "question_answering", max_length=24, stride=6, max_answer_length=24)
    start = TEXT.index("naïve")
    row = {"question": ["who"], "context": [TEXT], "label": [{"text": ["naïve"], "answer_start": [start]}]}
    features = own.features(task, row)
    assert len(features) > 2 and max(len(feature["sequences"][0]) for feature in features) <= 24
    whole = 0
    for window, feature in enumerate(features):
        first, last = feature["labels"]
        assert ((first, last) != (0, 0)) == (plain(name, "naïve") in read(name, _context_pieces(feature)))
        if (first, last) != (0, 0):
            whole += 1
            assert _answer(task, features, window, feature["labels"])["answer"] == "naïve"
    assert whole >= 1
    side_by_side = own.features(TaskConfig(**{**task.to_dict(), "stride": 0}), row)
    pieces = [piece for feature in side_by_side for piece in _context_pieces(feature)]
    assert pieces == small_tokenizer(name)(TEXT, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize(
    ("question", "context"), [("", ""), ("", "Bob won"), ("who", ""), ("\u200b", " "), ("who won " * 30, "Bob won")]
)
def test_what_is_no_answer_is_never_a_piece_of_the_context(name, question, context):
    own, task = processor(name, "question_answering", max_length=16, null_answer=True)
    answers = [{"text": [], "answer_start": []}]
    if context == "Bob won":
        answers.append({"text": ["Bob"], "answer_start": [0]})
    for given in answers:
        features = own.features(task, {"question": [question], "context": [context], "label": [given]})
        assert all(feature["offsets"][0] == [-1, -1] for feature in features)
        assert all(1 <= len(feature["sequences"][0]) <= 16 for feature in features)
        assert any(feature["labels"] != [0, 0] for feature in features) == bool(given["text"])
        scores = [np.zeros((len(feature["offsets"]), 2)) for feature in features]
        for score in scores:
            score[0] = 9
        answer = QuestionAnsweringHead.answer(task, scores, {"context": context}, features)
        assert (answer["answer"], answer["start"], answer["end"]) == ("", 0, 0)
        assert answer.get("truncated", False) == (len(question) > 20)


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("text", ["", " ", "Bob won it"])
@pytest.mark.parametrize("pair", [None, "", "in Amsterdam"])
def test_no_sequence_is_empty(name, text, pair):
    columns = {"text": [text], **({} if pair is None else {"text_pair": [pair]})}
    own, _ = processor(name, "regression")
    task = TaskConfig(name="task", problem_type="regression", fields=list(columns))
    (feature,) = own.features(task, columns)
    expected = small_tokenizer(name)([text], None if pair is None else [pair])["input_ids"][0]
    assert feature["sequences"] == [expected or [own.filler]]
    choices = TaskConfig(name="task", problem_type="multiple_choice")
    (feature,) = own.features(choices, {"text": [text], "choices": [[pair or "", "x"]]})
    assert all(feature["sequences"])
    batch = own.collate([{**feature, "entries": [{"task": 0}]}])
    assert (batch["attention_mask"].sum(1) > 0).all()


@pytest.mark.parametrize("name", BARE)
def test_words_that_vanish_have_no_label(name):
    own, task = processor(name, "token_classification")
    (feature,) = own.features(task, {"tokens": [["", " "]], "label": [[1, 2]]})
    blank = small_tokenizer(name)("  ")["input_ids"] or [own.filler]
    assert feature["sequences"] == [blank] and set(feature["labels"]) == {IGNORED_LABEL}
    answer = TokenClassificationHead.answer(task, [np.zeros((len(blank), 99))], {"tokens": ["", " "]}, [feature])
    assert answer["tags"] == ["T0", "T0"]


@pytest.mark.parametrize("name", BUILD)
def test_words_that_were_read_are_counted(name):
    own, task = processor(name, "token_classification", max_length=12)
    words = ["Bob", "\u200b", "won"] * 20
    (feature,) = own.features(task, {"tokens": [words]})
    read_to = max(place for place, position in enumerate(feature["positions"]) if position >= 0)
    answer = TokenClassificationHead.answer(task, [np.eye(12, 99)], {"tokens": words}, [feature])
    assert answer["truncated"] is True
    assert answer["words_read"] in (read_to + 1, read_to + 2), "a word that the tokenizer drops is not unread"
    assert set(answer["tags"][answer["words_read"] :]) == {"T0"}


@pytest.mark.parametrize("problem_type", ["regression", "question_answering", "token_classification"])
def test_lengths_without_room_are_refused(problem_type):
    least = {"regression": 3, "question_answering": 6, "token_classification": 3}[problem_type]
    processor("RoBERTa", problem_type, max_length=least)
    with pytest.raises(InputError, match=f"'task' reads {least - 1} word pieces.*max_length >= {least}"):
        processor("RoBERTa", problem_type, max_length=least - 1)


def test_the_first_answer_that_a_window_holds_is_its_label():
    text, places = "Ann or Bob or Cid", [(0, 3), (4, 6), (7, 10), (11, 13), (14, 17)]
    answers = {"text": ["Bob or", "Ann", " Cid", " "], "answer_start": [7, 0, 13, 3]}
    assert answer_pieces(answers, text, places) == [(2, 3), (0, 0), (4, 4)]
    assert answer_pieces({"text": [], "answer_start": []}, text, places) == []


@pytest.mark.parametrize(
    ("text", "offsets", "places"),
    [
        ("in Oslo", [(0, 2), (2, 7)], [(0, 2), (3, 7)]),  # the blank is the piece's
        ("in Oslo", [(0, 2), (4, 7)], [(0, 2), (3, 7)]),  # the first letter is left out
        ("a b", [(0, 1), (3, 3)], [(0, 1), (2, 3)]),  # and nothing is left
        ("é", [(0, 1), (0, 1)], [(0, 1), (0, 1)]),  # a letter of two pieces
        ("Bob\u200b won", [(0, 3), (3, 4), (5, 8)], [(0, 3), (3, 3), (5, 8)]),
        ("cafe\u0301s", [(0, 4), (5, 6)], [(0, 4), (4, 6)]),  # an accent that the tokenizer drops
        ("x?y", [(0, 1), (2, 3)], [(0, 1), (2, 3)]),  # a sign that it drops is no part of a word
        ("a  b", [(0, 1), (1, 2), (2, 4)], [(0, 1), (1, 1), (3, 4)]),
        ("", [(0, 0), (0, 0)], [(0, 0), (0, 0)]),
    ],
)
def test_places_of_pieces(text, offsets, places):
    assert piece_places(text, offsets) == places


def test_words_that_share_a_piece_or_have_none():
    words = [(0, 2), (2, 3), (4, 6), (7, 9)]
    assert first_pieces(words, [(0, 0), (0, 3), (4, 4), (4, 6)]) == [1, 1, 3, -1]
    assert first_pieces(words, [(0, 1), (1, 3), (2, 3), (7, 9)]) == [0, 2, -1, 3]
