"""The toy problem of two conflicting losses ends where it is known to end."""

import numpy as np
import pytest
import torch

from benchmarks.toy_conflict import CAGRAD_C, DIRECTIONS, METHODS, losses_and_gradients, on_front, run
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS


def published(points: torch.Tensor) -> list[torch.Tensor]:
    """The two losses (points,) as the papers' programs write them."""
    first, second = points.T
    inner = [0.5 * (-first - 7) - torch.tanh(-second), 0.5 * (-first + 3) + torch.tanh(-second) + 2]
    up, down = (torch.clamp(torch.tanh(sign * 0.5 * second), min=0) for sign in (1, -1))
    return [
        up * (torch.log(torch.clamp(reach.abs(), min=5e-6)) + 6)
        + down * (((-first + centre) ** 2 + 0.1 * (-second - 8) ** 2) / 10 - 20)
        for reach, centre in zip(inner, (7, -7))
    ]


def test_losses_and_gradients_are_the_published_ones():
    points = torch.tensor(np.random.default_rng(0).uniform(-9, 9, size=(200, 2)), requires_grad=True)
    expected = published(points)
    slopes = [torch.autograd.grad(loss.sum(), points, retain_graph=True)[0] for loss in expected]
    losses, gradients = losses_and_gradients(points.detach().numpy(), np.ones(200))
    np.testing.assert_allclose(losses, torch.stack(expected, dim=1).detach().numpy())
    np.testing.assert_allclose(gradients, torch.stack(slopes, dim=1).numpy(), atol=1e-9)


def test_the_problem_is_its_own_mirror_image():
    points = np.random.default_rng(1).uniform(-9, 9, size=(50, 2))
    losses, _ = losses_and_gradients(points, np.ones(50))
    mirrored, _ = losses_and_gradients(points * [-1, 1], np.ones(50))
    np.testing.assert_allclose(losses, mirrored[:, ::-1])


@pytest.mark.parametrize("name", DIRECTIONS)
def test_directions_are_the_librarys_on_the_way(name):
    pytest.importorskip("torchjd", reason="the optional package `torchjd` is not installed")
    options = {"c": CAGRAD_C} if name == "cagrad" else {}
    balancer = GRADIENT_BALANCERS[name](**options)
    path = run(4000, 400, (name,))[name][:, 0].reshape(-1, 2)
    _, gradients = losses_and_gradients(path, np.ones(len(path)))
    compared = 0
    for own, pair in zip(DIRECTIONS[name](gradients), gradients):
        rows = torch.from_numpy(pair)
        lengths = rows.norm(dim=1)
        # The solvers behind the library's methods give up where one gradient is thousands of times the other.
        if lengths.min() > 1e-3 and lengths.max() < 30 * lengths.min():
            found = (balancer(rows @ rows.T) @ rows).numpy()
            assert np.linalg.norm(found - own) <= 0.03 * np.linalg.norm(own) + 1e-6
            compared += 1
    assert compared >= 10


@pytest.fixture(scope="module")
def paths():
    return run(100_000, 50_000)


# On the front of five starts after 50,000 and 100,000 steps, the first loss times 1 and times 0.1.
REACHED = {
    "sum": [(3, 3), (4, 4)],
    "random": [(3, 3), (4, 4)],
    "pcgrad": [(4, 5), (4, 5)],
    "mgda": [(5, 5), (5, 5)],
    "cagrad": [(3, 5), (4, 5)],
    "imtl_g": [(5, 5), (5, 5)],
    "nash_mtl": [(5, 5), (5, 5)],
    "famo": [(5, 5), (5, 5)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_how_many_starts_reach_the_front(name, paths):
    found = on_front(paths[name][1:]).sum(axis=2)  # (50,000 and 100,000 steps, scales)
    assert found.T.tolist() == [list(counts) for counts in REACHED[name]]


@pytest.mark.slow
def test_where_they_end(paths):
    """The sum moves with the scale of a loss, or stays on the ridge; CAGrad ends where the sum does; MGDA moves with
    the scale too, IMTL-G hardly and Nash-MTL not at all; FAMO ends near the middle.
    """
    ends = {name: path[-1] for name, path in paths.items()}  # (scales, starts, 2)
    for scale, optimum in enumerate(([0.0, -8.36], [-5.73, -8.41])):
        np.testing.assert_allclose(ends["sum"][scale, [1, 3, 4]], [optimum] * 3, atol=0.02)
        np.testing.assert_allclose(ends["cagrad"][scale], [optimum] * 5, atol=0.02)
    np.testing.assert_allclose(ends["sum"][1, 2], [5.0, 3.7], atol=0.05)
    np.testing.assert_allclose(ends["mgda"][:, 2, 0], [3.33, 6.98], atol=0.02)
    np.testing.assert_allclose(ends["imtl_g"][:, 0, 0], [-2.38, -2.27], atol=0.15)
    np.testing.assert_allclose(*ends["nash_mtl"], atol=0.15)
    np.testing.assert_allclose(ends["nash_mtl"][0, :, 0], [-2.93, 0.0, 2.93, -3.2, 4.8], atol=0.15)
    assert abs(ends["famo"][..., 0]).max() < 1
