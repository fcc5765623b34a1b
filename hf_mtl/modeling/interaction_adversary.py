"""An adversary that tells tasks apart by what they share, so that what they share comes to say nothing of the task."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .branch import TaskExperts, expert_size
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_reader import EncodedTokens
from .interaction_base import ScaledInteraction
from .interaction_experts import SharedExperts, read_by_all
from .task_tensors import ModuleWithConstants, TaskTensors, UnitScaleLinear, at_least_float32


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        ctx.strength = strength
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -ctx.strength.to(gradients[0]) * gradients[0], None


class GradientReversal(ModuleWithConstants):
    """Passes states on as they are and gradients back with the other sign (Ganin et al. 2016, equations 15 and 16).

    Attributes:
        progress: How much of the run is over, in [0, 1]; a Trainer sets it.
    """

    progress: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.set_constant("progress", 1.0)

    def set_progress(self, progress: float) -> None:
        """Say how much of the run is over."""
        # In place, since a compiled model would be compiled anew for each other number.
        self.constants["progress"] = progress
        self.progress.fill_(progress)

    def strength(self) -> torch.Tensor:
        """Return 2 / (1 + exp(-10 progress)) - 1: 0 at the run's beginning, nearly 1 from its middle on."""
        return 2 / (1 + (-10 * self.progress).exp()) - 1

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return _Reverse.apply(states, self.strength())  # type: ignore[no-untyped-call]


class DomainDiscriminator(nn.Module):
    """Says which task a state is read for.

    Args:
        task_names: The tasks in order.
        hidden_size: Width of the state.
        size: Inner size.
    """

    def __init__(self, task_names: list[str], hidden_size: int, size: int) -> None:
        super().__init__()
        self.inner = UnitScaleLinear(hidden_size, size)
        self.outer = TaskTensors(dict.fromkeys(task_names, 1), width=size, std=size**-0.5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities (batch, tasks) for states (batch, hidden)."""
        logits = F.gelu(self.inner(states)) @ self.outer().squeeze(1).T
        return at_least_float32(logits).log_softmax(dim=-1)


class SharedPrivate(ScaledInteraction):
    """A shared extractor and one of each task's own, mix_t = P_t(S_t) + C(x), C(x) under an adversary (Liu, Qiu and
    Huang 2017, equations 8 to 14).

    The loss gains `adversarial_weight` times the discriminator's cross-entropy of the task, behind a gradient
    reversal, and `orthogonality_weight` times cos(P_t(S_t), C(x))^2. The paper puts the two extractors side by side; a
    sum before a linear head is the same with tied halves. Its ||P^T C||^2 of a batch is here a row's own, so that it
    does not depend on how a step is split.

    Args:
        config: Gives these weights, the tasks and `expert_size`.
    """

    reads_embeddings = False
    common: torch.Tensor

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        super().__init__(config)
        hidden, size = config.hidden_size, expert_size(config)
        self.adversarial, self.orthogonality = config.adversarial_weight, config.orthogonality_weight
        self.set_constant("common", read_by_all(config))
        self.norm = nn.LayerNorm(hidden)
        self.shared = SharedExperts(hidden, size, 1)
        self.private = TaskExperts(config.task_names, hidden, size, 1)
        self.reversal = GradientReversal()
        self.discriminator = DomainDiscriminator(config.task_names, hidden, size)

    def mix(self, states: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        private, shared = self._extracted(states)
        return private + shared

    def penalties(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> torch.Tensor:
        private, shared = self._extracted(states)
        unknown = -self.discriminator(self.reversal(shared[:, 0]))
        overlap = F.cosine_similarity(private, shared, dim=-1).square()
        return self.adversarial * unknown + self.orthogonality * overlap

    def _extracted(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """P_t(S_t) (batch, tasks, hidden) and C(x) (batch, 1, hidden)"""
        readable = self.norm(states)
        return self.private(readable).squeeze(2), self.shared(readable.index_select(1, self.common).mean(dim=1))


__all__ = ["DomainDiscriminator", "GradientReversal", "SharedPrivate"]
