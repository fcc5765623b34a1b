"""One reader of tagged spans: which labels mark spans, and which spans tags mark."""

import random
import re

import pytest

from hf_mtl import InputError, TaskSpec
from hf_mtl.metrics import span_f1
from hf_mtl.modeling.answer_decoding import tag_spans
from hf_mtl.modeling.tag_spans import SpanTags, outside_tag, spelled_as_bioes

# Anna Lee Smith met Bob in Oslo and Rio
PEOPLE = [("PER", 0, 2), ("PER", 4, 4), ("LOC", 6, 6), ("LOC", 8, 8)]
TAGS = {
    "BIO": "B-PER I-PER I-PER O B-PER O B-LOC O B-LOC",
    "BIO, I begins": "I-PER I-PER I-PER O I-PER O I-LOC O I-LOC",
    "BIOES": "B-PER I-PER E-PER O S-PER O S-LOC O S-LOC",
    "BILOU": "B-PER I-PER L-PER O U-PER O U-LOC O U-LOC",
    "BMES": "B-PER M-PER E-PER O S-PER O S-LOC O S-LOC",
    "BMEW": "B-PER M-PER E-PER O W-PER O W-LOC O W-LOC",
    "IO": "PER PER PER O PER O LOC O LOC",
    "lower case": "b-PER i-PER i-PER o b-PER o b-LOC o b-LOC",
    "behind": "PER-B PER-I PER-I O PER-B O LOC-B O LOC-B",
    "underscore": "B_PER I_PER I_PER O B_PER O B_LOC O B_LOC",
    "underscore behind": "PER_B PER_I PER_E O PER_S O LOC_S O LOC_S",
}
WORDS = ["Anna", "Lee", "Smith", "met", "Bob", "in", "Oslo", "and", "Rio"]


