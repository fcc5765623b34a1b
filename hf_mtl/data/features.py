"""Rows of every task, tokenised once, as one data set that sampler and collator read."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.utils import tqdm
from torch.utils import data

from ..modeling.errors import InputError
from ..modeling.media_features import Feature
from ..modeling.modalities import MODALITIES
from ..modeling.problem_heads import TASK_HEADS
from ..modeling.processing_multitask import MultiTaskProcessor
from ..tasks import LABEL_FIELD, ROW_FIELD, TaskSpec, tasks_by_source
from .batch_forms import RowCosts
from .caps import EVAL_SEED
from .feature_cache import cached_features, features_key, tokenizer_key
from .feature_rows import FeatureRows, join_tables, table_of
from .image_augmentation import ImageAugmentation
from .label_kinds import label_kind
from .masked_pieces import PieceMasking

_ROWS_AT_ONCE = 1000
# Fewer rows are tokenised about as fast as their file would be read.
_LEAST_CACHED_ROWS = 100


class FeatureDataset(data.Dataset):
    """The features of several tasks, source after source; item k is encoder input with its ``entries``.

    An entry holds ``task`` (its index in the model), ``name``, ``labels``, and ``feature`` with what decoding reads.
    Tasks of one source share an item where the encoder reads the same of a row.

    Features stand in the cache of `datasets` under a name made of their rows, task and tokenizer, and are mapped from
    there. A copy that is pickled, as for a worker of a DataLoader, goes without `rows`.

    Args:
        processor: Knows the tokenizer and the tasks' order.
        specs: The tasks by name.
        rows: Canonical rows by task name; those without a label column are answered and not scored.
        progress: Whether to show how far tokenising is, and to keep features for other runs; no use for rows that are
            read once.
        seed: Draws which word pieces are masked, of tasks that learn them; by default one that no run changes.
        augmentation: What becomes of an image whenever it is drawn; None leaves it as it is.
    """

    def __init__(
        self,
        processor: MultiTaskProcessor,
        specs: Mapping[str, TaskSpec],
        rows: Mapping[str, Dataset],
        progress: bool = True,
        seed: int = EVAL_SEED,
        augmentation: ImageAugmentation | None = None,
    ) -> None:
        self.rows = dict(rows)
        # What is decoded when it is read, and so goes with every copy.
        self.media = {name: _media_of(given) for name, given in rows.items()}
        self.specs = {name: specs[name] for name in rows}
        self.task_indices = {name: processor.indices[name] for name in rows}
        # Of the tokenizer once: hashing it takes longer than tokenising a task's few rows.
        tokenizer = f"{_reading_key(processor)} {processor.most_pieces}" if progress else None
        self.features = {name: _tokenised(processor, specs[name], given, tokenizer) for name, given in rows.items()}
        self._readers = {name: FeatureRows(features) for name, features in self.features.items()}
        self.truncated = {name: int(reader.numbers("truncated").sum()) for name, reader in self._readers.items()}
        self.tasks_of = tasks_by_source(self.specs.values())
        self._items = {source: self._items_of(names) for source, names in self.tasks_of.items()}
        self.sizes = {source: len(items) for source, items in self._items.items()}
        self._starts = np.concatenate([[0], np.cumsum(list(self.sizes.values()))])
        self.costs = RowCosts(self._numbers("length"), self._numbers("pieces"))
        self._maskings = {
            name: PieceMasking(processor.tokenizer, spec, seed)
            for name, spec in self.specs.items()
            if not spec.problem.has_label_column and LABEL_FIELD in rows[name].column_names
        }
        self._augmentation = augmentation
        self._image_reader: Any = processor.readers.get("image")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": {}}

    def _items_of(self, names: Sequence[str]) -> "_OneTaskItems | _SharedItems":
        if len(names) == 1:
            return _OneTaskItems(names[0], len(self._readers[names[0]]))
        rows = {name: np.asarray(self.rows[name][ROW_FIELD][:]) for name in names}
        columns = {name: _media_columns(self.specs[name]) for name in names}
        return _SharedItems(rows, {name: self._readers[name] for name in names}, columns)

    def _numbers(self, name: str) -> np.ndarray:
        """A column of all items, which is that of each one's first entry."""
        numbers = {task: reader.numbers(name) for task, reader in self._readers.items()}
        return np.concatenate([items.first_numbers(numbers) for items in self._items.values()])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Feature]:
        return (self[index] for index in range(len(self)))

    def at_draw(self, places: np.ndarray, draw: int) -> np.ndarray:
        """Return by which indices items are had as one draw masks and changes them: item k of draw d is k + d times
        their number. Where nothing is masked and no image changed, an item is the same in every draw.
        """
        return places + draw * len(self) if self._is_drawn else places

    @property
    def _is_drawn(self) -> bool:
        return bool(self._maskings) or self._augmentation is not None

    def _add_media(self, name: str, features: Sequence[Feature]) -> None:
        media = self.media[name]
        if media is not None:
            rows = media[[feature["source"] for feature in features]]
            for place, feature in enumerate(features):
                feature["media"] = {field: values[place] for field, values in rows.items()}

    def __getitem__(self, index: int) -> Feature:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> list[Feature]:
        """Return several items at once, which takes a fraction of the time."""
        given = np.asarray(indices, dtype=np.int64)
        draws, places = np.divmod(given, len(self)) if self._is_drawn else (np.zeros_like(given), given)
        if len(places) and not (0 <= places.min() <= places.max() < len(self) and draws.min() >= 0):
            raise IndexError(f"The data set has items 0 to {len(self) - 1}; {list(indices)} were asked for.")
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        entries: list[list[dict[str, Any]]] = [[] for _ in places]
        sources = list(self._items.values())
        for number in np.unique(numbers).tolist():
            of_source = np.flatnonzero(numbers == number)
            for name, slots, rows in sources[number].members(places[of_source] - self._starts[number]):
                features = self._readers[name].read(rows)
                self._add_media(name, features)
                for slot, feature in zip(of_source[slots].tolist(), features):
                    if name in self._maskings:
                        feature = self._maskings[name](feature, int(draws[slot]))
                    labels = feature.pop("labels", None)
                    entry = {"task": self.task_indices[name], "name": name, "labels": labels, "feature": feature}
                    entries[slot].append(entry)
        items = [_item(of_item) for of_item in entries]
        if self._augmentation is not None:
            names = list(self._items)
            for item, number, place, draw in zip(items, numbers.tolist(), places.tolist(), draws.tolist()):
                self._augment(item, names[number], place - int(self._starts[number]), draw)
        return items

    def _augment(self, item: Feature, source: str, place: int, draw: int) -> None:
        """Change an item's image."""
        if "image" in item.get("media", {}):
            assert self._augmentation is not None
            image = self._image_reader.image(item["media"]["image"])
            item["media"] = {**item["media"], "image": self._augmentation(image, source, place, draw)}


