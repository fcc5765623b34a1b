"""Plain inputs, as Transformers' models take them, become rows of the encoder."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch

from .encoder_tensors import EncoderInputs
from .errors import InputError, check_choice
from .modalities import ROW_MODALITIES


class WordInputs(NamedTuple):
    """The inputs of texts, as the model's `forward` takes them."""

    input_ids: torch.Tensor | None
    attention_mask: torch.Tensor | None
    token_type_ids: torch.Tensor | None
    position_ids: torch.Tensor | None
    inputs_embeds: torch.Tensor | None


class PlainRows(NamedTuple):
    """The rows that plain inputs stand for.

    Args:
        inputs: What the encoder reads; of rows with choices, all choices of all rows.
        choices: (B, choices) whether a row has the choice, of inputs (B, choices, L).
    """

    inputs: EncoderInputs
    choices: torch.Tensor | None

    @property
    def count(self) -> int:
        """B, how many rows there are."""
        return self.inputs.mask.shape[0] if self.choices is None else self.choices.shape[0]


def read_inputs(words: WordInputs, others: Mapping[str, Any], accepted: Sequence[str]) -> PlainRows:
    """Return the rows of inputs (B, L) or, with choices, (B, choices, L); the mask is all ones if it is None.

    Args:
        words: Texts.
        others: Further inputs by the names of the encoder's `forward`; all that it reads where there are no words.
        accepted: What the encoder's `forward` takes; nothing where it takes anything.

    Raises:
        InputError: No inputs, one that the encoder does not take or that is no tensor, word pieces beside embeddings,
            or tensors of shapes that do not go together.
    """
    named = _named(words._asdict(), others, accepted)
    ids, mask, segments, positions, embeds = words
    if ids is None and embeds is None and any(isinstance(value, torch.Tensor) for value in named.values()):
        given = {name: value for name, value in words._asdict().items() if value is not None}
        return PlainRows(other_inputs({**named, **given}), None)
    if (ids is None) == (embeds is None):
        both = "both" if ids is not None else "neither"
        raise InputError(f"{both} of `input_ids` and `inputs_embeds` are given; expected one of them.")
    shape = ids.shape if ids is not None else embeds.shape[:-1]  # type: ignore[union-attr]
    device = ids.device if ids is not None else embeds.device  # type: ignore[union-attr]
    if len(shape) not in (2, 3):
        name = "input_ids" if ids is not None else "inputs_embeds"
        width = "" if ids is not None else ", width"
        raise InputError(
            f"`{name}` has the shape {tuple((ids if ids is not None else embeds).shape)}; expected "  # type: ignore[union-attr]
            f"(rows, length{width}), or (rows, choices, length{width}) of multiple choice."
        )
    if mask is None:
        mask = torch.ones(shape, dtype=torch.long, device=device)
    if positions is not None and positions.shape in (shape[-1:], (1, *shape[1:])):
        positions = positions.expand(shape)
    for name, beside in (("attention_mask", mask), ("token_type_ids", segments), ("position_ids", positions)):
        # Positions may have several axes, of time, height and width.
        aligned = beside if name != "position_ids" or beside is None or beside.ndim <= len(shape) else beside[0]
        if aligned is not None and aligned.shape != shape:
            raise InputError(
                f"`{name}` has the shape {tuple(cast(torch.Tensor, beside).shape)}; expected {tuple(shape)}, that of "
                "the inputs."
            )
    choices = None
    if len(shape) == 3:
        choices = mask.bool().any(dim=-1)
        ids, mask, segments, positions, embeds = (
            None if one is None else one.flatten(0, 1) for one in (ids, mask, segments, positions, embeds)
        )
        named = {name: one.flatten(0, 1) if _has_axes(one) else one for name, one in named.items()}
        assert mask is not None
    return PlainRows(EncoderInputs(ids, mask, segments, embeds, positions=positions, others=named), choices)


def _has_axes(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 1


def _named(words: Mapping[str, Any], others: Mapping[str, Any], accepted: Sequence[str]) -> dict[str, Any]:
    """Return the other inputs that are not None.

    Args:
        words: What texts are given as, by name.
        others: Everything else.
        accepted: What the encoder's `forward` takes; nothing where it takes anything.

    Raises:
        InputError: An input that the encoder does not take or that is no tensor, or none at all.
    """
    given = {name: value for name, value in words.items() if value is not None}
    named = {name: value for name, value in others.items() if value is not None}
    for name, value in {**given, **named}.items():
        if isinstance(value, Mapping):
            raise InputError(f"`{name}` is a {type(value).__name__}; write model(**inputs), with two stars.")
        # Flags and sizes may be numbers.
        if not isinstance(value, torch.Tensor) and (name in given or not isinstance(value, bool | int | float | str)):
            raise InputError(
                f"`{name}` is a {type(value).__name__}; expected a tensor, such as a tokenizer or processor returns "
                'with return_tensors="pt".'
            )
    is_of_words = bool(given.keys() & {"input_ids", "inputs_embeds"})
    # A collator makes masks and segments of texts for any encoder; those that take none are given none.
    checked = given.keys() & {"input_ids", "inputs_embeds"} if is_of_words else given.keys()
    for name in [*sorted(checked), *others] if accepted else ():
        check_choice("input of the encoder", name, accepted)
    if not is_of_words and not named and not {"input_ids", "inputs_embeds"} & set(accepted):
        raise InputError(f"Nothing to read is given; the encoder takes {', '.join(accepted) or 'anything'}.")
    return named


def other_inputs(given: Mapping[str, Any]) -> EncoderInputs:
    """Return the inputs of an encoder that reads no word pieces.

    Args:
        given: By the names of its `forward`. B is the first axis of the first tensor; patches that follow one another
            have a grid per row beside them (``grid_thw``).
    """
    tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
    grids = [value for name, value in tensors.items() if name.endswith("grid_thw")]
    first = tensors.get(ROW_MODALITIES, (grids or list(tensors.values()))[0])
    return EncoderInputs(None, torch.ones(first.shape[0], 1, dtype=torch.long, device=first.device), others=given)
