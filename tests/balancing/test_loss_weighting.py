"""Weights of the loss: against torchjd, in their limits, with absent tasks, through a checkpoint."""

import json

import pytest
import torch

from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS
from hf_mtl.balancing.running_means import RunningMeans
from hf_mtl.balancing.weighting_base import LossWeighting, WeightingOptions

ALL = torch.tensor([True, True, True])
LOSSES = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
EXACT = {"smoothing": 1.0, "chance_losses": (0.7, 1.1, 1.0), "epoch_steps": 4}
# Those whose weights settle at a constant over the loss.
INVERSE = ("uncertainty", "imtl_l", "gls", "si", "famo")


def build(name, tasks=3, **options) -> LossWeighting:
    return LOSS_WEIGHTINGS[name]([1.0] * tasks, WeightingOptions(**{**EXACT, **options}))


def take_step(weighting, losses, present=ALL, after=None) -> torch.Tensor:
    """Tell a weighting of a step as the trainer does; return the weights that the step had."""
    before = weighting.needs in ("step_losses", "losses_after")
    if before:
        weighting.observe(losses, present)
    found = weighting.weights()
    if not before:
        weighting.observe(losses, present)
    if weighting.needs == "losses_after":
        weighting.observe_after(losses, 0.9 * losses if after is None else after, present)
    if weighting.needs == "gradient_norms":
        weighting.observe_gradients(losses.sqrt(), losses, present)
    return found


