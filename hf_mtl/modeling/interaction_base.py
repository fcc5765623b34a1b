"""The bases of interactions of tasks: of all, and of those that weigh tasks."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import nn

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .task_tensors import ModuleWithConstants, TaskPairs, TaskTensors, at_least_float32, pick_tasks, rows_of_tasks


class TaskInteraction(ModuleWithConstants, ABC):
    """Mixes the states of tasks: S (batch, tasks, hidden) becomes R (batch, tasks, hidden), and R = S at the start."""

    reads_embeddings = True
    # Whether a task's R depends on other tasks' S.
    reads_tasks = True
    # Whether R differs from S where no task reads another.
    has_branches = False
    # Whether the states of tasks that a row does not have (`EncodedTokens.task_mask`) are left out.
    masks_tasks = False

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()

    @abstractmethod
    def mixed(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return R (batch, tasks, hidden).

        Args:
            states: S (batch, tasks, hidden).
            embeddings: (tasks, hidden) task embeddings.
        """

    def forward(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        """Return R of the tasks asked of each row, (batch, asked, hidden).

        Args:
            states: S (batch, tasks, hidden).
            embeddings: (tasks, hidden) task embeddings.
            asked_tasks: (batch, asked) task indices; None for all.
            tokens: What the encoder said, which branches may read.
        """
        return pick_tasks(self.mixed(states, embeddings), asked_tasks)

    def apart(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        """Return what R were if no task read another; see `forward`."""
        return pick_tasks(states, asked_tasks)

    def leave_out(self, pairs: list[list[bool]]) -> None:
        """Read no states of some tasks, whose outputs are read instead.

        Args:
            pairs: (tasks, tasks), of which tasks each task reads outputs.
        """

    def mixing_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that say how tasks are mixed, those of tasks' own branches left out."""
        return self.parameters()

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor | None:
        """Return how much each task reads of each other, (batch, heads, tasks, tasks) (of experts: (batch, tasks,
        experts)), or None if none reads any.
        """
        return None

    def penalties(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor | None:
        """Return what the part adds to the loss of each row for each task, (batch, tasks), or None."""
        return None

    def measurements(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> dict[str, torch.Tensor]:
        """Return by name what the part measures of each row for each task, (batch, tasks), for the log."""
        return {}


class SubsetInteraction(TaskInteraction):
    """An interaction that computes R of the tasks asked alone: a subclass writes `forward`."""

    def mixed(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return self(states, embeddings)

    @abstractmethod
    def forward(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        """Return R of the tasks asked of each row, (batch, asked, hidden); see `TaskInteraction.forward`."""


class ScaledInteraction(TaskInteraction):
    """An interaction whose mixture enters by a scale of the task's own: R = S + rho_t (mix(S)_t - S_t), rho = tanh(g).

    g starts at 0, so R = S; with g large R is the mixture alone, the form in which papers write these methods.

    Args:
        config: Names the tasks.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.scale = TaskTensors(dict.fromkeys(config.task_names, 1), width=None, std=0.0)

    @abstractmethod
    def mix(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return what the paper calls the task's output (batch, tasks, hidden); see `mixed`."""

    def mixed(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return self.entered(states, self.mix(states, embeddings))

    def entered(self, states: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
        """Return S + rho (mixture - S), (batch, tasks, hidden)."""
        return states + self.scale().tanh() * (mixture - states)


class TaskWeights(ModuleWithConstants, ABC):
    """Turns scores of tasks for tasks into weights.

    Args:
        config: Gives the tasks and their `reads`.
    """

    reads: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()
        self.set_constant("reads", reads_table(config))

    @abstractmethod
    def forward(
        self,
        scores: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        task_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return weights of scores (batch, heads, asked, tasks), 0 where a task does not read another.

        Args:
            scores: (batch, heads, asked, tasks).
            asked_tasks: (batch, asked) task indices; None for all.
            task_mask: (batch, tasks), False at tasks of which a row has no state; None where it has all.
        """

    def readable(self, task_mask: torch.Tensor | None) -> torch.Tensor:
        """Return what may be read, (tasks, tasks), or (batch, tasks, tasks) of rows without some states."""
        if task_mask is None:
            return self.reads
        oneself = torch.eye(len(self.reads), dtype=torch.bool, device=self.reads.device)
        return self.reads & (task_mask.unsqueeze(1) | oneself)

    def masked(self, asked_tasks: torch.Tensor | None, task_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return what may not be read, (tasks, tasks) or (batch, 1, asked, tasks)."""
        return _by_head(_of_asked(~self.readable(task_mask), asked_tasks))


class TaskSoftmax(TaskWeights):
    """softmax(scores + B), B a preference for oneself.

    With n tasks to read and equal scores a task gives itself `self_attention_prior` of its attention, whatever n is.
    With `task_affinities` every pair has a number of its own on top, 0 at the start. While it trains, `task_dropout`
    hides each task from all others with that probability. `attention_top_k` k > 0 keeps the k highest scores of a task
    and gives all others no weight.

    Args:
        config: Gives these settings, the tasks and their `reads`.

    Raises:
        InputError: The prior is not inside (0, 1), the dropout not in [0, 1], or k is negative.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        prior, self.task_dropout, self.top_k = (
            config.self_attention_prior,
            config.task_dropout,
            config.attention_top_k,
        )
        if not 0 < prior < 1:
            raise InputError(f"self_attention_prior={prior}; expected a number between 0 and 1, e.g. 0.9.")
        if not 0 <= self.task_dropout <= 1:
            raise InputError(f"task_dropout={self.task_dropout}; expected a number from 0 to 1.")
        self.self_bias = TaskTensors(
            dict.fromkeys(config.task_names, 1), width=None, std=0.0, mean=math.log(prior / (1 - prior))
        )
        self.affinities = TaskPairs(reads_lists(config), diagonal=0.0, others=0.0) if config.task_affinities else None

    def forward(
        self,
        scores: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        task_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        scores = scores + _by_head(_of_asked(self.bias(scores, task_mask), asked_tasks))
        if 0 < self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k, dim=-1).values[..., -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        return attention_weights(scores)

    def bias(self, like: torch.Tensor, task_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return B (tasks, tasks) in the type of `like`, -inf where a task does not read another; of rows without some
        states (batch, tasks, tasks).
        """
        reads = self.readable(task_mask)
        others = (reads.sum(dim=-1) - 1).clamp(min=1)
        bias = torch.diag_embed(self.self_bias().squeeze(-1) + others.log())
        if self.affinities is not None:
            bias = bias + self.affinities()
        if self.training and self.task_dropout > 0:
            count = reads.shape[-1]
            kept = torch.rand(count, device=like.device) >= self.task_dropout
            reads = reads & (kept | torch.eye(count, dtype=torch.bool, device=like.device))
        return bias.masked_fill(~reads, float("-inf")).to(like.dtype)


class TaskSigns(TaskWeights):
    """tanh(s) / sum |tanh(s)|: weights that may be negative, of absolute sum 1. Nobody is preferred."""

    def forward(
        self,
        scores: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        task_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        signs = at_least_float32(scores).tanh().masked_fill(self.masked(asked_tasks, task_mask), 0.0)
        return (signs / signs.abs().sum(dim=-1, keepdim=True).clamp(min=1e-6)).to(scores.dtype)


def relation_penalty(scores: torch.Tensor) -> torch.Tensor:
    """Return for each row and task the sum of the squared scores of tasks that it reads, mean over heads.

    Args:
        scores: (batch, heads, tasks, tasks), -inf where a task does not read another.

    Returns:
        (batch, tasks)
    """
    finite = at_least_float32(scores).masked_fill(scores.isinf(), 0.0)
    return finite.square().mean(dim=1).sum(dim=-1)


def attention_weights(scores: torch.Tensor) -> torch.Tensor:
    """Return the softmax over the last axis, computed in float32 or better, in the type of the scores."""
    return at_least_float32(scores).softmax(dim=-1).to(scores.dtype)


def _of_asked(values: torch.Tensor, asked_tasks: torch.Tensor | None) -> torch.Tensor:
    """The rows of the tasks asked, of (tasks, tasks) or (batch, tasks, tasks)."""
    return rows_of_tasks(values, asked_tasks) if values.ndim == 2 else pick_tasks(values, asked_tasks)


def _by_head(values: torch.Tensor) -> torch.Tensor:
    """(tasks, tasks), or (batch, asked, tasks) with an axis for heads."""
    return values if values.ndim == 2 else values.unsqueeze(1)


def reads_table(config: MultiTaskAttentionConfig) -> list[list[bool]]:
    """Return a table (tasks, tasks) whose row t says which tasks t reads; all read themselves."""
    places = {name: index for index, name in enumerate(config.task_names)}
    table = []
    for index, task in enumerate(config.task_configs):
        read = places.values() if task.reads is None else [index, *(places[other] for other in task.reads)]
        table.append([other in set(read) for other in places.values()])
    return table


def reads_lists(config: MultiTaskAttentionConfig) -> dict[str, list[int]]:
    """Return by task name the indices of the tasks that it reads, in the order of their names."""
    names = config.task_names
    return {
        name: sorted((other for other, is_read in enumerate(row) if is_read), key=names.__getitem__)
        for name, row in zip(names, reads_table(config))
    }
