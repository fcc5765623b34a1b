"""Arguments of a processor: those that tokenizers take and it does not are refused by name."""

from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from .errors import InputError, nearest

# Arguments of tokenizers that the processor has no use for, and why.
_REFUSED = {
    "max_length": "a task reads as many word pieces as its `max_length` says",
    "truncation": "rows are cut at their task's `max_length`, contexts are read in windows",
    "return_overflowing_tokens": "contexts are read in windows, one row each; batch.row_indices(task) says whose",
    "stride": "windows share as many word pieces as their task's `stride` says",
    "images": "an image is a field of its row: processor([{'image': ...}])",
    "audio": "a sound is a field of its row: processor([{'audio': ...}])",
    "sampling_rate": "a sound says its own: {'audio': {'array': ..., 'sampling_rate': ...}}",
    "text": "rows come first: processor(rows)",
    "text_pair": "a second text is a field of its row: {'text': ..., 'text_pair': ...}",
    "is_split_into_words": "words are a field of their row: {'tokens': [...]}",
}


def check_kind(tokenizer: Any) -> None:
    """Raise `InputError` for something that is no tokenizer."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            f"The tokenizer is a {type(tokenizer).__name__}; expected the encoder's: "
            "AutoTokenizer.from_pretrained(name)."
        )


def check_arguments(
    others: Mapping[str, Any],
    padding: Any,
    pad_to_multiple_of: int | None,
    return_tensors: Any,
    conversions: Collection[Any],
) -> None:
    """Raise `InputError` for what the processor does not take, by name.

    Args:
        others: Arguments by names that it does not have.
        padding: See `MultiTaskProcessor.__call__`.
        pad_to_multiple_of: Likewise.
        return_tensors: Likewise.
        conversions: What `return_tensors` may be.
    """
    for name in others:
        if name == "truncation" and others[name] in (True, "longest_first"):
            continue
        served = ("rows", "tasks", "labels", "padding", "pad_to_multiple_of", "return_tensors")
        reason = f": {_REFUSED[name]}." if name in _REFUSED else f".{nearest(name, served)}"
        raise InputError(f"The processor takes no {name!r}{reason} It takes {', '.join(served)}.")
    if padding not in (True, "longest", "max_length"):
        raise InputError(
            f"padding={padding!r}; expected True or 'longest', or 'max_length': the rows of a batch have one length."
        )
    if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
        raise InputError(f"pad_to_multiple_of={pad_to_multiple_of!r}; expected a whole number >= 1.")
    if return_tensors not in conversions:
        raise InputError(f"return_tensors={return_tensors!r}; expected 'pt', 'np', or None for lists.")
