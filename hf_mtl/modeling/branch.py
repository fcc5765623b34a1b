"""Branches H_i: a network of each task's own that reads its state or the token states.

To add one, write its class and its line in `TASK_BRANCHES`.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_reader import refuse_export
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .task_tensors import TaskTensors, pick_tasks, rows_of_tasks

_KERNEL = 3


def expert_size(config: MultiTaskAttentionConfig) -> int:
    """Return the inner size of an expert: by default a quarter of the hidden size."""
    return config.expert_size or max(config.hidden_size // 4, 2)


class TaskExperts(nn.Module):
    """Experts of each task's own: f(x) = W_2 gelu(W_1 x + b_1) + b_2.

    Args:
        task_names: The tasks in order.
        hidden_size: Width of what they read and give.
        size: Their inner size.
        count: Experts of each task.
        closed: Whether they give 0 at the start.
    """

    def __init__(self, task_names: list[str], hidden_size: int, size: int, count: int, closed: bool = False) -> None:
        super().__init__()
        self.count = count
        rows = dict.fromkeys(task_names, count * size)
        self.inner = TaskTensors(rows, width=hidden_size, std=hidden_size**-0.5)
        self.inner_bias = TaskTensors(rows, width=None, std=0.0)
        self.outer = TaskTensors(rows, width=hidden_size, std=0.0 if closed else size**-0.5)
        self.outer_bias = TaskTensors(dict.fromkeys(task_names, count), width=hidden_size, std=0.0)

    def forward(self, states: torch.Tensor, asked_tasks: torch.Tensor | None = None) -> torch.Tensor:
        """Return (batch, tasks, experts, hidden) of states (batch, tasks, hidden), or of those of the `asked_tasks`
        (batch, asked) of each row.
        """
        row = "" if asked_tasks is None else "b"
        weights, biases = rows_of_tasks(self.inner(), asked_tasks), rows_of_tasks(self.inner_bias(), asked_tasks)
        inner = F.gelu(torch.einsum(f"btd,{row}thd->bth", states, weights) + biases)
        # ([batch,] tasks, experts, size, hidden)
        outer = rows_of_tasks(self.outer().unflatten(1, (self.count, -1)), asked_tasks)
        outputs = torch.einsum(f"bteh,{row}tehd->bted", inner.unflatten(-1, (self.count, -1)), outer)
        return outputs + rows_of_tasks(self.outer_bias(), asked_tasks)


class TaskBranch(nn.Module, ABC):
    """A network of each task's own.

    Args:
        config: The tasks, and the inner size `expert_size`.
        closed: Whether its outputs are 0 at the start.
    """

    # Whether it reads token states; others read the task's state.
    reads_tokens = False

    def __init__(self, config: MultiTaskAttentionConfig, closed: bool = False) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self,
        states: torch.Tensor,
        tokens: EncodedTokens | None = None,
        asked_tasks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return H (rows, asked, hidden).

        Args:
            states: (rows, asked, hidden).
            tokens: What the encoder said of the rows, or of each row for each of its tasks.
            asked_tasks: (rows, asked) task indices; None for all.

        Raises:
            InputError: It reads tokens, and there are none.
        """


