"""Words of every script, and the spans that are widened to them."""

import re
import unicodedata

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mtl.modeling.words import WORD, WholeWords, letters_of, word_spans
from tests.conftest import DATA

# What a word was before marks were known.
PLAIN = re.compile(r"\w+|[^\w\s]")

WORDS = {
    "Hindi": "दिल्ली में बारिश",
    "Marathi": "महाराष्ट्राच्या राजधानीत",
    "Tamil": "சென்னையில் மழை பெய்தது",
    "Bengali": "ঢাকায় বৃষ্টি হচ্ছে র\u200d্যাব",
    "Telugu": "హైదరాబాద్‌లో వర్షం",
    "Malayalam, a joiner at the end": "കണ്\u200d അവന്\u200d",
    "Sinhala": "ශ්\u200dරී ලංකාව",
    "Khmer": "ភ្នំពេញ កម្ពុជា",
    "Thai": "กรุงเทพ ที่นี่",
    "Arabic with points": "مَطَرٌ فِي دِمَشْقَ",
    "Persian": "کتاب\u200cها می\u200cروم",
    "Hebrew with points": "שָׁלוֹם יְרוּשָׁלַיִם",
    "accents apart": unicodedata.normalize("NFD", "café à Orléans Việt Nam"),
    "Yoruba": "ọ̀rọ̀ Yorùbá",
    "soft hyphens": "co\u00adoperate Donau\u00addampf",
    "Chinese": "北京 下雨",
    "Korean, letters apart": unicodedata.normalize("NFD", "서울에 비"),
    "emoji": "👩\u200d🚀 ❤\ufe0f #\ufe0f\u20e3",
}


@pytest.mark.parametrize("language", WORDS)
def test_marks_and_joiners_continue_a_word(language):
    assert WORD.findall(WORDS[language]) == WORDS[language].split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't", ["don", "'", "t"]),
        ("Bob\u200b won it", ["Bob", "won", "it"]),
        ("Bob\u200bwon", ["Bob", "won"]),
        ("\ufeffBob\u200e, \u200c!", ["Bob", ",", "!"]),
        ("दिल्ली, बारिश!", ["दिल्ली", ",", "बारिश", "!"]),
        ("3.5 snake_case", ["3", ".", "5", "snake_case"]),
    ],
)
def test_what_ends_a_word(text, words):
    assert WORD.findall(text) == words
    assert [text[start:end] for start, end in word_spans(text)] == words


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_divided_as_before(text):
    assert WORD.findall(text) == PLAIN.findall(text)
    assert letters_of(text) == re.sub(r"[\W_]+", "", text.lower())


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_words_leave_out_only_what_is_not_seen(text):
    """Blanks and characters without a form stand between words, and no word is empty."""
    left, place = "", 0
    for start, end in word_spans(text):
        assert place <= start < end
        left, place = left + text[place:start], end
    left += text[place:]
    assert all(letter.isspace() or unicodedata.category(letter) in ("Cf", "Cn") for letter in left)


@pytest.mark.skipif(not DATA.exists(), reason="the data are not here")
@pytest.mark.parametrize(("name", "column"), [("sst2", "sentence"), ("squad", "context"), ("ag_news", "text")])
def test_english_is_divided_as_before(name, column):
    texts = Dataset.from_parquet(str(DATA / name / "validation.parquet"))[column][:1000]
    for text in set(texts):
        plain = "".join(letter for letter in text if unicodedata.category(letter)[0] not in "MC" or letter.isspace())
        assert WORD.findall(plain) == PLAIN.findall(plain)


def test_letters_differ_where_only_a_mark_does():
    assert letters_of("दिन") != letters_of("दीन") != letters_of("दान")
    assert letters_of(unicodedata.normalize("NFD", "Café!")) == letters_of("café")
    assert letters_of("I love it ❤\ufe0f") == letters_of("I love it ❤") == "iloveit"
    assert letters_of("می\u200cروم") == letters_of("میروم")


@pytest.mark.parametrize(
    ("text", "start", "end", "whole"),
    [
        ("in Amsterdam on", 4, 10, "Amsterdam"),
        ("in Amsterdam on", 2, 13, "Amsterdam"),
        ("Bob\u200b won", 1, 4, "Bob"),
        ("of $5 million.", 4, 5, "5"),
        ("दिल्ली में", 0, 1, "दिल्ली"),
        ("the 19th century", 4, 6, "19th"),
        ("他住在北京市", 3, 5, "北京"),
        ("서울에서 왔다", 0, 2, "서울"),
        ("iPhone手机", 1, 3, "iPhone"),
        ("a  b", 1, 3, ""),
        ("", 0, 0, ""),
    ],
)
def test_spans_are_widened_to_whole_words(text, start, end, whole):
    words = WholeWords(text)
    first, past = words.beginning(start), words.ending(end)
    assert (text[first:past] if first < past else "") == whole
