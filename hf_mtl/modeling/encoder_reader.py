"""Calls any encoder and reads its token states, telling it of the task where a part asks for that.

Nothing of an encoder's code is copied: what is added enters through hooks on its word embeddings, its norms and its
layers, or as further tokens in front of its inputs.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from .encoder_layers import LayerConditions, LayerHooks
from .encoder_modules import accepted_inputs, first_position, norms_of, segment_kinds
from .encoder_tensors import (
    EncodedTokens,
    EncoderInputs,
    mask_of,
    resampled_mask,
    state_tensor,
    states_by_row,
    states_of,
)
from .errors import InputError
from .task_tensors import Carried

# Arguments of an encoder's forward that are not inputs.
_SET_HERE = ("use_cache", "return_dict", "output_hidden_states", "output_attentions", "labels")


class Conditions(NamedTuple):
    """The conditions of an encoder: what it is told of the task of each row.

    Args:
        added: (rows, width), added to every word embedding.
        scales: For each norm of the hidden size (rows, hidden): its output is multiplied by 1 + this,
        shifts: and this is added.
        tokens: (tasks, width) embeddings of tokens that stand in front of every row's text.
        reads: (tasks, tasks) of bool: which of these tokens each may read; text reads none of them.
        place: The one of a text's positions, from 0, at which these tokens stand.
        layers: What each layer is told.
    """

    added: torch.Tensor | None = None
    scales: list[torch.Tensor] | None = None
    shifts: list[torch.Tensor] | None = None
    tokens: torch.Tensor | None = None
    reads: torch.Tensor | None = None
    place: int = 0
    layers: LayerConditions | None = None


class EncoderReader(nn.Module):
    """Calls an encoder with the inputs it takes and reads its token states; it has no parameters of its own.

    Args:
        encoder: The encoder.
        layers: Whether the states of all layers are read.
        is_conditioned: Whether the encoder is told of tasks.
        tells_layers: Whether its layers are.
        axis: Of the hidden size in what the encoder returns, from the end.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        layers: bool = False,
        is_conditioned: bool = False,
        tells_layers: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__()
        accepted = accepted_inputs(encoder)
        takes_any = len(accepted) < len(inspect.signature(encoder.forward).parameters)
        # These it is told by the model's own arguments, or not at all.
        self.accepted = [name for name in accepted if name not in _SET_HERE]
        self.constants: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
        if takes_any or "return_dict" in accepted:
            self.constants["return_dict"] = True
        if layers:
            self.constants["output_hidden_states"] = True
        # One kind of segment says nothing, and a tokenizer that tells two apart would point past it.
        self.takes_segments = "token_type_ids" in accepted and segment_kinds(encoder) != 1
        self.takes_positions = "position_ids" in accepted
        self.takes_embeds = "inputs_embeds" in accepted
        self.first_position = first_position(encoder)
        self.axis, self.frame = axis, getattr(encoder.config, "hop_length", None)
        # Of an encoder that reads images beside words, once it has: whether its words come first.
        self.has_words_first: bool | None = None
        self.conditions = Conditions()
        self.is_conditioned = is_conditioned
        self.hook: RemovableHandle | None = None
        self.layer_hooks = LayerHooks()
        if tells_layers:
            self.layer_hooks.attach(encoder, norms_of(encoder))
        if is_conditioned:
            self.listen_to(encoder.get_input_embeddings())
            for index, norm in enumerate(norms_of(encoder)):
                norm.register_forward_hook(partial(self._modulate, index))

    def listen_to(self, embeddings: nn.Module) -> None:
        """Add to what these word embeddings return, and to no others any more."""
        if self.is_conditioned:
            if self.hook is not None:
                self.hook.remove()
            self.hook = embeddings.register_forward_hook(self._add)

    def forward(
        self,
        carried: Carried,
        inputs: EncoderInputs,
        conditions: Conditions,
        flags: Mapping[str, Any] = MappingProxyType({}),
    ) -> EncodedTokens:
        """Return what the encoder says of the inputs.

        Args:
            carried: The encoder.
            inputs: What it reads.
            conditions: What it is told of tasks.
            flags: `output_hidden_states` and `output_attentions`, where they are asked for.

        Raises:
            InputError: The encoder does not take positions, or does not return what is asked for.
        """
        encoder = carried.module
        count = 0 if conditions.tokens is None else conditions.tokens.shape[0]
        given = self._with_tokens(encoder, inputs, conditions) if count else self._plain(encoder, inputs)
        if inputs.embeds is not None and conditions.added is not None:
            given["inputs_embeds"] = given["inputs_embeds"] + conditions.added.unsqueeze(1)
        self.conditions = conditions
        self.layer_hooks.tell(conditions.layers, inputs.mask)
        try:
            with self._remembered(encoder, conditions):
                output = encoder(**given, **{**self.constants, **dict.fromkeys(flags, True)})
        finally:
            self.conditions = Conditions()
            self.layer_hooks.tell(None, None)
        every = states_of(state_tensor(output, self.frame), self.axis)
        layers = hidden = getattr(output, "hidden_states", None) or ()
        if count:
            layers = hidden = tuple(layer[:, count:] for layer in layers)
        states, length = every[:, count:] if count else every, inputs.mask.shape[1]
        if inputs.is_of_words and inputs.others and states.dim() == 3 and states.shape[1] > length:
            places = self._word_places(encoder, given, length, states.shape[1])
            states, layers = states[:, places], tuple(layer[:, places] for layer in layers)
        states, mask = states_by_row(states, inputs)
        attentions = _attentions(encoder, output) if flags.get("output_attentions") else ()
        return EncodedTokens(
            states,
            _mask_of_states(encoder, mask_of(inputs), states) if mask is None else mask,
            _pooled(getattr(output, "pooler_output", None)),
            inputs.ids,
            # The first are the embeddings; the last may lack the encoder's last norm.
            (*layers[1:-1], states),
            None if inputs.tasks is None else inputs.tasks.unsqueeze(1),
            every[:, :count] if count else None,
            _selected(tuple(hidden), flags.get("output_hidden_states", False)),
            attentions,
        )

    def _word_places(self, encoder: Any, given: Mapping[str, Any], length: int, count: int) -> slice:
        """Which of the states are the words', beside those of an image's patches, which the words have read."""
        if self.has_words_first is None:
            # Most encoders read no images beside words.
            from .word_places import has_words_first

            self.has_words_first = has_words_first(encoder, {**given, **self.constants}, length)
        start = 0 if self.has_words_first else count - length
        return slice(start, start + length)

    def _plain(self, encoder: Any, inputs: EncoderInputs) -> dict[str, Any]:
        if not inputs.is_of_words:
            return _in_precision(encoder, inputs.others)
        given = {
            **inputs.others,
            "input_ids": inputs.ids,
            "attention_mask": inputs.mask,
            "inputs_embeds": inputs.embeds,
        }
        if not self.takes_embeds:
            del given["inputs_embeds"]
        if self.takes_segments and inputs.segments is not None:
            given["token_type_ids"] = inputs.segments
        if inputs.positions is not None:
            if not self.takes_positions:
                raise InputError("This encoder takes no `position_ids`; leave them out.")
            given["position_ids"] = inputs.positions
        return given

    def _with_tokens(self, encoder: Any, inputs: EncoderInputs, conditions: Conditions) -> dict[str, Any]:
        """The inputs with the tasks' tokens in front, which read the text and each other and are not read by it."""
        assert conditions.tokens is not None and conditions.reads is not None
        if inputs.others:
            raise InputError(
                f"conditioning=task_tokens puts tokens before the words, beside which `{next(iter(inputs.others))}` "
                "would say nothing of them; leave it out, or choose conditioning=none."
            )
        words = inputs.embeds if inputs.embeds is not None else encoder.get_input_embeddings()(inputs.ids)
        (rows, length), count = inputs.mask.shape, conditions.tokens.shape[0]
        tokens = conditions.tokens.to(words.dtype).expand(rows, -1, -1)
        allowed = inputs.mask.bool()[:, None, None].expand(rows, 1, count + length, length)
        front = torch.zeros(count + length, count, dtype=torch.bool, device=words.device)
        front[:count] = conditions.reads
        allowed = torch.cat([front.expand(rows, 1, -1, -1), allowed], dim=-1)
        mask = torch.zeros(allowed.shape, dtype=words.dtype, device=words.device)
        given = {
            "inputs_embeds": torch.cat([tokens, words], dim=1),
            "attention_mask": mask.masked_fill(~allowed, torch.finfo(words.dtype).min),
        }
        if self.takes_segments and inputs.segments is not None:
            given["token_type_ids"] = nn.functional.pad(inputs.segments, (count, 0))
        if self.takes_positions:
            # The text keeps its positions; the tokens stand at one of them, all at the same.
            places = self._positions(inputs.mask) if inputs.positions is None else inputs.positions
            front_places = torch.full((rows, count), self.first_position + conditions.place, device=words.device)
            given["position_ids"] = torch.cat([front_places, places], dim=1)
        return given

    def _positions(self, mask: torch.Tensor) -> torch.Tensor:
        """(rows, length): the places of words, or, in encoders with one for padding, of words that are none."""
        if not self.first_position:
            return torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        return mask.cumsum(dim=1) * mask + self.first_position - 1

    def __getstate__(self) -> dict[str, Any]:
        # A copy has been told nothing.
        return {**self.__dict__, "conditions": Conditions()}

    @contextmanager
    def _remembered(self, encoder: Any, conditions: Conditions) -> Iterator[None]:
        """Under activation checkpointing a layer runs again in the backward pass, perhaps after another forward pass;
        let it be told then what it is told now.
        """
        again = self.is_conditioned and encoder.training and encoder.is_activation_checkpointing
        layers: dict[Any, Callable[..., Any]] = {
            layer: cast(Any, layer)._gradient_checkpointing_func
            for layer in (encoder.modules() if again else ())
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing
        }
        reentrant = (getattr(checkpoint, "keywords", {}).get("use_reentrant") for checkpoint in layers.values())
        if conditions.scales is not None and any(reentrant):
            # Such checkpoints see tensors that are arguments alone, and every layer reads the same scales.
            raise InputError(
                "conditioning=modulation does not go with activation checkpointing that is re-entrant; set "
                '{"use_reentrant": false} in its keyword arguments.'
            )

        def remembering(layer: Any, checkpoint: Callable[..., Any], function: Callable[..., Any], *given: Any) -> Any:
            function, given = self.layer_hooks.checkpointed(layer, function, given)

            def remember(*inner: Any) -> Any:
                before, self.conditions = self.conditions, conditions
                try:
                    return function(*inner)
                finally:
                    self.conditions = before

            return checkpoint(remember, *given)

        try:
            for layer, checkpoint in layers.items():
                layer._gradient_checkpointing_func = partial(remembering, layer, checkpoint)
            yield
        finally:
            for layer, checkpoint in layers.items():
                layer._gradient_checkpointing_func = checkpoint

    def _add(self, module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
        added = self.conditions.added
        return output if added is None else output + added.unsqueeze(1).to(output.dtype)

    def _modulate(self, index: int, module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
        scales, shifts = self.conditions.scales, self.conditions.shifts
        if scales is None or shifts is None:
            return output
        shape = (output.shape[0], *[1] * (output.ndim - 2), output.shape[-1])
        return output * (1 + scales[index].view(shape).to(output.dtype)) + shifts[index].view(shape).to(output.dtype)


def _in_precision(encoder: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as they are, and numbers in half precision where an encoder's weights are."""
    # A function in an encoder's place has none.
    dtype = getattr(encoder, "dtype", None)
    if dtype not in (torch.bfloat16, torch.float16):
        return dict(inputs)
    numbers = [name for name, value in inputs.items() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    return {**inputs, **{name: inputs[name].to(dtype) for name in numbers}}


def _selected(
    layers: tuple[torch.Tensor, ...], selection: bool | int | Sequence[int]
) -> tuple[torch.Tensor | None, ...]:
    """The hidden states that were asked for, all or some by number, None in place of others; () where none were."""
    if isinstance(selection, bool):
        return layers if selection else ()
    count = len(layers)
    numbers = [selection] if isinstance(selection, int) else selection
    kept = {number % count for number in numbers if -count <= number < count}
    return tuple(layer if number in kept else None for number, layer in enumerate(layers))


def _mask_of_states(encoder: Any, mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
    """The mask (rows, length) of states: of encoders of sound, which fold samples into frames, their own."""
    counted = getattr(encoder, "_get_feature_vector_attention_mask", None)
    if counted is None or mask is None or mask.shape[1] == states.shape[1]:
        return resampled_mask(mask, states)
    return counted(states.shape[1], mask).long()


def _pooled(output: Any) -> torch.Tensor | None:
    """A pooler's output as (rows, width); the mean of a map of features has two axes more."""
    return output.flatten(1) if isinstance(output, torch.Tensor) and output.ndim > 2 else output


def _attentions(encoder: PreTrainedModel, output: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    attentions = output.get("attentions") or ()
    if not attentions or any(layer is None for layer in attentions):
        given, kind = encoder.config._attn_implementation, type(encoder).__name__
        if given == "eager":
            raise InputError(f"A {kind} returns no attentions; leave output_attentions out.")
        raise InputError(
            f"attn_implementation={given!r} returns no attentions; load the model with attn_implementation='eager', "
            "or call model.set_attn_implementation('eager')."
        )
    return tuple(attentions)


def refuse_export(reason: str) -> None:
    """Raise `InputError` while a model is exported, where sizes follow from the values of a batch.

    Args:
        reason: The setting, and what it does.
    """
    if torch.compiler.is_exporting():
        raise InputError(
            f"{reason}, whose sizes an exported graph cannot know; export a model without it, or use torch.compile."
        )
