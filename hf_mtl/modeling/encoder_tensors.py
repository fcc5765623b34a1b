"""Inputs and outputs of an encoder, of whatever kind: word pieces, pixels, waves become states of tokens."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import ModelOutput

from .errors import InputError

# The fields of an output that hold hidden states, the best first.
_STATE_FIELDS = (
    "last_hidden_state",
    "encoder_last_hidden_state",
    "hidden_states",
    "feature_maps",
    "text_embeds",
    "image_embeds",
    "pooler_output",
    "logits",
    "latents",
    "quantized_representation",
    "text_embeddings",
    "image_embeddings",
    "language_output",
    "matching_scores",
    "iou_scores",
    "spectrogram",
)
# Fields of waves, of which so many samples are one state where the configuration (`hop_length`) does not say how many.
_WAVE_FIELDS = ("audio_values", "waveforms")
_FRAME = 320
# Names of masks of what is read, 1 where there is something; and endings of names of each row's size.
_MASKS = (
    "attention_mask",
    "pixel_attention_mask",
    "input_features_mask",
    "feature_attention_mask",
    "padding_mask",
)
_SIZES = ("grid_thw", "feature_lens")
# Endings of names of patches' places, -1 where there is no patch.
_PLACES = ("pixel_position_ids",)


class EncoderInputs(NamedTuple):
    """The inputs of an encoder.

    Args:
        ids: (rows, length) word pieces, or None beside `embeds`.
        mask: (rows, length), 1 at tokens and 0 at padding.
        segments: (rows, length), for encoders that take them.
        embeds: (rows, length, width) word embeddings instead of `ids`.
        tasks: (rows,) the task each row is encoded for, where a row is encoded once for each of its tasks.
        positions: (rows, length) the place of each piece, where the encoder is not to count them itself; or those of
            time, height and width, (axes, rows, length).
        others: Further inputs, by the names of the encoder's `forward`; without word pieces all that it reads, its
            attention mask among them, and `mask` has one place per row.
    """

    ids: torch.Tensor | None
    mask: torch.Tensor
    segments: torch.Tensor | None = None
    embeds: torch.Tensor | None = None
    tasks: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    others: Mapping[str, Any] = MappingProxyType({})

    @property
    def is_of_words(self) -> bool:
        """True where there are word pieces or their embeddings."""
        return self.ids is not None or self.embeds is not None

    def select(self, rows: torch.Tensor) -> "EncoderInputs":
        """Return some rows, by their indices.

        Raises:
            InputError: An input that does not say what is of which row.
        """
        count = self.mask.shape[0]
        tensors = {name: value for name, value in self.others.items() if isinstance(value, torch.Tensor)}
        for name, value in tensors.items():
            # Beside words, images of which some rows have several may be as many as rows.
            is_by_row = value.shape[:2] == self.mask.shape if self.is_of_words else value.shape[:1] == (count,)
            if not is_by_row:
                raise InputError(
                    f"`{name}` {tuple(value.shape)} does not say what is of which of {count} rows, and rows are read "
                    "apart here; choose conditioning=none."
                )
        others = {**self.others, **{name: value[rows] for name, value in tensors.items()}}
        by_row = {
            name: value[:, rows] if name == "positions" and value.ndim == 3 else value[rows]
            for name, value in self._asdict().items()
            if name != "others" and value is not None
        }
        return self._replace(**by_row, others=others)


class EncodedTokens(NamedTuple):
    """The outputs of an encoder for a batch.

    Args:
        states: (rows, length, hidden) token states.
        mask: (rows, length), 1 at tokens and 0 at padding.
        pooled: (rows, hidden), the encoder's own pooled output, where it has one.
        ids: (rows, length) word pieces, where the encoder was given them.
        layers: Token states of every layer, the last one's `states`, where asked for.
        tasks: (rows, 1) the task each row was encoded for, where a row is encoded once for each of its tasks.
        task_tokens: (rows, tasks, hidden) states of the tokens that stand for tasks, where there are any.
        hidden_states: The encoder's own, of its embeddings and every layer, where asked for; None in place of layers
            that are not.
        attentions: The encoder's own, of every layer, where asked for; tokens that stand for tasks come first.
        views: Where several encoders read a row, what each said; the rest is their mean.
        by_modality: Where encoders of several modalities read a row, what each said; the rest is the first one's.
        task_mask: (rows, tasks) beside it, True where a row has all that a task reads.
    """

    states: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor | None = None
    ids: torch.Tensor | None = None
    layers: tuple[torch.Tensor, ...] = ()
    tasks: torch.Tensor | None = None
    task_tokens: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor | None, ...] = ()
    attentions: tuple[torch.Tensor, ...] = ()
    views: "tuple[EncodedTokens, ...]" = ()
    by_modality: "Mapping[str, EncodedTokens]" = MappingProxyType({})
    task_mask: torch.Tensor | None = None


def resampled_mask(mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
    """Return a mask (rows, length) of the states (rows, length, hidden), of one of the inputs, which may be longer.

    Of an encoder that reads 320 samples as one state, a state is kept where one of its samples is.

    Args:
        mask: (rows, samples), 1 where a row has some; None where all have.
        states: The states.
    """
    rows, length = states.shape[:2]
    if mask is None or mask.ndim != 2:
        return torch.ones(rows, length, dtype=torch.long, device=states.device)
    if mask.shape[1] == length:
        return mask
    return F.adaptive_max_pool1d(mask.float().unsqueeze(1), length).squeeze(1).long()


def mask_of(inputs: EncoderInputs) -> torch.Tensor | None:
    """Return the mask of what an encoder reads, (rows, samples); None where it was given none."""
    if inputs.is_of_words:
        return inputs.mask
    return next((inputs.others[name] for name in _MASKS if name in inputs.others), None)


def state_tensor(output: Any, frame: int | None = None) -> torch.Tensor:
    """Return the tensor of an encoder's output that holds hidden states, in whatever shape.

    Args:
        output: The encoder's output.
        frame: Samples of a wave that make one state, where a wave is all that it returns.

    Raises:
        InputError: There is nothing in the output that could be hidden states.
    """
    if isinstance(output, ModelOutput | dict):
        values = {name: output.get(name) for name in (*_STATE_FIELDS, *_WAVE_FIELDS)}
    elif isinstance(output, tuple | list):
        values = {str(place): value for place, value in enumerate(output)}
    else:
        values = {"": output}
    for name, value in values.items():
        tensor = value[-1] if isinstance(value, tuple | list) and value else value
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dim() > 1:
            return _in_frames(tensor, frame or _FRAME) if name in _WAVE_FIELDS else tensor
    fields = ", ".join(output) if isinstance(output, dict) else type(output).__name__
    raise InputError(f"The encoder returned no hidden states, but {fields}.")


def _in_frames(wave: torch.Tensor, frame: int) -> torch.Tensor:
    """(rows, frames, samples) of (rows, channels, samples) or (rows, samples); the last frame is filled with zeros."""
    flat = wave.flatten(1)
    return F.pad(flat, (0, -flat.shape[1] % frame)).unflatten(1, (-1, frame))


def states_of(tensor: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Return hidden states as (rows, length, hidden), or (tokens, hidden) of all rows.

    Args:
        tensor: As they were returned.
        axis: The axis of the hidden size, from the end; the others, but the first, are places.
    """
    last = tensor if axis == -1 else tensor.movedim(axis, -1)
    return last.flatten(1, -2) if last.dim() > 3 else last


