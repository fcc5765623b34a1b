"""The parameters that tasks share: those that gradient balancing looks at, and the last of them."""

import re

from torch import nn

from ..balancing.gradient_balancing import BALANCED_PARAMETERS
from ..modeling.encoder_modules import layers_of
from ..modeling.errors import InputError
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.separate_encoders import PrivateEncoders, SeparateEncoders
from ..modeling.several_encoders import first_encoder
from ..modeling.task_tensors import owner_of, owners_by_key


def shared_parameters(model: MultiTaskAttentionModel, which: str = "all") -> list[nn.Parameter]:
    """Return the trainable parameters that belong to no task alone.

    Args:
        model: The model, with adapters of peft or without.
        which: "all"; "adapters", those of an encoder whose own weights are frozen; "last_<k>_layers" of the encoder.

    Raises:
        InputError: Another name, or nothing to train where it points.
    """
    owners = owners_by_key(model.config.task_names)
    if which == "all":
        tensors = [tensor for name, tensor in model.named_parameters() if owner_of(name, owners) is None]
    elif which == "adapters":
        named = model.encoder.named_parameters(prefix="encoder")
        tensors = [tensor for name, tensor in named if owner_of(name, owners) is None]
        if tensors and all(tensor.requires_grad for tensor in tensors):
            raise InputError(
                "balanced_parameters='adapters', but the whole encoder is trained; add an adapter with peft, or "
                f"choose another: {BALANCED_PARAMETERS}."
            )
    elif match := re.fullmatch(r"last_([1-9]\d*)_layers", which):
        shared = {id(tensor) for name, tensor in model.named_parameters() if owner_of(name, owners) is None}
        layers = _encoder_layers(model)[-int(match[1]) :]
        tensors = [tensor for layer in layers for tensor in layer.parameters() if id(tensor) in shared]
    else:
        raise InputError(f"balanced_parameters={which!r}; expected {BALANCED_PARAMETERS}.")
    tensors = [tensor for tensor in tensors if tensor.requires_grad]
    if not tensors:
        raise InputError(
            f"balanced_parameters={which!r} names no parameter that is trained; expected {BALANCED_PARAMETERS}."
        )
    return tensors


def _shares_encoder(model: MultiTaskAttentionModel) -> bool:
    """Return whether there is an encoder that belongs to no task alone."""
    return not isinstance(model.encoder, SeparateEncoders) or isinstance(model.encoder, PrivateEncoders)


def _encoder_layers(model: MultiTaskAttentionModel) -> list[nn.Module]:
    """Return the encoder's layers in order.

    Raises:
        InputError: The encoder has no list of as many layers as its configuration says.
    """
    if not _shares_encoder(model):
        raise InputError("Separate encoders share no layer; gradients of theirs cannot be balanced or compared.")
    layers = layers_of(first_encoder(model.encoder))
    if not layers:
        raise InputError(
            f"The encoder ({type(model.encoder).__name__}) has no list of {model.config.num_hidden_layers} layers; "
            "choose balanced_parameters='all'."
        )
    return layers


def last_shared_matrix(model: MultiTaskAttentionModel) -> nn.Parameter:
    """Return the last trainable matrix of the encoder's last layer, or of the encoder."""
    if not _shares_encoder(model):
        raise InputError(
            "loss_weighting='gradnorm' compares gradients of a layer that tasks share; separate encoders none."
        )
    try:
        layer: nn.Module = _encoder_layers(model)[-1]
    except InputError:
        layer = first_encoder(model.encoder)
    matrices = [parameter for parameter in layer.parameters() if parameter.ndim > 1 and parameter.requires_grad]
    if not matrices:
        raise InputError("loss_weighting='gradnorm' needs a trainable matrix in the encoder's last layer.")
    return matrices[-1]
