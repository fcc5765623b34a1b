"""One encoder of any model type: wrapped, run forward and backward, saved, reloaded, asked."""

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from hf_mtl import InputError, MultiTaskAttentionModel
from hf_mtl.modeling.encoder_probe import probe_inputs
from hf_mtl.modeling.encoder_towers import encoder_of, towers_of
from hf_mtl.modeling.trial_pass import UNREADABLE
from tests.encoders.tiny_configs import tiny_config

ROWS = 2
TASKS = [
    {"name": "kind", "problem_type": "single_label_classification", "labels": ["a", "b", "c"]},
    {"name": "size", "problem_type": "regression"},
]
LABELS = {"kind": torch.tensor([0, 2]), "size": torch.tensor([0.5, -1.0])}


def wrap(model_type: str) -> dict[str, Any]:
    """Return how a type is wrapped: its class, and by tower ("" for the model itself, or what it has beside a decoder)
    what it reads, the width of its states and the pooling that suits it.

    Raises:
        InputError: Nothing of it can be wrapped.
    """
    model = AutoModel.from_config(tiny_config(model_type)).eval()
    towers: dict[str, Any] = {}
    reasons = []
    for name in (None, *towers_of(model)):
        try:
            towers[name or ""] = wrap_tower(model, name)
        # Any class of Transformers raises what it likes of inputs that it cannot read.
        except Exception as error:
            reasons.append(f"{name or 'the model'}: {error}")
    if not towers:
        raise InputError(" | ".join(reasons))
    return {"model": type(model).__name__, "towers": towers}


def wrap_tower(model: PreTrainedModel, tower: str | None) -> dict[str, Any]:
    """Wrap one tower, and return what it reads, the width of its states and its pooling.

    Raises:
        AssertionError: The wrapped model does not do what every one does.
    """
    torch.manual_seed(0)
    wrapped = MultiTaskAttentionModel.from_encoder(model, tasks=TASKS, tower=tower)
    inputs = probe_inputs(encoder_of(model, tower), ROWS)
    wrapped.train()
    loss = wrapped(**inputs, labels=LABELS).loss
    assert loss.isfinite(), "the loss is not finite"
    loss.backward()
    gradients = [tensor.grad for tensor in wrapped.encoder.parameters() if tensor.grad is not None]
    assert any(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients), "no gradient"
    wrapped.eval()
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        again = MultiTaskAttentionModel.from_pretrained(folder).eval()
    saved, loaded = wrapped.state_dict(), again.state_dict()
    assert saved.keys() == loaded.keys(), "other tensors"
    different = [name for name in saved if not torch.equal(saved[name], loaded[name])]
    assert not different, f"{different[0]} is another tensor when it is reloaded"
    outputs = []
    for one in (wrapped, again):
        # Some attend to places that they draw.
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(one(**inputs).logits)
    first, second = outputs
    far = max(float((first[task] - second[task]).abs().max()) for task in first)
    assert far <= 1e-6, f"logits differ by {far:.1e} when it is reloaded"
    check_other_size(wrapped, inputs)
    answers = again.decode(second)
    assert len(answers) == ROWS and {"kind", "size"} == set(answers[0]), "no answers"
    return {"reads": next(iter(inputs)), "width": wrapped.config.hidden_size, "pooling": wrapped.config.pooling}


def check_other_size(model: MultiTaskAttentionModel, inputs: Mapping[str, torch.Tensor]) -> None:
    """Raise `AssertionError` where the encoder reads inputs of another size, and the model around it does not."""
    larger = probe_inputs(model.encoder, ROWS, scale=2)
    if all(larger[name].shape == value.shape for name, value in inputs.items()):
        return
    try:
        with torch.no_grad():
            model.encoder(**larger)
    # Many read one size alone.
    except UNREADABLE:
        return
    with torch.no_grad():
        logits = model(**larger).logits
    assert all(len(values) == ROWS and values.isfinite().all() for values in logits.values()), (
        "another size is not read"
    )
