"""Task states read each other, and a gate decides how much of what they read passes."""

import math
from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_multitask import MultiTaskAttentionConfig
from .errors import InputError
from .task_parameters import TaskTensors, UnitScaleLinear, ZeroStartLinear, at_least_float32


class TaskInteraction(nn.Module, ABC):
    """Mixes the states of tasks: S (batch, tasks, hidden) becomes R (batch, tasks, hidden), and R = S at the start."""

    reads_embeddings = True

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the mixed states (batch, tasks, hidden).

        Args:
            states: (batch, tasks, hidden).
            embeddings: (tasks, hidden) task embeddings.
        """

    def weights(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor | None:
        """Return how much each task reads of each other, (batch, heads, tasks, tasks), or None if none reads any."""
        return None


class NoInteraction(TaskInteraction):
    """Tasks do not read each other: R = S."""

    reads_embeddings = False

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return states


class CrossTaskAttention(TaskInteraction):
    """Multi-head attention over the task axis, R = S + W_O concat_j softmax(Q_j K_j^T / sqrt(d) + B) V_j.

    Queries, keys and values read LN(S) + E, so that tasks with equal states still differ. W_O starts at zero: R = S.
    B carries, on its diagonal, how much a task prefers itself: at equal scores it gives itself `self_attention_prior`
    of its attention, however many tasks it reads.

    Args:
        config: Gives tasks and `reads`, `interaction_heads`, `interaction_dropout` and `self_attention_prior`.

    Raises:
        InputError: The hidden size is not divisible by the heads, or the prior not inside (0, 1).
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, prior = config.hidden_size, config.self_attention_prior
        if hidden % config.interaction_heads:
            raise InputError(
                f"interaction_heads={config.interaction_heads} does not divide the encoder's hidden size {hidden}."
            )
        if not 0 < prior < 1:
            raise InputError(f"self_attention_prior={prior}; expected a number between 0 and 1, e.g. 0.9.")
        self.num_heads = config.interaction_heads
        self.dropout = config.interaction_dropout
        self.reads = _reads_table(config)
        self.norm = nn.LayerNorm(hidden)
        self.query = UnitScaleLinear(hidden, hidden)
        self.key = UnitScaleLinear(hidden, hidden)
        self.value = UnitScaleLinear(hidden, hidden)
        self.self_bias = TaskTensors(
            dict.fromkeys(config.task_names, 1), width=None, std=0.0, mean=math.log(prior / (1 - prior))
        )
        self.output = ZeroStartLinear(hidden, hidden)

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        readable = self.norm(states) + embeddings
        mixed = F.scaled_dot_product_attention(
            self._split_heads(self.query(readable)),
            self._split_heads(self.key(readable)),
            self._split_heads(self.value(readable)),
            attn_mask=self._bias(readable),
            dropout_p=self.dropout if self.training else 0.0,
        )  # (batch, heads, tasks, hidden / heads)
        return states + self.output(mixed.transpose(1, 2).flatten(2))

    def weights(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        readable = self.norm(states) + embeddings
        query, key = self._split_heads(self.query(readable)), self._split_heads(self.key(readable))
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return at_least_float32(scores + self._bias(readable)).softmax(dim=-1)

    def _split_heads(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (batch, heads, tasks, hidden / heads)

    def _bias(self, like: torch.Tensor) -> torch.Tensor:
        """(tasks, tasks): the preference for oneself on the diagonal, -inf where a task does not read another."""
        reads = torch.tensor(self.reads, device=like.device)
        others = (reads.sum(dim=1) - 1).clamp(min=1)
        own = self.self_bias.stacked().squeeze(-1) + others.log()  # (tasks,)
        blocked = torch.zeros_like(reads, dtype=own.dtype).masked_fill(~reads, float("-inf"))
        return (torch.diag(own) + blocked).to(like.dtype)


def _reads_table(config: MultiTaskAttentionConfig) -> list[list[bool]]:
    """Row t says which tasks t reads; every task reads itself."""
    names = config.task_names
    return [
        [task.reads is None or other in task.reads or other == task.name for other in names]
        for task in config.task_configs
    ]


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


class InformationGate(TaskGate):
    """Additive gate of a task's state and embedding, G = sigmoid(v^T tanh(U LN(S) + V tanh(W E)) + c) in (0, 1).

    c starts at `gate_bias`, nearly closed; v does not start at zero, since the interaction's output does: the product
    of two zeros would never learn.

    Args:
        config: Gives `gate_size` and `gate_bias`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, size = config.hidden_size, config.gate_size
        self.norm = nn.LayerNorm(hidden)
        self.state = UnitScaleLinear(hidden, size, bias=False)
        self.task = UnitScaleLinear(hidden, hidden, bias=False)
        self.task_to_gate = UnitScaleLinear(hidden, size, bias=False)
        self.output = UnitScaleLinear(size, hidden, bias_start=config.gate_bias)

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        task = self.task_to_gate(self.task(embeddings).tanh())  # (tasks, gate)
        return self.output((self.state(self.norm(states)) + task).tanh()).sigmoid()


TASK_INTERACTIONS: dict[str, type[TaskInteraction]] = {
    "none": NoInteraction,
    "cross_task_attention": CrossTaskAttention,
}

TASK_GATES: dict[str, type[TaskGate]] = {
    "none": OpenGate,
    "information_gate": InformationGate,
}
