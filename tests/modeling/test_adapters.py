"""Adapters of peft: the parts beside the encoder are saved with them."""

import ast

import pytest
import torch

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from tests.conftest import ENCODER, build_model, encoder_inputs
from tests.training.test_step_loss import datasets, specs

peft = pytest.importorskip("peft", reason="peft is not installed")

TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
    {"name": "stars", "problem_type": "regression"},
    {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
]


def test_a_model_with_adapters_trains_and_its_checkpoint_loads(tmp_path, tokenizer):
    model = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=TASKS)
    adapter = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=["mtl"])
    adapted = peft.get_peft_model(model, adapter)
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True, save_steps=2, save_strategy="steps"
    )
    own = MultiTaskTrainer(model, args, train_dataset=datasets(), tasks=specs(), processing_class=tokenizer)
    own.train()
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.eval()(**encoder_inputs()).logits
    fresh = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=TASKS)
    found = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()(**encoder_inputs()).logits
    for name, logits in found.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-5, rtol=1e-5)


def test_dora_on_layers_of_zeros_is_refused_and_the_way_that_is_said_works(tmp_path, tokenizer):
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), max_steps=1, use_cpu=True, disable_tqdm=True)
    given = {"train_dataset": datasets(), "tasks": specs(), "processing_class": tokenizer}

    def adapted(**values):
        model = build_model(TASKS, vocab_size=tokenizer.vocab_size)
        return peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear", use_dora=True, **values))

    with pytest.raises(InputError, match="DoRA scales the directions.*exclude_modules=") as refusal:
        MultiTaskTrainer(adapted(), args, **given)
    layers = ast.literal_eval(str(refusal.value).partition("exclude_modules=")[2].removesuffix(")."))
    model = adapted(exclude_modules=layers)
    MultiTaskTrainer(model, args, **given).train()
    assert not any(logits.isnan().any() for logits in model(**encoder_inputs()).logits.values())
