"""Parameters that belong to one task each, and the layers that start at zero."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from transformers import initialization as init

PREFIX = "task_"


def task_key(name: str) -> str:
    """Return the name of a task's own parameters and modules."""
    return PREFIX + name


class TaskTensors(nn.Module):
    """One tensor a task, each a parameter of its own named ``task_<name>``.

    Own tensors make a task's parameters its own: adding, removing or reordering tasks touches no other task's
    tensor, and a task that is absent from a step can have no gradient at all.

    Args:
        sizes: Rows of each task's tensor by task name, in task order.
        width: Columns of every tensor, or None for vectors of `sizes` entries.
        std: Standard deviation at the start.
        mean: Mean at the start; with std 0 every entry starts there.
    """

    def __init__(self, sizes: dict[str, int], width: int | None, std: float, mean: float = 0.0) -> None:
        super().__init__()
        self.std = std
        self.mean = mean
        self.keys = [task_key(name) for name in sizes]
        for key, size in zip(self.keys, sizes.values()):
            shape = (size,) if width is None else (size, width)
            self.register_parameter(key, nn.Parameter(torch.empty(shape)))
        self.rows = fixed(_padded_rows(sizes.values()))

    def reset(self) -> None:
        """Draw every tensor anew, leaving alone those that a checkpoint filled."""
        for key in self.keys:
            init.normal_(self.get_parameter(key), mean=self.mean, std=self.std)

    def stacked(self) -> torch.Tensor:
        """Return tensors of one common size as (tasks, size) or (tasks, size, width)."""
        return torch.stack([getattr(self, key) for key in self.keys])

    def padded(self, fill: float = 0.0) -> torch.Tensor:
        """Return (tasks, largest size[, width]), rows a task does not have holding `fill`."""
        flat = torch.cat([getattr(self, key) for key in self.keys])
        rows = torch.cat([flat, flat.new_full((1, *flat.shape[1:]), fill)])
        return rows[self.rows.to(flat.device)]


class TaskPairs(TaskTensors):
    """A number for each task and each task that it reads, itself included.

    A task's numbers are a parameter of its own, in the order of the names of the tasks that it reads; a task that is
    added later is read by none, and changes none.

    Args:
        reads: By task name, in task order, the indices of the tasks that it reads.
        own: The number for itself at the start.
        others: The sum of the others' at the start.
    """

    def __init__(self, reads: dict[str, list[int]], own: float, others: float) -> None:
        super().__init__({name: len(known) for name, known in reads.items()}, width=None, std=0.0)
        self.own, self.others = own, others
        self.places = fixed([(task, other) for task, known in enumerate(reads.values()) for other in known])
        self.starts = [
            [own if other == task else others / (len(known) - 1) for other in known]
            for task, known in enumerate(reads.values())
        ]

    def reset(self) -> None:
        """Set every number to its start, leaving alone those that a checkpoint filled."""
        for key, start in zip(self.keys, self.starts):
            init.copy_(self.get_parameter(key), torch.tensor(start))

    def matrix(self) -> torch.Tensor:
        """Return (tasks, tasks), 0 where a task does not read another."""
        numbers = torch.cat([getattr(self, key) for key in self.keys])
        rows, columns = self.places.to(numbers.device).T
        return numbers.new_zeros(len(self.keys), len(self.keys)).index_put((rows, columns), numbers)


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

    def forward(self) -> torch.Tensor:
        """Return (count, width)."""
        return self.vectors


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


def fixed(values: Sequence) -> torch.Tensor:
    """Return numbers that follow from a configuration as a tensor that is no weight.

    It lies on the CPU even while a model is built without memory, as `from_pretrained` builds it; such a model's
    buffers would be left without values.
    """
    return torch.tensor(values, device="cpu")


def picked(values: torch.Tensor, asked: torch.Tensor | None) -> torch.Tensor:
    """Return (rows, asked, ...), what belongs to the tasks asked of each row, of (rows, tasks, ...).

    Args:
        values: (rows, tasks, ...).
        asked: (rows, asked) task indices; None for all tasks.
    """
    if asked is None:
        return values
    index = asked.reshape(*asked.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
    return values.gather(1, index)


def own_of(values: torch.Tensor, asked: torch.Tensor | None) -> torch.Tensor:
    """Return what each task has of its own, (tasks, ...), for the tasks asked of each row: (rows, asked, ...).

    Args:
        values: (tasks, ...).
        asked: (rows, asked) task indices; None for all tasks, in the shape (tasks, ...).
    """
    return values if asked is None else values[asked]


def owner_of(name: str, task_names: Iterable[str]) -> str | None:
    """Return the task to which the parameter of this name belongs, or None where tasks share it: its name ends in the
    task's, or it lies in the task's own encoder.
    """
    *folders, last = name.split(".")
    key = folders[folders.index("encoders") + 1] if "encoders" in folders[:-1] else last
    return {task_key(task): task for task in task_names}.get(key)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Return scores in a precision that a softmax or a loss can be trusted with: float32, or float64 as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
