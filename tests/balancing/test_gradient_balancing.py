"""Gradient balancing: closed forms for two tasks, what must hold for any number, state, missing packages."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from hf_mtl import InputError
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS, GivenBalancer, TorchjdBalancer

pytest.importorskip("torchjd", reason="the optional package `torchjd` is not installed")

GENERATOR = np.random.default_rng(0)


def jacobian(tasks=2, numbers=5, seed=0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(tasks, numbers)))


def conflicting(seed) -> torch.Tensor:
    """Two gradients of different lengths with a negative product."""
    found = jacobian(seed=seed)
    found[1] *= 3
    return found if found[0] @ found[1] < 0 else found * torch.tensor([[1.0], [-1.0]])


def combined(name, rows, **options) -> torch.Tensor:
    return GRADIENT_BALANCERS[name](**options)(rows @ rows.T) @ rows


def closed_form(name, rows) -> torch.Tensor:
    """The direction for two tasks, from a = |g1|^2, b = g1 g2, c = |g2|^2."""
    (a, b), (_, c) = (rows @ rows.T).tolist()
    first, second = rows
    if name == "mgda":
        alpha = min(max((c - b) / (a + c - 2 * b), 0), 1)
        return alpha * first + (1 - alpha) * second
    if name in ("pcgrad", "upgrad"):
        surgery = (1 - b / a) * first + (1 - b / c) * second if b < 0 else first + second
        return surgery if name == "pcgrad" else surgery / 2
    if name == "nash_mtl":
        weight = (a + b * (a / c) ** 0.5) ** -0.5
        found = weight * first + weight * (a / c) ** 0.5 * second
        return found / max(found.norm(), 1)
    if name == "imtl_g":
        found = first / a**0.5 + second / c**0.5
        return found / (a**-0.5 + c**-0.5)
    if name == "fairgrad":
        # G w = w^(-1/2), by halving: w1 (a w1 + b w2)^2 = 1 and w2 (b w1 + c w2)^2 = 1.
        from scipy.optimize import fsolve

        start = np.array([a ** (-2 / 3), c ** (-2 / 3)])
        gram = np.array([[a, b], [b, c]])
        return torch.from_numpy(fsolve(lambda w: gram @ w - w**-0.5, start, xtol=1e-12)) @ rows
    if name == "aligned_mtl":
        left, values, right = torch.linalg.svd(rows, full_matrices=False)
        return (values.square().mean().sqrt() * left @ right).mean(dim=0)
    if name == "cagrad":
        mean = rows.mean(dim=0)
        radius = 0.4 * mean.norm()
        alphas = torch.linspace(0, 1, 200_001, dtype=torch.float64).unsqueeze(1)
        mixed = alphas * first + (1 - alphas) * second
        best = mixed[(mixed @ mean + radius * mixed.norm(dim=1)).argmin()]
        return mean + radius * best / best.norm()
    return first * 0


TOLERANCES = {"cagrad": 1e-3, "mgda": 1e-6, "upgrad": 5e-3, "nash_mtl": 1e-2, "fairgrad": 1e-5}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", sorted(GRADIENT_BALANCERS.keys() - {"gradvac"}))
def test_two_tasks_have_a_closed_form(name, seed):
    rows = conflicting(seed)
    expected = closed_form(name, rows)
    tolerance = TOLERANCES.get(name, 1e-8) * float(expected.norm())
    torch.testing.assert_close(combined(name, rows), expected, atol=tolerance, rtol=0)


def test_gradvac_begins_as_pcgrad():
    """Its running cosines begin at 0."""
    rows = conflicting(1)
    torch.testing.assert_close(combined("gradvac", rows), combined("pcgrad", rows), rtol=1e-6, atol=0)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_without_conflict_nothing_is_projected(tasks):
    rows = jacobian(tasks).abs()
    torch.testing.assert_close(combined("pcgrad", rows), rows.sum(dim=0))
    torch.testing.assert_close(combined("upgrad", rows), rows.mean(dim=0), rtol=1e-3, atol=1e-3)


def spread(values: torch.Tensor) -> float:
    """How far positive numbers are from being one."""
    return float(values.max() / values.min() - 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tasks", [3, 6])
def test_the_equations_that_define_a_method_hold_for_any_number_of_tasks(tasks, seed):
    rows = jacobian(tasks, 40, seed) * torch.linspace(0.5, 2, tasks).unsqueeze(1)
    gram = rows @ rows.T
    # IMTL-G (equation 1): equal projections on all directions.
    assert spread(rows @ combined("imtl_g", rows) / rows.norm(dim=1)) < 1e-6
    # Nash-MTL (equation 1), FairGrad (equation 2, alpha 2): G w = 1 / w and its square root, up to a factor.
    weights = GRADIENT_BALANCERS["nash_mtl"]()(gram)
    assert spread(gram @ weights * weights) < 0.1
    weights = GRADIENT_BALANCERS["fairgrad"]()(gram)
    assert spread(gram @ weights * weights.sqrt()) < 1e-4
    # MGDA: the shortest mixture lies as far along every gradient that it uses.
    found = combined("mgda", rows, max_iters=100_000, epsilon=1e-12)
    assert (rows @ found).min() >= found @ found * (1 - 1e-3)
    # Aligned-MTL (section 4): the mean of orthogonal gradients of one length is as far along each of them.
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    assert spread(left @ right @ combined("aligned_mtl", rows)) < 1e-6
    # UPGrad: each projection is the nearest point of the cone that opposes no gradient, so no sum of them is outside.
    found = combined("upgrad", rows)
    assert (rows @ found).min() >= -1e-2 * found.norm()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "options"), [("mgda", {"max_iters": 10_000, "epsilon": 1e-9}), ("upgrad", {}), ("nash_mtl", {}),
                          ("cagrad", {"c": 1.0})]
)  # fmt: skip
def test_no_task_is_opposed(name, options, seed):
    rows = jacobian(4, 30, seed)
    found = combined(name, rows, **options)
    assert (rows @ found).min() >= -1e-2 * found.norm() * rows.norm(dim=1).max()


@pytest.mark.parametrize("name", GRADIENT_BALANCERS)
def test_one_task_is_left_alone(name):
    rows = jacobian(1)
    assert torch.equal(combined(name, rows), rows[0])


@pytest.mark.parametrize("name", sorted(GRADIENT_BALANCERS.keys() - {"pcgrad", "gradvac"}))
def test_the_order_of_tasks_does_not_matter(name):
    rows = jacobian(4, 20, seed=5)
    order = torch.tensor([2, 0, 3, 1])
    scale = float(combined(name, rows).norm())
    torch.testing.assert_close(combined(name, rows[order]), combined(name, rows), atol=1e-3 * scale, rtol=0)


def test_cagrad_without_a_radius_is_the_mean():
    rows = jacobian(3)
    torch.testing.assert_close(combined("cagrad", rows, c=0.0), rows.mean(dim=0))


@pytest.mark.parametrize("name", GRADIENT_BALANCERS)
def test_scale_of_a_task(name):
    """Ten times a task's loss leaves the direction of the impartial methods."""
    rows = conflicting(2)
    scaled = rows * torch.tensor([[10.0], [1.0]])
    one, other = combined(name, rows), combined(name, scaled)
    same = torch.allclose(one / one.norm(), other / other.norm(), atol=2e-2)
    assert same == (name in ("imtl_g", "nash_mtl")), (one / one.norm(), other / other.norm())


