"""Quantized weights of an encoder: saved with the model around it, whose other parts are not quantized."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .errors import InputError

# The settings of quantizers that name modules to leave alone.
_LEFT_ALONE = ("llm_int8_skip_modules", "modules_to_not_convert")
# What Transformers writes on a quantized model, and others read there.
_MARKS = ("hf_quantizer", "is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method")


def mark_quantized(part: nn.Module, whole: nn.Module) -> None:
    """Let a part of a model say that it is quantized, as the whole does."""
    for name in _MARKS:
        if (value := getattr(whole, name, None)) is not None:
            setattr(part, name, value)


def take_quantization(model: Any, encoder: PreTrainedModel) -> None:
    """Let a model be saved and loaded with the quantized weights of its encoder.

    Args:
        model: A `MultiTaskAttentionModel`, built.
        encoder: The encoder that it was built around.

    Raises:
        InputError: A checkpoint of the model could not be loaded again.
    """
    quantizer = getattr(encoder, "hf_quantizer", None)
    if quantizer is None:
        return
    settings = copy.deepcopy(quantizer.quantization_config)
    left_alone = next((name for name in _LEFT_ALONE if name in vars(settings)), None)
    if left_alone is None or not quantizer.is_serializable():
        raise InputError(
            f"Weights quantized by {type(settings).__name__} cannot be saved with a model around them; take "
            "BitsAndBytesConfig or TorchAoConfig, or load the encoder without quantization_config=."
        )
    layers = model.encoder.named_modules()
    setattr(settings, left_alone, ["mtl", *(f"encoder.{name}" for name, layer in layers if _is_plain(layer))])
    model.config.quantization_config = settings
    mark_quantized(model, encoder)
    model.hf_quantizer = copy.copy(quantizer)
    model.hf_quantizer.quantization_config = settings


def _is_plain(layer: nn.Module) -> bool:
    """Whether a linear layer was left as it was: others are of another class, or hold a tensor of another class."""
    return type(layer) is nn.Linear and type(layer.weight.data) is torch.Tensor
