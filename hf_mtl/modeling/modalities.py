"""The modalities of what rows hold: texts, images, sounds, rows of tables; the fields and encoders of each.

To add one, write its row in `MODALITIES` and its reader in `modality_readers.py`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .encoder_modules import main_input
from .errors import InputError, check_choice

TEXT, TABLE = "text", "table"
# The input of several encoders that says which modalities each row has: (rows, modalities), 1 where it does.
ROW_MODALITIES = "row_modalities"
# What texts are given as; other encoders have some of these names too.
_WORD_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
# By modality, but for texts: the beginnings of the names of what its encoders read first. A modality is called as the
# field of a row that holds it.
MODALITIES: dict[str, tuple[str, ...]] = {
    "image": ("pixel", "flattened_patches", "image"),
    "audio": ("input_values", "input_features", "audio", "spectrogram"),
    TABLE: ("numbers",),
}
# How the names of their files end.
FILE_ENDINGS = {
    "image": (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
    "audio": (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus"),
}


def modality_of_field(field: str) -> str:
    """Return the modality of an input field."""
    return field if field in MODALITIES else TEXT


def modalities_of(fields: Iterable[str]) -> tuple[str, ...]:
    """Return the modalities of input fields, each once."""
    return tuple(dict.fromkeys(map(modality_of_field, fields)))


def modality_of_encoder(encoder: nn.Module) -> str:
    """Return what an encoder reads.

    Raises:
        InputError: It reads something else, such as videos or points.
    """
    name = main_input(encoder)
    for modality, beginnings in MODALITIES.items():
        if name.startswith(beginnings):
            return modality
    if name in ("input_ids", "inputs_embeds"):
        return TEXT
    raise InputError(
        f"A {type(encoder).__name__} reads `{name}`, which is no text, image, sound or row of a table; give its "
        f"inputs themselves, model({name}=...), and train it with transformers.Trainer."
    )


def check_modality(name: str) -> None:
    """Raise `InputError` for something that is the name of no modality."""
    check_choice("modality", name, [TEXT, *MODALITIES])


def modality_row(config: Any, name: str) -> Mapping[str, Any]:
    """Return what a model's configuration says of a modality; nothing where it names none."""
    rows: Sequence[Mapping[str, Any]] = config.modalities or ()
    return next((row for row in rows if row["name"] == name), {})


def input_names(name: str, encoder_inputs: Sequence[str]) -> dict[str, str]:
    """Return by the names of a trunk's own inputs those by which the model takes them.

    Texts keep their names; what another trunk calls like one of theirs has its modality in front, as in
    ``audio_attention_mask``.

    Args:
        name: The modality.
        encoder_inputs: What the trunk's `forward` takes.
    """
    return {one: f"{name}_{one}" if name != TEXT and one in _WORD_INPUTS else one for one in encoder_inputs}


def rows_name(modality: str) -> str:
    """Return the name of the input that says which rows a trunk's inputs are of."""
    return f"{modality}_rows"


def save_processors(rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write what reads a model's images and sounds beside it, where `AutoImageProcessor` and `AutoFeatureExtractor`
    look for it.

    Args:
        rows: The `modalities` of its configuration, in which the same stands.
        folder: The checkpoint's.
    """
    keys = {"image": "image_processor", "audio": "feature_extractor"}
    values = {keys[row["name"]]: row["processor"] for row in rows if "processor" in row}
    if values:
        (folder / "processor_config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
