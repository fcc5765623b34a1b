"""Finds where words stand among the states of an encoder that reads images beside them."""

from collections.abc import Mapping
from typing import Any

import torch

from .errors import InputError
from .trial_pass import trial_pass


def first_word(encoder: Any, given: Mapping[str, Any], length: int) -> int:
    """Return the place of the first word among an encoder's states: patches stand before or behind the words.

    The same inputs with other words are read, and those of its embeddings that differ are the words'.

    Args:
        encoder: The encoder.
        given: What it was given: `input_ids` and other inputs.
        length: The number of words.

    Raises:
        InputError: It says nothing of its embeddings, or the words do not stand together.
    """
    ids = given.get("input_ids")
    if ids is None:
        raise InputError("Where images stand beside words, give `input_ids`; `inputs_embeds` do not tell them apart.")
    least = ids.min()
    others = torch.where(ids == least, ids.max(), least)
    options = {**given, "output_hidden_states": True, "return_dict": True}

    def embeddings(words: torch.Tensor) -> torch.Tensor:
        # Some draw which patches they read: the same ones both times.
        with trial_pass(encoder):
            return encoder.forward(**{**options, "input_ids": words}).hidden_states[0]

    first, second = embeddings(ids), embeddings(others)
    differ = (first != second).any(dim=-1).any(dim=0)
    places = differ.nonzero().flatten()
    start = int(places[0]) if len(places) else 0
    # Words that are all alike differ nowhere.
    if not len(places) or start not in (0, len(differ) - length) or int(places[-1]) >= start + length:
        raise InputError(
            f"Among the {len(differ)} states of a {type(encoder).__name__} the {length} words cannot be found; leave "
            "the images out, or take one of its towers: tower=."
        )
    return start
