"""Labels that no task has: refused by name where they can be read at once, left to fail on the device elsewhere; those
of another shape or type, which any device says, are refused everywhere.

Heads of several tasks are padded to one width, so that a label past a task's own classes would find a score of minus
infinity there, where a plain model finds none and stops. Each function returns the labels of a head's entries; what is
impossible stands where no score is, so that a loss stops at it on any device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch.nn import functional as F

from .errors import InputError, LabelError

IGNORED_LABEL = -100

Entries = Mapping[str, torch.Tensor]


class _Task(Protocol):
    """The part of a `TaskConfig` that messages name."""

    @property
    def name(self) -> str:
        """The name of the task."""

    @property
    def label_names(self) -> list[str]:
        """The names of its labels."""

    @property
    def num_outputs(self) -> int:
        """The number of its scores."""


Tasks = Mapping[int, _Task]

# Types that hold a hole (-100) and every whole number as it is.
_WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16)
_NUMBERS = (torch.float32, torch.float64, torch.bfloat16, torch.float16, *_WHOLE_NUMBERS)


def class_labels(entries: Entries, tasks: Tasks, sizes: torch.Tensor, scores: Sequence[int]) -> torch.Tensor:
    """Return labels (N, ...) that are classes of their tasks.

    Args:
        entries: The entries.
        tasks: The head's tasks by their index in the model.
        sizes: (N,) how many classes each entry's task has.
        scores: The shape of the scores, (N, ..., classes).
    """
    *shape, width = scores
    labels = _formed(entries, tasks, shape, _WHOLE_NUMBERS).long()
    sizes = sizes.view(-1, *[1] * (labels.ndim - 1))
    possible = (labels == IGNORED_LABEL) | ((labels >= 0) & (labels < sizes))

    def expected(task: _Task, entry: int) -> str:
        names = ", ".join(task.label_names)
        return f"a number from 0 to {task.num_outputs - 1} ({names}), or {IGNORED_LABEL} for no label"

    return _checked(labels, possible, entries, tasks, expected).masked_fill(~possible, width)


def flag_labels(entries: Entries, tasks: Tasks, sizes: torch.Tensor, width: int) -> torch.Tensor:
    """Return labels (N, width) from 0 to 1, the columns that a task does not have without label.

    Args:
        entries: The entries.
        tasks: The head's tasks by their index in the model.
        sizes: (N,) how many flags each entry's task has.
        width: How many scores there are.

    Raises:
        LabelError: More columns than any task has.
    """
    labels = entries["labels"]
    if labels.ndim != 2 or labels.shape[1] > width:
        shape = tuple(labels.shape)
        raise LabelError(f"Flags are given in the shape {shape}; expected (entries, {width}), a column for each flag.")
    labels = _formed(entries, tasks, (entries["tasks"].shape[0], labels.shape[1]), _NUMBERS)
    labels = F.pad(labels, (0, width - labels.shape[1]), value=IGNORED_LABEL)
    is_flag = torch.arange(width, device=labels.device) < sizes.unsqueeze(1)
    is_hole = (labels == IGNORED_LABEL) | labels.isnan()

    def expected(task: _Task, entry: int) -> str:
        return f"{task.num_outputs} numbers from 0 to 1, and {IGNORED_LABEL} for no label and past these columns"

    return _checked(labels, is_hole | (is_flag & (labels >= 0) & (labels <= 1)), entries, tasks, expected)


def number_labels(entries: Entries, tasks: Tasks) -> torch.Tensor:
    """Return labels (N,) that are finite numbers, or holes."""

    def expected(task: _Task, entry: int) -> str:
        return f"a finite number, or {IGNORED_LABEL} or NaN for no label"

    labels = _formed(entries, tasks, (entries["tasks"].shape[0],), _NUMBERS)
    return _checked(labels, ~labels.isinf(), entries, tasks, expected)


def piece_labels(entries: Entries, tasks: Tasks) -> torch.Tensor:
    """Return labels (N, 2) that are pieces of their rows: the first and the last of an answer, or none of both."""
    labels = _formed(entries, tasks, (entries["tasks"].shape[0], 2), _WHOLE_NUMBERS).long()
    mask = entries["token_mask"]
    length = mask.shape[1]
    is_piece = mask.gather(1, labels.clamp(min=0, max=length - 1)) != 0
    is_none = (labels == IGNORED_LABEL).all(dim=1, keepdim=True)
    possible = is_none | ((labels >= 0) & (labels < length) & is_piece)

    def expected(task: _Task, entry: int) -> str:
        return (
            f"one of the row's {int(mask[entry].sum())} pieces, counted from 0, or {IGNORED_LABEL} twice for no label"
        )

    return _checked(labels, possible, entries, tasks, expected).masked_fill(~possible, length)


def vocabulary_labels(entries: Entries, tasks: Tasks, scores: Sequence[int]) -> torch.Tensor:
    """Return labels (N, places) that are word pieces.

    Args:
        entries: The entries.
        tasks: The head's tasks by their index in the model.
        scores: The shape of the scores, (N, places, vocabulary).
    """
    *shape, width = scores
    labels = _formed(entries, tasks, shape, _WHOLE_NUMBERS).long()
    possible = (labels == IGNORED_LABEL) | ((labels >= 0) & (labels < width))

    def expected(task: _Task, entry: int) -> str:
        return f"the id of a word piece, from 0 to {width - 1}, or {IGNORED_LABEL} where none is masked"

    return _checked(labels, possible, entries, tasks, expected).masked_fill(~possible, width)


def choice_labels(entries: Entries, tasks: Tasks) -> torch.Tensor:
    """Return labels (N,) that are choices of their rows."""
    labels = _formed(entries, tasks, (entries["tasks"].shape[0],), _WHOLE_NUMBERS).long()
    choices = entries["choices"]
    most = choices.shape[1]
    is_choice = choices.gather(1, labels.clamp(min=0, max=most - 1).unsqueeze(1)).squeeze(1)
    possible = (labels == IGNORED_LABEL) | ((labels >= 0) & (labels < most) & is_choice)

    def expected(task: _Task, entry: int) -> str:
        return f"one of the row's {int(choices[entry].sum())} choices, from 0, or {IGNORED_LABEL} for no label"

    return _checked(labels, possible, entries, tasks, expected).masked_fill(~possible, most)


def whole_labels(labels: torch.Tensor) -> torch.Tensor:
    """Return labels given as numbers, such as those of one tensor for classes and numbers alike, as whole numbers.

    NaN is no label; what is no whole number becomes one that no task has.
    """
    whole = labels.nan_to_num(IGNORED_LABEL)
    return whole.long().masked_fill(whole != whole.round(), -1)


def checked_task_ids(task_ids: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the places of rows' tasks as indices; raise `InputError` unless there is one whole number per row."""
    if not isinstance(task_ids, torch.Tensor):
        raise InputError(
            f"`task_ids` are {task_ids!r}; expected a tensor of the shape ({rows},), the place of one task per row: "
            f"torch.tensor([0] * {rows}) asks the first task of every row."
        )
    if task_ids.dtype not in _WHOLE_NUMBERS or tuple(task_ids.shape) != (rows,):
        raise InputError(
            f"`task_ids` are {task_ids.dtype} of the shape {tuple(task_ids.shape)}; expected torch.int64 of the shape "
            f"({rows},), the place of one task per row."
        )
    return task_ids.long()


