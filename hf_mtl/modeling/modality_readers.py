"""Readers of what rows hold beside texts: images, sounds and rows of tables become tensors of their encoders.

To add one, write its class and its line in `READERS`.
"""

import importlib
import importlib.util
import inspect
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel

from .errors import InputError, check_choice
from .image_files import has_several_frames, read_image
from .modalities import TEXT, modality_row
from .modality_reader import ModalityReader
from .sound_files import read_sound
from .table_config import CATEGORY, NUMBER, TableConfig
from .table_encoder import MISSING, UNSEEN

# States of an image, and of a second of sound, that a batch is counted by.
_IMAGE_STATES, _STATES_PER_SECOND = 64, 50
# Scales from the mean at which a number of a table is none any more.
_MOST_SCALES = 1e30
# What pandas writes in an empty cell.
_EMPTY_KINDS = ("NAType", "NaTType")
_WHOLE = re.compile(r"([-+]?(?:0|[1-9]\d*))\.0+")


# By modality the class that finds its processor, and what names the processor's own class among its values.
PROCESSOR_CLASSES = {"image": "AutoImageProcessor", "audio": "AutoFeatureExtractor"}
_PROCESSOR_BASES = ("ImageProcessingMixin", "FeatureExtractionMixin")
_PROCESSOR_KEYS = {"image": "image_processor_type", "audio": "feature_extractor_type"}


class ImageReader(ModalityReader):
    """Reads images: of PIL, arrays (height, width[, channels]) of bytes, files, ``{"bytes", "path"}``."""

    modality = "image"

    def __init__(self, encoder: PreTrainedModel, processor: Mapping[str, Any] | None, prefixed: bool) -> None:
        super().__init__(encoder, processor, prefixed)
        self.processor = _processor_of(self.modality, processor)
        channels = getattr(encoder.config, "num_channels", 3)
        self.mode = {1: "L", 4: "RGBA"}.get(channels, "RGB")

    def check(self, value: Any) -> int:
        self.image(value)
        return _IMAGE_STATES

    def is_cut(self, value: Any) -> bool:
        return has_several_frames(value)

    def image(self, value: Any) -> Any:
        """Return a value as an image of PIL, upright, of the encoder's channels.

        Raises:
            ValueError: It cannot be read to its end, or its points have more than 16 bits.
        """
        return read_image(value).convert(self.mode)

    def read(self, values: Sequence[Any]) -> dict[str, torch.Tensor]:
        images = [self.image(value) for value in values]
        try:
            return dict(self.processor(images=images, return_tensors="pt"))
        except ValueError as error:
            sizes = sorted({image.size for image in images})
            if len(sizes) == 1:
                raise
            (width, height), (other_width, other_height) = sizes[:2]
            raise ValueError(
                f"images of one batch have {width} x {height} and {other_width} x {other_height} points, and the "
                "processor resizes none: give it `do_resize: true` and `size: {height: ..., width: ...}`"
            ) from error


