"""Logits by task name, of what the heads say of all entries of a problem type."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from .label_checks import Entries
from .problem_heads import TASK_HEADS
from .task_config import TaskConfig
from .task_head import TaskHead


class TaskLogits(Mapping[str, torch.Tensor]):
    """Logits by task name of the rows of each task alone, in row order; tasks without rows are left out.

    They are cut out of the batch when the first of them is read, so that a step that reads its loss alone does not pay
    for tasks that it does not look at.

    Args:
        source: The logits by task name, or a function that returns them.
    """

    def __init__(self, source: Mapping[str, torch.Tensor] | Callable[[], Mapping[str, torch.Tensor]]) -> None:
        self._source = source

    def _cut(self) -> Mapping[str, torch.Tensor]:
        if not isinstance(self._source, Mapping):
            self._source = self._source()
        return self._source

    def __getitem__(self, task: str) -> torch.Tensor:
        return self._cut()[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cut())

    def __len__(self) -> int:
        return len(self._cut())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def logits_by_task(
    logits: Mapping[str, torch.Tensor],
    routing: Mapping[str, Entries],
    heads: Mapping[str, TaskHead],
    single: set[str],
    every_row: bool,
) -> Mapping[str, torch.Tensor]:
    """Return logits by task name: of all rows for all tasks or, of rows for tasks of their own, cut out when read.

    Args:
        logits: By problem type the logits of its entries.
        routing: These entries.
        heads: The heads by problem type.
        single: Problem types with one score per row, of which no axis is kept.
        every_row: Whether the entries are all rows for all tasks, task by task.
    """
    if every_row:
        return logits_of_every_row(logits, heads, single)
    return TaskLogits(partial(logits_of_rows, logits, routing, heads, single))


def logits_of_every_row(
    logits: Mapping[str, torch.Tensor], heads: Mapping[str, TaskHead], single: set[str]
) -> dict[str, torch.Tensor]:
    """Return the logits of all rows by task name, in the model's order of tasks.

    Args:
        logits: By problem type the logits of all rows for its tasks, task by task.
        heads: The heads by problem type.
        single: Problem types with one score per row, of which no axis is kept.
    """
    by_index = {}
    for name, scores in logits.items():
        tasks = heads[name].tasks
        for index, task_scores in zip(tasks, scores.unflatten(0, (len(tasks), -1))):
            by_index[index] = _own_outputs(heads[name], index, task_scores, single)
    return _by_name(by_index, heads)


def logits_of_rows(
    logits: Mapping[str, torch.Tensor],
    routing: Mapping[str, Entries],
    heads: Mapping[str, TaskHead],
    single: set[str],
) -> dict[str, torch.Tensor]:
    """Return the logits of each task's rows alone by its name, in row order; tasks without rows are left out.

    Args:
        logits: By problem type the logits of its entries.
        routing: These entries.
        heads: As above.
        single: As above.
    """
    by_index = {}
    for name, scores in logits.items():
        tasks, order = routing[name]["tasks"].sort(stable=True)
        present, counts = tasks.unique_consecutive(return_counts=True)
        for index, task_scores in zip(present.tolist(), scores[order].split(counts.tolist())):
            by_index[index] = _own_outputs(heads[name], index, task_scores, single)
    return _by_name(by_index, heads)


def labels_by_task(routing: Mapping[str, Entries], tasks: Sequence[TaskConfig]) -> dict[str, torch.Tensor]:
    """Return the labels of each task's rows by its name, in the order of its logits; tasks without are left out.

    Args:
        routing: By problem type the entries of a batch.
        tasks: The model's tasks in order.
    """
    by_index = {}
    for problem_type, entries in routing.items():
        if "labels" not in entries:
            continue
        indices, order = entries["tasks"].sort(stable=True)
        present, counts = indices.unique_consecutive(return_counts=True)
        for index, labels in zip(present.tolist(), entries["labels"][order].split(counts.tolist())):
            by_index[index] = TASK_HEADS[problem_type].task_labels(tasks[index], labels)
    return {tasks[index].name: by_index[index] for index in sorted(by_index)}


def _own_outputs(head: TaskHead, index: int, scores: torch.Tensor, single: set[str]) -> torch.Tensor:
    """The scores of one task without those that only other tasks of its problem type have."""
    if head.problem_type in single:
        return scores[..., 0]
    return head.task_scores(head.tasks[index], scores)


def _by_name(by_index: Mapping[int, torch.Tensor], heads: Mapping[str, TaskHead]) -> dict[str, torch.Tensor]:
    names = {index: task.name for head in heads.values() for index, task in head.tasks.items()}
    return {names[index]: by_index[index] for index in sorted(by_index)}
