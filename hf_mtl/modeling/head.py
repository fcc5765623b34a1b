"""Readings of heads beyond their tasks' states: H_t itself, a layer of the task's own, or the text once more.

To add one, write its class and its line in `HEAD_READINGS`. Each starts as H_t: what it adds ends in a zero.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_reader import EncodedTokens, refuse_export
from .interaction_experts import TaskExperts, expert_size
from .task_tensors import TaskTensors, rows_of_tasks

_KERNEL = 3


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


class LayerReading(HeadReading):
    """H_t + W_2 gelu(W_1 H_t + b_1) + b_2, a layer of the task's own: heads are networks of two layers."""

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.layer = TaskExperts(config.task_names, config.hidden_size, expert_size(config), 1, closed=True)

    def forward(
        self, tokens: EncodedTokens, states: torch.Tensor, asked_tasks: torch.Tensor | None = None
    ) -> torch.Tensor:
        return states + self.layer(states, asked_tasks).squeeze(2)


class SequenceReading(HeadReading):
    """H_t + W_t s, s a summary of the token states that all tasks share."""

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        rows = dict.fromkeys(config.task_names, config.hidden_size)
        self.output = TaskTensors(rows, width=expert_size(config), std=0.0)

    @abstractmethod
    def summary(self, tokens: EncodedTokens) -> torch.Tensor:
        """Return (batch, size)."""

    def forward(
        self, tokens: EncodedTokens, states: torch.Tensor, asked_tasks: torch.Tensor | None = None
    ) -> torch.Tensor:
        matrices = rows_of_tasks(self.output(), asked_tasks)  # ([batch,] tasks, hidden, size)
        row = "" if asked_tasks is None else "b"
        return states + torch.einsum(f"bs,{row}tds->btd", self.summary(tokens), matrices)


class ConvolutionReading(SequenceReading):
    """The greatest value over the text of each of several convolutions of three words (Kim 2014, equations 2 to 4)."""

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        self.convolution = nn.Conv1d(config.hidden_size, expert_size(config), _KERNEL, padding=_KERNEL // 2)

    def summary(self, tokens: EncodedTokens) -> torch.Tensor:
        kept = tokens.mask.unsqueeze(-1).to(tokens.states.dtype)
        features = F.gelu(self.convolution((tokens.states * kept).transpose(1, 2)))  # (batch, size, length)
        return features.masked_fill(tokens.mask.unsqueeze(1) == 0, torch.finfo(features.dtype).min).amax(dim=-1)


class RecurrentReading(SequenceReading):
    """The last states of a recurrent network (GRU) that reads the text forwards and one that reads it backwards."""

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        size = expert_size(config)
        self.forwards = nn.GRU(config.hidden_size, size - size // 2, batch_first=True)
        self.backwards = nn.GRU(config.hidden_size, size // 2, batch_first=True)

    def summary(self, tokens: EncodedTokens) -> torch.Tensor:
        refuse_export("head=recurrent packs each row's own tokens")
        outputs = []
        for network, backwards in ((self.forwards, False), (self.backwards, True)):
            places = torch.arange(tokens.mask.shape[1], device=tokens.mask.device)
            # The text first, in the order in which it is read; padding last.
            rank = (places.flip(0) if backwards else places) + len(places) * (tokens.mask == 0)
            order = rank.argsort(dim=1).unsqueeze(-1).expand_as(tokens.states)
            lengths = tokens.mask.sum(dim=1).clamp(min=1).cpu()
            packed = pack_padded_sequence(
                tokens.states.gather(1, order), lengths, batch_first=True, enforce_sorted=False
            )
            outputs.append(network(packed)[1][-1])
        return torch.cat(outputs, dim=-1)


HEAD_READINGS: dict[str, type[HeadReading]] = {
    "linear": LinearReading,
    "mlp": LayerReading,
    "convolution": ConvolutionReading,
    "recurrent": RecurrentReading,
}
