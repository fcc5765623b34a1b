"""The model's output: the loss first, then logits by task name, of what the heads say of all entries."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.utils import ModelOutput

from .label_checks import Entries
from .problem_heads import TASK_HEADS
from .task_config import TaskConfig
from .task_head import TaskHead


@dataclass
class MultiTaskOutput(ModelOutput):
    """The output of `MultiTaskAttentionModel` (B rows, L tokens, D hidden size, T tasks).

    As a tuple the loss comes first, where there are labels, and then the logits.

    Args:
        loss: The loss of this batch with task weights 1 (see `step_loss`), where labels are given.
        logits: By task name: (B, classes), (B,) for regression, (B, L, tags), (B, L, 2) for the first and last piece
            of an answer, (B, choices) of inputs (B, choices, L). Inputs (B, L) are single choices of a multiple-choice
            task: (B,). All rows for every task; with `task_ids` (or internal routing) for each task its rows alone,
            in row order, and tasks without rows are left out (`TaskLogits`).
        hidden_states: The encoder's, (B, L, D) for the embeddings and every layer, where asked for; of encoders that
            read a row once for each task (B * T, L, D). None in place of layers that were not asked for.
        attentions: The encoder's, (B, heads, L, L) for every layer, where asked for.
        task_losses: Mean loss of each task's labels in this batch, by task name.
        task_loss_sums: (T,) sums of the losses of the labels in this batch.
        task_label_counts: (T,) numbers of labels in this batch.
        task_row_counts: (T,) numbers of rows with a label in this batch.
        task_penalty_sums: (T,) sums over these rows of what the parts themselves add to the loss, where they do.
        part_measurements: In training, by name the sum and the number (2,) of what parts measure of labelled rows for
            their tasks, such as an adversary's accuracy.
        task_states: (B, T, D) what passed the gate; of rows that are answered for A tasks each, (B, A, D).
        pooling_weights: (B, T, L) how much a task reads of a token, where asked for and weighed.
        interaction_weights: (B, heads, T, T) how much a task reads of another, (B, T, experts) of experts, where asked
            for and weighed.
        gates: (B, T, D) how much of the mixed state passes, where asked for; (B, A, D) as `task_states`.
        entry_logits: Internal: with `task_ids` or routing, the entries' logits by problem type; outputs a task does
            not have are -inf.
    """

    loss: torch.Tensor | None = None
    logits: Mapping[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    task_losses: dict[str, torch.Tensor] | None = None
    task_loss_sums: torch.Tensor | None = None
    task_label_counts: torch.Tensor | None = None
    task_row_counts: torch.Tensor | None = None
    task_penalty_sums: torch.Tensor | None = None
    part_measurements: dict[str, torch.Tensor] | None = None
    task_states: torch.Tensor | None = None
    pooling_weights: torch.Tensor | None = None
    interaction_weights: torch.Tensor | None = None
    gates: torch.Tensor | None = None
    entry_logits: dict[str, torch.Tensor] | None = None


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
        return _logits_of_every_row(logits, heads, single)
    return TaskLogits(partial(_logits_of_rows, logits, routing, heads, single))


def _logits_of_every_row(
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


def _logits_of_rows(
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


__all__ = ["MultiTaskOutput", "TaskLogits", "labels_by_task", "logits_by_task"]
