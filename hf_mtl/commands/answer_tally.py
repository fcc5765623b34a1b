"""Counts of a file's answers: rows that were cut, that lack a field of a task, that could not be answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..modeling.answering import Answerer
from ..modeling.input_rows import Row, missing_fields
from ..modeling.task_config import TaskConfig

# Errors that are printed; the output holds all of them.
_MOST_ERRORS = 20


@dataclass
class AnswerTally:
    """Counts of rows that were answered, cut or refused.

    Args:
        rows: How many rows there are.
        num_errors: How many were not answered.
        errors: The first of their errors.
        cut: By task, how many answers say that their input was cut.
        unread: By task, how many words were not read.
        lacking: By task and field, how many rows lack it.
        lacking_rows: By task, how many rows lack a field.
        keys: By task, the keys of its answers.
    """

    rows: int = 0
    num_errors: int = 0
    errors: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    lacking: dict[str, dict[str, int]] = field(default_factory=dict)
    lacking_rows: dict[str, int] = field(default_factory=dict)
    keys: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, outcome: Mapping[str, Any], row: Row | None, tasks: Sequence[TaskConfig]) -> None:
        """Count a row.

        Args:
            outcome: Its ``answers``, or its ``error``.
            row: Its input fields; None where it has none that can be answered.
            tasks: The tasks to answer.
        """
        self.rows += 1
        if "error" in outcome:
            self.num_errors += 1
            self.errors += [outcome["error"]][: _MOST_ERRORS - len(self.errors)]
            return
        for name, answer in outcome["answers"].items():
            _count(self.keys.setdefault(name, {}), dict.fromkeys(answer, 1))
            if answer.get("truncated"):
                _count(self.cut, {name: 1})
                if "words_read" in answer:
                    _count(self.unread, {name: len(answer["tokens"]) - answer["words_read"]})
        for task in tasks:
            if lacking := missing_fields(task, row or {}):
                _count(self.lacking_rows, {task.name: 1})
                _count(self.lacking.setdefault(task.name, {}), dict.fromkeys(lacking, 1))

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add the counts of another part, as `asdict` returned them."""
        self.rows += other["rows"]
        self.num_errors += other["num_errors"]
        self.errors += other["errors"][: _MOST_ERRORS - len(self.errors)]
        for name in ("cut", "unread", "lacking_rows"):
            _count(getattr(self, name), other[name])
        for name in ("lacking", "keys"):
            for task, counts in other[name].items():
                _count(getattr(self, name).setdefault(task, {}), counts)


def _count(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for key, number in more.items():
        counts[key] = counts.get(key, 0) + number


def lines_of_tally(tally: AnswerTally, answerer: Answerer, output: Path) -> list[str]:
    """Return what to say of rows that were cut, lack a field or were not answered."""
    lines = []
    for task in answerer.tasks:
        if cut := tally.cut.get(task.name):
            unread = tally.unread.get(task.name, 0)
            words = f" and {unread:,} of their words, which are tagged as outside, were not read" if unread else ""
            lines.append(f"{task.name}: {cut:,} of {tally.rows:,} rows were cut {cut_at(answerer, task, words)}")
        if lacking := tally.lacking_rows.get(task.name):
            said = ", ".join(f"{count:,} without {name}" for name, count in tally.lacking[task.name].items())
            lines.append(f"{task.name}: {lacking:,} of {tally.rows:,} rows not answered: {said}")
    lines += [f"hf-mtl predict: {error}" for error in tally.errors]
    if (more := tally.num_errors - len(tally.errors)) > 0:
        lines.append(f"hf-mtl predict: ... and {more} rows more.")
    if tally.num_errors:
        lines.append(
            f"hf-mtl predict: {tally.num_errors:,} of {tally.rows:,} rows not answered; `error` in {output} says why."
        )
    return lines


def cut_at(answerer: Answerer, task: TaskConfig, unread: str = "") -> str:
    """Return where inputs of a task are cut, and what to do about it.

    Args:
        answerer: What answers.
        task: The task.
        unread: What to say of words that were not read.
    """
    if "audio" in task.input_fields:
        return 'at what its encoder reads of a sound ("truncated": true). Give shorter ones, or divide them.'
    return (
        f'at max_length={answerer.processor.max_length(task)} word pieces ("truncated": true){unread}. Give shorter '
        "texts, or train the task with a larger max_length."
    )
