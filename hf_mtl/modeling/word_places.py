"""Finds where words stand among the states of an encoder that reads images beside them."""

from collections.abc import Mapping
from typing import Any

import torch

from .errors import InputError
from .trial_pass import trial_pass


def has_words_first(encoder: Any, given: Mapping[str, Any], length: int) -> bool:
    """Return whether words stand before the patches of images among an encoder's states, or else behind them.

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
        raise InputError(
            "Where images stand beside words, give `input_ids` the first time; `inputs_embeds` do not tell them apart."
        )
    options = {**given, "output_hidden_states": True, "return_dict": True}

    def embeddings(words: torch.Tensor) -> torch.Tensor:
        # Some draw which patches they read: the same ones both times.
        with trial_pass(encoder):
            return encoder.forward(**{**options, "input_ids": words}).hidden_states[0]

    differ = (embeddings(ids) != embeddings((ids == 0).to(ids.dtype))).any(dim=-1).any(dim=0)
    places = differ.nonzero().flatten()
    starts = {0, len(differ) - length}
    if not len(places) or int(places[0]) not in starts or int(places[-1]) >= int(places[0]) + length:
        raise InputError(
            f"Among the {len(differ)} states of a {type(encoder).__name__} the {length} words cannot be found; leave "
            "the images out, or take one of its towers: tower=."
        )
    return int(places[0]) == 0
