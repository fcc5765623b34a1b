"""Parameters that belong to one task each, and the layers that start at zero."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

_PREFIX = "task_"


def task_slug(name: str) -> str:
    """Return what stands for a task's name in the names of parameters: lower case, other characters as ``_``."""
    return re.sub(r"\W+", "_", name.casefold())


def task_key(name: str) -> str:
    """Return the name of a task's own parameters and modules."""
    return _PREFIX + task_slug(name)


class ModuleWithConstants(nn.Module):
    """A module with numbers that follow from its configuration and are no weights.

    They move with the model, are not saved, and keep their precision where weights are made shorter. They are set in
    `_init_weights` too, since `from_pretrained` builds models without memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.constants: dict[str, Any] = {}

    def set_constant(self, name: str, values: Any) -> None:
        """Make numbers (a list, nested or not) an attribute that is a tensor."""
        before = self._buffers.get(name)
        self.constants[name] = values
        self.register_buffer(name, _constant(values, None if before is None else before.device), persistent=False)

    def reset_constants(self) -> None:
        """Give every constant its numbers again."""
        for name, values in self.constants.items():
            init.copy_(self.get_buffer(name), _constant(values, self.get_buffer(name).device))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "ModuleWithConstants":
        moved = super()._apply(fn, recurse)
        for name, values in self.constants.items():
            self._buffers[name] = _constant(values, self.get_buffer(name).device)
        return moved


def _constant(values: Any, device: torch.device | None) -> torch.Tensor:
    """Numbers as a tensor of one precision, whatever weights are built in."""
    # Said beforehand: a model that is built in half precision would round them before they are made longer.
    is_fractional = np.asarray(values).dtype.kind == "f"
    return torch.tensor(values, dtype=torch.float32 if is_fractional else None, device=device)


@dataclass(frozen=True)
class Carried:
    """Carries a module as an argument past hooks that move what they are given (Accelerate's, of divided models).

    Args:
        module: The module.
    """

    module: Any


class TaskTensors(ModuleWithConstants):
    """One tensor a task, each a parameter of its own named ``task_<name>``.

    Own tensors make a task's parameters its own: adding, removing or reordering tasks touches no other task's
    tensor, and a task that is absent from a step can have no gradient at all.

    Args:
        sizes: Rows of each task's tensor by task name, in task order.
        width: Columns of every tensor, or None for vectors of `sizes` entries.
        std: Standard deviation at the start.
        mean: Mean at the start; with std 0 every entry starts there.
    """

    rows: torch.Tensor

    def __init__(self, sizes: dict[str, int], width: int | None, std: float, mean: float = 0.0) -> None:
        super().__init__()
        self.std = std
        self.mean = mean
        self.keys = [task_key(name) for name in sizes]
        for key, size in zip(self.keys, sizes.values()):
            shape = (size,) if width is None else (size, width)
            self.register_parameter(key, nn.Parameter(torch.empty(shape)))
        self.is_even = len(set(sizes.values())) == 1
        if not self.is_even:
            self.set_constant("rows", _padded_rows(sizes.values()))

    def reset(self) -> None:
        """Draw every tensor anew, leaving alone those that a checkpoint filled."""
        for key in self.keys:
            init.normal_(self.get_parameter(key), mean=self.mean, std=self.std)

    def forward(self, fill: float = 0.0) -> torch.Tensor:
        """Return (tasks, largest size[, width]), rows a task does not have holding `fill`."""
        tensors = [getattr(self, key) for key in self.keys]
        if self.is_even:
            return torch.stack(tensors)
        flat = torch.cat(tensors)
        return torch.cat([flat, flat.new_full((1, *flat.shape[1:]), fill)])[self.rows]


class TaskPairs(TaskTensors):
    """A number for each task and each task that it reads, itself included.

    A task's numbers are a parameter of its own, in the order of the names of the tasks that it reads; a task that is
    added later is read by none, and changes none.

    Args:
        reads: By task name, in task order, the indices of the tasks that it reads.
        diagonal: The number for itself at the start.
        others: The sum of the others' at the start.
    """

    places: torch.Tensor

    def __init__(self, reads: dict[str, list[int]], diagonal: float, others: float) -> None:
        super().__init__({name: len(task_reads) for name, task_reads in reads.items()}, width=None, std=0.0)
        self.diagonal, self.others = diagonal, others
        self.set_constant(
            "places", [[task, other] for task, others_read in enumerate(reads.values()) for other in others_read]
        )
        self.starts = [
            [diagonal if other == task else others / (len(task_reads) - 1) for other in task_reads]
            for task, task_reads in enumerate(reads.values())
        ]

    def reset(self) -> None:
        """Set every number to its start, leaving alone those that a checkpoint filled."""
        for key, start in zip(self.keys, self.starts):
            init.copy_(self.get_parameter(key), torch.tensor(start))

    def forward(self, fill: float = 0.0) -> torch.Tensor:
        """Return (tasks, tasks), `fill` where a task does not read another."""
        numbers = torch.cat([getattr(self, key) for key in self.keys])
        rows, columns = self.places.unbind(dim=1)
        return numbers.new_full((len(self.keys), len(self.keys)), fill).index_put((rows, columns), numbers)


def _padded_rows(sizes: Iterable[int]) -> list[list[int]]:
    """For each task the rows of the concatenated tensors that are its own; the row past the end stands for none."""
    sizes = list(sizes)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    widest, none = max(sizes), sum(sizes)
    return [[start + row if row < size else none for row in range(widest)] for start, size in zip(starts, sizes)]


class SharedVectors(nn.Module):
    """Vectors of unit-scale entries that belong to no task.

    Args:
        count: How many.
        width: Entries of each.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(count, width))

    def reset(self) -> None:
        """Draw every vector anew, leaving alone those that a checkpoint filled."""
        init.normal_(self.vectors, mean=0.0, std=1.0)

    def forward(self, indices: torch.Tensor | None = None) -> torch.Tensor:
        """Return (count, width), or of indices (...) the vectors (..., width)."""
        # A tensor of its own: what holds parameters only while their module is called may take them away again.
        return self.vectors.clone() if indices is None else F.embedding(indices, self.vectors)


