"""The limits of an encoder, asked of the encoder itself: word pieces, positions, segments; whether a tokenizer fits.

An encoder's configuration does not say it: `max_position_embeddings` counts places for padding in some encoders and
binds nobody in others.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .encoder_modules import has_weights, input_embeddings, main_input, reads_words, segment_kinds, word_table
from .encoder_reader import Conditions, EncoderReader
from .encoder_tensors import EncoderInputs
from .errors import InputError
from .modalities import TEXT, modality_of_field
from .several_encoders import first_encoder
from .task_config import TaskConfig
from .task_tensors import Carried
from .trial_pass import UNREADABLE, trial_pass

# Word pieces of the row that is read to see which tables are looked up by position.
_PROBE_LENGTH = 5
# Operations that look rows up in a table: the places of table and rows among their arguments.
_LOOKUPS = {
    torch.ops.aten.embedding.default: (0, 1),
    torch.ops.aten.index_select.default: (0, 2),
    torch.ops.aten.index.Tensor: (0, 1),
}

# By encoder: the shapes of its tables, and how many positions it has with them.
_measured: "WeakKeyDictionary[nn.Module, tuple[list[torch.Size], int | None]]" = WeakKeyDictionary()
# By tokenizer: its size, and the greatest id that it gives.
_greatest_ids: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, int]]" = WeakKeyDictionary()


class EncoderLimits(NamedTuple):
    """The limits of an encoder's inputs.

    Args:
        vocabulary: Rows of its table of word pieces; None without one.
        positions: Word pieces that a row may have, special ones included; None for any number.
        segments: Kinds of segments that it tells apart; None for any number, or where it takes none.
    """

    vocabulary: int | None = None
    positions: int | None = None
    segments: int | None = None


def limits_of(encoder: PreTrainedModel) -> EncoderLimits:
    """Return what an encoder can read."""
    tables = [part.weight.shape for part in encoder.modules() if isinstance(part, nn.Embedding)]
    if encoder not in _measured or _measured[encoder][0] != tables:
        _measured[encoder] = tables, _count_positions(encoder)
    words = word_table(encoder)
    return EncoderLimits(None if words is None else words[0], _measured[encoder][1], segment_kinds(encoder))


def limits_of_model(model: PreTrainedModel) -> EncoderLimits:
    """Return what the encoder of a `MultiTaskAttentionModel` can read of a row; of separate ones, the first task's."""
    return limits_of(first_encoder(model.encoder))


def check_texts(encoder: Any, inputs: EncoderInputs, mask: torch.Tensor | None) -> None:
    """Raise `InputError` for texts that are longer than an encoder has positions, which would be an IndexError inside;
    warn, as the encoder alone would, of padding without a mask.

    Args:
        encoder: The model's encoder, or several.
        inputs: What it is to read.
        mask: The attention mask, as it was given.
    """
    first, length = first_encoder(encoder), inputs.mask.shape[1]
    if inputs.ids is not None and mask is None and not torch.compiler.is_compiling():
        # Some configurations do not name all the pieces that the warning asks for.
        with suppress(AttributeError):
            first.warn_if_padding_and_no_attention_mask(inputs.ids, mask)
    said = getattr(first.config.get_text_config(), "max_position_embeddings", None)
    # A few of these places may be for padding. Where none are said, nothing is looked up.
    if not inputs.is_of_words or torch.compiler.is_compiling() or not isinstance(said, int) or length <= said - 2:
        return
    most = limits_of(first).positions
    if most is not None and length > most:
        raise InputError(
            f"A text has {length:,} word pieces, and this {type(first).__name__} reads {most:,} at most; cut it: "
            f"tokenizer(..., truncation=True, max_length={most}), or take an encoder that reads more."
        )


def check_reads_words(encoder: Any) -> None:
    """Raise `InputError` for an encoder, or several, of which texts are asked and that reads none."""
    first = first_encoder(encoder)
    if not reads_words(first):
        name = main_input(first)
        raise InputError(
            f"A {type(first).__name__} reads {name} and no texts; give it that, outputs = model({name}=...), and "
            "model.decode(outputs) answers the rows."
        )


def check_resizable(encoder: Any, has_word_weights: bool, size: int | None) -> None:
    """Raise `InputError` where an encoder's table of word pieces cannot become one of this size.

    Args:
        encoder: The model's encoder, or several.
        has_word_weights: Whether parts of the model have a weight for each word piece.
        size: The new number of word pieces; None for the one that there is.
    """
    if encoder is not first_encoder(encoder):
        raise InputError("Separate encoders cannot be resized; resize the encoder before it is wrapped.")
    words = input_embeddings(encoder)
    if not isinstance(words, nn.Embedding):
        raise InputError(f"A {type(encoder).__name__} has no table of word pieces that could be resized.")
    if has_word_weights and size not in (None, words.num_embeddings):
        raise InputError(
            "A model with `lexical_rank`, or with a task of masked language modelling, has a weight for each word "
            "piece; resize the encoder's vocabulary before it is wrapped."
        )


