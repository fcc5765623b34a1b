"""The forms of answers that Transformers' pipelines know: the best k, no scores but the best, grouped word pieces."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase, TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy

from .answer_decoding import softmax
from .errors import InputError, check_choice
from .masked_language import MOST_BEST
from .media_features import Feature
from .piece_places import words_of
from .task_config import TaskConfig
from .task_head import Answer

_STRATEGIES = tuple(strategy.value for strategy in AggregationStrategy)


@dataclass(frozen=True)
class AnswerForm:
    """A form of answers: how much of each is given, and how.

    Args:
        top_k: How many of the labels, choices, answers or word pieces, the best first; None for the task's own number.
        return_all_scores: Whether an answer holds the scores of all labels.
        aggregation_strategy: "none", "simple", "first", "average" or "max": tasks of tags also answer ``entities``,
            as `TokenClassificationPipeline` groups word pieces; None for words and spans alone.
        ignore_labels: Tags that are no entities.

    Raises:
        InputError: Another strategy, a number below 1, or values that exclude each other.
    """

    top_k: int | None = None
    return_all_scores: bool | None = None
    aggregation_strategy: str | None = None
    ignore_labels: Sequence[str] = ("O",)

    def __post_init__(self) -> None:
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise InputError(f"top_k={self.top_k!r}; expected a whole number >= 1, or None.")
        if self.top_k is not None and self.return_all_scores:
            raise InputError(f"top_k={self.top_k} and return_all_scores=True exclude each other; give one.")
        if self.aggregation_strategy is not None:
            strategy = getattr(self.aggregation_strategy, "value", self.aggregation_strategy)
            check_choice("aggregation_strategy", strategy, _STRATEGIES)
            object.__setattr__(self, "aggregation_strategy", strategy)
        object.__setattr__(self, "ignore_labels", tuple(self.ignore_labels or ()))

    def wide_task(self, task: TaskConfig) -> TaskConfig:
        """Return a task that finds as many answers as are wanted, and no fewer than its own number.

        Raises:
            InputError: More word pieces than the model keeps.
        """
        if self.top_k is None:
            return task
        if task.problem.inputs == "masked" and self.top_k > MOST_BEST:
            raise InputError(f"top_k={self.top_k} of task {task.name!r}; expected at most {MOST_BEST} word pieces.")
        return dataclasses.replace(task, num_best=max(self.top_k, task.setting("num_best")))

    def formed(
        self,
        answer: Answer,
        wide: Answer,
        task: TaskConfig,
        row: Mapping[str, Any],
        windows: Sequence[tuple[Feature, np.ndarray]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Answer:
        """Return an answer in this form.

        Args:
            answer: The answer as the task gives it.
            wide: The same of `wide_task`.
            task: Its task.
            row: The row's input fields.
            windows: The task's features of the row with their logits.
            tokenizer: The encoder's.
        """
        formed = dict(answer)
        if self.return_all_scores is False:
            formed.pop("scores", None)
        elif self.top_k is not None and "scores" in formed:
            formed["scores"] = _best(formed["scores"], self.top_k)
        if self.top_k is not None and "n_best" in formed:
            # Scores of a few answers are shares among them: those of more are put on the same scale.
            scale = formed["score"] / wide["score"]
            formed["n_best"] = [{**one, "score": one["score"] * scale} for one in wide["n_best"][: self.top_k]]
        if self.top_k is not None and "masks" in formed:
            formed["masks"] = [{**mask, "n_best": mask["n_best"][: self.top_k]} for mask in wide["masks"]]
        if self.aggregation_strategy is not None and task.problem.inputs == "words":
            ((feature, logits),) = windows
            formed["entities"] = self._entities(task, row, feature, logits, tokenizer)
        return formed

    def _entities(
        self,
        task: TaskConfig,
        row: Mapping[str, Any],
        feature: Feature,
        logits: np.ndarray,
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[dict[str, Any]]:
        text, _ = words_of(row)
        pieces = feature["sequences"][0]
        encoded = tokenizer(
            text,
            truncation=True,
            max_length=len(pieces),
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        if encoded["input_ids"] != pieces:
            # A tokenizer that returns nothing: the only piece is a filler.
            return []
        scores = np.stack([softmax(of_piece) for of_piece in logits[: len(pieces), : task.num_outputs]])
        grouping = _PieceGrouping(tokenizer, task.label_names)
        strategy = AggregationStrategy(self.aggregation_strategy)
        ungrouped = grouping.gather_pre_entities(
            text,
            np.array(pieces),
            scores,
            encoded["offset_mapping"],
            np.array(encoded["special_tokens_mask"]),
            strategy,
        )
        return [
            {**entity, "score": float(entity["score"])}
            for entity in grouping.aggregate(ungrouped, strategy)
            if entity.get("entity", entity.get("entity_group")) not in self.ignore_labels
        ]


class _PieceGrouping(TokenClassificationPipeline):
    """The part of Transformers' pipeline that groups pieces, without its model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> None:
        self.tokenizer: Any = tokenizer
        self.model: Any = SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(labels))))


def _best(scores: Any, count: int) -> dict[Any, float]:
    """Return the highest scores, the best first: by label, or of choices by place."""
    by_name = scores if isinstance(scores, Mapping) else dict(enumerate(scores))
    return dict(sorted(by_name.items(), key=lambda item: -item[1])[:count])
