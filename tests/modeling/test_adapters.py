"""Adapters of peft: the parts beside the encoder are saved with them."""

import pytest
import torch

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from tests.conftest import ENCODER, encoder_inputs
from tests.training.test_step_loss import datasets, specs

peft = pytest.importorskip("peft", reason="peft is not installed")


def test_a_model_with_adapters_trains_and_its_checkpoint_loads(tmp_path, tokenizer):
    tasks = [
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
        {"name": "stars", "problem_type": "regression"},
        {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
    ]
    model = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=tasks)
    adapter = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=["mtl"])
    adapted = peft.get_peft_model(model, adapter)
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True, save_steps=2, save_strategy="steps"
    )
    own = MultiTaskTrainer(model, args, train_dataset=datasets(), tasks=specs(), processing_class=tokenizer)
    own.train()
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.eval()(**encoder_inputs()).logits
    fresh = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=tasks)
    found = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()(**encoder_inputs()).logits
    for name, logits in found.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-5, rtol=1e-5)
