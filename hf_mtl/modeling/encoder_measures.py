"""Measures an encoder by the smallest inputs that it reads: the width of its states, where it stands, whether it reads
from left to right.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import get_logger

from .encoder_tensors import state_tensor, states_of
from .encoder_towers import towers_of
from .errors import InputError
from .trial_pass import UNREADABLE, trial_pass

logger = get_logger(__name__)

# Endings of settings that are widths.
_WIDTHS = ("hidden_size", "latent_dim", "flow_size", "d_model")


class StateForm(NamedTuple):
    """The form of an encoder's states: their width, and its axis from the end."""

    width: int
    axis: int


def measure(config: Any, encoder: PreTrainedModel) -> InputError | None:
    """Put the form of an encoder's token states, and a tower's number of layers, into a model's configuration, where
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
    if config.encoder_width is not None:
        return None
    try:
        width, config.encoder_axis = state_form(encoder)
    except InputError as error:
        if said is None:
            raise
        return error
    config.encoder_width = None if width == said else width
    return None


def state_form(encoder: PreTrainedModel) -> StateForm:
    """Return the form of an encoder's states.

    The smallest inputs that it takes are read, and where these leave it open, such as of a map of features, larger
    ones: the axis that stays as it is is that of the width.

    Raises:
        InputError: It says nothing of such inputs: why, and which of its towers can be taken.
    """
    from .encoder_probe import probe_inputs

    try:
        inputs = probe_inputs(encoder)
        small = _returned(encoder, inputs)
        said = getattr(encoder.config, "hidden_size", None)
        if small.dim() == 3 and small.shape[-1] == said != small.shape[1]:
            return StateForm(small.shape[-1], -1)
        axis = _fixed_axis(small.shape, _larger_shape(encoder))
        if axis is None:
            axis = _likely_axis(small.shape, encoder.config, said, next(iter(inputs.values())).shape[1])
        return StateForm(small.shape[axis], axis)
    except UNREADABLE as error:
        raise InputError(
            f"No hidden states can be read of a {type(encoder).__name__}: {_why(encoder, error)}"
        ) from error


def _returned(encoder: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with trial_pass(encoder):
        # Its forward itself: hooks on an encoder wait for rows of its user's.
        return state_tensor(encoder.forward(**inputs), getattr(encoder.config, "hop_length", None))


def _larger_shape(encoder: PreTrainedModel) -> torch.Size | None:
    """The shape of what an encoder says of inputs of twice the size; None where it reads one size."""
    from .encoder_probe import probe_inputs

    try:
        return _returned(encoder, probe_inputs(encoder, scale=2)).shape
    except UNREADABLE:
        return None


def _fixed_axis(small: torch.Size, large: torch.Size | None) -> int | None:
    """The axis, from the end, that is alike in two shapes whose other ones differ; None where that is not one.

    Raises:
        InputError: None is alike, so that there is no width.
    """
    if large is None or small == large or len(small) != len(large):
        return None
    alike = [axis for axis in range(1 - len(small), 0) if small[axis] == large[axis]]
    if not alike:
        raise InputError(f"what it returns grows with what it reads, from {tuple(small)} to {tuple(large)}.")
    return alike[0] if len(alike) == 1 else None


def _likely_axis(shape: torch.Size, config: PreTrainedConfig, said: int | None, length: int) -> int:
    """The axis, from the end, of the width in a shape of which no other is known: channels come first in maps of
    features that are square, and in sounds whose configuration says so.
    """
    if len(shape) > 3:
        is_square = shape[-1] == shape[-2]
        return -1 if shape[-1] == said or (shape[-2] == shape[-3] and not is_square) else -3
    if len(shape) == 3:
        sizes = {value for name, value in vars(config).items() if name.endswith(_WIDTHS) and isinstance(value, int)}
        first, last = shape[1:]
        return -2 if last not in sizes and first in sizes and first != length else -1
    return -1


def with_pooling(settings: Mapping[str, Any], encoder: PreTrainedModel) -> dict[str, Any]:
    """Return settings with the pooling that suits an encoder, where they name none: of one that reads from left to
    right the last token's state, which alone has read all.
    """
    if "pooling" in settings:
        return dict(settings)
    try:
        is_one_way = _reads_one_way(encoder)
    except UNREADABLE:
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
    others = ids[ids != ids[0, -1]]
    if not len(others):
        return False
    other = ids.clone()
    other[:, -1] = torch.where(ids[:, -1] == others[0], ids[0, -1], others[0])
    first, second = (states_of(_returned(encoder, {**inputs, "input_ids": one}))[:, :-1] for one in (ids, other))
    return first.shape[1] == ids.shape[1] - 1 and torch.allclose(first, second, atol=1e-5)


def _why(encoder: PreTrainedModel, error: Exception) -> str:
    towers = [name for name, part in towers_of(encoder).items() if _is_readable(part)]
    if towers:
        return f"its parts can be read. Choose one: {' or '.join(f'tower={name!r}' for name in towers)}."
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _is_readable(encoder: PreTrainedModel) -> bool:
    try:
        state_form(encoder)
    except InputError:
        return False
    return True


__all__ = ["StateForm", "measure", "state_form", "with_pooling"]
