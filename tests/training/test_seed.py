"""The seed decides what new parts begin with, in Python as for the program."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import BertModel, Trainer, set_seed

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.commands.train import _train
from hf_mtl.recipe import read_recipe
from tests.conftest import build_model, encoder_config

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
ROWS = Dataset.from_dict(
    {"text": [f"row {index} of this thing" for index in range(12)], "label": [0, 1] * 6}, features=FEATURES
)

RECIPE = """
encoder: {folder}/encoder
output_dir: {folder}/recipe
max_steps: 3
per_device_train_batch_size: 4
seed: 7
use_cpu: true
report_parts: false
baselines: false
doctor: false
exclude_overlap: false
report_to: none
tasks:
  - name: mood
    problem_type: single_label_classification
    labels: ["no", "yes"]
    data_files: {{train: {folder}/rows.jsonl, validation: {folder}/rows.jsonl}}
"""


@pytest.fixture
def encoder(tmp_path, tokenizer):
    torch.manual_seed(0)
    BertModel(encoder_config(tokenizer.vocab_size)).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def build(tmp_path, model, **arguments) -> MultiTaskTrainer:
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no",
        max_steps=3, per_device_train_batch_size=4, **arguments,
    )  # fmt: skip
    return MultiTaskTrainer(model, args, train_dataset={"mood": ROWS})


def weights(model) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in model.parameters()])


def test_what_was_drawn_before_does_not_matter(encoder, tmp_path):
    models, after = [], []
    for seed, drawn in ((7, 1), (7, 5), (8, 1)):
        torch.manual_seed(drawn)
        own = build(tmp_path, encoder, seed=seed)
        after.append((torch.rand(1).item(), np.random.rand(), random.random()))
        models.append(weights(own.model))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])
    # What a caller draws next is what it is after Transformers' own Trainer.
    Trainer(build_model(), own.args)
    assert after[2] == (torch.rand(1).item(), np.random.rand(), random.random())
    assert after[0] == after[1]


def test_a_path_names_the_encoder_as_its_text_does(encoder, tmp_path):
    assert torch.equal(weights(build(tmp_path, encoder).model), weights(build(tmp_path, Path(encoder)).model))


def test_a_model_that_is_given_is_left_as_it_is(encoder, tmp_path):
    set_seed(3)
    tasks = [{"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]}]
    model = MultiTaskAttentionModel.from_encoder(encoder, tasks=tasks)
    before = weights(model)
    assert torch.equal(weights(build(tmp_path, model, seed=7).model), before)


def test_python_and_the_program_end_alike(encoder, tmp_path):
    ROWS.cast_column("label", Value("int64")).to_json(tmp_path / "rows.jsonl")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path), "utf-8")
    assert _train(read_recipe(tmp_path / "recipe.yaml")) == 0
    own = build(tmp_path, encoder, seed=7)
    own.train()
    saved = MultiTaskAttentionModel.from_pretrained(tmp_path / "recipe")
    assert torch.equal(weights(own.model), weights(saved))
