"""Finds what any encoder is made of: its layers, its norms, its tables of words, positions and segments."""

import inspect
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel


def layers_of(encoder: nn.Module) -> list[nn.Module]:
    """Return an encoder's layers in order, each of them once; [] where it has no list of as many as it says."""
    depth = cast(Any, encoder).config.get_text_config().num_hidden_layers
    for module in encoder.modules():
        is_list = isinstance(module, nn.ModuleList) and len(module) == len(set(module)) == depth
        # What pools between blocks of layers has a list of lists.
        if is_list and not any(isinstance(layer, nn.ModuleList) for layer in module.children()):
            return list(module.children())
    return []


def norms_of(encoder: PreTrainedModel) -> list[nn.Module]:
    """Return the norms of an encoder's hidden states, of whatever class, in the order in which they are listed."""
    width = encoder.config.get_text_config().hidden_size
    norms = []
    for module in encoder.modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if type(module).__name__.endswith("Norm") and weight is not None and weight.shape == (width,):
            norms.append(module)
    return norms


def accepted_inputs(encoder: nn.Module) -> dict[str, inspect.Parameter]:
    """Return the arguments of an encoder's `forward` by name, without those that take whatever is left."""
    parameters = inspect.signature(encoder.forward).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def main_input(encoder: nn.Module) -> str:
    """Return the name of what an encoder reads first of all."""
    accepted = accepted_inputs(encoder)
    name = encoder.main_input_name if isinstance(encoder, PreTrainedModel) else ""
    # Some towers keep the name that PreTrainedModel gives them, though they read something else.
    return name if name in accepted or not accepted else next(iter(accepted))


def has_weights(encoder: nn.Module) -> bool:
    """Return whether an encoder's weights are there, which is not so while a checkpoint is being loaded."""
    return not any(tensor.is_meta for tensor in (*encoder.parameters(), *encoder.buffers()))


def reads_words(encoder: nn.Module) -> bool:
    """Return whether an encoder takes word pieces."""
    return "input_ids" in {*accepted_inputs(encoder), main_input(encoder)}


def input_embeddings(encoder: nn.Module) -> nn.Module | None:
    """Return what an encoder embeds its inputs with, of texts a table of words; None where it does not say."""
    try:
        return cast(Any, encoder).get_input_embeddings()
    # Models of several encoders do not say which one's they mean, and some modules have no such method.
    except (NotImplementedError, AttributeError):
        return None


def word_table(encoder: nn.Module) -> torch.Size | None:
    """Return the shape (vocabulary, width) of an encoder's word embeddings; None where it has no table of them."""
    words = input_embeddings(encoder)
    table = None if words is None else dict(words.named_parameters(recurse=False)).get("weight")
    return None if table is None or table.ndim != 2 or not table.numel() else table.shape


def position_table(encoder: nn.Module) -> nn.Embedding | None:
    """Return an encoder's embeddings of absolute positions; None where it has none."""
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def first_position(encoder: nn.Module) -> int:
    """Return the position of a text's first token: encoders that keep a place for padding count from the next one."""
    table = position_table(encoder)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def segment_kinds(encoder: nn.Module) -> int | None:
    """Return how many kinds of segments an encoder tells apart; None where it has no table of them."""
    for name, module in encoder.named_modules():
        if name.endswith("token_type_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings
    return None
