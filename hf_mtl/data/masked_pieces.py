"""Word pieces that are masked, to be told from the rest of their text: how they are drawn, how answers are scored."""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..modeling.label_checks import IGNORED_LABEL
from ..modeling.media_features import Feature
from ..modeling.task_head import Answer
from ..tasks import TaskSpec
from .label_columns import LabelColumn
from .label_kind_base import Fields, LabelKind, LabelReader

# Of the pieces that are to be told, the share that a mask stands for, and with it that of another piece's.
_MASKED, _MASKED_OR_OTHER = 0.8, 0.9
# Pieces of a vocabulary whose size is unknown; its logarithm, a task's loss by chance, hardly depends on it.
_VOCABULARY = 30_000


class PieceMasking:
    """Masks word pieces of a task's rows (Devlin et al. 2019, section 3.1 and appendix A.1).

    Of a row's pieces, special ones left out, `mlm_probability` (rounded, one at least) are to be told; of these 80 %
    become the mask token, 10 % another piece drawn from the vocabulary, 10 % stay. Which they are follows from the
    seed, the draw, the task's name and the row's place among its rows alone.

    Args:
        tokenizer: The encoder's, with a mask token.
        spec: The task.
        seed: Of training rows the run's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: TaskSpec, seed: int) -> None:
        self.probability, self.mask = spec.setting("mlm_probability"), tokenizer.mask_token_id
        self.key = [seed, zlib.crc32(spec.name.encode())]
        special = set(tokenizer.all_special_ids)
        # Ids may have gaps.
        self.pieces = np.array(sorted(set(tokenizer.get_vocab().values()) - special))
        self.is_special = np.zeros(max(*self.pieces.tolist(), *special, 0) + 1, dtype=bool)
        self.is_special[list(special)] = True

    def __call__(self, feature: Feature, draw: int) -> Feature:
        """Return a feature masked, with the places as ``masks``, the pieces that stood there as ``masked_pieces``, and
        ``labels``: the piece at each of these places, no label elsewhere.

        Args:
            feature: It stays as it is.
            draw: The number under which it is drawn; another one masks other places.
        """
        rng = np.random.default_rng([*self.key, draw, feature["source"]])
        ids = np.array(feature["sequences"][0])
        places = np.flatnonzero(~self.is_special[ids])
        count = min(len(places), max(1, round(self.probability * len(places))))
        places = np.sort(rng.permutation(places)[:count])
        true, fate = ids[places], rng.random(count)
        others = self.pieces[rng.integers(len(self.pieces), size=count)]
        ids[places] = np.where(fate < _MASKED, self.mask, np.where(fate < _MASKED_OR_OTHER, others, true))
        labels = np.full(len(ids), IGNORED_LABEL)
        labels[places] = true
        masked = {"masks": places.tolist(), "masked_pieces": true.tolist(), "labels": labels.tolist()}
        return {**feature, "sequences": [ids.tolist()], **masked}


class PieceLabels(LabelKind):
    """The word pieces of a row's own text, which is its label; some are masked whenever the row is read."""

    hides = False
    baseline_field = None

    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        return lambda label, index: label

    def constants(self, labels: Sequence[Any]) -> list[Any]:
        return []

    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        return math.log(_VOCABULARY)

    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[list[int]]:
        return [[mask["token"] for mask in answer["masks"]] for answer in answers]

    def references(self, spec: TaskSpec, labels: Sequence[Any], answers: Sequence[Answer]) -> list[list[int]]:
        return [[mask["true"]["token"] for mask in answer["masks"]] for answer in answers]

    def scores(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[list[float]]:
        return [[mask["true"]["score"] for mask in answer["masks"]] for answer in answers]


__all__ = ["PieceLabels", "PieceMasking"]
