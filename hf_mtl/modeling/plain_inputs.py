"""Plain tasks and labels, as Transformers' models take them, become entries of the heads."""

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from .errors import InputError, LabelError, check_choice
from .label_checks import IGNORED_LABEL, checked_task_ids, whole_labels
from .plain_rows import PlainRows
from .task_config import TaskConfig
from .task_head import TaskHead

Heads = Mapping[str, TaskHead]
EntriesByType = dict[str, dict[str, torch.Tensor]]
Labels = torch.Tensor | Mapping[str, torch.Tensor | None] | None


class Positions(NamedTuple):
    """The first and the last piece of every row's answer, (B,) each, as question answering models take them."""

    start: torch.Tensor | None
    end: torch.Tensor | None

    def stacked(self) -> torch.Tensor | None:
        """Return (B, 2), or None where none are given."""
        if self.start is None and self.end is None:
            return None
        if self.start is None or self.end is None:
            raise InputError("`start_positions` and `end_positions` go together; give both.")
        return torch.stack([self.start.reshape(-1), self.end.reshape(-1)], dim=1)


def check_routing(routing: Mapping[str, Any] | None, asked_tasks: torch.Tensor | None, others: Iterable[Any]) -> None:
    """Raise `InputError` for a part of a collator's batch without the rest, or beside what it holds.

    Args:
        routing: Of the collator.
        asked_tasks: Likewise.
        others: What says tasks and labels in plain inputs.
    """
    if routing is None:
        if asked_tasks is not None:
            raise InputError(
                "`asked_tasks` is of a collator's batch, beside `routing`; for one task per row: task_ids=."
            )
    elif not routing:
        raise InputError("`routing` is empty; it is the collator's. Leave it out, and every task is answered.")
    elif any(given is not None for given in others):
        raise InputError("`routing` holds tasks and labels; leave out `labels`, `task_ids` and positions.")


def plain_entries(
    heads: Heads,
    rows: PlainRows,
    task_ids: torch.Tensor | None,
    labels: Labels,
    positions: Positions,
    answerable: Collection[int],
) -> EntriesByType:
    """Return the entries of every row for every task or, with `task_ids`, of every row for its task.

    Args:
        heads: The model's heads by problem type.
        rows: The rows; those with choices are answered by multiple-choice tasks alone.
        task_ids: (B,) the index of each row's task.
        labels: The labels of one task or of `task_ids`, or labels by task name.
        positions: The labels of question answering in another form.
        answerable: The tasks whose inputs are given.

    Raises:
        InputError: No task answers rows of this shape, or which task labels are of is open.
        LabelError: Labels of a shape that their task does not have.
    """
    if rows.choices is not None:
        every_head = heads
        heads = {name: head for name, head in heads.items() if head.inputs == "choices"}
        if not heads:
            raise InputError("`input_ids` (rows, choices, length) are multiple choice; this model has no such task.")
        labels = _labels_of_choices(every_head, labels)
    if task_ids is None:
        by_task = _labels_by_task(heads, labels, positions.stacked())
        read = {name: [place for place in head.tasks if place in answerable] for name, head in heads.items()}
        _check_answerable(heads, by_task, answerable)
        return {name: _every_row(head, rows, by_task, read[name]) for name, head in heads.items() if read[name]}
    return _one_task_per_row(heads, rows, checked_task_ids(task_ids, rows.count), labels, positions.stacked())


def _labels_of_choices(heads: Heads, labels: Labels) -> Labels:
    """Labels beside rows with choices; those of tasks that answer no such rows are refused, unless they are None."""
    if not isinstance(labels, Mapping):
        return labels
    _check_names(heads, labels)
    answering = {task.name for head in heads.values() if head.inputs == "choices" for task in head.tasks.values()}
    others = {task.name: head.problem_type for head in heads.values() for task in head.tasks.values()}
    for name, values in labels.items():
        if values is not None and name not in answering:
            raise InputError(
                f"`labels` has labels of task {name!r} ({others[name]}) beside inputs of the shape (rows, choices, "
                f"length), which multiple choice alone answers: {', '.join(sorted(answering))}. Give the rows of "
                f"{name!r} in another call, as inputs of the shape (rows, length)."
            )
    return {name: values for name, values in labels.items() if name in answering}