class LinearBranch(TaskBranch):
    """H_i = W_i S_i + b_i."""

    def __init__(self, config: MultiTaskAttentionConfig, closed: bool = False) -> None:
        super().__init__(config, closed)
        hidden = config.hidden_size
        rows = dict.fromkeys(config.task_names, hidden)
        self.output = TaskTensors(rows, width=hidden, std=0.0 if closed else hidden**-0.5)
        self.output_bias = TaskTensors(rows, width=None, std=0.0)

    def forward(
        self,
        states: torch.Tensor,
        tokens: EncodedTokens | None = None,
        asked_tasks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        weights, biases = (rows_of_tasks(one(), asked_tasks) for one in (self.output, self.output_bias))
        row = "" if asked_tasks is None else "b"
        return torch.einsum(f"btd,{row}thd->bth", states, weights) + biases


class LayerBranch(TaskBranch):
    """H_i = W_2 gelu(W_1 S_i + b_1) + b_2, two layers."""

    def __init__(self, config: MultiTaskAttentionConfig, closed: bool = False) -> None:
        super().__init__(config, closed)
        self.layers = TaskExperts(config.task_names, config.hidden_size, expert_size(config), 1, closed=closed)

    def forward(
        self,
        states: torch.Tensor,
        tokens: EncodedTokens | None = None,
        asked_tasks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.layers(states, asked_tasks).squeeze(2)


class SequenceBranch(TaskBranch):
    """H_i = W_i s_i + b_i, s_i a summary of the token states by a network of the task's own."""

    reads_tokens = True

    def __init__(self, config: MultiTaskAttentionConfig, closed: bool = False) -> None:
        super().__init__(config, closed)
        self.num_tasks = len(config.task_names)
        size = expert_size(config)
        rows = dict.fromkeys(config.task_names, config.hidden_size)
        self.output = TaskTensors(rows, width=size, std=0.0 if closed else size**-0.5)
        self.output_bias = TaskTensors(rows, width=None, std=0.0)

    @abstractmethod
    def summaries(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (rows, tasks, size).

        Args:
            states: Token states (rows, tasks, length, hidden); one view of them has 1 in place of the tasks.
            mask: (rows, 1 or tasks, length), 1 at tokens and 0 at padding.
        """

    def forward(
        self,
        states: torch.Tensor,
        tokens: EncodedTokens | None = None,
        asked_tasks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if tokens is None:
            raise InputError(f"{type(self).__name__} reads token states, and only task states were given.")
        # Where each row is encoded for every task, a task's network reads what was encoded for it.
        views = tokens.states.shape[0] // states.shape[0]
        token_states, mask = (value.unflatten(0, (-1, views)) for value in (tokens.states, tokens.mask))
        summaries = self.summaries(token_states, mask)
        return pick_tasks(torch.einsum("bts,tds->btd", summaries, self.output()) + self.output_bias(), asked_tasks)


class ConvolutionBranch(SequenceBranch):
    """The greatest value over the text of each of several convolutions of three words (Kim 2014, equations 2 to 4)."""

    def __init__(self, config: MultiTaskAttentionConfig, closed: bool = False) -> None:
        super().__init__(config, closed)
        hidden = config.hidden_size
        rows = dict.fromkeys(config.task_names, expert_size(config))
        width = hidden * _KERNEL
        self.kernel = TaskTensors(rows, width=width, std=width**-0.5)
        self.kernel_bias = TaskTensors(rows, width=None, std=0.0)

    def summaries(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask.unsqueeze(-1).to(states.dtype)
        views = states.shape[1]
        # One convolution with the filters of all tasks, or of each task on its own view.
        inputs = (states * kept).transpose(2, 3).flatten(1, 2)  # (rows, views * hidden, length)
        kernels = self.kernel().flatten(0, 1).unflatten(-1, (-1, _KERNEL))  # (tasks * size, hidden, words)
        features = F.conv1d(inputs, kernels, self.kernel_bias().flatten(), padding=_KERNEL // 2, groups=views)
        features = F.gelu(features).unflatten(1, (self.num_tasks, -1))  # (rows, tasks, size, length)
        greatest = features.masked_fill(mask.unsqueeze(2) == 0, torch.finfo(features.dtype).min).amax(dim=-1)
        # A choice that a row does not have is a row without a token.
        return greatest.masked_fill(mask.sum(dim=-1, keepdim=True) == 0, 0.0)


class RecurrentBranch(SequenceBranch):
    """The last states of a recurrent network that reads the text forwards and one that reads it backwards (GRU, Cho et
    al. 2014, equations 5 to 8, with the reset gate behind the matrix as torch has it).
    """

    def __init__(self, config: MultiTaskAttentionConfig, closed: bool = False) -> None:
        super().__init__(config, closed)
        size = expert_size(config)
        self.forwards = TaskRecurrence(config, size - size // 2)
        self.backwards = TaskRecurrence(config, size // 2)

    def summaries(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        refuse_export("A recurrent branch or head goes through each text word by word")
        return torch.cat([self.forwards(states, mask), self.backwards(states.flip(2), mask.flip(2))], dim=-1)


class TaskRecurrence(nn.Module):
    """A GRU of each task's own, all in one pass over the text: r, z, n of torch.nn.GRU's equations.

    Args:
        config: The tasks.
        size: Entries of a task's state.
    """

    def __init__(self, config: MultiTaskAttentionConfig, size: int) -> None:
        super().__init__()
        rows, hidden = dict.fromkeys(config.task_names, 3 * size), config.hidden_size
        self.size = size
        self.of_inputs = TaskTensors(rows, width=hidden, std=hidden**-0.5)
        self.of_inputs_bias = TaskTensors(rows, width=None, std=0.0)
        self.of_state = TaskTensors(rows, width=size, std=size**-0.5)
        self.of_state_bias = TaskTensors(rows, width=None, std=0.0)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the states behind each row's last token, (rows, tasks, size); see `SequenceBranch.summaries`."""
        view = "t" if states.shape[1] > 1 else "v"
        weights, biases = self.of_state(), self.of_state_bias()
        inputs = torch.einsum(f"b{view}ld,trd->lbtr", states, self.of_inputs()) + self.of_inputs_bias()
        kept = mask.permute(2, 0, 1).unsqueeze(-1).bool()  # (length, rows, views, 1)
        state = inputs.new_zeros(*inputs.shape[1:3], self.size)
        for own_inputs, is_kept in zip(inputs, kept):
            of_state = torch.einsum("bts,trs->btr", state, weights) + biases
            (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (
                values.chunk(3, dim=-1) for values in (own_inputs, of_state)
            )
            update = (update_x + update_h).sigmoid()
            new = (new_x + (reset_x + reset_h).sigmoid() * new_h).tanh()
            state = torch.where(is_kept, new + update * (state - new), state)
        return state


TASK_BRANCHES: dict[str, type[TaskBranch]] = {
    "layer": LayerBranch,
    "linear": LinearBranch,
    "convolution": ConvolutionBranch,
    "recurrent": RecurrentBranch,
}


__all__ = ["TASK_BRANCHES", "TaskBranch", "TaskExperts", "TaskRecurrence", "expert_size"]
