"""Scores of queries against keys: what every attention of the model is made of.

To add one, write its class and its line in `ATTENTION_SCORERS`.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn

from .errors import InputError
from .task_tensors import UnitScaleLinear, ZeroStartLinear


class AttentionScorer(nn.Module, ABC):
    """Scores every key for every query.

    Args:
        hidden_size: Width of queries and keys.
        num_heads: Heads of scorers that have several; others divide their inner size by it.
        closed: Whether all scores may be 0 at the start; not where another zero stands before them.

    Attributes:
        num_heads: How many scores a pair of query and key has.
    """

    num_heads: int
    # Whether all scores are 0 at the start whatever the queries, or where the queries are 0.
    starts_at_zero = False
    # Whether what is weighed has values in each head, and an output matrix behind the heads.
    has_values = False

    def __init__(self, hidden_size: int, num_heads: int, closed: bool = True) -> None:
        super().__init__()
        self.num_heads = 1

    @abstractmethod
    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Return (..., heads, n, m).

        Args:
            queries: (..., n, hidden).
            keys: (..., m, hidden).
        """


class DotProductScorer(AttentionScorer):
    """q . k / sqrt(hidden); nothing is learned."""

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return ((queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)).unsqueeze(-3)


class GeneralScorer(AttentionScorer):
    """q W k / sqrt(hidden) (Luong et al. 2015, equation 8, scaled)."""

    def __init__(self, hidden_size: int, num_heads: int, closed: bool = True) -> None:
        super().__init__(hidden_size, num_heads)
        self.key = UnitScaleLinear(hidden_size, hidden_size, bias=False)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return ((queries * queries.shape[-1] ** -0.5) @ self.key(keys).transpose(-1, -2)).unsqueeze(-3)


class AdditiveScorer(AttentionScorer):
    """v . tanh(W_q q + W_k k) (Bahdanau et al. 2015, appendix A.1.2), which is v . tanh(W [q; k]); v
    starts at zero, or, where it is not closed, at unit scale.
    """

    starts_at_zero = True

    def __init__(self, hidden_size: int, num_heads: int, closed: bool = True) -> None:
        super().__init__(hidden_size, num_heads)
        size = max(hidden_size // num_heads, 1)
        self.query = UnitScaleLinear(hidden_size, size, bias=False)
        self.key = UnitScaleLinear(hidden_size, size, bias=False)
        self.scores = (ZeroStartLinear if closed else UnitScaleLinear)(size, 1, bias=False)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        hidden = (self.query(queries).unsqueeze(-2) + self.key(keys).unsqueeze(-3)).tanh()  # (..., n, m, size)
        return self.scores(hidden).squeeze(-1).unsqueeze(-3)


class MultiHeadScorer(AttentionScorer):
    """(W_q q) . (W_k k) / sqrt(hidden / heads) in each head (Vaswani et al. 2017, section 3.2.2)."""

    has_values = True

    def __init__(self, hidden_size: int, num_heads: int, closed: bool = True) -> None:
        super().__init__(hidden_size, num_heads)
        if hidden_size % num_heads:
            raise InputError(
                f"interaction_heads={num_heads} does not divide {hidden_size}, the width of what is scored (the "
                "encoder's hidden size, interaction_size, or the size of one of feature_groups)."
            )
        self.num_heads = num_heads
        self.query = UnitScaleLinear(hidden_size, hidden_size)
        self.key = UnitScaleLinear(hidden_size, hidden_size)

    def forward(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        queries, keys = split_heads(self.query(queries), self.num_heads), split_heads(self.key(keys), self.num_heads)
        return (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)


class WeighedValues(nn.Module):
    """Sums of what is read by how much it is read: sum_j a_j x_j by one head; by several, each has values of its own,
    W_O concat_h sum_j a_hj (W_V x_j)_h (Vaswani et al. 2017, section 3.2.2).

    Args:
        scorer: The scorer whose weights these are.
        hidden_size: Width of what is read.
    """

    def __init__(self, scorer: AttentionScorer, hidden_size: int) -> None:
        super().__init__()
        self.num_heads = scorer.num_heads
        self.value, self.output = (
            UnitScaleLinear(hidden_size, hidden_size) if scorer.has_values else nn.Identity() for _ in range(2)
        )

    def forward(self, weights: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return (..., n, hidden).

        Args:
            weights: (..., heads, n, m).
            states: (..., m, hidden).
        """
        summed: torch.Tensor = self.output(merge_heads(weights @ split_heads(self.value(states), self.num_heads)))
        return summed


def split_heads(states: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Return (..., n, hidden) as (..., heads, n, hidden / heads)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(-2, -3)


def merge_heads(states: torch.Tensor) -> torch.Tensor:
    """Return (..., heads, n, size) as (..., n, heads * size)."""
    return states.transpose(-2, -3).flatten(-2)


ATTENTION_SCORERS: dict[str, type[AttentionScorer]] = {
    "dot_product": DotProductScorer,
    "general": GeneralScorer,
    "additive": AdditiveScorer,
    "multi_head": MultiHeadScorer,
}
