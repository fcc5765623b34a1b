"""The loss of a step: sums and counts of the whole step first, means of them once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .label_checks import Entries
from .problem_heads import TASK_HEADS
from .task_head import TaskHead

LOSS_REDUCTIONS = ("rows", "tasks")


def step_loss(
    loss_sums: torch.Tensor,
    label_counts: torch.Tensor,
    row_counts: torch.Tensor,
    weights: torch.Tensor | None = None,
    reduction: str = "rows",
) -> torch.Tensor:
    """Return sum_t weight_t * share_t * loss_sums_t / label_counts_t.

    With counts of the whole step (all processes and accumulated batches) and the loss sums of one batch of it,
    the values of the step's batches add up to the loss of the step, however it was split.

    Args:
        loss_sums: (tasks,) sums of the losses of a task's labels.
        label_counts: (tasks,) numbers of labels.
        row_counts: (tasks,) numbers of labelled rows.
        weights: (tasks,) task weights; 1 if None.
        reduction: "rows" takes share_t = rows of t / rows of the step, "tasks" takes 1 / tasks.
    """
    means = loss_sums / label_counts.clamp(min=1)  # (tasks,)
    if reduction == "rows":
        shares = row_counts / row_counts.sum().clamp(min=1)
    else:
        shares = torch.full_like(means, 1.0 / means.numel())
    weighted = means * shares if weights is None else means * shares * weights
    return weighted.sum()


def batch_losses(
    heads: Mapping[str, TaskHead],
    logits: Mapping[str, torch.Tensor],
    routing: Mapping[str, Entries],
    task_names: Sequence[str],
) -> dict[str, Any]:
    """Return the fields of `MultiTaskOutput` that speak of losses, of entries with labels.

    Args:
        heads: The heads by problem type.
        logits: The entries' logits, likewise.
        routing: The entries, likewise.
        task_names: The model's tasks in order.
    """
    labelled = {name: entries for name, entries in routing.items() if "labels" in entries}
    tasks = torch.cat([entries["tasks"] for entries in labelled.values()])
    entry_sums = torch.cat([heads[name].loss_sums(logits[name], entries) for name, entries in labelled.items()])
    sums = entry_sums.new_zeros(len(task_names)).index_add(0, tasks, entry_sums)
    label_counts, row_counts = count_labels(labelled, len(task_names))
    means = sums / label_counts.clamp(min=1)
    return {
        "loss": step_loss(sums, label_counts, row_counts),
        "task_losses": dict(zip(task_names, means.unbind())),
        "task_loss_sums": sums,
        "task_label_counts": label_counts,
        "task_row_counts": row_counts,
    }


def with_penalties(
    losses: Mapping[str, Any], penalties: torch.Tensor, routing: Mapping[str, Entries]
) -> dict[str, torch.Tensor]:
    """Return the sums of what parts add to the loss of labelled rows, and the loss with it.

    Args:
        losses: What `batch_losses` returned.
        penalties: (encoded rows, tasks).
        routing: The entries, with the encoded rows that they read.
    """
    sums = _labelled_sums(penalties, routing)
    added = step_loss(sums, losses["task_row_counts"], losses["task_row_counts"])
    return {"task_penalty_sums": sums, "loss": losses["loss"] + added}


def measurement_sums(
    measurements: Mapping[str, torch.Tensor], routing: Mapping[str, Entries], row_counts: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return by name the sum and the number (2,) of what parts measure of labelled rows for their tasks.

    Args:
        measurements: By name (encoded rows, tasks).
        routing: The entries, with the encoded rows that they read.
        row_counts: (tasks,) numbers of labelled rows.
    """
    count = row_counts.sum()
    return {
        name: torch.stack([_labelled_sums(values, routing).sum(), count.to(values)])
        for name, values in measurements.items()
    }


def _labelled_sums(values: torch.Tensor, routing: Mapping[str, Entries]) -> torch.Tensor:
    """(tasks,) sums of values (encoded rows, tasks) over each task's labelled rows"""
    sums = values.new_zeros(values.shape[1])
    for name, entries in routing.items():
        if "labels" in entries:
            # A row of several choices counts once, by the first.
            rows = entries["rows"] if entries["rows"].ndim == 1 else entries["rows"][:, 0]
            present = TASK_HEADS[name].is_label(entries["labels"]).unsqueeze(-1).flatten(1).any(dim=1)
            sums = sums.index_add(0, entries["tasks"], values[rows, entries["tasks"]] * present)
    return sums


def count_labels(routing: Mapping[str, Entries], num_tasks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many labels and how many labelled rows each task has, (tasks,) each."""
    tasks, counts = [], []
    for name, entries in routing.items():
        present = TASK_HEADS[name].is_label(entries["labels"])
        tasks.append(entries["tasks"])
        counts.append(present.unsqueeze(-1).flatten(1).sum(dim=1))
    index, labels = torch.cat(tasks), torch.cat(counts)
    zeros = torch.zeros(num_tasks, device=labels.device)
    return zeros.index_add(0, index, labels.float()), zeros.index_add(0, index, (labels > 0).float())