class ZeroStartLinear(nn.Linear):
    """A linear layer that starts at zero, so that the path it ends is closed until it learns."""

    def reset(self) -> None:
        """Set weight and bias to zero, leaving alone those that a checkpoint filled."""
        init.zeros_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


class UnitScaleLinear(nn.Linear):
    """A linear layer whose outputs have the scale of its inputs at the start; its bias starts at a constant.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        bias: Whether there is a bias.
        bias_start: The bias at the start.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, bias_start: float = 0.0) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.bias_start = bias_start

    def reset(self) -> None:
        """Draw the weight with variance 1 / in_features, leaving alone what a checkpoint filled."""
        init.normal_(self.weight, mean=0.0, std=self.in_features**-0.5)
        if self.bias is not None:
            init.constant_(self.bias, self.bias_start)


def pick_tasks(values: torch.Tensor, asked_tasks: torch.Tensor | None) -> torch.Tensor:
    """Return (rows, asked, ...), what belongs to the tasks asked of each row, of (rows, tasks, ...).

    Args:
        values: (rows, tasks, ...).
        asked_tasks: (rows, asked) task indices; None for all tasks.
    """
    if asked_tasks is None:
        return values
    index = asked_tasks.reshape(*asked_tasks.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def rows_of_tasks(values: torch.Tensor, asked_tasks: torch.Tensor | None) -> torch.Tensor:
    """Return what each task has of its own, (tasks, ...), for the tasks asked of each row: (rows, asked, ...).

    Args:
        values: (tasks, ...).
        asked_tasks: (rows, asked) task indices; None for all tasks, in the shape (tasks, ...).
    """
    return values if asked_tasks is None else values[asked_tasks]


def owners_by_key(task_names: Iterable[str]) -> dict[str, str]:
    """Return by the name of their own parameters and modules the tasks."""
    return {task_key(name): name for name in task_names}


def owner_of(name: str, owners: Mapping[str, str]) -> str | None:
    """Return the task to which the parameter of this name belongs, or None where tasks share it: its name ends in the
    task's, or it lies in the task's own encoder.
    """
    *folders, last = name.split(".")
    key = folders[folders.index("encoders") + 1] if "encoders" in folders[:-1] else last
    return owners.get(key)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Return scores in a precision that a softmax or a loss can be trusted with: float32, or float64 as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