class AudioReader(ModalityReader):
    """Reads sounds: files, ``{"bytes", "path"}``, ``{"array", "sampling_rate"}``, samples at the encoder's rate."""

    modality = "audio"

    def __init__(self, encoder: PreTrainedModel, processor: Mapping[str, Any] | None, prefixed: bool) -> None:
        super().__init__(encoder, processor, prefixed)
        self.processor = _processor_of(self.modality, processor)
        self.rate = int(self.processor.sampling_rate)
        # Such encoders read windows of one length.
        self.most = getattr(self.processor, "n_samples", None)
        self.values = repr(sorted((processor or {}).items()))
        self.frames = getattr(encoder, "_get_feat_extract_output_lengths", None)

    def check(self, value: Any) -> int:
        sound = read_sound(value, self.rate)
        if self.most is None and self.frames is not None and int(self.frames(torch.tensor(len(sound)))) < 1:
            raise ValueError(f"it has {len(sound)} samples, too few for one state of the encoder")
        return math.ceil(len(sound) / self.rate * _STATES_PER_SECOND)

    def key(self) -> str:
        return f"{self.rate} {self.most} {self.values}"

    def is_cut(self, value: Any) -> bool:
        sound = read_sound(value, self.rate)
        if self.most is not None:
            return len(sound) > self.most
        # Of a sound that is read to its end, another end is read otherwise.
        other, tail = sound.copy(), max(self.rate // 10, 1)
        other[-tail:] = np.random.default_rng(0).uniform(-1, 1, len(other[-tail:]))
        first, second = (self._tensors_of([one]) for one in (sound, other))
        return all(first[name].equal(second[name]) for name in first)

    def read(self, values: Sequence[Any]) -> dict[str, torch.Tensor]:
        return self._tensors_of([read_sound(value, self.rate) for value in values])

    def _tensors_of(self, sounds: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        padding = "max_length" if self.most is not None else True
        options: dict[str, Any] = {"padding": padding, "return_attention_mask": True, "return_tensors": "pt"}
        return dict(self.processor(list(sounds), sampling_rate=self.rate, **options))


class TableReader(ModalityReader):
    """Reads rows of a table: mappings of column to value; None, NaN and an empty text are empty cells."""

    modality = "table"

    def __init__(self, encoder: PreTrainedModel, processor: Mapping[str, Any] | None, prefixed: bool) -> None:
        super().__init__(encoder, processor, prefixed)
        self.columns = columns = cast(TableConfig, encoder.config).columns or []
        self.numbers = {
            column["name"]: (float(column["mean"]), float(column["scale"]))
            for column in columns
            if column["kind"] == NUMBER
        }
        self.categories = {
            column["name"]: {table_text(value): place + UNSEEN + 1 for place, value in enumerate(column["values"])}
            for column in columns
            if column["kind"] == CATEGORY
        }

    def check(self, value: Any) -> int:
        if not isinstance(value, Mapping) or not value:
            raise ValueError("expected a mapping of column to value")
        for name in value:
            if name not in self.categories and name not in self.numbers:
                names = ", ".join([*self.numbers, *self.categories][:20])
                raise ValueError(f"it has a column {name!r}; expected some of {names}")
        for name in self.numbers:
            self._standard(name, value.get(name))
        return len(value)

    def read(self, values: Sequence[Any]) -> dict[str, torch.Tensor]:
        numbers = [[self._standard(name, row.get(name)) for name in self.numbers] for row in values]
        categories = [[self._id(name, row.get(name)) for name in self.categories] for row in values]
        names = [*self.numbers, *self.categories]
        return {
            "numbers": torch.tensor(numbers, dtype=torch.float32).reshape(len(values), len(self.numbers)),
            "categories": torch.tensor(categories, dtype=torch.long).reshape(len(values), len(self.categories)),
            "attention_mask": torch.tensor([[name in row for name in names] for row in values], dtype=torch.long),
        }

    def key(self) -> str:
        return repr((self.numbers, list(self.categories)))

    def usual_cells(self) -> dict[str, Any]:
        """Return by column the mean of its numbers, with three digits, or the first of its categories."""
        return {
            column["name"]: column["values"][0] if column["kind"] == CATEGORY else float(f"{column['mean']:.3g}")
            for column in self.columns
        }

    def _standard(self, column: str, cell: Any) -> float:
        """(x - mean) / scale, before it is rounded to the precision of a tensor."""
        mean, scale = self.numbers[column]
        standard = (table_number(cell, column) - mean) / scale
        if abs(standard) > _MOST_SCALES:
            raise ValueError(f"its {column!r} is {cell!r}, far from the training rows' {mean:g} ± {scale:g}")
        return standard

    def _id(self, column: str, cell: Any) -> int:
        return MISSING if is_empty(cell) else self.categories[column].get(table_text(cell), UNSEEN)


READERS: dict[str, type[ModalityReader]] = {
    reader.modality: reader for reader in (ImageReader, AudioReader, TableReader)
}


def is_empty(cell: Any) -> bool:
    """Return whether a cell of a table has no value."""
    if cell is None or type(cell).__name__ in _EMPTY_KINDS:
        return True
    return math.isnan(cell) if isinstance(cell, float | np.floating) else isinstance(cell, str) and not cell.strip()


def table_text(cell: Any) -> str:
    """Return a cell as the name of a category: 1, 1.0, "1" and "1.0" are one."""
    text = str(cell).strip()
    match = _WHOLE.fullmatch(text)
    return text if match is None else match[1]


def table_number(cell: Any, column: str) -> float:
    """Return a cell as a number, NaN of one that is empty.

    Raises:
        ValueError: It is none.
    """
    if is_empty(cell):
        return math.nan
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"its {column!r} is {cell!r}; expected a number")
    return number


def readers_of(config: Any, encoders: Mapping[str, PreTrainedModel]) -> dict[str, ModalityReader]:
    """Return what reads each modality but texts.

    Args:
        config: A `MultiTaskAttentionConfig`.
        encoders: By modality, see `several_encoders.encoders_by_modality`.

    Raises:
        InputError: A processor is missing, or its class does not exist.
    """
    return {
        name: READERS[name](encoder, modality_row(config, name).get("processor"), len(encoders) > 1)
        for name, encoder in encoders.items()
        if name != TEXT
    }


def _processor_of(modality: str, values: Mapping[str, Any] | None) -> Any:
    """Return the processor of images or sounds that these values say.

    Raises:
        InputError: There are none, or they name no class of Transformers.
    """
    import transformers

    key, example = _PROCESSOR_KEYS[modality], PROCESSOR_CLASSES[modality]
    if values is None:
        raise InputError(
            f"Nothing says how the encoder of {modality} reads its input: write {{{modality!r}: {{'model': encoder, "
            f"'processor': {example}.from_pretrained(name)}}}}, with the encoder or its name ('name'), or in a recipe "
            f"`processor:` beside it, a name or values such as {{{key}: ...}}."
        )
    name = str(values.get(key, ""))
    # The same without torchvision; Transformers would take it with a warning.
    is_plain = modality == "image" and importlib.util.find_spec("torchvision") is None
    kind = getattr(transformers, f"{name.removesuffix('Fast')}Pil", None) if is_plain else None
    kind = kind or getattr(transformers, name, None)
    if not _is_processor(kind):
        raise InputError(f"The processor of {modality} has {key}={name!r}, which is no processor of transformers.")
    with warnings.catch_warnings():
        # Whisper's filters end at 8 kHz, whatever the rate; those above half of it stay empty.
        warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
        return kind.from_dict({name: value for name, value in values.items() if name != key})


def _is_processor(kind: Any) -> bool:
    return isinstance(kind, type) and any(base.__name__ in _PROCESSOR_BASES for base in kind.__mro__)


def check_processor_values(modality: str, values: Mapping[str, Any]) -> None:
    """Raise `InputError` for values that were written by hand and are none of their processor's."""
    processor = _processor_of(modality, values)
    kind = type(processor)
    valid = getattr(getattr(kind, "valid_kwargs", None), "__annotations__", {})
    served = {*kind().to_dict(), *inspect.signature(kind.__init__).parameters, *valid, _PROCESSOR_KEYS[modality]}
    for name in values:
        check_choice(f"value of a {kind.__name__}:", name, sorted(served - {"self", "kwargs", "args"}))


def processor_values(modality: str, processor: Any) -> dict[str, Any]:
    """Return the values of a processor, as a configuration keeps them.

    Raises:
        InputError: It is none of this modality's.
    """
    key, example = _PROCESSOR_KEYS[modality], PROCESSOR_CLASSES[modality]
    values = {} if not callable(getattr(processor, "to_dict", None)) else processor.to_dict()
    if key not in values:
        # A processor of a model of several encoders has those of each.
        inside = vars(processor).get("image_processor" if modality == "image" else "feature_extractor")
        if inside is not None:
            return processor_values(modality, inside)
        raise InputError(
            f"The processor of {modality} is a {type(processor).__name__}; expected {example}.from_pretrained(name)."
        )
    return {name: plain for name, value in values.items() if (plain := _plain(value)) is not None}


def _plain(value: Any) -> Any:
    """A value as JSON holds it; None of one that is made anew of the others, such as filters."""
    if isinstance(value, np.ndarray):
        return None
    if isinstance(value, Mapping):
        return {name: _plain(inside) for name, inside in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


__all__ = [
    "PROCESSOR_CLASSES",
    "READERS",
    "check_processor_values",
    "is_empty",
    "processor_values",
    "readers_of",
    "table_number",
    "table_text",
]