def check_words(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raise `InputError` for a tokenizer that knows no word: Transformers makes one where the files are missing."""
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(f"{source!r} holds no tokenizer (tokenizer.json); save it there beside the weights.")


def check_tokenizer(limits: EncoderLimits, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[TaskConfig]) -> None:
    """Raise `InputError` where a tokenizer gives what the encoder cannot read.

    Args:
        limits: What the encoder can read.
        tokenizer: The tokenizer.
        tasks: The tasks; some read two texts.
    """
    if limits.vocabulary is not None:
        last = _greatest_id(tokenizer)
        if last >= limits.vocabulary:
            raise InputError(
                f"The tokenizer gives word pieces up to id {last} ({tokenizer.convert_ids_to_tokens(last)!r}), the "
                f"encoder has embeddings for ids up to {limits.vocabulary - 1}. Take the encoder's own tokenizer, or "
                f"call resize_token_embeddings({last + 1}) on the model before it is given to the trainer (of an "
                "encoder given by name: on AutoModel.from_pretrained(name), save it beside the tokenizer, and give "
                "that folder)."
            )
    # One kind of segment cannot be told apart, so an encoder that has one is not given any.
    if limits.segments is not None and limits.segments > 1:
        pair = any(sum(modality_of_field(field) == TEXT for field in task.input_fields) > 1 for task in tasks)
        last = max(tokenizer("a", "a" if pair else None).get("token_type_ids") or [0])
        if last >= limits.segments:
            raise InputError(
                f"The tokenizer gives segments up to {last} (token_type_ids), the encoder has embeddings for "
                f"{limits.segments} kinds of them (type_vocab_size). Take the encoder's own tokenizer, or leave "
                "segments out: tokenizer.model_input_names = ['input_ids', 'attention_mask']."
            )


def _greatest_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the greatest id that a tokenizer gives, -1 if it gives none; ids may have gaps."""
    if tokenizer not in _greatest_ids or _greatest_ids[tokenizer][0] != len(tokenizer):
        _greatest_ids[tokenizer] = len(tokenizer), max(tokenizer.get_vocab().values(), default=-1)
    return _greatest_ids[tokenizer][1]


def _count_positions(encoder: PreTrainedModel) -> int | None:
    """Return how many word pieces a row may have; None where the encoder sets no end.

    A short row of one word piece, again and again, is read: what is looked up in rising order is looked up by
    position, and with the table's rows the positions end. Encoders that compute what they know of positions (rotary
    and relative ones) look nothing up so. Weights without values cannot be asked: None.
    """
    if not has_weights(encoder) or not all(tensor.numel() for tensor in encoder.parameters()):
        return None
    padding = getattr(encoder.config.get_text_config(), "pad_token_id", None)
    ids = torch.full((1, _PROBE_LENGTH), 2 if padding == 1 else 1, device=encoder.device)
    lookups = _Lookups(encoder)
    try:
        with trial_pass(encoder), lookups:
            # Its forward itself: hooks on an encoder wait for rows of its user's.
            EncoderReader(encoder)(Carried(encoder.forward), EncoderInputs(ids, torch.ones_like(ids)), Conditions())
    except UNREADABLE:
        # What an encoder does not do with so short a row is no limit; the tables that it had read by then are.
        pass
    return min(lookups.ends, default=None)


class _Lookups(TorchDispatchMode):
    """Notes the tables of a module that are looked up in rising order, and where the first rows' order must end."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.tables = {tensor.data_ptr() for tensor in _tensors_of(module)}
        self.ends: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LOOKUPS:
            table, places = (args[place] for place in _LOOKUPS[func])
            if table.data_ptr() in self.tables and (first := _rises_from(places)) is not None:
                self.ends.append(len(table) - first)
        return func(*args, **(kwargs or {}))


def _tensors_of(module: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, buffers, and tensors that are neither."""
    for part in module.modules():
        kept = (*part.parameters(recurse=False), *part.buffers(recurse=False), *vars(part).values())
        yield from (value for value in kept if isinstance(value, torch.Tensor))


def _rises_from(places: torch.Tensor | Sequence[torch.Tensor | None]) -> int | None:
    """Return the place of the first word piece, if a row's places rise by one from word piece to word piece."""
    index = places if isinstance(places, torch.Tensor) else places[0] if len(places) == 1 else None
    if index is None or index.dtype not in (torch.int64, torch.int32) or index.shape[-1:] < (_PROBE_LENGTH,):
        return None
    # Some encoders fill a row up to a block; what fills it follows the text.
    rows = index.reshape(-1, index.shape[-1])[:, :_PROBE_LENGTH].tolist()
    first = rows[0][0]
    return first if all(row == list(range(first, first + _PROBE_LENGTH)) for row in rows) else None
