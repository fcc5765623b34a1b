"""Weights of the loss: where they settle, what an absent task does to them, what a checkpoint keeps."""

import json

import pytest
import torch

from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS, UncertaintyLossWeighting

ALL = torch.tensor([True, True, True])
LOSSES = torch.tensor([0.2, 1.0, 5.0])


def test_uncertainty_learns_what_autograd_would():
    """Kendall et al. 2018, equation 7, with the logarithms of the variances as ordinary parameters of the loss."""
    own = UncertaintyLossWeighting([1.0, 2.0, 1.0], learning_rate=0.1)
    variances = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([variances], lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        losses = LOSSES * (0.5 + torch.rand(3, generator=generator))
        torch.testing.assert_close(own.weights(), torch.tensor([1.0, 2.0, 1.0]) * torch.exp(-variances.detach()))
        own.observe(losses, ALL)
        optimizer.zero_grad()
        (torch.exp(-variances) * losses + variances).sum().backward()
        optimizer.step()
    assert not torch.equal(variances.detach(), torch.zeros(3))


def test_uncertainty_settles_at_one_over_the_loss():
    own = UncertaintyLossWeighting([1.0] * 3)
    for _ in range(3000):
        own.observe(LOSSES, ALL)
    torch.testing.assert_close(own.weights(), 1 / LOSSES, rtol=1e-3, atol=0)


def test_an_absent_task_keeps_its_weight():
    own = UncertaintyLossWeighting([1.0] * 3)
    own.observe(LOSSES, ALL)
    before = own.weights()
    for _ in range(5):
        own.observe(torch.tensor([0.2, 0.0, 5.0]), torch.tensor([True, False, True]))
    assert own.weights()[1] == before[1]
    assert own.weights()[0] != before[0] and own.weights()[2] != before[2]


@pytest.mark.parametrize("name", LOSS_WEIGHTINGS)
def test_the_state_goes_through_json_bit_for_bit(name):
    first, second = (LOSS_WEIGHTINGS[name]([1.0, 2.0, 1.0]) for _ in range(2))
    for _ in range(7):
        first.observe(LOSSES, ALL)
    second.load_state(json.loads(json.dumps(first.state())))
    for _ in range(5):
        assert torch.equal(first.weights(), second.weights())
        first.observe(LOSSES * 1.3, ALL)
        second.observe(LOSSES * 1.3, ALL)
    assert torch.equal(first.weights(), second.weights())
