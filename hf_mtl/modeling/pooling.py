"""Pooling: token states (batch, length, hidden) become one state per task (batch, tasks, hidden).

To add one, write its class and its line in `TASK_POOLINGS`.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch.nn import functional as F

from .attention_scorers import ATTENTION_SCORERS, DotProductScorer, merge_heads, split_heads
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens
from .errors import InputError, check_choice
from .interaction_base import attention_weights
from .task_tensors import (
    ModuleWithConstants,
    SharedVectors,
    TaskTensors,
    ZeroStartLinear,
    at_least_float32,
    pick_tasks,
    rows_of_tasks,
)


class TaskPooling(ModuleWithConstants, ABC):
    """Reads token states into one state for each task.

    Args:
        config: The tasks, and each pooling's settings.
    """

    reads_pooler = False
    reads_layers = False

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()
        self.num_tasks = len(config.task_names)

    @abstractmethod
    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        """Return task states (batch, asked, hidden).

        Args:
            tokens: What the encoder said.
            asked_tasks: (batch, asked) task indices; None for all.
        """

    def weights(self, tokens: EncodedTokens) -> torch.Tensor | None:
        """Return how much each task reads of each token, (batch, tasks, length), or None where nothing is weighed."""
        return None

    def penalties(self, tokens: EncodedTokens) -> torch.Tensor | None:
        """Return what the part adds to the loss of each row for each task, (batch, tasks), or None."""
        return None

    def _for_tasks(self, state: torch.Tensor, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        """(batch, asked, hidden)"""
        return state.unsqueeze(1).expand(-1, self.num_tasks if asked_tasks is None else asked_tasks.shape[1], -1)


class FirstTokenPooling(TaskPooling):
    """The state of the first token that is no padding."""

    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        first = tokens.mask.long().argmax(dim=1)  # (batch,); not 0 where padding stands on the left
        return self._for_tasks(tokens.states[torch.arange(first.shape[0], device=first.device), first], asked_tasks)


class LastTokenPooling(TaskPooling):
    """The state of the last token that is no padding; in an encoder that reads from left to right it has seen all."""

    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        places = torch.arange(tokens.mask.shape[1], device=tokens.mask.device)
        last = (tokens.mask.long() * places).argmax(dim=1)
        return self._for_tasks(tokens.states[torch.arange(last.shape[0], device=last.device), last], asked_tasks)


class MeanPooling(TaskPooling):
    """The mean of the token states, padding left out."""

    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        return self._for_tasks(masked_mean(tokens.states, tokens.mask), asked_tasks)


class PoolerPooling(TaskPooling):
    """The encoder's own pooler, as BERT's heads read it."""

    reads_pooler = True

    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        if tokens.pooled is None:
            raise InputError("This encoder has no pooler; expected another `pooling`, e.g. pooling='mean'.")
        return self._for_tasks(tokens.pooled, asked_tasks)


class LayerMixPooling(TaskPooling):
    """The mean token states of all layers, mixed by each task: sum_l softmax(w_t + b)_l mean(Z_l) (Peters et al. 2018,
    equation 1, with weights a task; the layer mix of Ruder et al. 2019).

    w starts at 0 and b gives the last layer nine tenths.
    """

    reads_layers = True

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.count = config.num_hidden_layers
        self.layer_weights = TaskTensors(dict.fromkeys(config.task_names, self.count), width=None, std=0.0)

    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        means = torch.stack([masked_mean(layer, tokens.mask) for layer in tokens.layers], dim=1)
        # ([batch,] tasks, layers) @ (batch, layers, hidden)
        return rows_of_tasks(self.shares().to(means.dtype), asked_tasks) @ means

    def shares(self) -> torch.Tensor:
        """Return how much each task reads of each layer, (tasks, layers)."""
        logits = self.layer_weights()
        last = torch.zeros_like(logits[0])
        last[-1] = math.log(9 * max(self.count - 1, 1))
        return attention_weights(logits + last)


class TaskLayerPooling(TaskPooling):
    """The mean token state of one layer, which each task chooses: simpler tasks may read lower layers (Soegaard and
    Goldberg 2016).

    Args:
        config: `task_layers` gives a layer by task name, from 1; a task that is left out reads the last one.

    Raises:
        InputError: An unknown task, or a layer that the encoder does not have.
    """

    reads_layers = True
    layer_indices: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        given, depth = config.task_layers or {}, config.num_hidden_layers
        for name, layer in given.items():
            check_choice("task in task_layers", name, config.task_names)
            if not isinstance(layer, int) or not 1 <= layer <= depth:
                raise InputError(f"task_layers of {name!r} is {layer!r}; expected a layer from 1 to {depth}.")
        self.set_constant("layer_indices", [given.get(name, depth) - 1 for name in config.task_names])

    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        means = torch.stack([masked_mean(layer, tokens.mask) for layer in tokens.layers], dim=1)
        return pick_tasks(means, rows_of_tasks(self.layer_indices, asked_tasks).expand(means.shape[0], -1))


class TaskQueryPooling(TaskPooling):
    """Token attention with one query per task (Zheng, Chen and Qiu 2018, "Same Representation, Different Attentions",
    static task attention): r_t = sum_l softmax_l(score(q_t, h_l) + omega_t(id_l)) h_l.

    The start is mean pooling: queries are zero (or, with the additive scorer, its last layer is). With `lexical_rank`
    r > 0 every word piece has a weight for each task, omega_t(id) = u_t . E[id], u (tasks, r) zero at the start. With
    `pooling_floor` e weights are (1 - e) alpha + e / tokens, so that no task can look at single words alone;
    `pooling_entropy` times the entropy of a task's weights is taken off its loss.

    Args:
        config: Gives `pooling_scorer`, `lexical_rank`, `pooling_floor`, `pooling_dropout` and `interaction_heads`.

    Raises:
        InputError: A floor or dropout outside [0, 1].
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, names, rank = config.hidden_size, config.task_names, config.lexical_rank
        for name in ("pooling_floor", "pooling_dropout"):
            if not 0 <= getattr(config, name) <= 1:
                raise InputError(f"{name}={getattr(config, name)!r}; expected a number from 0 to 1.")
        self.floor, self.dropout = config.pooling_floor, config.pooling_dropout
        self.entropy = config.pooling_entropy
        self.scorer = ATTENTION_SCORERS[config.pooling_scorer](hidden, config.interaction_heads)
        std = 1.0 if self.scorer.starts_at_zero else 0.0
        self.queries = TaskTensors(dict.fromkeys(names, hidden), width=None, std=std)
        self.lexicon = SharedVectors(config.vocab_size, rank) if rank else None
        self.lexical = TaskTensors(dict.fromkeys(names, rank), width=None, std=0.0) if rank else None

    def forward(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        weights = F.dropout(self._weights(tokens, asked_tasks), self.dropout, self.training)
        return merge_heads(weights @ split_heads(tokens.states, self.scorer.num_heads))

    def query_states(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        """Return the queries ([batch,] asked, hidden); see `forward`."""
        return rows_of_tasks(self.queries().to(tokens.states.dtype), asked_tasks)

    def weights(self, tokens: EncodedTokens) -> torch.Tensor:
        """Return (batch, tasks, length), the mean over heads."""
        return self._weights(tokens).mean(dim=1)

    def penalties(self, tokens: EncodedTokens) -> torch.Tensor | None:
        if not self.entropy:
            return None
        weights = at_least_float32(self._weights(tokens))
        # The slope of w log w is endless at 0, where padding is.
        logarithms = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
        return self.entropy * (weights * logarithms).sum(dim=-1).mean(dim=1)

    def _weights(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, heads, asked, length)"""
        queries = self.query_states(tokens, asked_tasks)
        scores = at_least_float32(self.scorer(queries, tokens.states)) + self._word_scores(tokens, asked_tasks)
        mask = tokens.mask[:, None, None].bool()
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
        if self.floor:
            weights = (1 - self.floor) * weights + self.floor * mask / mask.sum(dim=-1, keepdim=True).clamp(min=1)
        return weights.to(tokens.states.dtype)

    def _word_scores(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor | float:
        if self.lexicon is None or self.lexical is None:
            return 0.0
        if tokens.ids is None:
            raise InputError("lexical_rank needs `input_ids`; `inputs_embeds` do not say which words they are.")
        words = self.lexicon(tokens.ids).transpose(1, 2)  # (batch, rank, length)
        return (rows_of_tasks(self.lexical(), asked_tasks) @ words).unsqueeze(1)


class DynamicQueryPooling(TaskQueryPooling):
    """Token attention whose queries are made of the text (Zheng, Chen and Qiu 2018, dynamic task attention): q_bt =
    q_t + W c_bt, c_bt = sum_l softmax_l(p_t . h_bl / sqrt(hidden)) h_bl, the text as the task sums it up.

    W and q start at zero: the start is mean pooling. In the paper a recurrent network of the task's own sums up.

    Args:
        config: See `TaskQueryPooling`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden = config.hidden_size
        self.summary_queries = TaskTensors(dict.fromkeys(config.task_names, hidden), width=None, std=1.0)
        self.summary_scorer = DotProductScorer(hidden, 1)
        self.of_summary = ZeroStartLinear(hidden, hidden, bias=False)

    def query_states(self, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        queries = rows_of_tasks(self.summary_queries().to(tokens.states.dtype), asked_tasks)
        scores = at_least_float32(self.summary_scorer(queries, tokens.states).squeeze(1))
        mask = tokens.mask.unsqueeze(1).bool()
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1).to(tokens.states.dtype)
        return super().query_states(tokens, asked_tasks) + self.of_summary(weights @ tokens.states)


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean (batch, hidden) of token states (batch, length, hidden), padding left out."""
    # In half precision a sum of large states would be endless.
    whole = at_least_float32(states)
    kept = mask.unsqueeze(-1).to(whole.dtype)
    return ((whole * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)).to(states.dtype)


TASK_POOLINGS: dict[str, type[TaskPooling]] = {
    "first_token": FirstTokenPooling,
    "last_token": LastTokenPooling,
    "mean": MeanPooling,
    "pooler": PoolerPooling,
    "layer_mix": LayerMixPooling,
    "task_layer": TaskLayerPooling,
    "task_queries": TaskQueryPooling,
    "dynamic_queries": DynamicQueryPooling,
}