@pytest.mark.parametrize("name", GRADIENT_BALANCERS)
def test_every_method_leaves_uniform_weights(name):
    weights = GRADIENT_BALANCERS[name]()(conflicting(3) @ conflicting(3).T)
    assert abs(weights[0] - weights[1]) > 0.01 * weights.abs().max()


@pytest.mark.parametrize("name", GRADIENT_BALANCERS)
def test_the_state_goes_through_json_bit_for_bit(name):
    first, second = GRADIENT_BALANCERS[name](), GRADIENT_BALANCERS[name]()
    grams = [rows @ rows.T for rows in (jacobian(4, 20, seed) for seed in range(8))]
    for gram in grams[:4]:
        first(gram)
    second.load_state(json.loads(json.dumps(first.state())))
    for gram in grams[4:]:
        assert torch.equal(first(gram), second(gram))


def test_drawing_leaves_the_runs_own_draws_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    GRADIENT_BALANCERS["pcgrad"]()(torch.eye(3))
    assert torch.equal(torch.rand(3), expected)


def test_any_weighting_of_torchjd():
    from torchjd.aggregation import DualProjWeighting

    rows = conflicting(1)
    expected = DualProjWeighting()(rows @ rows.T)
    assert torch.equal(GivenBalancer(DualProjWeighting())(rows @ rows.T), expected)


@pytest.mark.parametrize("name", ["GradVacWeighting", "PCDWeighting", "CRMOGMWeighting"])
def test_the_state_of_a_given_weighting_goes_through_json_bit_for_bit(name):
    from torchjd import aggregation

    def build():
        wrapped = [aggregation.GradVacWeighting()] if name == "CRMOGMWeighting" else []
        return GivenBalancer(getattr(aggregation, name)(*wrapped))

    first, second = build(), build()
    grams = [rows @ rows.T for rows in (jacobian(4, 20, seed) for seed in range(8))]
    for gram in grams[:4]:
        first(gram)
    second.load_state(json.loads(json.dumps(first.state())))
    fresh = build()
    for gram in grams[4:]:
        expected = first(gram)
        assert torch.equal(expected, second(gram))
        assert not torch.equal(expected, fresh(gram))


@pytest.mark.parametrize("name", ["MoDoWeighting", "SDMGradWeighting", "ExcessMTLWeighting"])
def test_a_weighting_that_reads_gradients_is_refused(name):
    from torchjd import aggregation

    own = getattr(aggregation, name)()
    for given in (own, aggregation.CRMOGMWeighting(own)):
        with pytest.raises(InputError, match=f"{name} of torchjd reads the gradients themselves"):
            GivenBalancer(given)
    with pytest.raises(InputError, match="returns a gradient, not weights; give its weighting, UPGradWeighting"):
        GivenBalancer(aggregation.UPGrad())
    assert GivenBalancer(aggregation.MeanWeighting())(torch.eye(4)).tolist() == [0.25] * 4


@pytest.mark.parametrize("package", ["torchjd", "quadprog"])
def test_a_missing_package_is_named_and_nothing_falls_back(package, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(InputError, match=rf"'{package}'.*pip install 'hf_mtl\[balance\]'"):
        GRADIENT_BALANCERS["upgrad"]()


def test_an_unknown_setting_is_named():
    with pytest.raises(InputError, match="radius"):
        GRADIENT_BALANCERS["cagrad"](radius=2)


def test_every_method_says_what_it_needs():
    for method in GRADIENT_BALANCERS.values():
        assert issubclass(method, TorchjdBalancer)
        assert method.__doc__
