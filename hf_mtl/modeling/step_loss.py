"""The loss of a step: sums and counts of the whole step first, means of them once."""

import torch

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
