"""Rows of every task, tokenised once, as one data set that sampler and collator read."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from torch.utils import data

from ..modeling.processing_multitask import Feature, MultiTaskProcessor
from ..tasks import LABEL_FIELD, TaskSpec

MAP_BATCH = 1000


class FeatureDataset(data.Dataset):
    """The features of several tasks, task after task; item k is a feature with its ``entries`` and ``row``.

    Args:
        processor: Knows the tokenizer and the tasks' order.
        specs: The tasks by name.
        rows: Canonical rows by task name.
    """

    def __init__(
        self, processor: MultiTaskProcessor, specs: Mapping[str, TaskSpec], rows: Mapping[str, Dataset]
    ) -> None:
        self.rows = dict(rows)
        self.specs = {name: specs[name] for name in rows}
        self.task_indices = {name: processor.indices[name] for name in rows}
        self.truncated: dict[str, int] = {}
        self.features: dict[str, Dataset] = {}
        for name, task_rows in rows.items():
            self.features[name] = self._tokenised(processor, specs[name], task_rows)
            self.truncated[name] = sum(self.features[name]["truncated"])
        self.sizes = {name: len(features) for name, features in self.features.items()}
        self.places = [(name, place) for name, size in self.sizes.items() for place in range(size)]
        # Word pieces of an item's longest sequence: what the others of its batch are padded to.
        self.lengths = [length for features in self.features.values() for length in features["length"]]

    @staticmethod
    def _tokenised(processor: MultiTaskProcessor, spec: TaskSpec, rows: Dataset) -> Dataset:
        def tokenise(batch: Mapping[str, Sequence[Any]], indices: Sequence[int]) -> dict[str, list[Any]]:
            features = processor.features(spec, {**batch, LABEL_FIELD: _trainable_labels(spec, batch[LABEL_FIELD])})
            for feature in features:
                feature["source"] = indices[feature["source"]]
                feature["length"] = max(map(len, feature["sequences"]))
            return {key: [feature[key] for feature in features] for key in features[0]}

        return rows.map(
            tokenise,
            batched=True,
            with_indices=True,
            batch_size=MAP_BATCH,
            remove_columns=rows.column_names,
            desc=f"Tokenising {spec.name}",
        )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Feature:
        name, place = self.places[index]
        feature = self.features[name][place]
        entry = {"task": self.task_indices[name], "labels": feature.pop("labels")}
        return {**feature, "task": name, "entries": [entry]}


def _trainable_labels(spec: TaskSpec, labels: Sequence[Any]) -> Sequence[Any]:
    """Labels as the heads read them: sets of flags become 0s and 1s."""
    if spec.problem_type != "multi_label_classification":
        return labels
    return [[float(index in label) for index in range(spec.num_outputs)] for label in labels]
