"""What the model returns."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class MultiTaskOutput(ModelOutput):
    """What `MultiTaskAttentionModel` returns (B rows, L tokens, D hidden size, T tasks).

    Args:
        loss: The loss of this batch with task weights 1 (see `step_loss`).
        task_losses: Mean loss of each task's labels in this batch, by task name.
        logits: Without routing, every task's logits for every row, by task name: (B, classes), (B,) for regression
            and multiple choice (the score of a row as a choice), (B, L, tags), (B, L, 2) for spans.
        entry_logits: With routing, logits of the entries by problem type; outputs a task does not have are -inf.
        task_loss_sums: (T,) sums of the losses of the labels in this batch.
        task_label_counts: (T,) numbers of labels in this batch.
        task_row_counts: (T,) numbers of rows with a label in this batch.
        task_penalty_sums: (T,) sums over these rows of what the parts themselves add to the loss, where they do.
        task_states: (B, T, D) what passed the gate; of rows that are answered for A tasks each, (B, A, D).
        pooling_weights: (B, T, L) how much a task reads of a token, where asked for and weighed.
        interaction_weights: (B, heads, T, T) how much a task reads of another, (B, T, experts) of experts, where asked
            for and weighed.
        gates: (B, T, D) how much of the mixed state passes, where asked for; (B, A, D) as `task_states`.
    """

    loss: torch.Tensor | None = None
    task_losses: dict[str, torch.Tensor] | None = None
    logits: dict[str, torch.Tensor] | None = None
    entry_logits: dict[str, torch.Tensor] | None = None
    task_loss_sums: torch.Tensor | None = None
    task_label_counts: torch.Tensor | None = None
    task_row_counts: torch.Tensor | None = None
    task_penalty_sums: torch.Tensor | None = None
    task_states: torch.Tensor | None = None
    pooling_weights: torch.Tensor | None = None
    interaction_weights: torch.Tensor | None = None
    gates: torch.Tensor | None = None
