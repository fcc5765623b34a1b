"""Interactions through experts: small networks that tasks weigh by gates, shared or a task's own.

One mechanism with settings: one gate for all tasks (OMoE), a gate per task (MMoE), own experts beside the shared ones
(CGC), several such layers with a path of the shared experts' own (PLE).
"""

from collections.abc import Iterable
from typing import ClassVar, cast

import torch
from torch import nn
from torch.nn import functional as F

from .branch import TaskExperts, expert_size
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens
from .errors import InputError
from .interaction_base import ScaledInteraction, attention_weights, reads_table
from .task_tensors import TaskTensors, UnitScaleLinear


def read_by_all(config: MultiTaskAttentionConfig) -> list[int]:
    """Return the indices of the tasks that every task may read.

    Raises:
        InputError: There is none.
    """
    common = [task for task, readers in enumerate(zip(*reads_table(config))) if all(readers)]
    if not common:
        raise InputError("What tasks share needs at least one task that every task may read; `reads` leaves none.")
    return common


class SharedExperts(nn.Module):
    """Experts that all tasks share: f(x) = W_2 gelu(W_1 x + b_1) + b_2.

    Args:
        hidden_size: Width of what they read and give.
        size: Their inner size.
        count: How many there are.
    """

    def __init__(self, hidden_size: int, size: int, count: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(UnitScaleLinear(hidden_size, size) for _ in range(count))
        self.outer = nn.ModuleList(UnitScaleLinear(size, hidden_size) for _ in range(count))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (batch, experts, hidden) of states (batch, hidden)."""
        outputs = [outer(F.gelu(inner(states))) for inner, outer in zip(self.inner, self.outer)]
        return torch.stack(outputs, dim=1) if outputs else states.new_zeros(states.shape[0], 0, states.shape[-1])


class ExpertLayer(nn.Module):
    """One layer: o_t = softmax(G_t x_t) [E_t,1(x_t) ... ; E_s,1(x_s) ...], o_s = softmax(G_s x_s) [all of them].

    Args:
        config: Gives tasks, `shared_experts` and `expert_size`.
        task_experts: Experts of each task.
        one_gate: Whether all tasks have one gate, which reads x_s.
        last: Whether no layer follows, so that nobody reads o_s.
    """

    def __init__(self, config: MultiTaskAttentionConfig, task_experts: int, one_gate: bool, last: bool) -> None:
        super().__init__()
        hidden, size, shared = config.hidden_size, expert_size(config), config.shared_experts
        std = hidden**-0.5
        self.one_gate, self.last = one_gate, last
        self.shared = SharedExperts(hidden, size, shared)
        self.task_experts = TaskExperts(config.task_names, hidden, size, task_experts) if task_experts else None
        gate_rows = dict.fromkeys(config.task_names, task_experts + shared)
        self.gates: nn.Module = (
            UnitScaleLinear(hidden, shared, bias=False) if one_gate else TaskTensors(gate_rows, hidden, std)
        )
        if not last:
            # Its rows for a task's experts are the task's own.
            self.shared_gate = UnitScaleLinear(hidden, shared, bias=False)
            self.shared_gate_of_own = TaskTensors(dict.fromkeys(config.task_names, task_experts), hidden, std)

    def forward(
        self, tasks: torch.Tensor, shared: torch.Tensor, common: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return o_t (batch, tasks, hidden) and o_s (batch, hidden).

        Args:
            tasks: (batch, tasks, hidden), what each task's experts and gate read.
            shared: (batch, hidden), what the shared experts read.
            common: The tasks whose experts may be read by all.
        """
        shared_outputs = self.shared(shared)  # (batch, experts, hidden)
        weights = self.weights(tasks, shared)  # (batch, tasks, experts)
        if self.task_experts is None:
            return weights @ shared_outputs, shared
        task_outputs = self.task_experts(tasks)  # (batch, tasks, experts, hidden)
        count = task_outputs.shape[2]
        outputs = (
            torch.einsum("bte,bted->btd", weights[..., :count], task_outputs) + weights[..., count:] @ shared_outputs
        )
        if self.last:
            return outputs, shared
        return outputs, self._shared_output(shared, task_outputs, shared_outputs, common)

    def weights(self, tasks: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """Return how much each task takes of its experts and then of the shared ones, (batch, tasks, experts)."""
        if isinstance(self.gates, TaskTensors):
            return attention_weights(torch.einsum("btd,ted->bte", tasks, self.gates()))
        return attention_weights(self.gates(shared)).unsqueeze(1).expand(-1, tasks.shape[1], -1)

    def _shared_output(
        self, shared: torch.Tensor, task_outputs: torch.Tensor, shared_outputs: torch.Tensor, common: torch.Tensor
    ) -> torch.Tensor:
        of_own = torch.einsum("bd,ted->bte", shared, self.shared_gate_of_own()[common]).flatten(1)
        weights = attention_weights(torch.cat([of_own, self.shared_gate(shared)], dim=1))
        outputs = torch.cat([task_outputs[:, common].flatten(1, 2), shared_outputs], dim=1)
        return torch.einsum("be,bed->bd", weights, outputs)


class ExpertInteraction(ScaledInteraction):
    """Layers of experts on LN(S). Shared experts read the mean over the tasks that all may read.

    Args:
        config: Gives `shared_experts`, `task_experts`, `expert_layers`, `expert_size`; what a subclass fixes it does
            not read.

    Raises:
        InputError: No expert, of `ple` none of the two kinds, no layer; tasks of which none may be read by all.
    """

    reads_embeddings = False
    one_gate: ClassVar[bool] = False
    has_own: ClassVar[bool] = True
    is_deep: ClassVar[bool] = False
    common: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        task_experts = config.task_experts if self.has_own else 0
        depth = config.expert_layers if self.is_deep else 1
        # One layer of own and shared experts may lack one of the two.
        least = 0 if self.has_own and not self.is_deep else 1
        for name, value, at_least in (
            ("shared_experts", config.shared_experts, least),
            ("task_experts", task_experts, least if self.has_own else 0),
            ("expert_layers", depth, 1),
            ("shared_experts + task_experts", config.shared_experts + task_experts, 1),
        ):
            if value < at_least:
                raise InputError(f"{name}={value}; expected a whole number >= {at_least}.")
        self.set_constant("common", read_by_all(config))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.layers = nn.ModuleList(
            ExpertLayer(config, task_experts, self.one_gate, last=layer == depth - 1) for layer in range(depth)
        )

    def mix(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return self._through(states)[0]

    def weights(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor:
        """Return the last layer's gates (batch, tasks, experts), a task's own experts first."""
        return self._through(states)[1]

    def _through(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tasks = self.norm(states)
        shared = tasks.index_select(1, self.common).mean(dim=1)
        weights = tasks
        for layer in cast(Iterable[ExpertLayer], self.layers):
            weights = layer.weights(tasks, shared)
            tasks, shared = layer(tasks, shared, self.common)
        return tasks, weights


class OneGateExperts(ExpertInteraction):
    """One gate for all tasks (Ma et al. 2018, equation 5): mix_t = sum_e softmax(W x)_e f_e(x)."""

    one_gate = True
    has_own = False


class MultiGateExperts(ExpertInteraction):
    """A gate per task (Ma et al. 2018, equations 6 to 8): mix_t = sum_e softmax(W_t x_t)_e f_e(x)."""

    has_own = False


class CustomizedGateControl(ExpertInteraction):
    """Own experts beside the shared ones (Tang et al. 2020, equations 1 to 4)."""


class ProgressiveLayeredExtraction(ExpertInteraction):
    """Several layers, with a gate over all experts for the shared ones (Tang et al. 2020, equations 5 to 7)."""

    is_deep = True


__all__ = [
    "CustomizedGateControl",
    "ExpertInteraction",
    "ExpertLayer",
    "MultiGateExperts",
    "OneGateExperts",
    "ProgressiveLayeredExtraction",
    "SharedExperts",
    "read_by_all",
]
