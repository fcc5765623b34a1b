"""One head class a problem type: logits of (row, task) entries, their loss sums, and decoded answers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .answer_decoding import best_spans, softmax, tag_spans
from .configuration_multitask import TaskConfig
from .label_checks import (
    IGNORED_LABEL,
    Entries,
    check_task_indices,
    choice_labels,
    class_labels,
    flag_labels,
    number_labels,
    piece_labels,
)
from .tag_spans import outside_tag
from .task_tensors import ModuleWithConstants, TaskTensors, ZeroStartLinear, at_least_float32

INITIALIZER_RANGE = 0.02

Answer = dict[str, Any]


class TaskHead(ModuleWithConstants, ABC):
    """The heads of all tasks of one problem type.

    An entry is one row answered for one task. The entries of a batch stand in tensors of equal length: ``rows`` (N,)
    the encoder rows they read (multiple choice: (N, choices)), ``tasks`` (N,) their tasks' indices, ``slots`` (N,)
    where their tasks stand among those asked of their rows, ``labels``.

    Args:
        tasks: The tasks of this problem type by their index in the model.
        hidden_size: Width of token and task states.
        dropout: Dropout on what the head reads.
    """

    places: torch.Tensor
    sizes: torch.Tensor
    local: torch.Tensor
    class_weights: torch.Tensor

    problem_type: ClassVar[str]
    has_bias: ClassVar[bool] = True

    def __init__(self, tasks: dict[int, TaskConfig], hidden_size: int, dropout: float) -> None:
        super().__init__()
        sizes = {task.name: task.num_outputs for task in tasks.values()}
        self.weight = TaskTensors(sizes, width=hidden_size, std=INITIALIZER_RANGE)
        if self.has_bias:
            self.bias = TaskTensors(sizes, width=None, std=0.0)
        self.dropout = nn.Dropout(dropout)
        self.set_constant("places", list(tasks))
        self.set_constant("sizes", [task.num_outputs for task in tasks.values()])
        local = {index: place for place, index in enumerate(tasks)}
        self.set_constant("local", [local.get(index, 0) for index in range(max(tasks) + 1)])
        self.read_tasks(tasks)

    def read_tasks(self, tasks: dict[int, TaskConfig]) -> None:
        """Take what tasks say that is no weight: label statistics, and what decoding reads.

        Args:
            tasks: The tasks that the head was built for, by their index in the model.
        """
        self.tasks = tasks
        widest = max(task.num_outputs for task in tasks.values())
        rows = [list(task.class_weights or [1.0] * task.num_outputs) for task in tasks.values()]
        self.set_constant("class_weights", [row + [1.0] * (widest - len(row)) for row in rows])
        self.is_weighted = any(weight != 1 for row in rows for weight in row)

    @abstractmethod
    def forward(self, token_states: torch.Tensor, task_states: torch.Tensor, entries: Entries) -> torch.Tensor:
        """Return the entries' logits; outputs a task does not have are -inf.

        Args:
            token_states: (batch, length, hidden).
            task_states: (batch, asked, hidden).
            entries: The entries of this problem type.
        """

    @abstractmethod
    def loss_sums(self, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        """Return for each entry the sum of the losses of its labels (N,); ignored labels count nothing.

        Raises:
            LabelError: A label that its task does not have.
        """

    @classmethod
    def answer(
        cls, task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence
    ) -> Answer:
        """Return the answer of one row; where its input was longer than the task reads, with ``truncated``: True.

        Args: as of `decode`.
        """
        answer = cls.decode(task, logits, row, features)
        return {**answer, "truncated": True} if any(feature["truncated"] for feature in features) else answer

    @staticmethod
    @abstractmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        """Return the answer of one row.

        Args:
            task: The task.
            logits: The logits of the row's entries (one; question answering: one a window).
            row: The row's input fields.
            features: What the processor remembers of each entry (words' positions, offsets, whether it was cut).
        """

    @staticmethod
    def is_label(labels: torch.Tensor) -> torch.Tensor:
        """Return where `labels` holds a label and not a hole (-100, NaN)."""
        return (labels != IGNORED_LABEL) & ~labels.isnan()

    @staticmethod
    def hole(num_outputs: int, length: int) -> Any:
        """Return the label of an entry that has none, in the shape of one.

        Args:
            num_outputs: The task's.
            length: Word pieces of the entry.
        """
        return IGNORED_LABEL

    def _weight_and_bias(self, tasks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each entry's head: weight (N, outputs, hidden) and bias (N, outputs)."""
        local = self._local(tasks)
        return self.weight()[local], self.bias(fill=float("-inf"))[local]

    def _local(self, tasks: torch.Tensor) -> torch.Tensor:
        """Each entry's task as a place among the tasks of this problem type."""
        check_task_indices(tasks, self.tasks, self.problem_type)
        return self.local[tasks]

    def _sizes(self, tasks: torch.Tensor) -> torch.Tensor:
        """Each entry's number of outputs (N,)."""
        return self.sizes[self._local(tasks)]

    def _label_weights(self, tasks: torch.Tensor) -> torch.Tensor:
        """Each entry's class weights (N, outputs)."""
        return self.class_weights[self._local(tasks)]


class SentenceHead(TaskHead):
    """What the heads that read one task state an entry share: logits = W_t H_t + b_t."""

    def forward(self, token_states: torch.Tensor, task_states: torch.Tensor, entries: Entries) -> torch.Tensor:
        weight, bias = self._weight_and_bias(entries["tasks"])
        states = self.dropout(task_states[entries["rows"], entries["slots"]])  # (N, hidden)
        return at_least_float32(torch.einsum("nd,ncd->nc", states, weight.to(states.dtype))) + bias


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

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        scores = softmax(logits[0][: task.num_outputs])
        best = int(scores.argmax())
        return {
            "label": task.label_names[best],
            "score": float(scores[best]),
            "scores": dict(zip(task.label_names, scores.tolist())),
        }


class MultiLabelHead(SentenceHead):
    """Any number of flags: one binary cross-entropy a flag."""

    problem_type = "multi_label_classification"

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

    @staticmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        scores = 1.0 / (1.0 + np.exp(-logits[0][: task.num_outputs]))
        return {
            "labels": [label for label, score in zip(task.label_names, scores) if score >= task.threshold],
            "scores": dict(zip(task.label_names, scores.tolist())),
        }


class RegressionHead(SentenceHead):
    """A number: squared error of the standardised label."""

    problem_type = "regression"
    standards: torch.Tensor

    @staticmethod
    def hole(num_outputs: int, length: int) -> float:
        return math.nan

    def read_tasks(self, tasks: dict[int, TaskConfig]) -> None:
        super().read_tasks(tasks)
        standards = [[float(task.label_mean), float(task.label_scale)] for task in tasks.values()]
        self.set_constant("standards", standards)

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
        return {"value": float(logits[0][0]) * task.label_scale + task.label_mean}


class TokenLevelHead(TaskHead):
    """What the heads that read every token share: logits = W_t (Z + P) + b_t; P = W_tok H_t is zero at first."""

    def __init__(self, tasks: dict[int, TaskConfig], hidden_size: int, dropout: float) -> None:
        super().__init__(tasks, hidden_size, dropout)
        self.task_to_token = ZeroStartLinear(hidden_size, hidden_size, bias=False)

    def forward(self, token_states: torch.Tensor, task_states: torch.Tensor, entries: Entries) -> torch.Tensor:
        rows, tasks = entries["rows"], entries["tasks"]
        weight, bias = self._weight_and_bias(tasks)
        task_part = self.task_to_token(task_states[rows, entries["slots"]])  # (N, hidden)
        states = token_states[rows]  # (N, length, hidden)
        states = self.dropout(states + self.task_share(states, task_part.unsqueeze(1)))
        return at_least_float32(torch.einsum("nld,ncd->nlc", states, weight.to(states.dtype))) + bias.unsqueeze(1)

    def task_share(self, states: torch.Tensor, task_part: torch.Tensor) -> torch.Tensor:
        """Return P, what a task adds to its tokens' states: W_tok H_t, the same for every token.

        Args:
            states: (N, length, hidden).
            task_part: (N, 1, hidden) W_tok H_t.
        """
        return task_part


class TokenClassificationHead(TokenLevelHead):
    """One tag a word, read at the word's first piece: cross-entropy."""

    problem_type = "token_classification"

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


class QuestionAnsweringHead(TokenLevelHead):
    """A span of the context: cross-entropy of its first and last piece, padding left out."""

    problem_type = "question_answering"

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


TASK_HEADS: dict[str, type[TaskHead]] = {
    head.problem_type: head
    for head in (
        SingleLabelHead,
        MultiLabelHead,
        RegressionHead,
        TokenClassificationHead,
        QuestionAnsweringHead,
        MultipleChoiceHead,
    )
}
