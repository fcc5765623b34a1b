"""All that a step computes with lies on one device, shown on "meta": to it the processor's tensors are as foreign as
to a GPU.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mtl.modeling.encoder_reader import EncodedTokens
from hf_mtl.modeling.task_aggregation import TASK_AGGREGATIONS
from hf_mtl.modeling.task_attention import TASK_POOLINGS
from hf_mtl.systems import SYSTEMS
from tests.conftest import build_model, encoder_inputs, random_batch
from tests.modeling.test_conditioning import asked_batch

ATEN = torch.ops.aten
COPIES = (ATEN.copy_, ATEN._to_copy)
# A device takes indices that lie on the processor, not the other way round.
INDEXED = (ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_)
CASES = [
    *((name, system.settings) for name, system in SYSTEMS.items()),
    # The pooler has an encoder to come from.
    *((f"pooling={name}", {"pooling": name}) for name in TASK_POOLINGS if name != "pooler"),
    *((f"head={name}", {"head": name}) for name in ("mlp", "convolution")),
]


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, as a GPU does and "meta" does not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [own for own in tree_leaves((args, kwargs)) if isinstance(own, torch.Tensor)]
        devices = {own.device.type for own in tensors if own.ndim}
        copies = func.overloadpacket in COPIES
        indexed = func.overloadpacket in INDEXED and args[0].device.type == "meta"
        assert len(devices) < 2 or copies or indexed, f"{func} of {sorted(devices)}"
        return func(*args, **(kwargs or {}))


def moved(value):
    """A batch on the device."""
    if isinstance(value, dict):
        return {key: moved(item) for key, item in value.items()}
    return value.to("meta")


def encoded(encoder, inputs, told):
    """Stands in for reading the encoder, whose own code asks what its tensors hold."""
    states = torch.randn(*inputs.mask.shape, 32, device="meta", requires_grad=True)
    tasks = None if inputs.tasks is None else inputs.tasks.unsqueeze(1)
    return EncodedTokens(states, inputs.mask, None, inputs.ids, (states, states), tasks)


@pytest.mark.parametrize(("name", "settings"), CASES, ids=[name for name, _ in CASES])
def test_a_step_stays_on_its_device(name, settings):
    model = build_model(**settings).train().to("meta")
    if settings.get("task_conditioning") != "task_tokens":
        model.read_encoder.forward = encoded
    with OneDevice():
        model(**moved(asked_batch(random_batch()))).loss.backward()
        model(**moved(random_batch())).loss.backward()
        model(**moved(encoder_inputs()), output_attentions=True)


@pytest.mark.parametrize("name", TASK_AGGREGATIONS)
def test_merged_answers_stay_on_their_device(name):
    tasks = [
        {"name": task, "problem_type": "single_label_classification", "labels": ["a", "b", "c"]}
        for task in ("first", "second", "third")
    ]
    model = build_model(tasks, aggregation=name).to("meta")
    model.read_encoder.forward = encoded
    with OneDevice():
        model(**moved(encoder_inputs()))