def drawn_losses(steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [LOSSES * (0.5 + torch.rand(3, generator=generator, dtype=torch.float64)) for _ in range(steps)]


def gradient(scalar, losses) -> torch.Tensor:
    """What a scalarisation of losses weighs each by."""
    values = losses.clone().requires_grad_()
    scalar(values).backward()
    return values.grad


@pytest.fixture
def scalarization():
    return pytest.importorskip("torchjd.scalarization", reason="the oracle `torchjd` is not installed")


@pytest.mark.parametrize(
    ("name", "oracle", "parameter", "factor"),
    [("uncertainty", "UW", "log_var", 2), ("imtl_l", "IMTLL", "log_scale", 1)],
)
def test_learned_weights_equal_torchjd(name, oracle, parameter, factor, scalarization):
    """In its convention half of ours for `uncertainty`, which Adam does not see."""
    own, other = build(name, learning_rate=0.1), getattr(scalarization, oracle)(3).double()
    optimizer = torch.optim.Adam([getattr(other, parameter)], lr=0.1, eps=1e-12)
    own.log_weights.optimizer.param_groups[0]["eps"] = 1e-12
    for losses in drawn_losses(30):
        expected = factor * gradient(other, losses)
        torch.testing.assert_close(take_step(own, losses), expected, rtol=1e-6, atol=0)
        optimizer.zero_grad()
        other(losses).backward()
        optimizer.step()


def test_gls_equals_torchjd(scalarization):
    own = build("gls")
    for losses in drawn_losses(3):
        expected = 3 * gradient(scalarization.GeometricMean(), losses)
        torch.testing.assert_close(take_step(own, losses), expected, rtol=1e-6, atol=0)


def test_dwa_equals_torchjd(scalarization):
    """Of torchjd by the mean over its weights' sum T; epochs of 4 steps."""
    own, other = build("dwa"), scalarization.DWA(2.0)
    for step, losses in enumerate(drawn_losses(16), start=1):
        weights = gradient(other, losses)
        torch.testing.assert_close(take_step(own, losses), 3 * weights / weights.sum(), rtol=1e-6, atol=0)
        if step % 4 == 0:
            other.step()
    assert not torch.allclose(own.weights(), torch.ones(3, dtype=torch.float64))


def test_famo_equals_torchjd(scalarization):
    own, other = build("famo"), scalarization.FAMO(3).double()
    for losses, after in zip(drawn_losses(20), drawn_losses(20, seed=1)):
        expected = 3 * gradient(other, losses)
        other(losses)
        torch.testing.assert_close(take_step(own, losses, after=after), expected, rtol=1e-6, atol=0)
        other.update(after)
    assert (own.logits.values.abs() > 0.01).all()


def test_stch_equals_torchjd_on_its_logarithms(scalarization):
    own = build("stch")
    history = drawn_losses(10)
    for losses in history[:3]:
        assert torch.equal(take_step(own, losses), torch.ones(3, dtype=torch.float64))
    take_step(own, history[3])
    assert torch.equal(own.nadir, history[3])
    other = scalarization.STCH(0.5, weights=torch.ones(3, dtype=torch.float64))
    for losses in history[4:]:
        expected = 3 * gradient(lambda values: other(torch.log(values / history[3])), losses)
        torch.testing.assert_close(take_step(own, losses), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
def test_learned_weights_settle_at_one_over_the_loss(name):
    own = build(name)
    for _ in range(3000):
        take_step(own, LOSSES)
    torch.testing.assert_close(own.weights(), 1 / LOSSES, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", INVERSE)
def test_methods_that_share_a_fixed_point(name):
    """All weigh a task by a constant over its loss where losses stand still (FAMO as long as all fall alike)."""
    own = build(name)
    for _ in range(2000):
        take_step(own, LOSSES)
    weighted = own.weights() * LOSSES
    torch.testing.assert_close(weighted / weighted.mean(), torch.ones_like(weighted), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", LOSS_WEIGHTINGS)
def test_scale_of_a_loss(name):
    """Ten times a task's loss changes nothing for those that say so, and something for the others."""
    found = []
    for scale in (1.0, 10.0):
        own = build(name)
        factors = torch.tensor([scale, 1.0, 1.0], dtype=torch.float64)
        for losses in drawn_losses(2000 if name in ("uncertainty", "imtl_l") else 12):
            take_step(own, losses * factors, after=losses * factors * torch.tensor([0.9, 0.95, 0.99]))
        weighted = own.weights() * LOSSES * factors
        found.append(weighted / weighted.sum())
    invariant = torch.allclose(*found, rtol=0.1 if name in ("uncertainty", "imtl_l") else 1e-6)
    assert invariant == (name in (*INVERSE, "stch"))


def test_limits():
    losses = LOSSES
    assert torch.allclose(take_step(build("uw_so", temperature=1e9), losses), torch.ones(3, dtype=torch.float64))
    assert take_step(build("uw_so", temperature=1e-9), losses).tolist() == [3, 0, 0]
    for temperature, expected in ((1e-6, [0, 0, 3 / losses[2]]), (1e9, 1 / losses)):
        own = build("stch", temperature=temperature)
        for _ in range(4):
            take_step(own, torch.ones(3, dtype=torch.float64))
        torch.testing.assert_close(take_step(own, losses), torch.as_tensor(expected, dtype=torch.float64))
    own = build("dwa")
    for step in range(12):
        take_step(own, losses * 0.9 ** (step // 4))
    assert torch.allclose(own.weights(), torch.ones(3, dtype=torch.float64))
    own = build("random")
    drawn = torch.stack([take_step(own, losses) for _ in range(4000)])
    assert torch.allclose(drawn.sum(dim=1), torch.full((4000,), 3.0, dtype=torch.float64))
    assert torch.allclose(drawn.mean(dim=0), torch.ones(3, dtype=torch.float64), atol=0.06)
    assert torch.allclose(build("scaled").weights(), torch.tensor(EXACT["chance_losses"]).double().reciprocal() * 3
                          / torch.tensor(EXACT["chance_losses"]).double().reciprocal().sum())  # fmt: skip


def test_gradnorm_equalises_norms_without_its_restoring_force():
    """And favours, with it, the task that has learned least."""
    norms = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    own = build("gradnorm", restoring_force=0.0)
    for _ in range(3000):
        own.observe_gradients(norms, LOSSES, ALL)
    weighted = own.weights() * norms
    torch.testing.assert_close(weighted / weighted.mean(), torch.ones_like(weighted), rtol=0.05, atol=0)
    assert own.weights().sum().item() == pytest.approx(3)
    own = build("gradnorm")
    own.observe_gradients(torch.ones(3), LOSSES, ALL)
    for _ in range(300):
        own.observe_gradients(torch.ones(3), LOSSES * torch.tensor([0.1, 0.1, 1.0]), ALL)
    assert own.weights()[2] > 1.5 * own.weights()[0]


@pytest.mark.parametrize("name", LOSS_WEIGHTINGS)
def test_tasks_that_come_and_go(name):
    """Weights stay finite; what is learned of a task stands still while it is absent."""
    own = build(name, smoothing=0.05)
    generator = torch.Generator().manual_seed(3)
    for losses in drawn_losses(60):
        present = torch.rand(3, generator=generator) < 0.5
        weights = take_step(own, torch.where(present, losses, 0.0), present)
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()
    if name in ("uncertainty", "imtl_l"):
        before = own.weights()
        for _ in range(5):
            take_step(own, torch.tensor([0.2, 0.0, 5.0]), torch.tensor([True, False, True]))
        assert own.weights()[1] == before[1]
        assert own.weights()[0] != before[0]


@pytest.mark.parametrize("name", LOSS_WEIGHTINGS)
def test_own_weights_multiply(name):
    own = build(name)
    other = LOSS_WEIGHTINGS[name]([1.0, 3.0, 0.0], WeightingOptions(**EXACT))
    for losses in drawn_losses(9):
        expected = take_step(own, losses) * torch.tensor([1.0, 3.0, 0.0])
        torch.testing.assert_close(take_step(other, losses), expected)


@pytest.mark.parametrize("name", sorted(LOSS_WEIGHTINGS.keys() - {"fixed"}))
def test_every_weighting_leaves_uniform_weights(name):
    own = LOSS_WEIGHTINGS[name]([1.0, 1.0], WeightingOptions(chance_losses=(0.7, 1.6), epoch_steps=4))
    for step in range(20):
        losses = torch.tensor([0.5 * 0.9**step, 2.0 * 0.99**step], dtype=torch.float64)
        weights = take_step(own, losses, torch.tensor([True, True]), after=losses * torch.tensor([0.9, 0.99]))
    assert abs(weights[0] - weights[1]) > 0.01 * weights.mean()


@pytest.mark.parametrize("name", LOSS_WEIGHTINGS)
def test_the_state_goes_through_json_bit_for_bit(name):
    first, second = build(name, smoothing=0.05), build(name, smoothing=0.05)
    history = drawn_losses(20)
    for losses in history[:9]:
        take_step(first, losses)
    second.load_state(json.loads(json.dumps(first.state())))
    for losses in history[9:]:
        assert torch.equal(take_step(first, losses), take_step(second, losses))
    assert json.dumps(first.state()) == json.dumps(second.state())


def test_running_means_are_unbiased_from_the_first_value():
    means = RunningMeans(2, 0.05)
    assert means.values().tolist() == [1, 1]
    means.update(torch.tensor([4.0, 7.0]), torch.tensor([True, False]))
    assert means.values().tolist() == pytest.approx([4, 4])
    for _ in range(500):
        means.update(torch.tensor([2.0, 3.0]), torch.tensor([True, True]))
    assert means.values().tolist() == pytest.approx([2, 3], rel=1e-6)
