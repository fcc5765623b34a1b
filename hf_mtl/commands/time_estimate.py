"""A rough estimate of a drafted recipe's time: a batch of its rows through its encoder, forward and backward."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from transformers import AutoTokenizer, PreTrainedModel

from ..modeling.encoder_limits import limits_of
from ..modeling.encoder_loading import find_encoder, load_encoder
from ..modeling.errors import InputError
from ..modeling.trial_pass import UNREADABLE
from ..screen import rough_duration
from .console import quiet_libraries

_ROWS = 32
# Word pieces of a row that is read whole, and of one that is cut into windows.
_LENGTH, _WINDOWED_LENGTH = 128, 2048
_UNKNOWN = "How long it takes is measured by hf-mtl doctor once the encoder {!r} is on this machine."


class TaskSample(NamedTuple):
    """Some rows of a task, as the encoder reads them.

    Args:
        size: How many rows the task has.
        rows: Of some rows their sequences, each one text or two.
        is_windowed: Whether long ones are cut into windows.
    """

    size: int
    rows: Sequence[Sequence[tuple[str, ...]]]
    is_windowed: bool


def estimate_time(encoder: str, epochs: int, samples: Sequence[TaskSample]) -> str:
    """Return a sentence on how long training takes here.

    Args:
        encoder: The recipe's.
        epochs: Passes over the rows.
        samples: Of each task.
    """
    try:
        folder = find_encoder(encoder, {"local_files_only": True})
        quiet_libraries()
        model, tokenizer = load_encoder(folder, pooler=False), AutoTokenizer.from_pretrained(folder)
    except (InputError, OSError, ValueError):
        return _UNKNOWN.format(encoder)
    pieces, lengths = 0.0, []
    for sample in samples:
        most = _WINDOWED_LENGTH if sample.is_windowed else _LENGTH
        ids = [[len(tokenizer(*texts, verbose=False)["input_ids"]) for texts in row] for row in sample.rows]
        pieces += sample.size * sum(min(length, most) for row in ids for length in row) / max(len(ids), 1)
        lengths += [min(length, _LENGTH) for row in ids for length in row]
    if not lengths or not any(sample.size for sample in samples):
        return _UNKNOWN.format(encoder)
    length = max(min(sum(lengths) // len(lengths), limits_of(model).positions or _LENGTH), 2)
    try:
        seconds = _seconds_per_piece(model, length) * pieces * epochs
    except UNREADABLE:
        # It reads no texts, or there is no room for it here.
        return _UNKNOWN.format(encoder)
    return (
        f"{epochs} passes over {sum(sample.size for sample in samples):,} rows take {rough_duration(seconds)} here "
        f"(by {_ROWS} rows of {length} word pieces; hf-mtl doctor measures a whole step)."
    )


def _seconds_per_piece(model: PreTrainedModel, length: int) -> float:
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    cast(Any, model).to(device).train()
    vocabulary = cast(Any, model.get_input_embeddings()).weight.shape[0]
    ids = torch.randint(0, vocabulary, (_ROWS, length), device=device)
    fastest = float("inf")
    # The first is slower than those that follow.
    for _ in range(3):
        start = time.perf_counter()
        model(input_ids=ids, attention_mask=torch.ones_like(ids))[0].sum().backward()
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()
        fastest = min(fastest, time.perf_counter() - start)
        model.zero_grad()
    return fastest / ids.numel()
