"""Own and shared experts at their limits, where one kind is missing."""

import pytest
import torch

from hf_mtl import InputError
from tests.conftest import build_model, randomise, unmoved_after
from tests.modeling.test_limit_battery import T, build, states_and_embeddings


def test_without_own_experts_cgc_is_mmoe():
    """S2.4: m_t = 0 for all tasks gives MMoE."""
    part = build("cgc", {"task_experts": 0}).mtl.interaction
    mmoe = build("mmoe").mtl.interaction
    mmoe.load_state_dict(part.state_dict())
    inputs = states_and_embeddings()
    assert torch.equal(part(*inputs), mmoe(*inputs))
    assert torch.equal(part.weights(*inputs), mmoe.weights(*inputs))


def test_without_shared_experts_tasks_are_apart():
    """S2.4: m_s = 0 gives separate experts: no task hears of another."""
    part, (states, embeddings) = build("cgc", {"shared_experts": 0}).mtl.interaction, states_and_embeddings()
    before = part(states, embeddings)
    others = states.clone()
    others[:, 1:] = states[:, 1:].flip(-1)
    assert torch.equal(part(others, embeddings)[:, 0], before[:, 0])
    with_shared = build("cgc").mtl.interaction
    assert not torch.allclose(with_shared(others, embeddings)[:, 0], with_shared(states, embeddings)[:, 0])
    assert part.weights(states, embeddings).shape == (3, T, 1)


@pytest.mark.parametrize("settings", [{"shared_experts": 0, "task_experts": 2}, {"task_experts": 0}])
def test_every_tensor_wakes_up_at_the_limits(settings):
    assert not unmoved_after(build_model(task_interaction="cgc", **settings))


def test_some_expert_must_be_there():
    for name, settings in {
        "cgc": {"shared_experts": 0, "task_experts": 0},
        "ple": {"shared_experts": 0},
        "mmoe": {"shared_experts": 0},
        "omoe": {"shared_experts": -1},
    }.items():
        with pytest.raises(InputError, match="expected a whole number >="):
            randomise(build_model(task_interaction=name, **settings))
