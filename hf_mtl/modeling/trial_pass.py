"""A pass of an encoder for a look at what it does, which leaves no trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .random_states import kept_random_states

# What encoders raise of inputs that they cannot read.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)


@contextmanager
def trial_pass(encoder: nn.Module) -> Iterator[None]:
    """Within the block an encoder evaluates without gradients; modes and random states are then as they were."""
    modes = {module: module.training for module in encoder.modules()}
    device = next((tensor.device for tensor in encoder.parameters()), torch.device("cpu"))
    encoder.eval()
    try:
        with torch.no_grad(), kept_random_states(device):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
