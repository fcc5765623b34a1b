"""Random states of the processor and of one accelerator: read, put back, left as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# By type of device.
RandomStates = dict[str, torch.Tensor]


def random_states(device: torch.device) -> RandomStates:
    """Return the random states of the processor and of a device; dropout draws on the device that it runs on."""
    states = {"cpu": torch.get_rng_state()}
    if device.type not in ("cpu", "meta"):
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_states(states: RandomStates) -> None:
    """Go on drawing from these states."""
    for kind, state in states.items():
        if kind == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(kind).set_rng_state(state)


@contextmanager
def kept_random_states(device: torch.device) -> Iterator[None]:
    """Put back, after the block, the random states of the processor and of a device; others are not woken."""
    states = random_states(device)
    try:
        yield
    finally:
        set_random_states(states)
