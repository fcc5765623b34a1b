"""The encoders inside a model: the model itself, what it has beside a decoder, the towers of a multimodal one."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from .errors import InputError, check_choice

# Modules that are encoders though they have no configuration of their own.
_TOWER_NAMES = (
    "text_model",
    "vision_model",
    "visual",
    "vision_tower",
    "audio_tower",
    "language_model",
    "text_encoder",
)
# How deep in a model towers lie.
_DEPTH = 2


class OfTheEncoder:
    """A method that says of a class what is given here, and of its objects what their encoder says.

    Args:
        of_class: What it says of the class.
        of_encoder: What it says of a model whose encoder this is, None before it is there; of several, one of them.
    """

    def __init__(self, of_class: bool, of_encoder: Callable[[Any], bool]) -> None:
        self.of_class, self.of_encoder = of_class, of_encoder

    def __get__(self, instance: Any, owner: type) -> Callable[[], bool]:
        if instance is None:
            return lambda: self.of_class
        encoder = vars(instance).get("_modules", {}).get("encoder")
        encoder = getattr(encoder, "first", encoder)
        return partial(self.of_encoder, encoder)


def towers_of(model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Return the parts of a model that have configurations of their own, by their dotted names in it."""
    towers: dict[str, PreTrainedModel] = {}
    _add_towers(model, "", towers, {id(model.config)})
    return towers


def _add_towers(parent: nn.Module, prefix: str, towers: dict[str, PreTrainedModel], configs: set[int]) -> None:
    from .encoder_probe import reads_inputs

    for name, child in parent.named_children():
        path = f"{prefix}{name}"
        config = id(getattr(child, "config", None))
        is_tower = isinstance(child, PreTrainedModel) and (config not in configs or name in _TOWER_NAMES)
        if name == "decoder" or any(child is tower for tower in towers.values()):
            continue
        if is_tower and reads_inputs(child):
            towers[path] = cast(PreTrainedModel, child)
        if path.count(".") < _DEPTH and not isinstance(child, nn.ModuleList):
            _add_towers(child, f"{path}.", towers, configs | ({config} if is_tower else set()))


def encoder_of(model: PreTrainedModel, tower: str | None = None) -> PreTrainedModel:
    """Return the encoder of a model: one of its towers, else what it has beside a decoder, else the model.

    Args:
        model: The model.
        tower: The tower's name.

    Raises:
        InputError: It has no such tower.
    """
    encoder = _part_of(model, tower)
    if getattr(model, "hf_quantizer", None) is not None:
        from .quantized_encoder import mark_quantized

        mark_quantized(encoder, model)
    return encoder


def _part_of(model: PreTrainedModel, tower: str | None) -> PreTrainedModel:
    if tower is not None:
        towers = towers_of(model)
        if not towers:
            raise InputError(f"tower={tower!r}: a {type(model).__name__} is one encoder; leave tower out.")
        check_choice("tower", tower, towers)
        return towers[tower]
    # An encoder saved alone (T5EncoderModel) says that it has no decoder, and is built with one all the same.
    has_decoder = {"encoder", "decoder"} <= {name for name, _ in model.named_children()}
    if not has_decoder and not model.config.is_encoder_decoder:
        return model
    from .encoder_probe import reads_inputs

    encoder = model.get_encoder()
    # What reads the states of a backbone or of its embeddings is no encoder without these.
    return cast(PreTrainedModel, encoder) if isinstance(encoder, PreTrainedModel) and reads_inputs(encoder) else model


__all__ = ["OfTheEncoder", "encoder_of", "towers_of"]
