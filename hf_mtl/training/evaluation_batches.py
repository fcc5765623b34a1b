"""The rows of an evaluation, divided among processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Sampler

from ..data.collator import EvaluationBatch, MultiTaskCollator
from ..data.features import FeatureDataset
from ..modeling.media_features import Feature
from .arguments import MultiTaskTrainingArguments


class EvaluationBatches(Sampler[list[int]]):
    """This process's batches of all rows, by length; every process has equally many, since all must take part.

    Args:
        data: The rows.
        args: Rows of a batch, and which process this is.
    """

    def __init__(self, data: FeatureDataset, args: MultiTaskTrainingArguments) -> None:
        order = data.costs.lengths.argsort(kind="stable").tolist()
        size, processes = args.eval_batch_size, args.world_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        # This process's batches but for a repetition at the end.
        self.counted = len(batches[args.process_index :: processes])
        batches += batches[:1] * (-len(batches) % processes)
        self.batches = batches[args.process_index :: processes]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass
class _EntriesAndBatch:
    """Collates rows, with the features of their entries beside; a class, so that spawned workers can be sent it.

    Args:
        collate: Makes the batch.
    """

    collate: MultiTaskCollator

    def __call__(self, features: Sequence[Feature]) -> EvaluationBatch:
        """Return the batch, and beside it what decoding reads of each entry."""
        batch = EvaluationBatch(self.collate(features))
        # The word pieces themselves are not sent between processes.
        batch.entries = [
            (entry["name"], {key: value for key, value in entry["feature"].items() if key != "segments"})
            for feature in features
            for entry in feature["entries"]
        ]
        return batch


def evaluation_loader(
    data: FeatureDataset, collate: MultiTaskCollator, args: MultiTaskTrainingArguments
) -> DataLoader:
    """Return batches with the features of their entries beside them."""
    return DataLoader(
        data,
        batch_sampler=EvaluationBatches(data, args),
        collate_fn=_EntriesAndBatch(collate),
        num_workers=args.dataloader_num_workers,
        # Of its own, so that evaluations leave the run's draws alone.
        generator=torch.Generator(),
    )
