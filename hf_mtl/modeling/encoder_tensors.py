"""Inputs and outputs of an encoder, of whatever kind: word pieces, pixels, waves become states of tokens."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
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
    "audio_values",
    "text_embeddings",
    "image_embeddings",
    "language_output",
    "matching_scores",
    "iou_scores",
    "spectrogram",
)


class EncoderInputs(NamedTuple):
    """The inputs of an encoder.

    Args:
        ids: (rows, length) word pieces, or None beside `embeds`.
        mask: (rows, length), 1 at tokens and 0 at padding.
        segments: (rows, length), for encoders that take them.
        embeds: (rows, length, width) word embeddings instead of `ids`.
        tasks: (rows,) the task each row is encoded for, where a row is encoded once for each of its tasks.
        positions: (rows, length) the place of each piece, where the encoder is not to count them itself.
        others: Further inputs, by the names of the encoder's `forward`; without word pieces all that it reads, its
            attention mask among them, and `mask` has one place per row.
    """

    ids: torch.Tensor | None
    mask: torch.Tensor
    segments: torch.Tensor | None = None
    embeds: torch.Tensor | None = None
    tasks: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    others: Mapping[str, torch.Tensor] = MappingProxyType({})

    @property
    def is_of_words(self) -> bool:
        """True where there are word pieces or their embeddings."""
        return self.ids is not None or self.embeds is not None

    def select(self, rows: torch.Tensor) -> "EncoderInputs":
        """Return some rows, by their indices.

        Raises:
            InputError: An input whose first axis is not the rows'.
        """
        count = self.mask.shape[0]
        for name, value in self.others.items():
            if value.ndim == 0 or value.shape[0] not in (1, count):
                raise InputError(
                    f"`{name}` {tuple(value.shape)} has no axis of {count} rows, and rows are read apart here; choose "
                    "conditioning=none."
                )
        others = {name: value[rows] if value.shape[0] == count else value for name, value in self.others.items()}
        given = {name: value for name, value in self._asdict().items() if name != "others"}
        by_row = {name: None if value is None else value[rows] for name, value in given.items()}
        return EncoderInputs(**by_row, others=others)  # type: ignore[arg-type]


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


def resampled_mask(mask: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
    """Return a mask (rows, length) of the states (rows, length, hidden), of one of the inputs, which may be longer.

    An encoder that reads 320 samples as one state keeps of a row as large a share of states as it had of samples.

    Args:
        mask: (rows, samples), 1 where a row has some; None where all have.
        states: The states.
    """
    rows, length = states.shape[:2]
    if mask is None or mask.ndim != 2:
        return torch.ones(rows, length, dtype=torch.long, device=states.device)
    if mask.shape[1] == length:
        return mask
    counts = (mask.long().sum(dim=1) * length / mask.shape[1]).ceil().clamp(min=1)  # (rows,)
    return (torch.arange(length, device=states.device) < counts.unsqueeze(1)).long()


def states_of(output: Any, rows: int, width: int | None = None) -> torch.Tensor:
    """Return the hidden states that an encoder returned, as (rows, length, hidden).

    Args:
        output: The encoder's output.
        rows: The number of rows of its inputs.
        width: The hidden size, where it is given; tells channels from places where the shape does not.

    Raises:
        ValueError: There is nothing in the output that could be hidden states.
    """
    if isinstance(output, ModelOutput | dict):
        values = [output.get(name) for name in _STATE_FIELDS]
    elif isinstance(output, tuple | list):
        values = list(output)
    else:
        values = [output]
    for value in values:
        tensor = value[-1] if isinstance(value, tuple | list) and value else value
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dim() > 1:
            return _by_rows(tensor, rows, width)
    fields = list(output) if isinstance(output, dict) else type(output).__name__
    raise ValueError(f"The encoder returned no hidden states, but {fields}.")


def _by_rows(tensor: torch.Tensor, rows: int, width: int | None) -> torch.Tensor:
    """States in any of the usual shapes as (rows, length, hidden)."""
    if tensor.dim() > 3:
        last = tensor.shape[-1]
        square = tensor.shape[-1] == tensor.shape[-2]
        if not (last == width or (tensor.shape[-2] == tensor.shape[-3] and not square)):
            tensor = tensor.movedim(-3, -1)
        tensor = tensor.flatten(1, -2)
    elif tensor.dim() == 3 and tensor.shape[1] == width != tensor.shape[2]:
        # Encoders of sound may return (rows, hidden, frames).
        tensor = tensor.transpose(1, 2)
    if tensor.dim() == 2 and tensor.shape[0] == rows:
        return tensor.unsqueeze(1)
    if tensor.shape[0] == rows and tensor.dim() == 3:
        return tensor
    if tensor.shape[:-1].numel() % rows:
        raise ValueError(f"Hidden states of shape {tuple(tensor.shape)} cannot be told apart into {rows} rows.")
    return tensor.reshape(rows, -1, tensor.shape[-1])
