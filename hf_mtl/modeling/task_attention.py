"""Pooling: token states (batch, length, hidden) become one state a task (batch, tasks, hidden)."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from .task_parameters import TaskTensors, UnitScaleLinear, at_least_float32


class TaskPooling(nn.Module, ABC):
    """Reads token states into one state for each task.

    Args:
        task_names: The tasks in order.
        hidden_size: Width of token and task states.
    """

    reads_pooler = False

    def __init__(self, task_names: list[str], hidden_size: int) -> None:
        super().__init__()
        self.num_tasks = len(task_names)

    @abstractmethod
    def forward(
        self, token_states: torch.Tensor, attention_mask: torch.Tensor, pooled: torch.Tensor | None
    ) -> torch.Tensor:
        """Return task states (batch, tasks, hidden).

        Args:
            token_states: (batch, length, hidden).
            attention_mask: (batch, length), 1 at tokens and 0 at padding.
            pooled: (batch, hidden), the encoder's own pooled output, where it has one.
        """

    def weights(self, token_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor | None:
        """Return how much each task reads of each token, (batch, tasks, length), or None where nothing is weighed."""
        return None

    def _for_all_tasks(self, state: torch.Tensor) -> torch.Tensor:
        return state.unsqueeze(1).expand(-1, self.num_tasks, -1)  # (batch, tasks, hidden)


class FirstTokenPooling(TaskPooling):
    """The state of the first token that is no padding."""

    def forward(
        self, token_states: torch.Tensor, attention_mask: torch.Tensor, pooled: torch.Tensor | None
    ) -> torch.Tensor:
        first = attention_mask.long().argmax(dim=1)  # (batch,); not 0 where padding stands on the left
        rows = torch.arange(token_states.shape[0], device=token_states.device)
        return self._for_all_tasks(token_states[rows, first])


class MeanPooling(TaskPooling):
    """The mean of the token states, padding left out."""

    def forward(
        self, token_states: torch.Tensor, attention_mask: torch.Tensor, pooled: torch.Tensor | None
    ) -> torch.Tensor:
        mask = attention_mask.unsqueeze(-1).to(token_states.dtype)
        return self._for_all_tasks((token_states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))


class PoolerPooling(TaskPooling):
    """The encoder's own pooler, as BERT's heads read it."""

    reads_pooler = True

    def forward(
        self, token_states: torch.Tensor, attention_mask: torch.Tensor, pooled: torch.Tensor | None
    ) -> torch.Tensor:
        if pooled is None:
            raise ValueError("This encoder has no pooler; expected another `pooling`, e.g. pooling='mean'.")
        return self._for_all_tasks(pooled)


class TaskQueryPooling(TaskPooling):
    """Token attention with one query a task (Zheng, Chen and Qiu 2018, "Same Representation, Different Attentions",
    static task attention): r_t = sum_l softmax_l((W_k h_l) . q_t / sqrt(hidden)) h_l.

    Queries start at zero, which is mean pooling.
    """

    def __init__(self, task_names: list[str], hidden_size: int) -> None:
        super().__init__(task_names, hidden_size)
        self.queries = TaskTensors(dict.fromkeys(task_names, hidden_size), width=None, std=0.0)
        self.key = UnitScaleLinear(hidden_size, hidden_size, bias=False)

    def weights(self, token_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # (W_k h) . q = h . (W_k^T q): projecting T queries costs far less than projecting every token.
        queries = self.queries.stacked() @ self.key.weight  # (tasks, hidden)
        scores = queries.to(token_states.dtype) @ token_states.transpose(1, 2)  # (batch, tasks, length)
        scores = at_least_float32(scores) * token_states.shape[-1] ** -0.5
        scores = scores.masked_fill(attention_mask.unsqueeze(1) == 0, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).to(token_states.dtype)

    def forward(
        self, token_states: torch.Tensor, attention_mask: torch.Tensor, pooled: torch.Tensor | None
    ) -> torch.Tensor:
        return self.weights(token_states, attention_mask) @ token_states


TASK_POOLINGS: dict[str, type[TaskPooling]] = {
    "first_token": FirstTokenPooling,
    "mean": MeanPooling,
    "pooler": PoolerPooling,
    "task_queries": TaskQueryPooling,
}
