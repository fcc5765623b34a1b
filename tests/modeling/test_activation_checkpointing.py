"""Activation checkpointing computes a layer again and changes no gradient, whatever the parts."""

import copy

import pytest
import torch

from hf_mtl import InputError
from tests.conftest import random_batch
from tests.modeling.test_module_hooks import SETTINGS, build


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_gradients_are_the_same(name, reentrant):
    plain = build(name).train()
    model = copy.deepcopy(plain)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    plain(**random_batch()).loss.backward()
    if reentrant and SETTINGS[name].get("conditioning") == "modulation":
        with pytest.raises(InputError, match="use_reentrant"):
            model(**random_batch())
        return
    model(**random_batch()).loss.backward()
    expected = dict(plain.named_parameters())
    for key, tensor in model.named_parameters():
        if expected[key].grad is None:
            assert tensor.grad is None, key
        else:
            torch.testing.assert_close(tensor.grad, expected[key].grad, atol=1e-6, rtol=1e-4, msg=key)
