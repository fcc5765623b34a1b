"""The trace norm of the heads of all tasks, which draws tasks into few common directions."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from .configuration_multitask import MultiTaskAttentionConfig
from .errors import InputError
from .task_head import TaskHead
from .task_tensors import Carried, at_least_float32


class TraceNorm(nn.Module):
    """Weighs |W|_*, the sum of the singular values of all heads' weights, one row per output of a task (Argyriou,
    Evgeniou and Pontil 2008, where it stands for few features that all tasks share).

    |W|_* = sum_t <(U V^T)_t, W_t> with W = U diag(s) V^T, and U V^T is its slope. A task's part <(U V^T)_t, W_t>, with
    U V^T held, is added to its own loss: the parts add up to the norm, and a task that is absent from a step keeps
    its head. As losses are, parts are weighted by the tasks' shares of a step's rows.

    Args:
        config: Gives `trace_norm`, the weight.
        heads: The heads by problem type; those that answer by the encoder's word embeddings have nothing to compare.

    Raises:
        InputError: No head has weights of its outputs.
    """

    def __init__(self, config: MultiTaskAttentionConfig, heads: Mapping[str, TaskHead]) -> None:
        super().__init__()
        self.weight, self.num_tasks = config.trace_norm, len(config.task_names)
        self.kinds = [name for name, head in heads.items() if not head.reads_words]
        if self.weight and not self.kinds:
            raise InputError(
                f"trace_norm={self.weight!r} compares the weights of the tasks' outputs, and these tasks answer by "
                "the encoder's word embeddings. Leave it out."
            )

    def forward(self, carried: Carried) -> torch.Tensor | None:
        """Return each task's part times the weight, (tasks,), or None for a weight of 0.

        Args:
            carried: The heads by problem type.
        """
        if not self.weight:
            return None
        heads = [cast(TaskHead, carried.module[name]) for name in self.kinds]
        rows = [at_least_float32(head.weight()) for head in heads]  # (tasks of the type, outputs, hidden) each
        matrix = torch.cat([values.flatten(0, 1) for values in rows])
        left, sizes, right = torch.linalg.svd(matrix.detach(), full_matrices=False)
        # Directions without any size have no slope of their own.
        slope = (left * (sizes > sizes[0] * torch.finfo(sizes.dtype).eps * len(matrix))) @ right
        parts = (slope * matrix).sum(dim=-1).split([values.shape[0] * values.shape[1] for values in rows])
        by_task = matrix.new_zeros(self.num_tasks)
        for head, values, part in zip(heads, rows, parts):
            by_task = by_task.index_add(0, head.places, part.view(values.shape[:2]).sum(dim=1))
        return self.weight * by_task
