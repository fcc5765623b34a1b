"""Interactions in which every task has a branch of its own, and reads the others' branches."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from .attention_scorers import ATTENTION_SCORERS, WeighedValues
from .branch import TASK_BRANCHES, expert_size
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .interaction_base import ScaledInteraction, TaskInteraction, TaskSoftmax, reads_lists, reads_table
from .task_tensors import TaskPairs, TaskTensors, pick_tasks


class AttentionOverHeads(ScaledInteraction):
    """Each task reads the branches of all: mix_t = sum_i a_ti H_i, a_t = softmax_i(score(q_t, k_i) + B_ti).

    H_i is a branch of the task's own, of LN(S_i) or of the token states; q_t = LN(S_t) + e_t, k_i = H_i + e_i. A
    scorer of several heads has values in each of them, mix_t = W_O concat_j sum_i a_tji (W_V H_i)_j.

    Where answers of one label space are merged by attention (`aggregation: attention`), the sum here is over the other
    tasks: outputs are summed where label spaces agree, states where they do not.

    Args:
        config: Gives `branch`, `attention_scorer`, `interaction_heads`, `expert_size`, and what `TaskSoftmax` reads.
    """

    has_branches = True

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden = config.hidden_size
        self.norm = nn.LayerNorm(hidden)
        self.branch = TASK_BRANCHES[config.branch](config)
        self.scorer = ATTENTION_SCORERS[config.attention_scorer](hidden, config.interaction_heads)
        self.task_weights = TaskSoftmax(config)
        self.values = WeighedValues(self.scorer, hidden)

    def forward(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        return pick_tasks(self.entered(states, self.mix(states, embeddings, tokens)), asked_tasks)

    def leave_out(self, pairs: list[list[bool]]) -> None:
        rows = zip(self.task_weights.constants["reads"], pairs)
        self.task_weights.set_constant("reads", [[one and not two for one, two in zip(*row)] for row in rows])

    def mix(self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None) -> torch.Tensor:
        branches = self.branches(states, tokens)
        return self.values(self._weights(states, branches, embeddings), branches)

    def apart(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        return pick_tasks(self.entered(states, self.branches(states, tokens)), asked_tasks)

    def mixing_parameters(self) -> Iterable[nn.Parameter]:
        return [
            *self.scorer.parameters(),
            *self.task_weights.parameters(),
            *self.values.parameters(),
        ]

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor:
        return self._weights(states, self.branches(states, tokens), embeddings)

    def branches(self, states: torch.Tensor, tokens: EncodedTokens | None = None) -> torch.Tensor:
        """Return H (batch, tasks, hidden)."""
        return self.branch(self.norm(states), tokens)

    def _weights(self, states: torch.Tensor, branches: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """(batch, heads, tasks, tasks)"""
        return self.task_weights(self.scorer(self.norm(states) + embeddings, branches + embeddings))


class HeadGroups(TaskInteraction):
    """Multi-head attention with a group of heads for each task: R_t = S_t + W_O,t concat_{j in G(t)} head_j.

    A task's queries, keys, values and output are its own, so no gradient of its loss reaches another's heads. W_O
    starts at zero. Costs grow with the square of the number of tasks.

    Args:
        config: Gives `interaction_heads`, the heads of each group, and what `TaskSoftmax` reads.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, names = config.hidden_size, config.task_names
        self.num_heads = config.interaction_heads
        if hidden % self.num_heads:
            raise InputError(f"interaction_heads={self.num_heads} does not divide the encoder's hidden size {hidden}.")
        self.norm = nn.LayerNorm(hidden)
        sizes = dict.fromkeys(names, hidden)
        # Not called as linear layers are, of which adapters are made by name.
        self.queries, self.keys, self.values = (TaskTensors(sizes, hidden, std=hidden**-0.5) for _ in range(3))
        self.output = TaskTensors(sizes, hidden, std=0.0)
        self.task_weights = TaskSoftmax(config)

    def mixed(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        readable = self.norm(states) + embeddings
        values = torch.einsum("bsd,thd->btsh", readable, self.values())
        values = values.unflatten(-1, (self.num_heads, -1))
        mixed = torch.einsum("bjts,btsjd->btjd", self._weights(readable), values).flatten(2)
        return states + torch.einsum("bth,tdh->btd", mixed, self.output())

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor:
        return self._weights(self.norm(states) + embeddings)

    def _weights(self, readable: torch.Tensor) -> torch.Tensor:
        """(batch, heads, tasks, tasks)"""
        queries = torch.einsum("btd,thd->bth", readable, self.queries()).unflatten(-1, (self.num_heads, -1))
        keys = torch.einsum("bsd,thd->btsh", readable, self.keys()).unflatten(-1, (self.num_heads, -1))
        scores = torch.einsum("btjd,btsjd->bjts", queries * queries.shape[-1] ** -0.5, keys)
        return self.task_weights(scores)


class ResidualStreams(TaskInteraction):
    """Residual connections between the tasks' streams: r_t' = r_t + F(r)_t, F(r)_t = V_t gelu(U_t LN(r_t) + mean_s W_s
    LN(r_s) + b_t) over the other tasks s that t reads.

    `interaction_layers` of them follow one another. Every matrix is a task's own; V starts at zero.

    Args:
        config: Gives the tasks, their `reads` and `expert_size`.
    """

    reads_embeddings = False
    shares: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, size = config.hidden_size, expert_size(config)
        rows = dict.fromkeys(config.task_names, size)
        self.norm = nn.LayerNorm(hidden)
        self.receiver, self.sender = (TaskTensors(rows, hidden, std=hidden**-0.5) for _ in range(2))
        self.inner_bias = TaskTensors(rows, width=None, std=0.0)
        self.output = TaskTensors(rows, hidden, std=0.0)
        others = [
            [float(is_read and other != task) for other, is_read in enumerate(row)]
            for task, row in enumerate(reads_table(config))
        ]
        self.set_constant("shares", [[share / max(sum(row), 1.0) for share in row] for row in others])

    def mixed(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        readable = self.norm(states)
        sent = torch.einsum("bsd,shd->bsh", readable, self.sender())
        inner = torch.einsum("btd,thd->bth", readable, self.receiver()) + self.inner_bias()
        inner = F.gelu(inner + self.shares.to(sent.dtype) @ sent)
        return states + torch.einsum("bth,thd->btd", inner, self.output())


class CrossStitch(ScaledInteraction):
    """mix_t = sum_s alpha_ts S_s (Misra et al. 2016, equation 1), on task states; alpha starts at 0.9 for oneself and
    0.1 for the others together.

    Args:
        config: Gives the tasks and their `reads`.
    """

    reads_embeddings = False

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.alphas = TaskPairs(reads_lists(config), diagonal=0.9, others=0.1)

    def mix(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return self.alphas() @ states

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor:
        return self.alphas().expand(states.shape[0], 1, -1, -1)
