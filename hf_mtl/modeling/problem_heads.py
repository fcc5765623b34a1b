"""One head class per problem type: the loss of its labels, and the answers that its logits say."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .answer_decoding import best_spans, softmax, tag_spans
from .errors import InputError
from .label_checks import (
    IGNORED_LABEL,
    Entries,
    choice_labels,
    class_labels,
    flag_labels,
    number_labels,
    piece_labels,
)
from .masked_language import MaskedLanguageHead
from .problem_types import ProblemType, add_problem_type
from .tag_spans import outside_tag
from .task_config import TaskConfig
from .task_head import Answer, SentenceHead, TaskHead, TokenLevelHead
from .task_tensors import at_least_float32


class SingleLabelHead(SentenceHead):
    """One class of several: cross-entropy."""

    problem_type = "single_label_classification"

    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        labels = class_labels(entries, self.tasks, self._sizes(entries["tasks"]), logits.shape)
        losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED_LABEL)
        if self.is_weighted:
            weights = self._label_weights(entries["tasks"])
            losses = losses * weights.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
        return losses

    def answer_values(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=-1)

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        scores = softmax(logits[0][: task.num_outputs])
        best = int(scores.argmax())
        return {
            "label": task.label_names[best],
            "score": float(scores[best]),
            "scores": dict(zip(task.label_names, scores.tolist())),
        }

    @staticmethod
    def summary(answer: Answer) -> str:
        return f"{answer['label']} ({answer['score']:.2f})"

    @staticmethod
    def label_space(task: TaskConfig) -> Hashable | None:
        return task.problem_type, tuple(task.label_names)

    @staticmethod
    def merge_probabilities(logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (weights * logits.softmax(dim=-1)).sum(dim=1).clamp(min=torch.finfo(logits.dtype).tiny).log()


class MultiLabelHead(SentenceHead):
    """Any number of flags: one binary cross-entropy per flag."""

    problem_type = "multi_label_classification"
    label_axes = 2
    takes_fractions = True

    @staticmethod
    def hole(num_outputs: int, length: int) -> list[float]:
        return [float(IGNORED_LABEL)] * num_outputs

    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        labels = flag_labels(entries, self.tasks, self._sizes(entries["tasks"]), logits.shape[1]).to(logits.dtype)
        present = self.is_label(labels)
        positive_weight = self._label_weights(entries["tasks"]) if self.is_weighted else None
        losses = F.binary_cross_entropy_with_logits(
            logits.masked_fill(~present, 0.0),
            labels.masked_fill(~present, 0.0),
            pos_weight=positive_weight,
            reduction="none",
        )
        return losses.masked_fill(~present, 0.0).sum(dim=1)

    def answer_values(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        scores = 1.0 / (1.0 + np.exp(-logits[0][: task.num_outputs]))
        return {
            "labels": [label for label, score in zip(task.label_names, scores) if score >= task.setting("threshold")],
            "scores": dict(zip(task.label_names, scores.tolist())),
        }

    @staticmethod
    def summary(answer: Answer) -> str:
        return ", ".join(f"{label} ({answer['scores'][label]:.2f})" for label in answer["labels"]) or "(none)"

    @staticmethod
    def label_tensor(labels: Sequence[Any], length: int) -> torch.Tensor:
        widest = max(len(label) for label in labels)
        rows = [list(label) + [IGNORED_LABEL] * (widest - len(label)) for label in labels]
        return torch.tensor(rows, dtype=torch.float32)

    @staticmethod
    def task_labels(task: TaskConfig, labels: torch.Tensor) -> torch.Tensor:
        return labels[:, : task.num_outputs]

    @staticmethod
    def label_space(task: TaskConfig) -> Hashable | None:
        return task.problem_type, tuple(task.label_names)

    @staticmethod
    def merge_probabilities(logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        tiny = torch.finfo(logits.dtype).tiny
        yes, no = (weights * logits.sigmoid()).sum(dim=1), (weights * (-logits).sigmoid()).sum(dim=1)
        return yes.clamp(min=tiny).log() - no.clamp(min=tiny).log()


class RegressionHead(SentenceHead):
    """A number: squared error of the standardised label."""

    problem_type = "regression"
    takes_fractions = True
    has_one_score = True
    standards: torch.Tensor

    @staticmethod
    def hole(num_outputs: int, length: int) -> float:
        return math.nan

    def read_tasks(self, tasks: dict[int, TaskConfig]) -> None:
        super().read_tasks(tasks)
        self.set_constant("standards", [list(_standard(task)) for task in tasks.values()])

    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        labels = number_labels(entries, self.tasks)
        mean, scale = self._standard(entries["tasks"])
        present = self.is_label(labels)
        losses = (logits.squeeze(1) - (labels.masked_fill(~present, 0.0) - mean) / scale).square()
        return losses.masked_fill(~present, 0.0)

    def _standard(self, tasks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each entry's label mean and scale, (N,) each."""
        mean, scale = self.standards[self._local(tasks)].unbind(dim=1)
        return mean, scale

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        mean, scale = _standard(task)
        return {"value": float(logits[0][0]) * scale + mean}

    @staticmethod
    def summary(answer: Answer) -> str:
        return f"{answer['value']:.2f}"

    @staticmethod
    def label_tensor(labels: Sequence[Any], length: int) -> torch.Tensor:
        return torch.tensor(labels, dtype=torch.float32)

    @staticmethod
    def label_space(task: TaskConfig) -> Hashable | None:
        return task.problem_type, _standard(task)


def _standard(task: TaskConfig) -> tuple[float, float]:
    """The mean and the scale by which a task's numbers are standardised."""
    mean, scale = task.label_mean, task.label_scale
    return 0.0 if mean is None else float(mean), 1.0 if scale is None else float(scale)


