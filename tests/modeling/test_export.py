"""`torch.export` and ONNX's exporter take the model, and what they export answers alike at other sizes."""

import pytest
import torch

from hf_mtl.modeling.systems import SYSTEMS
from tests.conftest import TASKS, build_model, randomise

SETTINGS = {"default": {}, "hard_sharing": dict(SYSTEMS["hard_sharing"].settings)}
EXPORTED = [TASKS[0], TASKS[2], TASKS[3], TASKS[4], TASKS[5]]


def drawn(rows: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 59, (rows, length), generator=torch.Generator().manual_seed(rows))
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def shapes() -> dict[str, dict[int, torch.export.Dim]]:
    sizes = {0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("length", min=4, max=60)}
    return {"input_ids": sizes, "attention_mask": sizes}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_torch_export(name):
    model = randomise(build_model(EXPORTED, **SETTINGS[name]))
    exported = torch.export.export(model, (), kwargs=drawn(3, 9), dynamic_shapes=shapes()).module()
    for rows, length in ((2, 6), (5, 13)):
        expected = model(**drawn(rows, length)).logits
        for task, logits in exported(**drawn(rows, length)).logits.items():
            torch.testing.assert_close(logits, expected[task], atol=1e-5, rtol=1e-5, msg=task)


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
    for rows, length in ((2, 6), (5, 13)):
        inputs = drawn(rows, length)
        expected = model(**inputs).logits
        found = session.run(names, {key: tensor.numpy() for key, tensor in inputs.items()})
        for task, logits in zip(EXPORTED, found):
            torch.testing.assert_close(
                torch.from_numpy(logits), expected[task["name"]], atol=1e-4, rtol=1e-4, msg=task["name"]
            )
