"""An adversary that tells tasks apart by what they share, so that what they share comes to say nothing of the task."""

import torch
from torch import nn
from torch.nn import functional as F

from .adversary import DomainDiscriminator, GradientReversal, adversary_measurements
from .branch import TaskExperts, expert_size
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_tensors import EncodedTokens
from .interaction_base import ScaledInteraction
from .interaction_experts import SharedExperts, read_by_all


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

    def measurements(
        self, states: torch.Tensor, embeddings: torch.Tensor, tokens: EncodedTokens | None = None
    ) -> dict[str, torch.Tensor]:
        _, shared = self._extracted(states)
        return adversary_measurements(self.discriminator(shared[:, 0]), self.reversal)

    def _extracted(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """P_t(S_t) (batch, tasks, hidden) and C(x) (batch, 1, hidden)"""
        readable = self.norm(states)
        return self.private(readable).squeeze(2), self.shared(readable.index_select(1, self.common).mean(dim=1))


__all__ = ["SharedPrivate"]