def states_by_row(states: torch.Tensor, inputs: EncoderInputs) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the states as (rows, length, hidden), and a mask (rows, length) where they were not by row before.

    Args:
        states: (rows, length, hidden), (rows, hidden), or, of tokens of all rows behind one another, (tokens, hidden)
            or (1, tokens, hidden).
        inputs: What was read. Where rows have different numbers of tokens, a grid for each row (``grid_thw``), its
            length (``feature_lens``), its patches' places or a mask tell them apart.

    Raises:
        InputError: Nothing says which tokens are whose.
    """
    rows = inputs.mask.shape[0]
    if states.shape[0] == rows:
        return states.unsqueeze(1) if states.dim() == 2 else states, None
    tokens = states.reshape(-1, states.shape[-1])
    sizes = _row_sizes(inputs, rows)
    counts = sizes * tokens.shape[0]
    total = int(sizes.sum())
    if bool((counts % total).any()):
        raise InputError(
            f"{tokens.shape[0]} states cannot be told apart into {rows} rows of the sizes {sizes.tolist()}; read one "
            "row at a time."
        )
    pieces = tokens.split((counts // total).tolist())
    ones = [torch.ones(len(piece), dtype=torch.long, device=tokens.device) for piece in pieces]
    return pad_sequence(pieces, batch_first=True), pad_sequence(ones, batch_first=True)


def _row_sizes(inputs: EncoderInputs, rows: int) -> torch.Tensor:
    """(rows,), as parts of all: how much of what was read is each row's."""
    for name, value in inputs.others.items():
        if name.endswith(_SIZES):
            return value.reshape(rows, -1).prod(dim=1)
        if name.endswith(_PLACES):
            return (value >= 0).all(dim=-1).sum(dim=1)
    mask = mask_of(inputs)
    return inputs.mask.new_ones(rows) if mask is None or mask.ndim != 2 else mask.long().sum(dim=1)