def _item(entries: list[dict[str, Any]]) -> Feature:
    first = entries[0]["feature"]
    media = {"media": first["media"]} if "media" in first else {}
    return {"sequences": first["sequences"], "segments": first["segments"], **media, "entries": entries}


def _media_of(rows: Dataset) -> Dataset | None:
    """The columns of images, sounds and tables; None where there are none."""
    names = [name for name in rows.column_names if name in MODALITIES]
    return rows.select_columns(names) if names else None


def _media_columns(spec: TaskSpec) -> str:
    """What a task reads beside texts, by which tasks of one source are told that read the same of a row."""
    fields = [name for name in spec.input_fields if name in MODALITIES]
    return repr([(name, spec.columns.get(name), (spec.local_columns or {}).get(name)) for name in fields])


def _reading_key(processor: MultiTaskProcessor) -> str:
    """What features depend on beside rows and task: the tokenizer, and what reads all else."""
    tokenizer = tokenizer_key(processor.tokenizer) if processor.tokenizer is not None else ""
    return f"{tokenizer} {sorted((name, reader.key()) for name, reader in processor.readers.items())}"


class _OneTaskItems:
    """The items of a source of one task: its features.

    Args:
        name: The task.
        size: How many there are.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def members(self, items: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Return the tasks of items, each with the places in `items` and the features of its entries there."""
        return [(self.name, np.arange(len(items)), items)]

    def first_numbers(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return each item's number, which is its first entry's, of columns by task."""
        return numbers[self.name]


class _SharedItems:
    """The items of a source of several tasks, by row: features of one row whose sequences are equal.

    Args:
        rows: By task, the place in the source of each of its rows.
        readers: By task, its features.
        columns: By task, the columns of its images, sounds and tables.
    """

    def __init__(
        self, rows: Mapping[str, np.ndarray], readers: Mapping[str, FeatureRows], columns: Mapping[str, str]
    ) -> None:
        self.names = list(readers)
        # The same row, and the same input: tags and classes of one text meet, windows stay apart.
        items: dict[Any, int] = {}
        item_of_member, tasks, places = [], [], []
        for task, (name, reader) in enumerate(readers.items()):
            sources = rows[name][reader.numbers("source")].tolist()
            item_of_member += [
                items.setdefault((source, (*inputs, columns[name])), len(items))
                for source, inputs in zip(sources, _inputs(reader))
            ]
            tasks.append(np.full(len(reader), task))
            places.append(np.arange(len(reader)))
        by_row = np.argsort([row for row, _ in items], kind="stable")
        rank = np.empty(len(items), dtype=np.int64)
        rank[by_row] = np.arange(len(items))
        ranks = rank[item_of_member]
        order = np.argsort(ranks, kind="stable")
        # The members of item k stand from starts[k] to starts[k + 1].
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(ranks))])
        self.tasks, self.places = np.concatenate(tasks)[order], np.concatenate(places)[order]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def members(self, items: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Return the tasks of items, each with the places in `items` and the features of its entries there."""
        counts = self.starts[items + 1] - self.starts[items]
        slots = np.repeat(np.arange(len(items)), counts)
        members = np.repeat(self.starts[items] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        tasks = self.tasks[members]
        each = [(task, np.flatnonzero(tasks == task)) for task in np.unique(tasks).tolist()]
        return [(self.names[task], slots[of_task], self.places[members[of_task]]) for task, of_task in each]

    def first_numbers(self, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return each item's number, which is its first entry's, of columns by task."""
        firsts = self.starts[:-1]
        tasks, places = self.tasks[firsts], self.places[firsts]
        of_items = np.empty(len(self), dtype=np.int64)
        for task, name in enumerate(self.names):
            of_task = tasks == task
            of_items[of_task] = numbers[name][places[of_task]]
        return of_items


def _inputs(reader: FeatureRows) -> Iterator[tuple[bytes, ...]]:
    """Each feature's sequences as bytes, which are compared fast."""
    for start in range(0, len(reader), _ROWS_AT_ONCE):
        places = np.arange(start, min(start + _ROWS_AT_ONCE, len(reader)))
        for feature in reader.read(places, ["sequences"]):
            yield tuple(array("q", sequence).tobytes() for sequence in feature["sequences"])


def _tokenised(processor: MultiTaskProcessor, spec: TaskSpec, rows: Dataset, tokenizer: str | None) -> Dataset:
    """Return the features of a task's rows.

    Args:
        processor: Makes them.
        spec: The task.
        rows: Its canonical rows.
        tokenizer: The `tokenizer_key` under which features are kept; None keeps none and says nothing.

    Raises:
        InputError: There are no rows.
    """
    if not len(rows):
        raise InputError(f"Task {spec.name!r} has a data set without rows; leave it out.")
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    if tokenizer is None or len(rows) < _LEAST_CACHED_ROWS:
        return Dataset(join_tables([_tokenise(processor, spec, rows, start) for start in starts]))

    def make() -> pa.Table:
        tables = []
        with tqdm(total=len(rows), desc=f"Tokenising {spec.name}", unit=" rows") as bar:
            for start in starts:
                tables.append(_tokenise(processor, spec, rows, start))
                bar.update(min(_ROWS_AT_ONCE, len(rows) - start))
        return join_tables(tables)

    return cached_features(features_key(spec, rows, tokenizer), make)


def _tokenise(processor: MultiTaskProcessor, spec: TaskSpec, rows: Dataset, start: int) -> pa.Table:
    batch = rows[start : start + _ROWS_AT_ONCE]
    if LABEL_FIELD in batch:
        batch[LABEL_FIELD] = label_kind(spec).trainable(spec, batch[LABEL_FIELD])
    features = processor.features(spec, batch)
    head = TASK_HEADS[spec.problem_type]
    for feature in features:
        feature.setdefault("labels", head.hole(spec.num_outputs, len(feature["sequences"][0])))
        feature["source"] += start
        # Decoded again when it is read.
        feature.pop("media", None)
        feature["length"] = max(map(len, feature["sequences"])) + feature.get("states", 0)
        feature["pieces"] = len(feature["sequences"])
    return table_of(features)
