"""The smallest inputs that an encoder reads.

Everything follows from an encoder's `main_input_name`, the arguments of its `forward` and its configuration; what
these do not say stands in the tables of `probe_tensors.py`.
"""

import torch
from torch import nn

from .encoder_modules import accepted_inputs, main_input
from .probe_tensors import ALSO_READ, COMPANIONS, LENGTH, MAKERS, Probe


def probe_inputs(encoder: nn.Module, rows: int = 2, scale: int = 1) -> dict[str, torch.Tensor]:
    """Return the smallest inputs that an encoder reads, by the names of its forward's arguments.

    Args:
        encoder: The encoder.
        rows: The number of texts, images or recordings.
        scale: How many times as long, or as high and wide, as the smallest ones they are.

    Raises:
        ValueError: No rule tells what an argument without a default is to be.
    """
    accepted = accepted_inputs(encoder)
    probe = Probe(encoder, getattr(encoder, "config", None), accepted, rows, LENGTH * scale, scale)
    names = [main_input(encoder), *ALSO_READ.get(getattr(probe.config, "model_type", None) or "", ())]
    names += [name for name, parameter in accepted.items() if parameter.default is parameter.empty]
    for name in tuple(names):
        names += [other for other in COMPANIONS.get(name, ()) if other in accepted]
    return {name: _tensor(name, probe) for name in dict.fromkeys(names)}


def _tensor(name: str, probe: Probe) -> torch.Tensor:
    """The value of one argument, where the encoder's weights lie."""
    maker = MAKERS.get(name)
    if maker is None:
        raise ValueError(f"No rule tells what `{name}` of {type(probe.encoder).__name__}.forward is to be.")
    tensor = maker(probe)
    weight = next((item for item in probe.encoder.parameters() if item.is_floating_point()), torch.empty(0))
    return tensor.to(weight.device, weight.dtype) if tensor.is_floating_point() else tensor.to(weight.device)


def reads_inputs(encoder: nn.Module) -> bool:
    """Return whether a module reads words, images or sound, and nothing that only the model around it makes."""
    accepted = accepted_inputs(encoder)
    required = [name for name, parameter in accepted.items() if parameter.default is parameter.empty]
    return bool(accepted) and {main_input(encoder), *required} <= set(MAKERS)