@pytest.mark.parametrize("scheme", TAGS)
def test_every_scheme_marks_the_same_spans(scheme):
    tags = TAGS[scheme].split()
    labels = sorted(set(tags))
    assert SpanTags.of(labels).spans(tags) == PEOPLE
    texts = [(span["text"], span["label"]) for span in tag_spans({"tokens": WORDS}, tags, labels)]
    assert texts == [("Anna Lee Smith", "PER"), ("Bob", "PER"), ("Oslo", "LOC"), ("Rio", "LOC")]
    spec = TaskSpec(name="names", problem_type="token_classification", labels=labels)
    assert spec.metric_names == ["span_f1"]
    spec.check_metric_labels()
    scored = dict(zip(labels, spelled_as_bioes(labels)))
    bio = [TAGS["BIO"].split()]
    assert span_f1([[scored[tag] for tag in tags]], bio) == 100
    assert scored[outside_tag(labels)] == "O"


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B I O B", [("_", 0, 1), ("_", 3, 3)]),
        ("B M E S S", [("_", 0, 2), ("_", 3, 3), ("_", 4, 4)]),
        ("B-a-b I-a-b I-a-c", [("a-b", 0, 1), ("a-c", 2, 2)]),
        ("B-a_b I-a_b O", [("a_b", 0, 1)]),
        ("B-PER B-PER I-LOC O", [("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 2)]),
        ("I-PER I-LOC I-LOC O", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("PER PER LOC O PER", [("PER", 0, 1), ("LOC", 2, 2), ("PER", 4, 4)]),
        ("B-A E-A I-A O", [("A", 0, 1), ("A", 2, 2)]),
        ("E-A S-A S-A", [("A", 0, 0), ("A", 1, 1), ("A", 2, 2)]),
        ("O O", []),
    ],
)
def test_spans_worked_by_hand(tags, spans):
    tags = tags.split()
    assert SpanTags.of(tags, are_all=False).spans(tags) == spans


@pytest.mark.parametrize("labels", ["NOUN VERB ADJ", "NN VB -LRB-", "M W", "0 1", "noun verb", "S-a S-b X"])
def test_other_tags_mark_none(labels):
    labels = labels.split()
    assert SpanTags.of(labels) is None
    spec = TaskSpec(name="pos", problem_type="token_classification", labels=labels)
    assert spec.metric_names == ["token_accuracy"]
    assert tag_spans({"tokens": ["a"]}, labels[:1], labels) == []
    spec = TaskSpec(name="pos", problem_type="token_classification", labels=labels, metrics=["span_f1"])
    with pytest.raises(InputError, match="token_accuracy"):
        spec.check_metric_labels()


@pytest.mark.parametrize(
    ("labels", "odd"),
    [
        ("O B-PER I-PER MISC", "'MISC'"),
        ("O B-PER I-PER E-PER L-LOC", "'L-LOC'"),
        ("0 B-PER I-PER", "'0'"),
        ("O B-PER i-PER", None),
        ("O B-PER I_PER", "'I_PER'"),
    ],
)
def test_tags_of_two_schemes_are_refused_by_name(labels, odd):
    spec = TaskSpec(name="names", problem_type="token_classification", labels=labels.split())
    assert spec.metric_names == ["span_f1"]
    if odd is None:
        spec.check_metric_labels()
        return
    with pytest.raises(InputError, match=f"found {odd} beside 'B-PER'.*token_accuracy"):
        spec.check_metric_labels()
    spec = TaskSpec(
        name="names", problem_type="token_classification", labels=labels.split(), metrics=["token_accuracy"]
    )
    spec.check_metric_labels()


@pytest.mark.parametrize(
    "labels",
    [
        *(f"O B{sign}PER I{sign}PER" for sign in ":./|+~–=#"),
        "O BPER IPER",
        "O BPER MPER EPER",
        "B:PER I:PER",
        "O I:PER I:LOC",
        "O B:PER I.PER",
        "O b:PER i:PER",
        "O PER:B PER:I",
        "O PER/B PER/I MISC",
        "O B_PER I_PER MISC",
        "O S:PER E:PER",
        "O E-mail S-phone",
        "O S-PER",
        "S-a S-b",
    ],
)
def test_letters_that_may_be_of_a_scheme_are_not_guessed(labels):
    labels = labels.split()
    inside = [label for label in labels if label != "O"]
    spec = TaskSpec(name="names", problem_type="token_classification", labels=labels)
    with pytest.raises(InputError, match=f"found {re.escape(repr(inside[0]))}.*'B-PER' and 'I-PER'.*token_accuracy"):
        spec.check_metric_labels()
    spec = TaskSpec(name="names", problem_type="token_classification", labels=labels, metrics=["token_accuracy"])
    spec.check_metric_labels()
    assert tag_spans({"tokens": inside}, inside, labels) == []
    assert spelled_as_bioes(labels) == labels
    assert outside_tag(labels) == labels[0]


@pytest.mark.parametrize("labels", ["O E-mail person", "O B/W color", "O i-phone e-mail", "O VITAMIN_C VITAMIN_B A"])
def test_names_that_hold_a_letter_by_chance_are_types(labels):
    labels = labels.split()
    TaskSpec(name="names", problem_type="token_classification", labels=labels).check_metric_labels()
    assert SpanTags.of(labels).spans(labels) == [(label, place, place) for place, label in enumerate(labels) if place]


def test_rows_that_hold_single_words_alone_are_scored():
    """The labels of a task say what its letters mean; the rows need not hold all of them."""
    assert span_f1([["O", "S-PER"]], [["O", "S-PER"]]) == 100
    with pytest.raises(ValueError, match="'B:PER'"):
        span_f1([["B:PER", "I:PER"]], [["B:PER", "O"]])


def test_an_odd_tag_leaves_the_other_spans():
    labels = ["O", "B-PER", "I-PER", "[PAD]"]
    assert SpanTags.of(labels).spans(["B-PER", "I-PER", "[PAD]", "B-PER"]) == [("PER", 0, 1), ("PER", 3, 3)]
    with pytest.raises(ValueError, match=r"'\[PAD\]'"):
        span_f1([["B-PER", "[PAD]"]], [["B-PER", "O"]])


def test_spans_are_those_of_seqeval():
    entities = pytest.importorskip(
        "seqeval.metrics.sequence_labeling", reason="`seqeval` is not installed"
    ).get_entities
    draw = random.Random(0)
    for letters in ("BI", "BIES", "IE", "BS"):
        alphabet = ["O", *(f"{letter}-{kind}" for letter in letters for kind in ("A", "B-C"))]
        for _ in range(200):
            tags = draw.choices(alphabet, k=draw.randint(1, 12))
            assert SpanTags.of(alphabet).spans(tags) == entities(tags)