def _check_answerable(heads: Heads, labels: Mapping[str, Any], answerable: Collection[int]) -> None:
    """Raise `InputError` where no task's inputs are given, or labels are of a task whose are not."""
    tasks = {place: task for head in heads.values() for place, task in head.tasks.items()}
    needs = "; ".join(f"{task.name} reads {' and '.join(task.input_fields)}" for task in tasks.values())
    if not any(place in answerable for place in tasks):
        raise InputError(f"No task can be answered from the inputs that are given: {needs}.")
    for place, task in tasks.items():
        if task.name in labels and place not in answerable:
            raise InputError(
                f"`labels` has labels of task {task.name!r}, which reads {' and '.join(task.input_fields)}, and the "
                "inputs hold no such thing; give its rows in another call, or leave its labels out."
            )


def _every_row(
    head: TaskHead, rows: PlainRows, labels: Mapping[str, torch.Tensor], tasks: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Entries of all rows for these tasks of a problem type, task by task."""
    count, places = rows.count, head.places
    if len(tasks) < len(head.tasks):
        places = torch.tensor(tasks, device=places.device)
    numbers = torch.arange(count, device=places.device).repeat(len(tasks))
    entries = _entries(head, rows, numbers, places.repeat_interleave(count))
    names = [head.tasks[task].name for task in tasks]
    given = {name: labels[name] for name in names if name in labels}
    if given and head.inputs == "choices" and rows.choices is None:
        raise InputError(
            f"The labels of task {next(iter(given))!r} (multiple choice) say which of a row's choices is "
            "right; expected inputs of the shape (rows, choices, length)."
        )
    if given:
        entries["labels"] = _with_holes(head, given, count, names)
    return entries


def _one_task_per_row(
    heads: Heads, rows: PlainRows, task_ids: torch.Tensor, labels: Labels, ends: torch.Tensor | None
) -> EntriesByType:
    if isinstance(labels, Mapping):
        _check_names(heads, labels)
    entries = {}
    for name, head in heads.items():
        numbers = torch.arange(rows.count, device=task_ids.device)
        if len(heads) > 1:
            numbers = torch.isin(task_ids, head.places).nonzero().flatten()
            _check_row_count(labels, rows.count)
        entries[name] = _entries(head, rows, numbers, task_ids[numbers])
        # Where all rows are of one problem type its loss says which labels it expects.
        selection = numbers if len(heads) > 1 else None
        entry_labels = _labels_of_rows(head, entries[name], selection, labels, ends)
        if entry_labels is not None:
            entries[name]["labels"] = entry_labels
    answered = sum(one["tasks"].shape[0] for one in entries.values())
    if answered != rows.count:
        names = ", ".join(f"{index} ({task.name})" for head in heads.values() for index, task in head.tasks.items())
        raise InputError(
            f"`task_ids` holds the index of a task that does not answer such rows; expected one of {names}."
        )
    return {name: one for name, one in entries.items() if one["tasks"].shape[0] or len(entries) == 1}


def _entries(head: TaskHead, rows: PlainRows, numbers: torch.Tensor, tasks: torch.Tensor) -> dict[str, torch.Tensor]:
    """Entries of rows by their numbers (N,), each for its task (N,)."""
    if head.inputs == "choices" and rows.choices is not None:
        count = rows.choices.shape[1]
        places = numbers.unsqueeze(1) * count + torch.arange(count, device=numbers.device)
        return {"rows": places, "tasks": tasks, "choices": rows.choices[numbers]}
    if head.inputs == "choices":
        return {
            "rows": numbers.unsqueeze(1),
            "tasks": tasks,
            "choices": torch.ones_like(numbers, dtype=torch.bool).unsqueeze(1),
        }
    entries = {"rows": numbers, "tasks": tasks}
    if head.reads_token_mask:
        entries["token_mask"] = rows.inputs.mask[numbers]
    return entries


def _check_row_count(labels: Labels, count: int) -> None:
    if labels is None or isinstance(labels, Mapping):
        return
    if not isinstance(labels, torch.Tensor) or labels.shape[:1] != (count,):
        raise LabelError(f"`labels` are {_described(labels)}; expected a tensor of {count} rows, as `task_ids` has.")


def _check_names(heads: Heads, labels: Mapping[str, Any]) -> None:
    for name in labels:
        check_choice("task in `labels`:", name, [task.name for head in heads.values() for task in head.tasks.values()])


def _labels_by_task(heads: Heads, labels: Labels, ends: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Labels by task name, in whatever form they are given."""
    tasks = [task for head in heads.values() for task in head.tasks.values()]
    by_task: dict[str, Any] = {}
    if isinstance(labels, Mapping):
        _check_names(heads, labels)
        by_task.update(labels)
    elif labels is not None:
        if len(tasks) > 1:
            names = ", ".join(task.name for task in tasks)
            raise InputError(
                f"`labels` could be of any of the tasks {names}: write labels={{{tasks[0].name!r}: labels}}, or give "
                "`task_ids`, the index of each row's task, beside them."
            )
        by_task[tasks[0].name] = labels
    if ends is not None:
        spans = [task.name for task in tasks if task.problem.inputs == "windows"]
        if len(spans) != 1 or by_task.get(spans[0]) is not None:
            raise InputError(
                "`start_positions` and `end_positions` are the labels of the one question answering task of a model; "
                f"it has {len(spans)} and labels for {', '.join(by_task) or 'none'}: write labels={{task: (rows, 2)}}."
            )
        by_task[spans[0]] = ends
    return {name: values for name, values in by_task.items() if values is not None}


def _labels_of_rows(
    head: TaskHead,
    entries: Mapping[str, torch.Tensor],
    selection: torch.Tensor | None,
    labels: Labels,
    ends: torch.Tensor | None,
) -> torch.Tensor | None:
    """The labels of one problem type's rows: all rows' labels, or by task those of its rows alone."""
    if ends is not None and head.inputs == "windows":
        return ends if selection is None else ends[selection]
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        values = _one_axis(head, labels)
        if selection is None:
            return values
        is_mixed = values.is_floating_point() and not head.takes_fractions
        return whole_labels(values[selection]) if is_mixed else values[selection]
    given = {}
    for index, task in head.tasks.items():
        if labels.get(task.name) is not None:
            given[index] = _one_axis(head, _checked_rows(head, task, labels[task.name], entries["tasks"] == index))
    if not given:
        return None
    widest = max(values.shape[1:] for values in given.values())
    first = next(iter(given.values()))
    kind = functools.reduce(torch.promote_types, [values.dtype for values in given.values()])
    together = torch.full((entries["tasks"].shape[0], *widest), IGNORED_LABEL, dtype=kind, device=first.device)
    for index, values in given.items():
        together[entries["tasks"] == index] = _widened(values, widest).to(kind)
    return together


def _checked_rows(head: TaskHead, task: TaskConfig, labels: Any, rows: torch.Tensor) -> torch.Tensor:
    count = int(rows.sum())
    if not isinstance(labels, torch.Tensor) or labels.shape[:1] != (count,):
        raise LabelError(
            f"The labels of task {task.name!r} beside `task_ids` are {_described(labels)}; expected a tensor of its "
            f"{count} rows alone, in row order, as `logits` has them."
        )
    return labels


def _with_holes(head: TaskHead, labels: Mapping[str, torch.Tensor], count: int, names: Sequence[str]) -> torch.Tensor:
    """The labels of tasks of a problem type, task by task; those of tasks that have none are holes."""
    axes = head.label_axes
    checked = {}
    for name, given in labels.items():
        values = _one_axis(head, given)
        if not isinstance(values, torch.Tensor) or values.ndim != axes or values.shape[0] != count:
            shape = f"({count}, ...)" if axes > 1 else f"({count},)"
            raise LabelError(
                f"The labels of task {name!r} are {_described(given)}; expected a tensor of the shape {shape}."
            )
        checked[name] = values
    widest = max(values.shape[1:] for values in checked.values())
    first = next(iter(checked.values()))
    hole = first.new_full((count, *widest), IGNORED_LABEL)
    return torch.cat([_widened(checked[name], widest) if name in checked else hole for name in names])


def _one_axis(head: TaskHead, labels: Any) -> Any:
    """Labels (rows, 1) of tasks with one label per row as (rows,)."""
    is_column = isinstance(labels, torch.Tensor) and labels.ndim == 2 and labels.shape[1] == 1
    return labels.squeeze(1) if is_column and head.label_axes == 1 else labels


def _widened(labels: torch.Tensor, widest: Sequence[int]) -> torch.Tensor:
    if labels.ndim == 1 or labels.shape[1:] == tuple(widest):
        return labels
    return F.pad(labels, (0, widest[0] - labels.shape[1]), value=IGNORED_LABEL)


def _described(labels: Any) -> str:
    if isinstance(labels, torch.Tensor):
        return f"{labels.dtype} of the shape {tuple(labels.shape)}"
    return f"a {type(labels).__name__}"