class TokenClassificationHead(TokenLevelHead):
    """One tag per word, read at the word's first piece: cross-entropy."""

    problem_type = "token_classification"
    label_axes = 2

    @staticmethod
    def hole(num_outputs: int, length: int) -> list[int]:
        return [IGNORED_LABEL] * length

    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        labels = class_labels(entries, self.tasks, self._sizes(entries["tasks"]), logits.shape)  # (N, length)
        losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED_LABEL)
        if self.is_weighted:
            weights = self._label_weights(entries["tasks"])
            losses = losses * weights.gather(1, labels.clamp(min=0))
        return losses.sum(dim=1)

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        best = logits[0][:, : task.num_outputs].argmax(axis=1)
        outside = outside_tag(task.label_names)
        feature = features[0]
        tags = [task.label_names[best[place]] if place >= 0 else outside for place in feature["positions"]]
        answer = {"tokens": list(row["tokens"]), "tags": tags, "spans": tag_spans(row, tags, task.label_names)}
        return {**answer, "words_read": feature["words_read"]} if feature["truncated"] else answer

    @staticmethod
    def summary(answer: Answer) -> str:
        spans = ", ".join(f"{span['text']!r} {span['label']}" for span in answer["spans"])
        tags = " ".join(f"{token}/{tag}" for token, tag in zip(answer["tokens"], answer["tags"]) if tag != "O")
        return spans or tags or "(none)"

    @staticmethod
    def label_tensor(labels: Sequence[Any], length: int) -> torch.Tensor:
        return torch.tensor([list(label) + [IGNORED_LABEL] * (length - len(label)) for label in labels])


class QuestionAnsweringHead(TokenLevelHead):
    """A span of the context: cross-entropy of its first and last piece, padding left out."""

    problem_type = "question_answering"
    label_axes = 2
    reads_token_mask = True

    @staticmethod
    def hole(num_outputs: int, length: int) -> list[int]:
        return [IGNORED_LABEL] * 2

    def task_share(self, states: torch.Tensor, task_part: torch.Tensor) -> torch.Tensor:
        # A softmax over tokens forgets what is added to all of them alike, so here the task scales their features.
        return states * task_part

    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        padding = entries["token_mask"].unsqueeze(-1) == 0  # (N, length, 1)
        ends = logits.masked_fill(padding, torch.finfo(logits.dtype).min)
        labels = piece_labels(entries, self.tasks)  # (N, 2)
        losses = F.cross_entropy(ends, labels, reduction="none", ignore_index=IGNORED_LABEL)  # (N, 2)
        return losses.mean(dim=1)

    @staticmethod
    def is_label(labels: torch.Tensor) -> torch.Tensor:
        return labels[:, :1] != IGNORED_LABEL

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        offsets = [feature["offsets"] for feature in features]
        spans = best_spans(logits, offsets, row["context"], task)
        return {**spans[0], "n_best": spans}

    @staticmethod
    def summary(answer: Answer) -> str:
        return f"{answer['answer']!r} ({answer['score']:.2f})" if answer["answer"] else "(no answer)"


class MultipleChoiceHead(TaskHead):
    """One of a row's choices, each an encoder row of its own: cross-entropy over their scores.

    It has no bias: what is added to all choices alike changes no probability, and would never learn.
    """

    problem_type = "multiple_choice"
    has_bias = False

    def forward(self, token_states: torch.Tensor, task_states: torch.Tensor, entries: Entries) -> torch.Tensor:
        rows, tasks = entries["rows"], entries["tasks"]  # (N, choices), (N,)
        weight = self.weight()[self._local(tasks)].squeeze(1)  # (N, hidden)
        states = self.dropout(task_states[rows, entries["slots"].unsqueeze(1)])  # (N, choices, hidden)
        scores = at_least_float32(torch.einsum("nkd,nd->nk", states, weight.to(states.dtype)))
        return scores.masked_fill(~entries["choices"], float("-inf"))

    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        labels = choice_labels(entries, self.tasks)
        return F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED_LABEL)

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        choices = list(row["choices"])
        scores = softmax(logits[0][: len(choices)])
        best = int(scores.argmax())
        return {"choice": best, "text": choices[best], "score": float(scores[best]), "scores": scores.tolist()}

    @staticmethod
    def summary(answer: Answer) -> str:
        return f"{answer['text']} ({answer['score']:.2f})"

    @staticmethod
    def task_scores(task: TaskConfig, scores: torch.Tensor) -> torch.Tensor:
        return scores


TASK_HEADS: dict[str, type[TaskHead]] = {
    head.problem_type: head
    for head in (
        SingleLabelHead,
        MultiLabelHead,
        RegressionHead,
        TokenClassificationHead,
        QuestionAnsweringHead,
        MultipleChoiceHead,
        MaskedLanguageHead,
    )
}


def register_problem_type(row: ProblemType, head: type[TaskHead]) -> None:
    """Add a problem type of another package, which must be imported wherever its checkpoints are read.

    Args:
        row: What is true of all its tasks; a row that exists, changed by `dataclasses.replace`, is a beginning.
        head: Its head class, with the row's name as `problem_type`; a class of this module is a beginning.

    Raises:
        InputError: They do not fit together.
    """
    if not (isinstance(head, type) and issubclass(head, TaskHead)) or vars(head).get("problem_type") != row.name:
        raise InputError(
            f"{head!r} is no head of {row.name!r}; expected a subclass of TaskHead with problem_type = {row.name!r}."
        )
    add_problem_type(row)
    TASK_HEADS[row.name] = head


__all__ = ["TASK_HEADS", "register_problem_type"]
