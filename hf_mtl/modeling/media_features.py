"""Images, sounds and rows of tables beside a row's text, or in its place: checked, remembered, and made tensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .errors import InputError
from .modalities import ROW_MODALITIES, TABLE, TEXT, modalities_of, rows_name
from .modality_reader import ModalityReader
from .task_config import TaskConfig

Feature = dict[str, Any]
# Of messages: how much of a value is shown.
_SHOWN = 100


def check_readers(tasks: Sequence[TaskConfig], readers: Mapping[str, ModalityReader], reads_texts: bool) -> None:
    """Raise `InputError` for a task that reads what nothing here does.

    Args:
        tasks: The tasks.
        readers: By modality, what reads all but texts.
        reads_texts: Whether there is a tokenizer.
    """
    read = [*([TEXT] if reads_texts else []), *readers]
    for task in tasks:
        for modality in modalities_of(task.input_fields):
            if modality not in read:
                raise InputError(
                    f"Task {task.name!r} reads {' and '.join(task.input_fields)}, and the model has an encoder of "
                    f"{', '.join(read) or 'nothing'}; give it one: from_encoder({{{modality!r}: ..., ...}}, "
                    "tasks=[...]), `encoder: {" + modality + ": ...}` in a recipe."
                )


def add_media(
    readers: Mapping[str, ModalityReader], task: TaskConfig, feature: Feature, media: dict[str, Any]
) -> None:
    """Add to a feature what its row has beside a text.

    Args:
        readers: By field, what reads it.
        task: The task.
        feature: Its feature of the row.
        media: The row's values by field.

    Raises:
        InputError: One cannot be read.
    """
    feature["media"], feature["states"] = media, 0
    for field, value in media.items():
        try:
            if field == TABLE and isinstance(value, Mapping):
                # Of a row that other tasks read too, this one's columns.
                media[field] = value = _own_columns(value, task.table_columns or ())
            feature["states"] += readers[field].check(value)
            feature["truncated"] |= readers[field].is_cut(value)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"Task {task.name!r}, row {feature['source']}: the {field} is {_shortened(value)}; {error}."
            ) from error


def media_tensors(
    features: Sequence[Feature], readers: Mapping[str, ModalityReader], reads_texts: bool
) -> dict[str, torch.Tensor]:
    """Return the inputs of a batch beside its texts, and which rows of the encoders have which modality.

    Args:
        features: The batch.
        readers: By field, what reads it.
        reads_texts: Whether the model has an encoder of texts too.
    """
    owners = [feature for feature in features for _ in feature["sequences"]]
    media = [feature.get("media", {}) for feature in owners]
    texts = [bool(sequence) for feature in features for sequence in feature["sequences"]]
    places = {TEXT: [place for place, has in enumerate(texts) if has]} if reads_texts else {}
    places |= {name: [place for place, values in enumerate(media) if name in values] for name in readers}
    batch: dict[str, torch.Tensor] = {}
    for name, reader in readers.items():
        if places[name]:
            rows = places[name]
            batch |= _read(name, reader, [owners[row] for row in rows], [media[row][name] for row in rows])
    if len(places) == 1:
        return batch
    has = torch.zeros(len(media), len(places), dtype=torch.long)
    for column, (name, rows) in enumerate(places.items()):
        has[rows, column] = 1
        if 0 < len(rows) < len(media):
            batch[rows_name(name)] = torch.tensor(rows)
    return {**batch, ROW_MODALITIES: has}


def _own_columns(value: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The cells of a task's columns; of a task that names none, all.

    Raises:
        ValueError: Some are lacking.
    """
    if lacking := [name for name in columns if name not in value]:
        names = ", ".join(repr(name) for name in lacking)
        raise ValueError(f"it lacks {names}; write None where a cell is empty")
    return {name: value[name] for name in columns} if columns else dict(value)


def media_key(feature: Feature) -> tuple[Any, ...]:
    """Return by which fields and columns a feature reads what stands beside a text."""
    media = feature.get("media", {})
    return tuple((name, tuple(value)) if name == TABLE else name for name, value in media.items())


def _read(name: str, reader: ModalityReader, features: Sequence[Feature], values: Sequence[Any]) -> dict[str, Any]:
    """A batch's inputs of one modality; what cannot be read is named by its row."""
    try:
        return reader.tensors(values)
    except ValueError as error:
        for feature, value in zip(features, values):
            try:
                reader.tensors([value])
            except ValueError as reason:
                place = f"row {feature['source']}" if "source" in feature else "a row"
                raise InputError(f"{place}: the {name} is {_shortened(value)}; {reason}.") from reason
        raise InputError(f"Of the rows of a batch, {error}.") from error


def _shortened(value: Any) -> str:
    """What a message shows of a value: of files their path, of others their kind."""
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path", "array"}:
        return repr(value["path"]) if value.get("path") else "an array" if "array" in value else "bytes"
    text = repr(value) if isinstance(value, str | Path | Mapping) else f"a {type(value).__name__}"
    return text if len(text) < _SHOWN else f"{text[: _SHOWN - 3]}..."
