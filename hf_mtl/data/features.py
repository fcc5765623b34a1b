"""Rows of every task, tokenised once, as one data set that sampler and collator read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch.utils import data

from ..modeling import InputError
from ..modeling.processing_multitask import Feature, MultiTaskProcessor
from ..tasks import LABEL_FIELD, ROW_FIELD, TaskSpec, tasks_by_source
from .batch_forms import RowCosts

MAP_BATCH = 1000
# Of features; counts up when they change, so that none are read from a cache that holds others.
FORM = 2


class FeatureDataset(data.Dataset):
    """The features of several tasks, source after source; item k is encoder input with its ``entries``.

    An entry holds ``task`` (its index in the model), ``name``, ``labels``, and ``feature`` with what decoding reads.
    Tasks of one source share an item where the encoder reads the same of a row.

    Args:
        processor: Knows the tokenizer and the tasks' order.
        specs: The tasks by name.
        rows: Canonical rows by task name.
        progress: Whether to show how far tokenising is.
    """

    def __init__(
        self,
        processor: MultiTaskProcessor,
        specs: Mapping[str, TaskSpec],
        rows: Mapping[str, Dataset],
        progress: bool = True,
    ) -> None:
        self.rows = dict(rows)
        self.specs = {name: specs[name] for name in rows}
        self.task_indices = {name: processor.indices[name] for name in rows}
        # Of the tokenizer once: `datasets` would hash it anew for each task, which takes longer than its few rows.
        kind = Hasher.hash((FORM, processor.tokenizer)) if progress else ""
        self.features = {name: self._tokenised(processor, specs[name], own, kind) for name, own in rows.items()}
        self.truncated = {name: sum(features["truncated"]) for name, features in self.features.items()}
        self.tasks_of = tasks_by_source(self.specs.values())
        # Task and place of an item's entries, for sources of several tasks; other items are their features.
        self._members = {
            source: self._shared_items(names) for source, names in self.tasks_of.items() if len(names) > 1
        }
        self.sizes = {
            source: len(self._members.get(source, self.features[names[0]])) for source, names in self.tasks_of.items()
        }
        self._sources = list(self.sizes)
        self._starts = np.concatenate([[0], np.cumsum(list(self.sizes.values()))])
        self.costs = RowCosts(self._column("length"), self._column("pieces"))

    @staticmethod
    def _tokenised(processor: MultiTaskProcessor, spec: TaskSpec, rows: Dataset, kind: str) -> Dataset:
        def tokenise(batch: Mapping[str, Sequence[Any]], indices: Sequence[int]) -> dict[str, list[Any]]:
            features = processor.features(spec, {**batch, LABEL_FIELD: _trainable_labels(spec, batch[LABEL_FIELD])})
            for feature in features:
                feature["source"] = indices[feature["source"]]
                feature["length"] = max(map(len, feature["sequences"]))
                feature["pieces"] = len(feature["sequences"])
            return {key: [feature[key] for feature in features] for key in features[0]}

        if not len(rows):
            raise InputError(f"Task {spec.name!r} has a data set without rows; leave it out.")
        if not kind or len(rows) <= MAP_BATCH:
            return Dataset.from_dict(tokenise(rows[:], range(len(rows))))
        return rows.map(
            tokenise,
            batched=True,
            with_indices=True,
            batch_size=MAP_BATCH,
            remove_columns=rows.column_names,
            desc=f"Tokenising {spec.name}",
            new_fingerprint=Hasher.hash((kind, rows._fingerprint, dataclasses.asdict(spec))),
        )

    def _shared_items(self, names: Sequence[str]) -> list[list[tuple[str, int]]]:
        items: dict[Any, list[tuple[str, int]]] = {}
        for name in names:
            places = self.rows[name][ROW_FIELD][:]
            columns = zip(self.features[name]["source"], self.features[name]["sequences"])
            for place, (source, sequences) in enumerate(columns):
                # The same row, and the same input: tags and classes of one text meet, windows stay apart.
                items.setdefault((places[source], str(sequences)), []).append((name, place))
        return [items[key] for key in sorted(items, key=lambda key: key[0])]

    def _column(self, name: str) -> np.ndarray:
        found = []
        for source, names in self.tasks_of.items():
            columns = {task: np.asarray(self.features[task][name]) for task in names}
            firsts = [item[0] for item in self._members.get(source, [])]
            found.append(np.array([columns[task][place] for task, place in firsts]) if firsts else columns[names[0]])
        return np.concatenate(found)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Feature:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        source, place = self._sources[number], int(index - self._starts[number])
        members = self._members[source][place] if source in self._members else [(self.tasks_of[source][0], place)]
        entries = []
        for name, own in members:
            feature = self.features[name][own]
            labels = feature.pop("labels")
            entries.append({"task": self.task_indices[name], "name": name, "labels": labels, "feature": feature})
        first = entries[0]["feature"]
        return {"sequences": first["sequences"], "segments": first["segments"], "entries": entries}


def _trainable_labels(spec: TaskSpec, labels: Sequence[Any]) -> Sequence[Any]:
    """Labels as the heads read them: sets of flags become 0s and 1s."""
    if spec.problem_type != "multi_label_classification":
        return labels
    return [[float(index in label) for index in range(spec.num_outputs)] for label in labels]
