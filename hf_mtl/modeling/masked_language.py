"""Masked language modelling: which word pieces stood at the masked places of a text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .encoder_modules import word_table
from .errors import InputError
from .label_checks import IGNORED_LABEL, Entries, vocabulary_labels
from .problem_types import problem_type_with
from .task_config import TaskConfig
from .task_head import INITIALIZER_RANGE, Answer, TokenLevelHead
from .task_tensors import TaskTensors, at_least_float32

# Word pieces that are kept of each masked place's many scores.
MOST_BEST = 100
# As BERT's.
_NORM_EPS = 1e-12


class MaskedLanguageHead(TokenLevelHead):
    """The word piece at each masked place: cross-entropy over the vocabulary (Devlin et al. 2019, section 3.1).

    logits = LN(gelu(W_t (Z + P) + c_t)) E^T + b_t, as BERT's head is; E are the encoder's word embeddings, which are
    read as the encoder reads them and trained by this task too. W, c, LN and b are the task's own. Beside a collator's
    batch, whose entries hold the ``places`` (N, M) that are masked, logits are (N, M, vocabulary) and labels (N, M);
    else both are of all word pieces, as those of Transformers' models.
    """

    problem_type = problem_type_with("pieces")
    label_axes = 2
    reads_words = True

    @classmethod
    def build(cls, tasks: dict[int, TaskConfig], hidden_size: int, dropout: float, encoder: PreTrainedModel) -> Self:
        table = word_table(encoder)
        if table is None:
            names = ", ".join(task.name for task in tasks.values())
            raise InputError(
                f"Task {names} learns word pieces by the encoder's word embeddings; {type(encoder).__name__} has no "
                "table of them. Take another encoder, or leave the task out."
            )
        head = super().build(tasks, hidden_size, dropout, encoder)
        head.add_vocabulary(*table)
        return head

    def make_outputs(self, tasks: Mapping[int, TaskConfig], hidden_size: int) -> None:
        self.names, self.hidden_size = [task.name for task in tasks.values()], hidden_size

    def add_vocabulary(self, size: int, width: int) -> None:
        """Make the tasks' parameters for word embeddings (size, width)."""

        def of_tasks(rows: int, **start: Any) -> TaskTensors:
            return TaskTensors(dict.fromkeys(self.names, rows), **{"width": None, "std": 0.0, **start})

        self.vocabulary = size
        self.weight = of_tasks(width, width=self.hidden_size, std=INITIALIZER_RANGE)
        self.inner_bias = of_tasks(width)
        self.norm_scale = of_tasks(width, mean=1.0)
        self.norm_shift = of_tasks(width)
        self.bias = of_tasks(size)

    def read_tasks(self, tasks: dict[int, TaskConfig]) -> None:
        super().read_tasks(tasks)
        for task in tasks.values():
            if task.setting("num_best") > MOST_BEST:
                raise InputError(
                    f"num_best={task.num_best!r} of task {task.name!r}; expected a whole number <= {MOST_BEST}."
                )

    def forward(self, token_states: torch.Tensor, task_states: torch.Tensor, entries: Entries) -> torch.Tensor:
        rows, local = entries["rows"], self._local(entries["tasks"])
        places = entries.get("places")
        states = token_states[rows] if places is None else token_states[rows.unsqueeze(1), places]  # (N, M, hidden)
        task_part = self.task_to_token(task_states[rows, entries["slots"]]).unsqueeze(1)
        states = self.dropout(states + self.task_share(states, task_part))
        # Of all tasks, of which there is one as a rule: their matrices for each entry would be larger.
        inner = torch.einsum("nmd,twd->ntmw", states, self.weight().to(states.dtype))
        inner = inner[torch.arange(rows.shape[0], device=rows.device), local]  # (N, M, width)
        inner = F.gelu(inner + self.inner_bias()[local].unsqueeze(1).to(inner.dtype))
        normed = F.layer_norm(at_least_float32(inner), inner.shape[-1:], eps=_NORM_EPS)
        normed = normed * self.norm_scale()[local].unsqueeze(1) + self.norm_shift()[local].unsqueeze(1)
        words = entries["words"]  # (vocabulary, width)
        return at_least_float32(normed.to(words.dtype) @ words.T) + self.bias()[local].unsqueeze(1)

    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        labels = vocabulary_labels(entries, self.tasks, logits.shape)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED_LABEL)
        return losses.view_as(labels).sum(dim=1)

    @classmethod
    def answer_scores(cls, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        """Return (N, M, 2 K + 1): log-probabilities of the K best word pieces, their ids, that of the true one."""
        scores = at_least_float32(logits).log_softmax(dim=-1)
        best = scores.topk(min(MOST_BEST, scores.shape[-1]), dim=-1)
        labels = entries.get("labels", torch.full(scores.shape[:2], IGNORED_LABEL, device=scores.device))
        true = scores.gather(-1, labels.clamp(min=0).unsqueeze(-1))
        return torch.cat([best.values, best.indices.to(scores.dtype), true], dim=-1)

    @classmethod
    def scores_of_rows(cls, logits: torch.Tensor, features: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        places = _padded([feature["masks"] for feature in features], 0).to(logits.device)
        index = places.unsqueeze(-1).expand(-1, -1, logits.shape[-1])
        return cls.answer_scores(logits.gather(1, index), {})

    @classmethod
    def entry_tensors(
        cls, labels: Sequence[Any], features: Sequence[Mapping[str, Any]], length: int
    ) -> dict[str, torch.Tensor]:
        if not features:
            return super().entry_tensors(labels, features, length)
        # Where there is nothing to say, the first piece is read and has no label.
        masks = [feature.get("masks", []) for feature in features]
        tensors = {"places": _padded(masks, 0)}
        if all(label is not None for label in labels):
            masked = [[label[place] for place in places] for label, places in zip(labels, masks)]
            tensors["labels"] = _padded(masked, IGNORED_LABEL)
        return tensors

    @staticmethod
    def hole(num_outputs: int, length: int) -> list[int]:
        return [IGNORED_LABEL] * length

    @staticmethod
    def label_tensor(labels: Sequence[Any], length: int) -> torch.Tensor:
        return torch.tensor([list(label) + [IGNORED_LABEL] * (length - len(label)) for label in labels])

    @staticmethod
    def task_scores(task: TaskConfig, scores: torch.Tensor) -> torch.Tensor:
        return scores

    @classmethod
    def answer(
        cls,
        task: TaskConfig,
        logits: Sequence[np.ndarray],
        row: Mapping[str, Any],
        features: Sequence,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Answer:
        answer = super().answer(task, logits, row, features)
        if tokenizer is None:
            return answer
        return {**answer, "masks": [_named(mask, tokenizer) for mask in answer["masks"]]}

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        feature, masks = features[0], []
        true = feature.get("masked_pieces", [None] * len(feature["masks"]))
        for scores, piece in zip(logits[0], true[: len(feature["masks"])]):
            count = len(scores) // 2
            best = [
                {"token": int(token), "score": math.exp(score)}
                for score, token in zip(scores[:count], scores[count : 2 * count])
            ][: task.setting("num_best")]
            mask = {**best[0], "n_best": best}
            masks.append(mask if piece is None else {**mask, "true": {"token": piece, "score": math.exp(scores[-1])}})
        return {"masks": masks}

    @staticmethod
    def summary(answer: Answer) -> str:
        return ", ".join(f"{mask['piece']!r} ({mask['score']:.2f})" for mask in answer["masks"]) or "(no mask)"


def _padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """(rows, longest), one column at least."""
    longest = max(1, *(len(row) for row in rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def _named(candidate: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A word piece, and those beside it, with the texts that they stand for."""
    named = {"piece": tokenizer.decode([candidate["token"]]), **candidate}
    if "n_best" in candidate:
        named["n_best"] = [_named(other, tokenizer) for other in candidate["n_best"]]
    if "true" in candidate:
        named["true"] = _named(candidate["true"], tokenizer)
    return named
