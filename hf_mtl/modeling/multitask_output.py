"""What the model returns: the loss first, then logits by task name."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class MultiTaskOutput(ModelOutput):
    """What `MultiTaskAttentionModel` returns (B rows, L tokens, D hidden size, T tasks).

    As a tuple the loss comes first, where there are labels, and then the logits.

    Args:
        loss: The loss of this batch with task weights 1 (see `step_loss`), where labels are given.
        logits: By task name: (B, classes), (B,) for regression, (B, L, tags), (B, L, 2) for the first and last piece
            of an answer, (B, choices) of inputs (B, choices, L). Inputs (B, L) are single choices of a multiple-choice
            task: (B,). All rows for every task; with `task_ids` (or internal routing) for each task its rows alone,
            in row order, and tasks without rows are left out (`TaskLogits`).
        hidden_states: The encoder's, (B, L, D) for the embeddings and every layer, where asked for; of encoders that
            read a row once for each task (B * T, L, D). None in place of layers that were not asked for.
        attentions: The encoder's, (B, heads, L, L) for every layer, where asked for.
        task_losses: Mean loss of each task's labels in this batch, by task name.
        task_loss_sums: (T,) sums of the losses of the labels in this batch.
        task_label_counts: (T,) numbers of labels in this batch.
        task_row_counts: (T,) numbers of rows with a label in this batch.
        task_penalty_sums: (T,) sums over these rows of what the parts themselves add to the loss, where they do.
        task_states: (B, T, D) what passed the gate; of rows that are answered for A tasks each, (B, A, D).
        pooling_weights: (B, T, L) how much a task reads of a token, where asked for and weighed.
        interaction_weights: (B, heads, T, T) how much a task reads of another, (B, T, experts) of experts, where asked
            for and weighed.
        gates: (B, T, D) how much of the mixed state passes, where asked for; (B, A, D) as `task_states`.
        entry_logits: Internal: with `task_ids` or routing, the entries' logits by problem type; outputs a task does
            not have are -inf.
    """

    loss: torch.Tensor | None = None
    logits: Mapping[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor | None, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    task_losses: dict[str, torch.Tensor] | None = None
    task_loss_sums: torch.Tensor | None = None
    task_label_counts: torch.Tensor | None = None
    task_row_counts: torch.Tensor | None = None
    task_penalty_sums: torch.Tensor | None = None
    task_states: torch.Tensor | None = None
    pooling_weights: torch.Tensor | None = None
    interaction_weights: torch.Tensor | None = None
    gates: torch.Tensor | None = None
    entry_logits: dict[str, torch.Tensor] | None = None


# What a stock Trainer is not to take for predictions.
NOT_PREDICTIONS = [name for name in MultiTaskOutput.__dataclass_fields__ if name not in ("loss", "logits")]
