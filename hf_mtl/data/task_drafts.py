"""Tasks as a data set's rows suggest them, each with the reason why; what is not clear is a question."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..modeling.problem_types import PROBLEM_TYPES, problem_type_with
from .column_hints import PAIRS, numbered_choices
from .column_profiles import ColumnProfile, profiles_of

# What stands in a recipe where somebody has to write.
BLANK = "???"
# Names that say that a column is the label, and the only one; and names of labels that there may be several of.
_LABEL_NAMES = ("label", "labels", "class", "target", "targets", "gold", "gold_label", "tags", "y")
_ANSWER_NAMES = ("category", "sentiment", "intent", "topic", "emotion", "rating", "score", "stars", "answer")
_TEXT_NAMES = ("text", "sentence", "document", "content", "body", "review", "message", "comment", "tweet")
_WORDS = ("tokens", "words")
_SEPARATORS = re.compile(r"\s*[;|,]\s*")
# Of texts that are several names with something between, the share from which it is asked whether they are lists.
_JOINED = 0.1


@dataclass
class TaskDraft:
    """A task as a recipe has it, and what to say of it.

    Args:
        name: The task's name.
        problem_type: A name of `PROBLEM_TYPES`, or `BLANK`.
        columns: By field the column that it is read from, or `BLANK`.
        reasons: By key of the task's row, why it says so.
        questions: By key, what is not clear.
        unread: Columns that the task reads nothing of.
    """

    name: str
    problem_type: str
    columns: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


def draft_tasks(name: str, rows: Sequence[Mapping[str, Any]]) -> list[TaskDraft]:
    """Return the tasks of a data set: one, or one per column that looks like a label.

    Args:
        name: What the data set is called.
        rows: Some of its rows.
    """
    columns = profiles_of(rows)
    drafts = _questions(name, columns) or _words(name, columns) or _choices(name, columns) or _sentences(name, columns)
    fields = [column for draft in drafts for column in draft.columns.values()]
    read = {name for column in fields for name in (column if isinstance(column, list) else [column])}
    for draft in drafts:
        draft.unread = [column for column in columns if column not in read]
    return drafts


def _questions(name: str, columns: Mapping[str, ColumnProfile]) -> list[TaskDraft]:
    answers = next((column for column in ("answers", "answer") if column in columns), None)
    if not {"question", "context"} <= columns.keys() or answers is None:
        return []
    fields = {"question": "question", "context": "context", "label": answers}
    draft = TaskDraft(name, problem_type_with("answers"), fields)
    draft.reasons["problem_type"] = f"the columns question, context and {answers}"
    if not all(isinstance(value, Mapping) and "answer_start" in value for value in columns[answers].present):
        draft.questions["columns"] = (
            f'{answers} does not say where answers stand; expected {{"text": [...], "answer_start": [...]}} per row'
        )
    return [draft]


def _words(name: str, columns: Mapping[str, ColumnProfile]) -> list[TaskDraft]:
    words = next((column for column in _WORDS if column in columns and columns[column].is_list), None)
    if words is None:
        return []
    drafts = []
    for column, profile in columns.items():
        pairs = zip(columns[words].values, profile.values)
        if (
            column != words
            and profile.is_list
            and all(len(first or ()) == len(second or ()) for first, second in pairs)
        ):
            drafts.append(TaskDraft(column, problem_type_with("tags"), {"tokens": words, "label": column}))
            drafts[-1].reasons["problem_type"] = f"{column} has as many values as {words} in every row"
    if len(drafts) == 1:
        drafts[0].name = name
    return drafts


def _choices(name: str, columns: Mapping[str, ColumnProfile]) -> list[TaskDraft]:
    choices: Any = "choices" if "choices" in columns and columns["choices"].is_list else None
    texts = [column for column, profile in columns.items() if profile.is_text]
    choices = choices or numbered_choices([column for column in columns if not columns[column].is_list])
    label = next((column for column in ("label", "answer", "answerKey") if column in columns), None)
    others = [column for column in texts if column not in choices] if choices else []
    if not choices or label is None or not others:
        return []
    draft = TaskDraft(name, problem_type_with("choice"), {"text": others[0], "choices": choices, "label": label})
    listed = choices if isinstance(choices, str) else ", ".join(choices)
    draft.reasons["problem_type"] = f"the choices of a row stand in {listed}"
    if len(others) > 1:
        draft.columns["text"] = BLANK
        draft.questions["columns"] = f"which text is it that one is chosen for: {', '.join(others)}?"
    return [draft]


def _sentences(name: str, columns: Mapping[str, ColumnProfile]) -> list[TaskDraft]:
    """Classes, sets of labels and numbers of a text or two: one task per column that looks like a label."""
    texts, labels = _texts_and_labels(columns)
    media = {name: profile.medium for name, profile in columns.items() if profile.medium is not None}
    fields, question = _input_fields(texts, media, _cells(columns, labels))
    if not labels:
        draft = TaskDraft(name, BLANK, {**fields, "label": BLANK})
        others = ", ".join(column for column in columns if column not in texts and column not in media)
        draft.questions["columns"] = f"no column looks like a label; there are {others or 'no others'}"
        return [_with_question(draft, question)]
    drafts = []
    for column in labels:
        draft = _label_draft(name if len(labels) == 1 else column, columns[column])
        draft.columns = {**fields, "label": column}
        drafts.append(_with_question(draft, question))
    return drafts


def _with_question(draft: TaskDraft, question: str | None) -> TaskDraft:
    if question is not None:
        draft.questions["columns"] = "; ".join(filter(None, [draft.questions.get("columns"), question]))
    return draft


def _texts_and_labels(columns: Mapping[str, ColumnProfile]) -> tuple[list[str], list[str]]:
    """Return the columns that are read, and those that are answered: by their names, or else by their values."""
    usable = {name: profile for name, profile in columns.items() if not (profile.is_numbering or profile.medium)}
    by_name = [name for name in usable if name.lower() in _LABEL_NAMES]
    answers = [name for name in usable if name.lower() in _ANSWER_NAMES and not usable[name].is_text]
    texts = [name for name, profile in usable.items() if profile.is_text and name not in by_name]
    if not texts:
        # One word per row, or few rows: the name says that it is read.
        texts = [name for name in usable if name.lower() in _TEXT_NAMES]
    if by_name:
        return texts, by_name
    by_value = [
        name
        for name, profile in usable.items()
        if name not in texts and (name in answers or profile.is_names or profile.is_number or profile.is_list)
    ]
    return texts, by_value


def _input_fields(
    texts: Sequence[str], media: Mapping[str, str], cells: Sequence[str]
) -> tuple[dict[str, Any], str | None]:
    """Return the columns of the inputs, and what to ask of them.

    Args:
        texts: Columns of texts.
        media: By column of images or sounds which of them it holds.
        cells: Columns of a table, where a label's name says that they are no labels.
    """
    if len(media) == 1 and not texts:
        return {kind: name for name, kind in media.items()}, None
    if media:
        kinds = {name: media.get(name, "text") for name in (*texts, *media)}
        several = ", ".join(f"{kind}: {name}" for name, kind in kinds.items())
        return {"text": BLANK}, f"which of {', '.join(kinds)} is read? A task may read several: {{{several}}}"
    if len(texts) == 1:
        return {"text": texts[0]}, None
    for first, second in PAIRS:
        if sorted(texts) == sorted((first, second)):
            return {"text": first, "text_pair": second}, None
    if texts:
        return {"text": BLANK}, f"which of {', '.join(texts)} is read? A second text is `text_pair`"
    if len(cells) > 1:
        return {"table": list(cells)}, None
    return {"text": BLANK}, "no column looks like a text; columns of a table are `table: [...]`"


def _cells(columns: Mapping[str, ColumnProfile], labels: Sequence[str]) -> list[str]:
    """The columns beside a label that its name says is one: numbers and names."""
    if not labels or not all(name.lower() in _LABEL_NAMES for name in labels):
        return []
    others = {name: profile for name, profile in columns.items() if name not in labels}
    return [name for name, one in others.items() if not one.is_numbering and (one.is_number or one.is_names)]


def _label_draft(name: str, profile: ColumnProfile) -> TaskDraft:
    """Return the task of a label's column, without its texts."""
    column, count = profile.name, len(profile.distinct)
    if profile.is_list:
        draft = TaskDraft(name, problem_type_with("label_set"), {})
        draft.reasons["problem_type"] = f"{column} has a list in every row"
    elif profile.is_whole and not isinstance(profile.present[0], bool):
        draft = TaskDraft(name, BLANK, {})
        kinds = ", ".join(kind for kind, row in PROBLEM_TYPES.items() if row.labels in ("class", "number"))
        draft.questions["problem_type"] = f"{column} is {profile.shown()}: classes, or amounts? One of {kinds}"
    elif profile.is_number:
        draft = TaskDraft(name, problem_type_with("number"), {})
        draft.reasons["problem_type"] = f"{column} has numbers with fractions, {_range(profile)}"
    elif profile.is_names:
        draft = TaskDraft(name, problem_type_with("class"), {})
        draft.reasons["problem_type"] = f"{column} has {count} different values: {profile.shown()}"
        parts = {part for value in profile.distinct for part in _SEPARATORS.split(str(value))}
        joined = [value for value in profile.present if _SEPARATORS.search(str(value))]
        if len(joined) >= _JOINED * len(profile.present) and len(parts) < count:
            draft.problem_type = BLANK
            draft.questions["problem_type"] = (
                f"{column} has values such as {joined[0]!r}: one name, or several? Several are lists in a .jsonl"
            )
    else:
        draft = TaskDraft(name, BLANK, {})
        draft.questions["problem_type"] = f"{column} has {count} different values, too many for classes"
    return draft


def _range(profile: ColumnProfile) -> str:
    numbers = [float(value) for value in profile.present]
    return f"{min(numbers):g} to {max(numbers):g}"
