"""The encoders inside a model: the model itself, what it has beside a decoder, the towers of a multimodal one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import get_logger

from .encoder_tensors import states_of
from .errors import InputError, check_choice
from .quantized_encoder import mark_quantized
from .random_states import kept_random_states

logger = get_logger(__name__)

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
# Endings of settings that are widths.
_WIDTHS = ("hidden_size", "latent_dim", "flow_size", "d_model")
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


def measure(config: Any, encoder: PreTrainedModel) -> InputError | None:
    """Put the width of an encoder's token states, and a tower's number of layers, into a model's configuration, where
    that of the encoder says others or none; return what is wrong with an encoder of which none can be read, though it
    says its width.

    Args:
        config: A `MultiTaskAttentionConfig`.
        encoder: The encoder.

    Raises:
        InputError: None can be read, and none is said.
    """
    if config.tower:
        config.encoder_layers = getattr(encoder.config.get_text_config(), "num_hidden_layers", None)
    said = None if config.tower else getattr(config.encoder_config.get_text_config(), "hidden_size", None)
    if config.encoder_width is None:
        try:
            width = states_width(encoder)
        except InputError as error:
            if said is None:
                raise
            return error
        config.encoder_width = None if width == said else width
    return None


def states_width(encoder: PreTrainedModel) -> int | None:
    """Return the width of an encoder's token states, by reading the smallest inputs that it takes; None where its
    weights are not there yet.

    Raises:
        InputError: It says nothing of such inputs: why, and which of its towers can be taken.
    """
    if any(tensor.is_meta for tensor in (*encoder.parameters(), *encoder.buffers())):
        return None
    # A checkpoint that is loaded says its width, and needs none of this.
    from .encoder_probe import probe_inputs

    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        with torch.no_grad(), kept_random_states(next(encoder.parameters()).device):
            # Its forward itself: hooks on an encoder wait for rows of its user's.
            said, inputs = getattr(encoder.config, "hidden_size", None), probe_inputs(encoder)
            states = states_of(encoder.forward(**inputs), 2, said)
            return _width_of(states, encoder.config, next(iter(inputs.values())).shape[1])
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"No hidden states can be read of a {type(encoder).__name__}: {_why(encoder, error)}"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def _width_of(states: torch.Tensor, config: PreTrainedConfig, length: int) -> int:
    """The width of states (rows, length, hidden), or (rows, hidden, frames) where the configuration says so."""
    sizes = {value for name, value in vars(config).items() if name.endswith(_WIDTHS) and isinstance(value, int)}
    first, last = states.shape[1:]
    return first if last not in sizes and first in sizes and first != length else last


def with_pooling(settings: Mapping[str, Any], encoder: PreTrainedModel) -> dict[str, Any]:
    """Return settings with the pooling that suits an encoder, where they name none: of one that reads from left to
    right the last token's state, which alone has read all.
    """
    if "pooling" in settings:
        return dict(settings)
    try:
        is_one_way = _reads_one_way(encoder)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError):
        # What cannot be read is refused with its reason when it is wrapped.
        return dict(settings)
    if is_one_way:
        logger.warning(
            f"{type(encoder).__name__} reads from left to right: pooling=last_token, unless you say another."
        )
    return {**settings, "pooling": "last_token"} if is_one_way else dict(settings)


def _reads_one_way(encoder: PreTrainedModel) -> bool:
    """Return whether an encoder of texts reads from left to right: its first states say nothing of the last piece."""
    from .encoder_probe import probe_inputs

    inputs = probe_inputs(encoder)
    ids = inputs.get("input_ids")
    if ids is None or ids.ndim != 2:
        return False
    other = ids.clone()
    other[:, -1] = ids[:, 0]
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        with torch.no_grad(), kept_random_states(ids.device):
            first, second = (
                states_of(encoder.forward(**{**inputs, "input_ids": one}), ids.shape[0])[:, :-1]
                for one in (ids, other)
            )
    finally:
        for module, mode in modes.items():
            module.training = mode
    return first.shape[1] == ids.shape[1] - 1 and torch.allclose(first, second, atol=1e-5)


def _why(encoder: PreTrainedModel, error: Exception) -> str:
    towers = [name for name, part in towers_of(encoder).items() if _is_readable(part)]
    if towers:
        return f"it is made of several encoders. Choose one: {' or '.join(f'tower={name!r}' for name in towers)}."
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _is_readable(encoder: PreTrainedModel) -> bool:
    try:
        states_width(encoder)
    except InputError:
        return False
    return True


__all__ = ["encoder_of", "measure", "states_width", "towers_of", "with_pooling"]
