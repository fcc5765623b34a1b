"""The losses of heads are those of torch.nn, over the labels that are there (S0.4, S3.12, S4.4)."""

import math

import pytest
import torch
from torch.nn import functional as F

from hf_mtl.modeling.step_loss import step_loss
from tests.conftest import TASKS, build_model, random_batch, randomise


def losses(settings=None, **holes):
    model, batch = randomise(build_model(settings)), random_batch()
    for problem_type, change in holes.items():
        change(batch["routing"][problem_type]["labels"])
    return model, batch, model(**batch)


def test_regression_is_the_squared_error_of_standardised_labels():
    """S3.12: least squares; a label that is missing counts nothing."""
    _, batch, output = losses(regression=lambda labels: labels.__setitem__(1, math.nan))
    labels = batch["routing"]["regression"]["labels"]
    kept = ~labels.isnan()
    expected = F.mse_loss(
        output.entry_logits["regression"].squeeze(1)[kept], (labels[kept] - 3.0) / 2.0, reduction="sum"
    )
    stars = [task["name"] for task in TASKS].index("stars")
    torch.testing.assert_close(output.task_loss_sums[stars], expected)
    assert output.task_label_counts[stars] == kept.sum() == 4


def test_a_tasks_loss_is_the_mean_over_its_labels():
    """S0.4: L_t = sum over labels that are there / their number; one that is absent gives 0 and no NaN."""
    _, batch, output = losses(single_label_classification=lambda labels: labels.__setitem__(slice(1, None, 2), -100))
    entries = batch["routing"]["single_label_classification"]
    logits = output.entry_logits["single_label_classification"]
    first = entries["tasks"] == 0
    expected = F.cross_entropy(logits[first], entries["labels"][first])
    torch.testing.assert_close(output.task_losses["intent"], expected)
    assert output.task_losses["mood"] == 0 and output.loss.isfinite()
    output.loss.backward()


@pytest.mark.parametrize("reduction", ["rows", "tasks"])
def test_the_objective_is_the_weighted_sum_of_the_tasks_losses(reduction):
    """S0.4, S4.4: sum_t w_t share_t L_t; the weights of one task alone leave its loss."""
    sums, labels, rows = torch.tensor([6.0, 4.0]), torch.tensor([3.0, 2.0]), torch.tensor([3.0, 1.0])
    shares = rows / rows.sum() if reduction == "rows" else torch.tensor([0.5, 0.5])
    weights = torch.tensor([0.5, 2.0])
    expected = (weights * shares * sums / labels).sum()
    torch.testing.assert_close(step_loss(sums, labels, rows, weights, reduction), expected)
    alone = step_loss(sums, labels, rows, torch.tensor([0.0, 1.0]), reduction)
    torch.testing.assert_close(alone, shares[1] * sums[1] / labels[1])
