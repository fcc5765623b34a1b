"""`torch.export` and ONNX's exporter take the model, and what they export answers alike at other sizes."""

import pytest
import torch

from hf_mtl import InputError, MultiTaskAttentionModel
from hf_mtl.modeling.systems import SYSTEMS
from tests.conftest import ENCODER, TASKS, build_model, randomise
from tests.modeling.test_module_hooks import SETTINGS as PARTS
from tests.modeling.test_module_hooks import build

SETTINGS = {"default": {}, "hard_sharing": dict(SYSTEMS["hard_sharing"].settings)}
EXPORTED = [TASKS[0], TASKS[2], TASKS[3], TASKS[4], TASKS[5]]
# Sizes that nothing was traced at, a single row among them.
OTHERS = ((1, 6), (5, 13))
REFUSED = {
    "system individual": "separate_encoders",
    "system private_encoders_adversarial": "private_encoders",
    "head recurrent": "recurrent branch or head",
}


def drawn(rows: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 59, (rows, length), generator=torch.Generator().manual_seed(rows))
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def shapes() -> dict[str, dict[int, torch.export.Dim]]:
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=64)}
    return {"input_ids": sizes, "attention_mask": sizes}


def check_exported(model: MultiTaskAttentionModel) -> None:
    exported = torch.export.export(model, (), kwargs=drawn(3, 9), dynamic_shapes=shapes()).module()
    for rows, length in OTHERS:
        expected = model(**drawn(rows, length)).logits
        for task, logits in exported(**drawn(rows, length)).logits.items():
            torch.testing.assert_close(logits, expected[task], atol=1e-5, rtol=1e-5, msg=task)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_torch_export(name):
    check_exported(randomise(build_model(EXPORTED, **SETTINGS[name])))


@pytest.mark.slow
def test_a_pretrained_encoder_is_exported():
    model = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=EXPORTED)
    check_exported(randomise(model.eval(), std=0.05))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PARTS if name not in REFUSED])
def test_every_part_is_exported(name):
    check_exported(build(name))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_says_so(name):
    with pytest.raises(InputError, match=REFUSED[name]):
        torch.export.export(build(name), (), kwargs=drawn(3, 9), dynamic_shapes=shapes())


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_onnx(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = randomise(build_model(EXPORTED, **SETTINGS[name]))
    names = [f"logits_{task['name']}" for task in EXPORTED]

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return tuple(self.model(input_ids, attention_mask).logits.values())

    torch.onnx.export(
        Named().eval(),
        (),
        str(tmp_path / "model.onnx"),
        kwargs=drawn(3, 9),
        output_names=names,
        dynamic_shapes=shapes(),
        dynamo=True,
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for rows, length in OTHERS:
        inputs = drawn(rows, length)
        expected = model(**inputs).logits
        found = session.run(names, {key: tensor.numpy() for key, tensor in inputs.items()})
        for task, logits in zip(EXPORTED, found):
            torch.testing.assert_close(
                torch.from_numpy(logits), expected[task["name"]], atol=1e-4, rtol=1e-4, msg=task["name"]
            )
