"""An encoder that tasks share beside one of each task's own, under an adversary that tells tasks apart."""

from collections.abc import Mapping

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from .adversary import DomainDiscriminator, GradientReversal, adversary_measurements
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_conditioning_base import Pool, TaskConditioning
from .encoder_reader import Conditions
from .encoder_tensors import EncodedTokens, EncoderInputs
from .interaction_experts import expert_size
from .label_checks import Entries
from .pooling import masked_mean
from .separate_encoders import PrivateEncoders
from .task_tensors import TaskTensors, pick_tasks


class PrivateNetworks(TaskConditioning):
    """An encoder that tasks share and one of each task's own, the shared one under an adversary (Liu, Qiu and Huang
    2017, equations 8 to 14).

    All start as copies of one encoder. A row's token states for task t are the mean of what its own and the shared
    encoder say. Of the pooled states p_t and s it reads S_t = (p_t + s) / 2 + W_t (p_t - s), W_t zero at the start,
    where p_t = s. The paper's head reads both side by side, A p_t + B s. A linear head V on S_t is that head: it has
    A = V (1/2 + W_t) and B = V (1/2 - W_t), and any A and B of which A + B has full rank in its rows are reached by
    V = A + B and a W_t with V W_t = (A - B) / 2.

    The loss gains `adversarial_weight` times the cross-entropy of a discriminator that says the task from the mean of
    the shared token states, behind a gradient reversal: its gradient reaches the shared encoder alone. It reads that
    mean, since a state that a task's query weighs would name the task. The loss gains `orthogonality_weight` times
    cos(p_t, s)^2, a row's own instead of the batch's ||P^T S||^2.

    Args:
        config: Gives these weights, the tasks and `expert_size`, the discriminator's.
        encoder: The encoder.
    """

    reads_embeddings = False
    reads_words = False
    conditions_encoder = True
    several_encoders = PrivateEncoders

    def __init__(self, config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
        super().__init__(config, encoder)
        hidden = config.hidden_size
        self.adversarial, self.orthogonality = config.adversarial_weight, config.orthogonality_weight
        self.difference = TaskTensors(dict.fromkeys(config.task_names, hidden), width=hidden, std=0.0)
        self.reversal = GradientReversal()
        self.discriminator = DomainDiscriminator(config.task_names, hidden, expert_size(config))

    def forward(self, embeddings: torch.Tensor, tasks: torch.Tensor | None) -> Conditions:
        return Conditions()

    def rows_by_task(
        self, inputs: EncoderInputs, routing: Mapping[str, Entries], asked_tasks: torch.Tensor | None
    ) -> tuple[EncoderInputs, Mapping[str, Entries]]:
        """Return the batch's own rows, which the shared encoder reads once, with the tasks (rows, asked) of each; the
        entries have their places among rows by tasks.
        """
        by_task, entries = super().rows_by_task(inputs, routing, asked_tasks)
        assert by_task.tasks is not None
        return inputs._replace(tasks=by_task.tasks.reshape(inputs.mask.shape[0], -1)), entries

    def states(self, pool: Pool, tokens: EncodedTokens, asked_tasks: torch.Tensor | None) -> torch.Tensor:
        private, shared = (pool(view, asked_tasks) for view in tokens.views)  # (rows, 1, hidden)
        matrices = self.difference().to(private.dtype)  # (tasks, hidden, hidden)
        apart = torch.einsum("rh,tgh->rtg", (private - shared).squeeze(1), matrices)
        return (private + shared) / 2 + pick_tasks(apart, asked_tasks)

    def penalties(self, pool: Pool, tokens: EncodedTokens) -> torch.Tensor:
        private, shared = (pool(view, tokens.tasks) for view in tokens.views)
        unknown = -self.discriminator(self.reversal(_shared_mean(tokens)))  # (rows, tasks)
        overlap = F.cosine_similarity(private, shared, dim=-1).square()  # (rows, 1), of the row's own task
        return self.adversarial * unknown + self.orthogonality * overlap

    def measurements(self, tokens: EncodedTokens) -> dict[str, torch.Tensor]:
        return adversary_measurements(self.discriminator(_shared_mean(tokens)), self.reversal)


def _shared_mean(tokens: EncodedTokens) -> torch.Tensor:
    """(rows, hidden), of the token states that the shared encoder gives"""
    _, shared = tokens.views
    return masked_mean(shared.states, shared.mask)


__all__ = ["PrivateNetworks"]
