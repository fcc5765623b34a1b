"""Guesses at the columns of a data set, for messages that say what to write."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Value

from ..modeling.problem_types import problem_type_with

_TEXTS = ("string", "large_string", "string_view")
# Columns of texts that number the rows.
ROW_NAMES = ("id", "idx")
# What tokenizers make of texts.
_TOKENISED = ("input_ids", "attention_mask", "token_type_ids")
# Names of two columns that are read together.
PAIRS = (
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("sent1", "sent2"),
    ("s1", "s2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question1", "question2"),
    ("query", "passage"),
    ("query", "document"),
)
# A number or a letter after whatever several columns have in common.
_NUMBERED = re.compile(r"(.*?)(\d+|[a-zA-Z])")


def is_text(feature: Any) -> bool:
    """Return whether a feature is that of a column of texts."""
    return isinstance(feature, Value) and feature.dtype in _TEXTS


def tokenised_help(features: Mapping[str, Any], label: Any = None) -> str:
    """Return what to do where word pieces stand in the place of texts, after a space; nothing where texts are there.

    Args:
        features: The data set's features, or None by the names of its columns.
        label: The column of the labels.
    """
    texts = [name for name in features if is_text(features[name]) and name not in (*ROW_NAMES, label)]
    if _TOKENISED[0] not in features or texts:
        return ""
    return give_texts([name for name in _TOKENISED if name in features])


def give_texts(columns: Sequence[str]) -> str:
    """Return what to do in the place of giving columns of word pieces, after a space; nothing where none is one.

    Args:
        columns: Names of columns.
    """
    if not set(columns) <= set(_TOKENISED):
        return ""
    return (
        f" The rows are tokenised already ({', '.join(columns)}); give the texts themselves, which are tokenised here "
        "for each task: leave out data.map(tokenize), or its remove_columns=."
    )


def numbered_choices(columns: Sequence[str]) -> list[str]:
    """Return the columns that look like choices, such as ``choice1`` and ``choice2``, or ``option_a`` to ``option_d``.

    They have a beginning in common, which is no column itself, and count on from 0, 1 or A; none are returned where
    several groups do.

    Args:
        columns: The names of columns of texts.
    """
    groups: dict[tuple[str, bool], dict[str, str]] = {}
    for name in columns:
        if match := _NUMBERED.fullmatch(name):
            groups.setdefault((match[1], match[2].isdecimal()), {})[match[2]] = name
    pairs = [set(pair) for pair in PAIRS]
    found_groups = [
        list(group.values())
        for (beginning, _), group in groups.items()
        if _count_on(list(group)) and set(group.values()) not in pairs and beginning.rstrip("_-. ") not in columns
    ]
    return found_groups[0] if len(found_groups) == 1 else []


def _count_on(marks: Sequence[str]) -> bool:
    first = marks[0]
    if len(marks) < 2 or first not in ("0", "1", "a", "A"):
        return False
    if first.isdecimal():
        return list(marks) == [str(int(first) + place) for place in range(len(marks))]
    return list(marks) == [chr(ord(first) + place) for place in range(len(marks))]


def choices_help(features: Mapping[str, Any], task: str, columns: Mapping[str, Any]) -> str:
    """Return the task to write where columns of texts look like numbered choices, after a space; else nothing.

    Args:
        features: The data set's features.
        task: The task's name.
        columns: What is known of its columns: ``text`` and ``label``.
    """
    texts = [name for name in features if is_text(features[name])]
    choices = numbered_choices(texts)
    others = [name for name in texts if name not in choices and name != columns.get("label")]
    text = columns.get("text") if columns.get("text") in features else next(iter(others), None)
    if not choices or text is None:
        return ""
    label = f", 'label': {columns['label']!r}" if "label" in columns else ", 'label': ..."
    return (
        f" The columns {', '.join(choices)} look like the choices of a row: tasks=[TaskSpec(name={task!r}, "
        f"problem_type={problem_type_with('choice')!r}, columns={{'text': {text!r}, 'choices': {choices!r}{label}}})]."
    )