def check_task_indices(indices: torch.Tensor, tasks: Tasks, problem_type: str) -> None:
    """Raise `InputError` for an entry whose task has no head of this problem type, if indices can be read."""
    if _can_be_read(indices) and (others := set(indices.tolist()) - set(tasks)):
        names = ", ".join(f"{index} ({task.name})" for index, task in tasks.items())
        raise InputError(f"No task of {problem_type} has the index {min(others)}; expected one of {names}.")


def _formed(entries: Entries, tasks: Tasks, shape: Sequence[int], types: Sequence[torch.dtype]) -> torch.Tensor:
    """Labels as they are, if they are of a shape and type of which no value needs to be read."""
    labels = entries["labels"]
    if labels.dtype not in types or tuple(labels.shape) != tuple(shape):
        names = ", ".join(task.name for task in tasks.values())
        raise LabelError(
            f"Labels (of {names}) are {labels.dtype} of the shape {tuple(labels.shape)}; expected {types[0]} of the "
            f"shape {tuple(shape)}."
        )
    return labels


def _can_be_read(values: torch.Tensor) -> bool:
    """Return whether reading values waits for no device and breaks no graph."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def _checked(
    labels: torch.Tensor,
    possible: torch.Tensor,
    entries: Entries,
    tasks: Tasks,
    expected: Callable[[_Task, int], str],
) -> torch.Tensor:
    """Labels as they are; the first that is not possible is refused, if labels can be read."""
    if _can_be_read(labels) and not bool(possible.all()):
        place = (~possible).nonzero()[0].tolist()
        task = tasks[int(entries["tasks"][place[0]])]
        raise LabelError(
            f"Task {task.name!r} is given the label {labels[tuple(place)].item()} in entry {place[0]}; expected "
            f"{expected(task, place[0])}."
        )
    return labels
