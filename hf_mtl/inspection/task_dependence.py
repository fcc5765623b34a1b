"""Parts that are there to tell tasks apart, and give every task the same state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..modeling.encoder_tensors import EncodedTokens
from ..modeling.interaction import NoInteraction
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.pooling import MeanPooling
from ..modeling.random_states import kept_random_states
from ..modeling.task_tensors import TaskTensors

# How far the states of a row's tasks must lie apart, relative to their norm.
_LEAST_SPREAD = 1e-3
# Below this share of unit scale a tensor of the parts nearly closes the path that it stands on.
_CLOSED = 0.5


def parts_without_tasks(model: MultiTaskAttentionModel, batch: Mapping[str, Any]) -> dict[str, float]:
    """Return by "setting=name" the spread (see `task_spreads`) of parts that are told of the task and in whose states
    nothing is left of it.

    Args:
        model: The model; it is left as it was.
        batch: Some rows of any task, on the model's device.
    """
    spreads = task_spreads(model, batch).items()
    return {f"{part}={getattr(model.config, part)}": spread for part, spread in spreads if spread < _LEAST_SPREAD}


@torch.no_grad()
def task_spreads(model: MultiTaskAttentionModel, batch: Mapping[str, Any]) -> dict[str, float]:
    """Return by setting how far a row's states of different tasks lie apart, relative to their norm, of the parts that
    are there to tell tasks apart.

    Paths that start closed are open while the model answers. What a part reads is made different at every place first
    (token, layer, task), so that none is blamed for what stands before it.

    Args:
        model: The model; it is left as it was.
        batch: Some rows of any task, on the model's device.
    """
    parts = model.mtl
    spreads: dict[str, float] = {}
    if model.num_tasks < 2:
        return spreads
    with kept_random_states(model.device), _open_parts(model):
        tokens = _encoded(model, batch)
        if parts.conditioning.reads_embeddings or parts.conditioning.tells_layers:
            # Pooled alike for all tasks.
            states = parts.conditioning.states(MeanPooling(model.config), tokens, tokens.tasks)
            spreads["conditioning"] = _spread(states.reshape(-1, model.num_tasks, states.shape[-1]))
        if (several := _with_several_places(model, tokens)) is not None:
            spreads["pooling"] = _spread(parts.pooling(several))
        if not isinstance(parts.interaction, NoInteraction):
            states = _apart(parts.states(tokens, None))
            spreads["task_interaction"] = _spread(parts.interaction(states, parts.task_encoder(), None, tokens))
    return spreads


def _encoded(model: MultiTaskAttentionModel, batch: Mapping[str, Any]) -> EncodedTokens:
    """What the encoder says of a batch's rows for all tasks."""
    seen: list[EncodedTokens] = []
    hook = model.mtl.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        model(**{name: value for name, value in batch.items() if name != "asked_tasks"}, output_logits=False)
    finally:
        hook.remove()
    return seen[0]


def _with_several_places(model: MultiTaskAttentionModel, tokens: EncodedTokens) -> EncodedTokens | None:
    """The rows in which tasks have a choice of what to pool, for all tasks; None where there are none, or where no
    task has parameters that choose.
    """
    pooling = model.mtl.pooling
    if not any(isinstance(module, TaskTensors) for module in pooling.modules()):
        return None
    if pooling.reads_layers:
        layers = tuple(_apart(layer) for layer in tokens.layers)
        return tokens._replace(tasks=None, layers=layers) if len(layers) > 1 else None
    rows = (tokens.mask.sum(dim=1) > 1).nonzero().flatten()
    if not rows.shape[0]:
        return None
    ids = None if tokens.ids is None else tokens.ids[rows]
    return EncodedTokens(_apart(tokens.states[rows]), tokens.mask[rows], ids=ids)


def _apart(states: torch.Tensor) -> torch.Tensor:
    """States that differ at every place: as much noise is added as they hold themselves."""
    return states + states.float().square().mean().sqrt().to(states) * torch.randn_like(states)


def _spread(states: torch.Tensor) -> float:
    """How far states (rows, tasks, hidden) of a row's tasks lie from their mean, relative to their norm."""
    states = states.double()
    apart = (states - states.mean(dim=1, keepdim=True)).norm()
    return (apart / states.norm().clamp(min=torch.finfo(states.dtype).tiny)).item()


@contextmanager
def _open_parts(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Without dropout, and with tensors of unit scale where those of the parts are next to nothing, for a while."""
    modes, generator = {module: module.training for module in model.modules()}, torch.Generator().manual_seed(0)
    closed: list[tuple[nn.Parameter, torch.Tensor]] = []
    try:
        model.eval()
        for tensor in model.mtl.parameters():
            scale = 1.0 if tensor.ndim < 2 else tensor.shape[-1] ** -0.5
            if tensor.norm() < _CLOSED * scale * tensor.numel() ** 0.5:
                closed.append((tensor, tensor.detach().clone()))
                tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
        yield
    finally:
        for tensor, before in closed:
            tensor.copy_(before)
        for module, mode in modes.items():
            module.training = mode


__all__ = ["parts_without_tasks", "task_spreads"]
