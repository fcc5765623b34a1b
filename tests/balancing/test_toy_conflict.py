"""The toy problem of two conflicting losses ends where it is known to end."""

import numpy as np
import pytest
import torch

from benchmarks.toy_conflict import CAGRAD_C, DIRECTIONS, losses_and_gradients, on_front, run
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS


def test_gradients_are_those_of_autograd():
    points = torch.tensor(np.random.default_rng(0).uniform(-9, 9, size=(200, 2)), requires_grad=True)

    def smooth(value):
        return torch.clamp(value, min=0)

    def loss(offset, centre):
        first, second = points.T
        ridge = torch.log(torch.clamp((-0.5 * first + offset + torch.tanh(second)).abs(), min=5e-6)) + 6
        bowl = ((centre - first) ** 2 + 0.1 * (second + 8) ** 2) / 10 - 20
        return smooth(torch.tanh(0.5 * second)) * ridge + smooth(torch.tanh(-0.5 * second)) * bowl

    expected = [torch.autograd.grad(loss(*where).sum(), points)[0] for where in ((-3.5, 7.0), (3.5, -7.0))]
    losses, gradients = losses_and_gradients(points.detach().numpy(), np.ones(200))
    np.testing.assert_allclose(gradients, torch.stack(expected, dim=1).numpy(), atol=1e-9)
    np.testing.assert_allclose(losses[:, 1], loss(3.5, -7.0).detach().numpy())


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


# On the front of five starts, the first loss times 1 and times 0.1.
REACHED = {"sum": (3, 4), "random": (3, 4), "mgda": (5, 5), "cagrad": (5, 5), "imtl_g": (5, 5), "nash_mtl": (5, 5)}


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHED)
def test_how_many_starts_reach_the_front(name, paths):
    assert tuple(on_front(paths[name][-1]).sum(axis=1)) == REACHED[name]


@pytest.mark.slow
def test_where_they_end(paths):
    """The sum moves with the scale of a loss; CAGrad ends where the sum does; Nash-MTL does not see the scale."""
    for scale, optimum in enumerate(([0.0, -8.36], [-5.73, -8.41])):
        np.testing.assert_allclose(paths["sum"][-1, scale, [1, 3, 4]], [optimum] * 3, atol=0.02)
        np.testing.assert_allclose(paths["cagrad"][-1, scale], [optimum] * 5, atol=0.02)
    np.testing.assert_allclose(*paths["nash_mtl"][-1], atol=0.15)
    np.testing.assert_allclose(paths["nash_mtl"][-1, 0, :, 0], [-2.93, 0.0, 2.93, -3.2, 4.8], atol=0.15)
    assert on_front(paths["pcgrad"][-1, 0]).all()
    assert on_front(paths["famo"][-1, 0]).all()
