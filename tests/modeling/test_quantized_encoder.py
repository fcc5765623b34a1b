"""Encoders with quantized weights: trained around, saved and loaded with them; run where their packages are installed.

pip install bitsandbytes torchao
"""

from importlib.util import find_spec

import pytest
import torch
from datasets import Dataset
from transformers import BertConfig, BertModel, BitsAndBytesConfig, CLIPConfig, CLIPModel, LlamaConfig, LlamaModel

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TASKS = [
    {"name": "kind", "problem_type": "single_label_classification", "labels": ["cat", "dog"]},
    {"name": "size", "problem_type": "regression"},
]
WORDS = {"input_ids": torch.arange(14).reshape(2, 7) + 5}
IMAGES = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)}
TEXTS = {**SIZES, "vocab_size": 100}


def int8_of_torchao():
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


# By name: the package, its settings, the name of what replaces weights.
QUANTIZERS = {
    "8 bits": ("bitsandbytes", lambda: BitsAndBytesConfig(load_in_8bit=True), "Int8Params"),
    "4 bits": ("bitsandbytes", lambda: BitsAndBytesConfig(load_in_4bit=True), "Params4bit"),
    "torchao": ("torchao", int8_of_torchao, "Int8Tensor"),
}
# By name: the encoder, the tower, what it reads.
ENCODERS = {
    "bert": (lambda: BertModel(BertConfig(**TEXTS)), None, WORDS),
    "llama": (lambda: LlamaModel(LlamaConfig(**TEXTS, num_key_value_heads=2)), None, WORDS),
    "clip": (
        lambda: CLIPModel(CLIPConfig(text_config=TEXTS, vision_config={**SIZES, "image_size": 32, "patch_size": 8})),
        "vision_model",
        IMAGES,
    ),
}
# Transformers cannot quantize a CLIP by torchao.
CASES = [(encoder, quantizer) for encoder in ENCODERS for quantizer in QUANTIZERS]
CASES.remove(("clip", "torchao"))


def settings_of(name):
    package, build, kind = QUANTIZERS[name]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return build(), kind


@pytest.mark.parametrize(("name", "quantizer"), CASES)
def test_a_model_keeps_its_encoders_quantized_weights(name, quantizer, tmp_path):
    settings, kind = settings_of(quantizer)
    build, tower, inputs = ENCODERS[name]
    torch.manual_seed(0)
    build().save_pretrained(tmp_path / "encoder")
    model = MultiTaskAttentionModel.from_encoder(
        tmp_path / "encoder", tasks=TASKS, tower=tower, quantization_config=settings
    )
    model.save_pretrained(tmp_path / "model")
    again = MultiTaskAttentionModel.from_pretrained(tmp_path / "model")
    for one in (model, again):
        layers = [layer for layer in one.encoder.modules() if isinstance(layer, torch.nn.Linear)]
        assert {type(layer.weight).__name__ for layer in layers} == {kind}
        assert {type(tensor) for tensor in one.mtl.parameters()} == {torch.nn.Parameter}
    with torch.no_grad():
        first, second = model(**inputs), again(**inputs)
    for task in first.logits:
        torch.testing.assert_close(first.logits[task], second.logits[task], atol=1e-6, rtol=0)


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_parts_are_trained_around_it(quantizer, tmp_path, tokenizer):
    settings, _ = settings_of(quantizer)
    torch.manual_seed(0)
    BertModel(BertConfig(**{**TEXTS, "vocab_size": len(tokenizer)})).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    model = MultiTaskAttentionModel.from_encoder(tmp_path / "encoder", tasks=TASKS, quantization_config=settings)
    before = {name: tensor.detach().clone() for name, tensor in model.mtl.named_parameters()}
    rows = Dataset.from_dict({"text": ["a cat", "a dog"] * 8, "label": [0, 1] * 8})
    sizes = Dataset.from_dict({"text": ["small", "big"] * 8, "label": [0.0, 1.0] * 8})
    arguments = MultiTaskTrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=3, use_cpu=True, report_to="none", learning_rate=1e-2
    )
    trainer = MultiTaskTrainer(model, arguments, train_dataset={"kind": rows, "size": sizes}, tasks=TASKS)
    trainer.train()
    moved = [name for name, tensor in model.mtl.named_parameters() if not torch.equal(tensor.cpu(), before[name])]
    assert any(name.startswith("heads.") for name in moved)
    trainer.save_model(str(tmp_path / "saved"))
    again = MultiTaskAttentionModel.from_pretrained(tmp_path / "saved")
    assert again.predict(["a cat"])[0]["kind"]["label"] == model.eval().predict(["a cat"])[0]["kind"]["label"]


def test_a_quantizer_that_cannot_save_is_refused_before_anything_is_trained():
    class Unwritable:
        quantization_config = type("QuantoConfig", (), {"modules_to_not_convert": None})()

        def is_serializable(self):
            return False

    encoder = ENCODERS["bert"][0]()
    encoder.hf_quantizer = Unwritable()
    with pytest.raises(InputError, match="Weights quantized by QuantoConfig cannot be saved with a model around them"):
        MultiTaskAttentionModel.from_encoder(encoder, tasks=TASKS)
