"""A gate decides how much of what tasks read of each other passes."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from .configuration_multitask import MultiTaskAttentionConfig
from .task_tensors import UnitScaleLinear, ZeroStartLinear


class TaskGate(nn.Module, ABC):
    """Says how much of the mixed states R passes: H = S + G * (R - S)."""

    reads_embeddings = True

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return G, which multiplies (batch, tasks, hidden).

        Args:
            states: (batch, tasks, hidden).
            embeddings: (tasks, hidden) task embeddings.
        """


class OpenGate(TaskGate):
    """Everything passes: G = 1."""

    reads_embeddings = False

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return states.new_ones(())


class AdditiveScore(nn.Module):
    """Scores of a task's state and embedding, v^T tanh(U LN(S) + V tanh(W E)) + c.

    v does not start at zero, since what the scores multiply does: the product of two zeros would never learn.

    Args:
        config: Gives `gate_size`, the width of U and V.
        outputs: How many scores a state has.
        bias_start: c at the start.
    """

    def __init__(self, config: MultiTaskAttentionConfig, outputs: int, bias_start: float = 0.0) -> None:
        super().__init__()
        hidden, size = config.hidden_size, config.gate_size
        self.norm = nn.LayerNorm(hidden)
        self.state = UnitScaleLinear(hidden, size, bias=False)
        self.task = UnitScaleLinear(hidden, hidden, bias=False)
        self.task_to_scores = UnitScaleLinear(hidden, size, bias=False)
        self.output = UnitScaleLinear(size, outputs, bias_start=bias_start)

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return (batch, tasks, outputs) of states (batch, tasks, hidden) and embeddings (tasks, hidden)."""
        task = self.task_to_scores(self.task(embeddings).tanh())  # (tasks, size)
        return self.output((self.state(self.norm(states)) + task).tanh())


class InformationGate(TaskGate):
    """Additive gate of a task's state and embedding, G = sigmoid(v^T tanh(U LN(S) + V tanh(W E)) + c) in (0, 1).

    c starts at `gate_bias`, nearly closed.

    Args:
        config: Gives `gate_size` and `gate_bias`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.scores = AdditiveScore(config, config.hidden_size, config.gate_bias)

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return self.scores(states, embeddings).sigmoid()


class ScalarGate(TaskGate):
    """One number per row and task, G = sigmoid(sum_d tanh(U LN(S) + V tanh(W E))_d + c).

    U and V start at zero, so that the sum of many entries does not begin at an end of the sigmoid; c is `gate_bias`.

    Args:
        config: Gives `gate_size`, the width of U and V, and `gate_bias`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, size = config.hidden_size, config.gate_size
        self.norm = nn.LayerNorm(hidden)
        self.state, self.task_to_scores = (ZeroStartLinear(hidden, size, bias=False) for _ in range(2))
        self.task = UnitScaleLinear(hidden, hidden, bias=False)
        self.bias = config.gate_bias

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        inner = self.state(self.norm(states)) + self.task_to_scores(self.task(embeddings).tanh())
        return (inner.tanh().sum(dim=-1, keepdim=True) + self.bias).sigmoid()


TASK_GATES: dict[str, type[TaskGate]] = {
    "none": OpenGate,
    "information_gate": InformationGate,
    "scalar_gate": ScalarGate,
}
