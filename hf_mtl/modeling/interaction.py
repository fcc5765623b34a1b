"""Interactions: task states read each other. To add a way, write its class and its line in `TASK_INTERACTIONS`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from .attention_scorers import ATTENTION_SCORERS, merge_heads, split_heads
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .interaction_adversary import SharedPrivate
from .interaction_base import (
    SubsetInteraction,
    TaskInteraction,
    TaskSigns,
    TaskSoftmax,
    TaskWeights,
    attention_weights,
    reads_table,
    relation_penalty,
)
from .interaction_branches import AttentionOverHeads, CrossStitch, HeadGroups, ResidualStreams
from .interaction_experts import (
    CustomizedGateControl,
    MultiGateExperts,
    OneGateExperts,
    ProgressiveLayeredExtraction,
)
from .interaction_mran import MultipleRelations
from .task_tensors import SharedVectors, UnitScaleLinear, ZeroStartLinear, pick_tasks


class NoInteraction(SubsetInteraction):
    """Tasks do not read each other: R = S."""

    reads_embeddings = False
    reads_tasks = False
    masks_tasks = True

    def forward(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        return states


class ReadableStates(nn.Module):
    """The states read by attention of tasks: LN(S) + E, projected to `interaction_size` entries where that is given.

    Args:
        config: Gives `interaction_size`.

    Attributes:
        size: How many entries what it returns has.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.size = config.interaction_size or hidden
        self.norm = nn.LayerNorm(hidden)
        narrow = config.interaction_size is not None
        self.projection = UnitScaleLinear(hidden, self.size, bias=False) if narrow else nn.Identity()

    def forward(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return (batch, tasks, size) of states (batch, tasks, hidden) and embeddings (tasks, hidden)."""
        return self.projection(self.norm(states) + embeddings)


class CrossTaskAttention(SubsetInteraction):
    """Attention over the task axis, R = S + W_O concat_j softmax(scores_j + B) V_j.

    Queries, keys and values read LN(S) + E, so that tasks with equal states still differ. W_O starts at zero: R = S.
    With `signed_attention` the weights are those of `TaskSigns`, which may be negative. `relation_penalty` times the
    sum of a task's squared scores of those it reads is added to its loss. `interaction_size` d makes it narrow: what
    is read is projected to d entries first, and W_O leads back. Only the tasks asked of a row have queries.

    Args:
        config: Gives `attention_scorer`, `interaction_heads`, `interaction_size`, `interaction_dropout`,
            `signed_attention`, and what `TaskSoftmax` reads.
    """

    masks_tasks = True

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.dropout, self.penalty = config.interaction_dropout, config.relation_penalty
        self.readable = ReadableStates(config)
        size = self.readable.size
        self.scorer = ATTENTION_SCORERS[config.attention_scorer](size, config.interaction_heads)
        self.value = UnitScaleLinear(size, size)
        if config.signed_attention and self.scorer.starts_at_zero:
            raise InputError(
                f"attention_scorer={config.attention_scorer} starts at zero, and so does what signed weights are "
                "multiplied with: neither would ever learn. Choose general, dot_product or multi_head."
            )
        self.task_weights: TaskWeights = TaskSigns(config) if config.signed_attention else TaskSoftmax(config)
        self.output = ZeroStartLinear(size, config.hidden_size)

    def forward(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        readable = self.readable(states, embeddings)
        scores = self.scorer(pick_tasks(readable, asked_tasks), readable)
        weights = self.task_weights(scores, asked_tasks, _mask_of_tasks(tokens))
        weights = F.dropout(weights, self.dropout, self.training)
        mixed = weights @ split_heads(self.value(readable), self.scorer.num_heads)
        return pick_tasks(states, asked_tasks) + self.output(merge_heads(mixed))

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor:
        readable = self.readable(states, embeddings)
        return self.task_weights(self.scorer(readable, readable), task_mask=_mask_of_tasks(tokens))

    def penalties(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor | None:
        if not self.penalty:
            return None
        readable = self.readable(states, embeddings)
        scores = self.scorer(readable, readable)
        hidden = self.task_weights.masked(None, _mask_of_tasks(tokens))
        return self.penalty * relation_penalty(scores.masked_fill(hidden, float("-inf")))


class InducedAttention(SubsetInteraction):
    """Cross-task attention through a few inducing points (Lee et al. 2019, equation 9): I' = MHA(I, S, S), and
    R = S + W_O MHA(S, I', I'). Time and memory grow with the number of tasks, not with its square.

    Args:
        config: Gives `inducing_points`, `attention_scorer`, `interaction_heads` and `interaction_size`.

    Raises:
        InputError: A task says which tasks it `reads`, which inducing points cannot keep apart.
    """

    masks_tasks = True

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.readable = ReadableStates(config)
        size, heads = self.readable.size, config.interaction_heads
        if not all(map(all, reads_table(config))):
            raise InputError(
                "task_interaction=induced_attention mixes all tasks; `reads` needs another, e.g. cross_task_attention."
            )
        self.points = SharedVectors(config.inducing_points, size)
        self.point_scorer = ATTENTION_SCORERS[config.attention_scorer](size, heads)
        self.task_scorer = ATTENTION_SCORERS[config.attention_scorer](size, heads)
        self.point_value, self.value = UnitScaleLinear(size, size), UnitScaleLinear(size, size)
        self.output = ZeroStartLinear(size, config.hidden_size)

    def forward(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        readable = self.readable(states, embeddings)
        summaries = self._summaries(readable, _mask_of_tasks(tokens))  # (batch, points, size)
        weights = attention_weights(self.task_scorer(pick_tasks(readable, asked_tasks), summaries))
        mixed = weights @ split_heads(self.value(summaries), self.task_scorer.num_heads)
        return pick_tasks(states, asked_tasks) + self.output(merge_heads(mixed))

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor:
        """Return (batch, heads, tasks, tasks), the product of the two attentions."""
        readable = self.readable(states, embeddings)
        task_mask = _mask_of_tasks(tokens)
        first = self._point_weights(readable, task_mask)
        return attention_weights(self.task_scorer(readable, self._summaries(readable, task_mask))) @ first

    def _point_weights(self, readable: torch.Tensor, task_mask: torch.Tensor | None) -> torch.Tensor:
        scores = self.point_scorer(self.points(), readable)
        if task_mask is not None:
            # A row has one state at least.
            scores = scores.masked_fill(~task_mask[:, None, None], torch.finfo(scores.dtype).min)
        return attention_weights(scores)

    def _summaries(self, readable: torch.Tensor, task_mask: torch.Tensor | None) -> torch.Tensor:
        values = split_heads(self.point_value(readable), self.point_scorer.num_heads)
        return merge_heads(self._point_weights(readable, task_mask) @ values)


class InteractionStack(SubsetInteraction):
    """Interactions of one kind, one after the other; each starts as R = S, so the stack does.

    Args:
        layers: The interactions.
    """

    def __init__(self, config: MultiTaskAttentionConfig, layers: list[TaskInteraction]) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(layers)
        self.reads_embeddings, self.has_branches = layers[0].reads_embeddings, layers[0].has_branches
        self.masks_tasks = layers[0].masks_tasks

    def forward(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        *first, last = cast(Iterable[TaskInteraction], self.layers)
        for layer in first:
            states = layer(states, embeddings, None, tokens)
        return last(states, embeddings, asked_tasks, tokens)

    def apart(
        self,
        states: torch.Tensor,
        embeddings: torch.Tensor,
        asked_tasks: torch.Tensor | None = None,
        tokens: EncodedTokens | None = None,
    ) -> torch.Tensor:
        for layer in cast(Iterable[TaskInteraction], self.layers):
            states = layer.apart(states, embeddings, None, tokens)
        return pick_tasks(states, asked_tasks)

    def leave_out(self, pairs: list[list[bool]]) -> None:
        for layer in cast(Iterable[TaskInteraction], self.layers):
            layer.leave_out(pairs)

    def mixing_parameters(self) -> Iterable[nn.Parameter]:
        return [
            parameter
            for layer in cast(Iterable[TaskInteraction], self.layers)
            for parameter in layer.mixing_parameters()
        ]

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor | None:
        """Return the last one's."""
        *first, last = cast(Iterable[TaskInteraction], self.layers)
        for layer in first:
            states = layer(states, embeddings, None, tokens)
        return last.weights(states, embeddings, tokens)

    def penalties(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor | None:
        """Return the sum of all."""
        total = None
        with _untracked(self):
            for layer in cast(Iterable[TaskInteraction], self.layers):
                layer_penalties = layer.penalties(states, embeddings, tokens)
                total = layer_penalties if total is None or layer_penalties is None else total + layer_penalties
                states = layer(states, embeddings, None, tokens)
        return total

    def measurements(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the mean of all."""
        of_layers = []
        with _untracked(self):
            for layer in cast(Iterable[TaskInteraction], self.layers):
                of_layers.append(layer.measurements(states, embeddings, tokens))
                states = layer(states, embeddings, None, tokens)
        return {name: torch.stack([layer[name] for layer in of_layers]).mean(dim=0) for name in of_layers[0]}


def _mask_of_tasks(tokens: EncodedTokens | None) -> torch.Tensor | None:
    """Return (batch, tasks), False at tasks of which a row has no state; None where rows have all."""
    return None if tokens is None else tokens.task_mask


@contextmanager
def _untracked(module: nn.Module) -> Iterator[None]:
    """Look at a part once more without counting its batch statistics again."""
    norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm1d) and one.track_running_stats]
    for norm in norms:
        norm.track_running_stats = not norm.training
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def build_interaction(name: str, config: MultiTaskAttentionConfig) -> TaskInteraction:
    """Return `interaction_layers` interactions of one kind; of one that reads nothing, a single one."""
    part = TASK_INTERACTIONS[name]
    layers = [part(config) for _ in range(config.interaction_layers if part.reads_tasks else 1)]
    return layers[0] if len(layers) == 1 else InteractionStack(config, layers)


TASK_INTERACTIONS: dict[str, type[TaskInteraction]] = {
    "none": NoInteraction,
    "cross_task_attention": CrossTaskAttention,
    "induced_attention": InducedAttention,
    "attention_over_heads": AttentionOverHeads,
    "head_groups": HeadGroups,
    "cross_stitch": CrossStitch,
    "residual_streams": ResidualStreams,
    "omoe": OneGateExperts,
    "mmoe": MultiGateExperts,
    "cgc": CustomizedGateControl,
    "ple": ProgressiveLayeredExtraction,
    "mran": MultipleRelations,
    "shared_private": SharedPrivate,
}


__all__ = [
    "CrossTaskAttention",
    "InducedAttention",
    "InteractionStack",
    "NoInteraction",
    "ReadableStates",
    "TASK_INTERACTIONS",
    "build_interaction",
]
