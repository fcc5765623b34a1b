"""Adds to every layer of any encoder, through hooks: to its attention's scores, beside it, behind it."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .encoder_modules import layers_of
from .errors import InputError

# The score of a token that is not to be read: its weight is 0, and half precision has the number.
MASKED = torch.finfo(torch.float16).min
_MASK = "attention_mask"
# Implementations of attention that add numbers to scores.
_ADDING = (None, "eager", "sdpa")


class LayerConditions:
    """The conditions of an encoder's layers: what they are told of the task of each row; here nothing."""

    def bias(self, index: int, mask: torch.Tensor) -> torch.Tensor | None:
        """Return (rows, 1, length, length), what a layer adds to its attention's scores; None for nothing.

        Args:
            index: The layer's place.
            mask: (rows, length), 1 at tokens and 0 at padding.
        """
        return None

    def branch(self, index: int, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """Return (rows, length, hidden), what is added to the sum that a layer's last norm reads, or, where a norm
        does not end it, to what it returns; None for nothing.

        Args:
            index: The layer's place.
            states: (rows, length, hidden), what the layer reads.
            mask: (rows, length), 1 at tokens and 0 at padding.
        """
        return None

    def behind(self, index: int, states: torch.Tensor) -> torch.Tensor:
        """Return (rows, length, hidden), what becomes of a layer's states.

        Args:
            index: The layer's place.
            states: (rows, length, hidden), what the layer returns.
        """
        return states


class LayerHooks:
    """Hooks on the layers of an encoder, which do what `LayerConditions` say while an encoder is called."""

    def __init__(self) -> None:
        self.conditions: LayerConditions | None = None
        self.mask: torch.Tensor | None = None
        self.config: Any = None
        # The layer that runs, and what is to enter it.
        self._layer: nn.Module | None = None
        self._branch: torch.Tensor | None = None
        # The norm that ran last in it, what it read and what it returned.
        self._last: tuple[nn.Module, torch.Tensor, torch.Tensor] | None = None
        self._listens = False

    def attach(self, encoder: PreTrainedModel, norms: Sequence[nn.Module]) -> None:
        """Listen to the layers of an encoder.

        Args:
            encoder: The encoder.
            norms: Its norms of hidden states.
        """
        self.config = encoder.config
        for index, layer in enumerate(layers_of(encoder)):
            names = list(inspect.signature(layer.forward).parameters)
            layer.register_forward_pre_hook(partial(self._enter, index, names), with_kwargs=True)
            # Before the hooks that note hidden states.
            layer.register_forward_hook(partial(self._leave, index), prepend=True)
            inside = set(layer.modules())
            for norm in norms:
                if norm in inside:
                    norm.register_forward_hook(self._note)

    def tell(self, conditions: LayerConditions | None, mask: torch.Tensor | None) -> None:
        """Say what layers are told from now on.

        Args:
            conditions: What; None for nothing.
            mask: (rows, length), 1 at tokens and 0 at padding.
        """
        self.conditions, self.mask = conditions, mask
        self._forget()

    def checkpointed(
        self, layer: nn.Module, function: Callable[..., Any], given: tuple[Any, ...]
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return the function and the arguments of a checkpoint, where all tensors that learn are arguments (others
        get no gradient through a re-entrant checkpoint).

        Args:
            layer: The layer.
            function: Runs its `forward`, with arguments by name in it.
            given: The other arguments.
        """
        if self.conditions is None:
            return function, given
        by_name = function.keywords if isinstance(function, partial) else {}
        names = [key for key, value in by_name.items() if isinstance(value, torch.Tensor) and value.requires_grad]
        branch = self._branch if layer is self._layer else None
        self._branch, count = None, len(given)

        def run(*inner: Any) -> Any:
            entering = None if branch is None else inner[-1]
            self._listens = True
            try:
                output = function(*inner[:count], **dict(zip(names, inner[count:])))
                return output if entering is None else self._entered(entering, output)
            finally:
                # The layer may be run again in a backward pass, where nothing follows it.
                self._listens, self._last = False, None

        return run, (*given, *(by_name[name] for name in names), *(() if branch is None else (branch,)))

    def __getstate__(self) -> dict[str, Any]:
        # A copy has been told nothing.
        told_nothing = {"conditions": None, "mask": None, "_layer": None, "_branch": None, "_last": None}
        return {**self.__dict__, **told_nothing, "_listens": False}

    def _forget(self) -> None:
        self._layer = self._branch = self._last = None
        self._listens = False

    def _enter(
        self, index: int, names: list[str], layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.conditions is None or self.mask is None:
            return None
        states = args[0] if args else kwargs[names[0]]
        if states.shape[:2] != self.mask.shape:
            raise ValueError("its layers do not read (rows, length, hidden)")
        self._forget()
        self._layer, self._branch = layer, self.conditions.branch(index, states, self.mask)
        self._listens = self._branch is not None
        bias = self.conditions.bias(index, self.mask)
        if bias is None:
            return None
        if _MASK not in names:
            raise ValueError(f"its layers take no `{_MASK}`")
        place = names.index(_MASK)
        before = args[place] if place < len(args) else kwargs.get(_MASK)
        after = self._with_bias(layer, before, bias.to(states.dtype))
        if place < len(args):
            return (*args[:place], after, *args[place + 1 :]), kwargs
        return args, {**kwargs, _MASK: after}

    def _with_bias(self, layer: nn.Module, mask: torch.Tensor | None, bias: torch.Tensor) -> torch.Tensor:
        """Attention's mask, as numbers that are added to scores, and these."""
        implementation = self.config._attn_implementation
        if implementation not in _ADDING:
            raise InputError(
                f"attn_implementation={implementation!r} adds nothing to the scores of attention, as "
                "conditioning=conditional_attention does; load the model with attn_implementation='sdpa' or 'eager'."
            )
        if mask is None:
            if not any(getattr(module, "is_causal", False) for module in layer.modules()):
                return bias
            # Attention that is given no mask reads what comes before.
            mask = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).tril()
        elif mask.ndim != 4 or not (mask.dtype == torch.bool or mask.is_floating_point()):
            raise ValueError("its layers add no mask to the scores of attention")
        if mask.dtype == torch.bool:
            return bias.masked_fill(~mask, MASKED)
        return (mask + bias).clamp(min=MASKED)

    def _note(self, norm: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if self._listens:
            self._last = norm, given[0], output

    def _leave(self, index: int, layer: nn.Module, given: Any, output: Any) -> Any:
        if self.conditions is None:
            return None
        if self._branch is not None:
            output = self._entered(self._branch, output)
        self._forget()
        return _with_states(output, self.conditions.behind(index, _states_of(output)))

    def _entered(self, branch: torch.Tensor, output: Any) -> Any:
        """A layer's output with a branch in it."""
        states, last = _states_of(output), self._last
        if last is None or last[2] is not states:
            return _with_states(output, states + branch.to(states.dtype))
        norm, read, _ = last
        return _with_states(output, norm(read + branch.to(read.dtype)))


def _states_of(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _with_states(output: Any, states: torch.Tensor) -> Any:
    return (states, *output[1:]) if isinstance(output, tuple) else states
