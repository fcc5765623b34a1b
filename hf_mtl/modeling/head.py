"""Readings of heads beyond their tasks' states: H_t itself, or a network of the task's own besides.

To add one, write its class and its line in `HEAD_READINGS`. Each starts as H_t: what it adds ends in a zero.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from .branch import ConvolutionBranch, LayerBranch, RecurrentBranch, TaskBranch
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens


class HeadReading(nn.Module, ABC):
    """Adds to the states that heads read.

    Args:
        config: The tasks, and the inner size `expert_size`.
    """

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self, tokens: EncodedTokens, states: torch.Tensor, asked_tasks: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return (batch, asked, hidden).

        Args:
            tokens: What the encoder said.
            states: H (batch, asked, hidden).
            asked_tasks: (batch, asked) task indices; None for all.
        """


class LinearReading(HeadReading):
    """H_t alone: heads are linear layers."""

    def forward(
        self, tokens: EncodedTokens, states: torch.Tensor, asked_tasks: torch.Tensor | None = None
    ) -> torch.Tensor:
        return states


class BranchReading(HeadReading):
    """H_t and what a branch of the task's own makes of it or of the token states."""

    branch_class: ClassVar[type[TaskBranch]]

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.branch = self.branch_class(config, closed=True)

    def forward(
        self, tokens: EncodedTokens, states: torch.Tensor, asked_tasks: torch.Tensor | None = None
    ) -> torch.Tensor:
        return states + self.branch(states, tokens, asked_tasks)


class LayerReading(BranchReading):
    """H_t + W_2 gelu(W_1 H_t + b_1) + b_2, a layer of the task's own: heads are networks of two layers."""

    branch_class = LayerBranch


class ConvolutionReading(BranchReading):
    """H_t + W_t s_t, s_t the greatest values over the text of the task's own convolutions of three words (Kim 2014,
    equations 2 to 4).
    """

    branch_class = ConvolutionBranch


class RecurrentReading(BranchReading):
    """H_t + W_t s_t, s_t the last states of the task's own recurrent networks (GRU) that read the text forwards and
    backwards.
    """

    branch_class = RecurrentBranch


HEAD_READINGS: dict[str, type[HeadReading]] = {
    "linear": LinearReading,
    "mlp": LayerReading,
    "convolution": ConvolutionReading,
    "recurrent": RecurrentReading,
}
