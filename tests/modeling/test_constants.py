"""Numbers that follow from a configuration move with the model, keep their precision and are not saved."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file
from transformers import masking_utils

from hf_mtl import MultiTaskAttentionModel, TaskConfig
from tests.conftest import TASKS, build_model, encoder_inputs, random_batch, randomise
from tests.modeling.test_module_hooks import SETTINGS, build

MEAN, SCALE = 3.14159265, 0.123456789
WEIGHED = [
    {**TASKS[0], "class_weights": [0.123456789, 1.0, 2.0]},
    {**TASKS[3], "label_mean": MEAN, "label_scale": SCALE},
]


def constants(model):
    return {
        name: tensor
        for name, tensor in model.named_buffers()
        if name.startswith(("mtl.", "encoder")) and name.rpartition(".")[2] not in ("position_ids", "token_type_ids")
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_on_another_device_leaves_nothing_behind(name, monkeypatch):
    """On "meta" any tensor left on the CPU would meet one that is not."""
    if name in ("system individual", "system private_encoders_adversarial"):
        pytest.skip("It reads sizes that follow from values, which meta tensors do not have.")
    model = build(name).to("meta")
    # Transformers asks whether the mask hides anything.
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *given: False)
    inputs = {key: tensor.to("meta") for key, tensor in encoder_inputs().items()}
    assert {logits.device.type for logits in model(**inputs).logits.values()} == {"meta"}


@pytest.mark.parametrize("change", ["half", "bfloat16", "double", "meta and back"])
def test_precision_is_kept(change):
    model = build_model(WEIGHED)
    before = {name: tensor.clone() for name, tensor in constants(model).items()}
    assert before["mtl.heads.regression.standards"].flatten().tolist() == pytest.approx([MEAN, SCALE], rel=1e-7)
    if change == "meta and back":
        model.to("meta").to_empty(device="cpu")
    else:
        getattr(model, change)()
    after = constants(model)
    assert before.keys() == after.keys()
    assert all(
        torch.equal(tensor, after[name]) and tensor.dtype == after[name].dtype for name, tensor in before.items()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_that_is_built_in_another_precision_has_them_as_they_are(dtype):
    expected = constants(build_model(WEIGHED))
    model = MultiTaskAttentionModel._from_config(build_model(WEIGHED).config, dtype=dtype)
    assert model.dtype == dtype
    found = constants(model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_gives_them_and_saving_leaves_them_out(dtype, tmp_path):
    model = randomise(build_model([*TASKS, *({**row, "name": f"{row['name']}_2"} for row in WEIGHED)]))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == {name for name, _ in model.named_parameters()}
    again = MultiTaskAttentionModel.from_pretrained(tmp_path, dtype=dtype)
    assert again.encoder.dtype == dtype
    expected, found = constants(model), constants(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_copies_have_their_own(tmp_path):
    model = randomise(build_model(WEIGHED))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        again.take_task(TaskConfig(**{**WEIGHED[1], "label_mean": 7.5}))
        assert again.mtl.heads["regression"].standards[0, 0] == 7.5
        assert again.to("meta").mtl.heads["regression"].standards.device.type == "meta"
    assert model.mtl.heads["regression"].standards[0, 0] == torch.tensor(MEAN)


def test_a_training_step_brings_no_constant_to_the_device(monkeypatch):
    """`Tensor.to` another device, or a new tensor of Python numbers, would wait for the device in every step."""
    model = build_model([task for task in TASKS if task["name"] != "span"])
    batch = random_batch()
    del batch["routing"]["question_answering"]
    batch["routing"]["multiple_choice"]["tasks"] -= 1
    model(**batch, output_logits=False).loss.backward()

    def forbidden(*given, **options):
        raise AssertionError("a tensor is made of Python numbers in a step")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "tensor", forbidden)
        patch.setattr(torch, "as_tensor", forbidden)
        model(**batch, output_logits=False)
