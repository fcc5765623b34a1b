"""The task encoder: one embedding a task, which the parts that tell tasks apart read."""

import torch
from torch import nn

from .task_parameters import TaskTensors


class TaskEncoder(nn.Module):
    """Embeds each task as a vector of unit-scale entries, the scale of the normalised states it is added to.

    A dense layer on a one-hot task (the usual form of a task encoder) is this table.

    Args:
        task_names: The tasks in order.
        hidden_size: Size of an embedding.
    """

    def __init__(self, task_names: list[str], hidden_size: int) -> None:
        super().__init__()
        self.embeddings = TaskTensors(dict.fromkeys(task_names, hidden_size), width=None, std=1.0)

    def forward(self) -> torch.Tensor:
        """Return the task embeddings (tasks, hidden)."""
        return self.embeddings()


class UnreadTaskEncoder(nn.Module):
    """Stands where no part reads task embeddings: it has none, and nothing to train.

    Args:
        num_tasks: How many tasks there are.
    """

    embeddings: torch.Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        # It goes where the model goes: the embeddings of the tasks asked are picked on the device.
        self.register_buffer("embeddings", torch.empty(num_tasks, 0), persistent=False)

    def forward(self) -> torch.Tensor:
        """Return (tasks, 0)."""
        return self.embeddings
