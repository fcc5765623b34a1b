"""The parameters that tasks share: those that gradient balancing looks at, and the last of them."""

import re

from torch import nn

from ..balancing.gradient_balancing import BALANCED_PARAMETERS
from ..modeling.errors import InputError
from ..modeling.modeling_multitask import MultiTaskAttentionModel
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
        tensors = list(model.encoder.parameters())
        if all(tensor.requires_grad for tensor in tensors):
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


def _encoder_layers(model: MultiTaskAttentionModel) -> list[nn.Module]:
    """Return the encoder's layers in order.

    Raises:
        InputError: The encoder has no list of as many layers as its configuration says.
    """
    if model.mtl.conditioning.separate_encoders:
        raise InputError("Separate encoders share no layer; gradients of theirs cannot be balanced or compared.")
    depth = model.config.num_hidden_layers
    for module in model.encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return list(module)
    raise InputError(
        f"The encoder ({type(model.encoder).__name__}) has no list of {depth} layers; choose "
        "balanced_parameters='all'."
    )


def last_shared_matrix(model: MultiTaskAttentionModel) -> nn.Parameter:
    """Return the last trainable matrix of the encoder's last layer, or of the encoder."""
    if model.mtl.conditioning.separate_encoders:
        raise InputError(
            "loss_weighting='gradnorm' compares gradients of a layer that tasks share; separate encoders none."
        )
    try:
        layer: nn.Module = _encoder_layers(model)[-1]
    except InputError:
        layer = model.encoder
    matrices = [parameter for parameter in layer.parameters() if parameter.ndim > 1 and parameter.requires_grad]
    if not matrices:
        raise InputError("loss_weighting='gradnorm' needs a trainable matrix in the encoder's last layer.")
    return matrices[-1]
