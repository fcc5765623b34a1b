"""Features of any tasks become one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch

from ..modeling.errors import InputError
from ..modeling.media_features import Feature
from ..modeling.processing_multitask import MultiTaskProcessor


class Batch(dict[str, Any]):
    """A batch that comes from a worker of a DataLoader in one message.

    Torch would hand over a file of shared memory for each of its many small tensors, which takes longer than making
    them.
    """


class EvaluationBatch(Batch):
    """A batch with what decoding reads of each of its entries beside it, which the model does not take.

    Attributes:
        entries: By their order in the batch, each with the name of its task.
    """

    entries: list[tuple[str, Feature]]


def _sent(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sent(inside) for name, inside in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _received(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _received(inside) for name, inside in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _receive_batch(values: dict[str, Any]) -> Batch:
    return Batch(_received(values))


def _receive_evaluation_batch(values: dict[str, Any], entries: list[tuple[str, Feature]]) -> EvaluationBatch:
    batch = EvaluationBatch(_received(values))
    batch.entries = entries
    return batch


ForkingPickler.register(Batch, lambda batch: (_receive_batch, (_sent(dict(batch)),)))
ForkingPickler.register(
    EvaluationBatch, lambda batch: (_receive_evaluation_batch, (_sent(dict(batch)), batch.entries))
)


@dataclass
class MultiTaskCollator:
    """Pads the features of a batch together and routes each to its tasks' heads.

    Stands between the sampler and the model: choices become encoder rows of their own, and ``routing`` lists by
    problem type which encoder rows are answered for which task, with their labels.

    Args:
        processor: The processor that made the features.
        pad_to_multiple_of: Rows are padded to the next multiple of this length, as tensor cores like it.
        fill: Whether every batch has equally many entries of every problem type, those that are wanting without
            label: a compiled model is then compiled for one number of them.

    Raises:
        InputError: Something that is no processor is given, such as a tokenizer.
    """

    processor: MultiTaskProcessor
    pad_to_multiple_of: int | None = None
    fill: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.processor, MultiTaskProcessor):
            raise InputError(
                f"MultiTaskCollator was given a {type(self.processor).__name__}; expected a processor, which knows "
                "the tasks: MultiTaskCollator(MultiTaskProcessor.for_model(model, tokenizer))."
            )

    def __call__(self, features: Sequence[Feature]) -> Batch:
        """Return ``input_ids``, ``attention_mask``, ``token_type_ids`` where used, and ``routing``."""
        return Batch(self.processor.collate(features, self.pad_to_multiple_of, self.fill))
