"""Features of any tasks become one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..modeling.processing_multitask import Feature, MultiTaskProcessor


@dataclass
class MultiTaskCollator:
    """Pads the features of a batch together and routes each to its tasks' heads.

    Stands between the sampler and the model: choices become encoder rows of their own, and ``routing`` lists by
    problem type which encoder rows are answered for which task, with their labels.

    Args:
        processor: The processor that made the features.
    """

    processor: MultiTaskProcessor

    def __call__(self, features: Sequence[Feature]) -> dict[str, Any]:
        """Return ``input_ids``, ``attention_mask``, ``token_type_ids`` where used, and ``routing``."""
        return self.processor.collate(features)
