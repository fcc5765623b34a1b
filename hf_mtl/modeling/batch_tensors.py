"""Features become the tensors of one batch: entries of the heads, or plain inputs and labels."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

from .errors import InputError
from .media_features import Feature
from .problem_heads import TASK_HEADS
from .problem_types import PROBLEM_TYPES
from .task_config import TaskConfig

CONVERSIONS: dict[str | None, Callable[[torch.Tensor], Any]] = {
    "pt": lambda tensor: tensor,
    "np": torch.Tensor.numpy,
    None: torch.Tensor.tolist,
}


class MultiTaskBatch(BatchEncoding):
    """The arguments of `model(**batch)`, and the rows and features that turn its logits into answers.

    Args:
        tensors: The model's inputs by name.
        rows: The input fields of each row that was given.
        entries: By task name, of each row of its logits the row that was given, by its place, and its feature: one
            entry per row or, of question answering, per window of its context.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any] | None = None,
        rows: Sequence[dict[str, Any]] = (),
        entries: Mapping[str, Sequence[tuple[int, Feature]]] | None = None,
    ) -> None:
        super().__init__(dict(tensors or {}))
        self.rows = list(rows)
        self.entries = dict(entries or {})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rows": self.rows, "entries": self.entries}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.rows, self.entries = state["rows"], state["entries"]

    def row_indices(self, task: str) -> list[int]:
        """Return for each row of a task's logits the place of the row that was given."""
        return [row for row, _ in self.entries[task]]

    def to(self, device: Any, *, non_blocking: bool = False) -> "MultiTaskBatch":
        """Move all tensors to a device, in place, and return the batch.

        Raises:
            InputError: A precision is given: word pieces have none.
        """
        if isinstance(device, torch.dtype):
            raise InputError(f"A batch has no precision; expected a device, found {device}. Write batch.to('cuda').")
        self.data = moved(self.data, device, non_blocking)
        return self


def moved(value: Any, device: Any, non_blocking: bool = False) -> Any:
    """Return the tensors of nested mappings on a device."""
    if isinstance(value, Mapping):
        return {key: moved(item, device, non_blocking) for key, item in value.items()}
    return value.to(device, non_blocking=non_blocking) if isinstance(value, torch.Tensor) else value


def converted(value: Any, kind: str | None) -> Any:
    """Return the tensors of nested mappings in the form that `return_tensors` names."""
    if isinstance(value, Mapping):
        return {key: converted(item, kind) for key, item in value.items()}
    return CONVERSIONS[kind](value)


def padded(rows: Sequence[Sequence[int]], length: int, fill: int) -> torch.Tensor:
    """Return rows of numbers as (rows, length), filled up on the right."""
    # One row at a time into NumPy: several times faster than torch, which looks at every number of nested lists.
    result = np.full((len(rows), length), fill, dtype=np.int64)
    for place, row in zip(result, rows):
        place[: len(row)] = row
    return torch.from_numpy(result)


def routing_of(
    features: Sequence[Feature],
    tasks: Sequence[TaskConfig],
    mask: torch.Tensor,
    fill: bool = False,
    whole: bool = False,
) -> dict[str, dict[str, torch.Tensor]]:
    """Return by problem type the entries that the features list, as `TaskHead` reads them.

    Args:
        features: Features with their ``entries``.
        tasks: The model's tasks.
        mask: (rows, length) where the encoder's rows have word pieces.
        fill: Whether entries without label (of the first row, `order` -1) make up the numbers, so that every batch
            has equally many of every problem type, as a compiled model likes it.
        whole: Whether heads score whole rows, as they do those of plain inputs, where they would leave places out.
    """
    grouped: dict[str, list[tuple[int, int, int, int, Feature, Any, Feature]]] = {}
    first = order = 0
    for feature in features:
        for slot, entry in enumerate(feature["entries"]):
            group = grouped.setdefault(tasks[entry["task"]].problem_type, [])
            group.append((first, order, entry["task"], slot, feature, entry.get("labels"), entry.get("feature", {})))
            order += 1
        first += len(feature["sequences"])
    if fill:
        grouped = {name: _filled(name, grouped.get(name, []), features, tasks) for name in _problem_types(tasks)}
    routing = {}
    for problem_type, group in grouped.items():
        rows, orders, indices, slots, sources, labels, remembered = zip(*group)
        places = {"rows": rows, "tasks": indices, "slots": slots, "order": orders}
        entries = {name: torch.tensor(values) for name, values in places.items()}
        head = TASK_HEADS[problem_type]
        if PROBLEM_TYPES[problem_type].inputs == "choices":
            entries.update(_choice_rows(entries["rows"], [len(source["sequences"]) for source in sources]))
        if head.reads_token_mask:
            entries["token_mask"] = mask[entries["rows"]]
        entries.update(head.entry_tensors(labels, () if whole else remembered, mask.shape[1]))
        routing[problem_type] = entries
    return routing


def _problem_types(tasks: Sequence[TaskConfig]) -> list[str]:
    return list(dict.fromkeys(task.problem_type for task in tasks))


def _filled(
    problem_type: str, group: list[Any], features: Sequence[Feature], tasks: Sequence[TaskConfig]
) -> list[Any]:
    """The entries of a problem type, as many as there are rows or, of rows with several tasks of it, times these."""
    index, task = next((place, task) for place, task in enumerate(tasks) if task.problem_type == problem_type)
    hole = TASK_HEADS[problem_type].hole(task.num_outputs, len(features[0]["sequences"][0]))
    counts = Counter(first for first, *_ in group)
    most = len(features) * max(counts.values(), default=1)
    return group + [(0, -1, index, 0, features[0], hole, {})] * (most - len(group))


def stack_asked_tasks(features: Sequence[Feature]) -> torch.Tensor:
    """Return the tasks each row is answered for, (rows, asked); a row of fewer tasks names its first one again."""
    most = max(len(feature["entries"]) for feature in features)
    rows = []
    for feature in features:
        tasks = [entry["task"] for entry in feature["entries"]]
        rows += [tasks + tasks[:1] * (most - len(tasks))] * len(feature["sequences"])
    return torch.tensor(rows)


def stacked_choices(tensors: Mapping[str, torch.Tensor], counts: Sequence[int]) -> dict[str, torch.Tensor]:
    """Return inputs (choices of all rows, length) as (rows, choices, length); choices that a row lacks are padding.

    Args:
        tensors: ``input_ids`` and the other inputs.
        counts: How many choices each row has.
    """
    places = _choice_rows(torch.tensor([0, *counts[:-1]]).cumsum(0), counts)
    stacked = {name: values[places["rows"]] for name, values in tensors.items()}
    stacked["attention_mask"] = stacked["attention_mask"] * places["choices"].unsqueeze(-1)
    return stacked


def _choice_rows(first: torch.Tensor, counts: Iterable[int]) -> dict[str, torch.Tensor]:
    """Each entry's encoder rows, (N, most choices), those it does not have pointing at its first."""
    numbers = torch.tensor(list(counts))
    choice = torch.arange(int(numbers.max())).expand(len(numbers), -1)
    is_choice = choice < numbers.unsqueeze(1)
    return {"rows": first.unsqueeze(1) + choice * is_choice, "choices": is_choice}
