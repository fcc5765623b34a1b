"""The bases of heads: weights and biases of tasks, what their labels and logits look like."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .label_checks import IGNORED_LABEL, Entries, check_task_indices
from .problem_types import PROBLEM_TYPES
from .task_config import TaskConfig
from .task_tensors import ModuleWithConstants, TaskTensors, ZeroStartLinear, at_least_float32

Answer = dict[str, Any]

INITIALIZER_RANGE = 0.02


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
    # Of a batch of labels: 1 where an entry has one, 2 where it has one per output, word piece or end of an answer.
    label_axes: ClassVar[int] = 1
    # Whether labels need not be whole numbers.
    takes_fractions: ClassVar[bool] = False
    # Whether a row's logits are one number, which then has no axis of its own.
    has_one_score: ClassVar[bool] = False
    # Whether its loss reads which word pieces an entry has.
    reads_token_mask: ClassVar[bool] = False
    # Whether it reads the encoder's word embeddings, which then stand as ``words`` among its entries.
    reads_words: ClassVar[bool] = False

    def __init__(self, tasks: dict[int, TaskConfig], hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.make_outputs(tasks, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.set_constant("places", list(tasks))
        self.set_constant("sizes", [task.num_outputs for task in tasks.values()])
        local = {index: place for place, index in enumerate(tasks)}
        self.set_constant("local", [local.get(index, 0) for index in range(max(tasks) + 1)])
        self.read_tasks(tasks)

    @classmethod
    def build(cls, tasks: dict[int, TaskConfig], hidden_size: int, dropout: float, encoder: PreTrainedModel) -> Self:
        """Return the heads of tasks beside an encoder, which is looked at and belongs to the model."""
        return cls(tasks, hidden_size, dropout)

    def make_outputs(self, tasks: Mapping[int, TaskConfig], hidden_size: int) -> None:
        """Make the parameters that become scores: a weight and, where there is one, a bias per output."""
        sizes = {task.name: task.num_outputs for task in tasks.values()}
        self.weight = TaskTensors(sizes, width=hidden_size, std=INITIALIZER_RANGE)
        if self.has_bias:
            self.bias = TaskTensors(sizes, width=None, std=0.0)

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

    @property
    def inputs(self) -> str:
        """The way in which its tasks' fields become the encoder's inputs: a name of `problem_types.INPUTS`."""
        return PROBLEM_TYPES[self.problem_type].inputs

    @classmethod
    def answer(
        cls,
        task: TaskConfig,
        logits: Sequence[np.ndarray],
        row: Mapping[str, Any],
        features: Sequence,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Answer:
        """Return the answer of one row; where its input was longer than the task reads, with ``truncated``: True.

        Args: as of `decode`, and
            tokenizer: The encoder's, which names word pieces.
        """
        answer = cls.decode(task, logits, row, features)
        return {**answer, "truncated": True} if any(feature["truncated"] for feature in features) else answer

    @staticmethod
    @abstractmethod
    def decode(task: TaskConfig, logits: Sequence[np.ndarray], row: Mapping[str, Any], features: Sequence) -> Answer:
        """Return the answer of one row.

        Args:
            task: The task.
            logits: What `answer_scores` returned of the row's entries (one; question answering: one per window).
            row: The row's input fields.
            features: What the processor remembers of each entry (words' positions, offsets, whether it was cut).
        """

    @classmethod
    def answer_scores(cls, logits: torch.Tensor, entries: Entries) -> torch.Tensor:
        """Return what of the entries' logits answers are decoded from, (N, ...): all of them, unless that is too much.

        Args:
            logits: Of `forward`.
            entries: The entries.
        """
        return logits

    @classmethod
    def scores_of_rows(cls, logits: torch.Tensor, features: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Return the same of the logits that plain inputs have, row by row.

        Args:
            logits: (rows, ...).
            features: What the processor remembers of each row.
        """
        return logits

    @classmethod
    def entry_tensors(
        cls, labels: Sequence[Any], features: Sequence[Mapping[str, Any]], length: int
    ) -> dict[str, torch.Tensor]:
        """Return what entries hold beside their places: ``labels``, where all have one.

        Args:
            labels: One per entry, or None.
            features: What the processor remembers of each entry; none where rows are answered whole.
            length: Word pieces of a row of the batch.
        """
        present = all(label is not None for label in labels)
        return {"labels": cls.label_tensor(labels, length)} if present else {}

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

    @staticmethod
    def label_tensor(labels: Sequence[Any], length: int) -> torch.Tensor:
        """Return the labels of entries as `loss_sums` reads them; shorter ones are filled up with holes.

        Args:
            labels: One per entry.
            length: Word pieces of a row of the batch.
        """
        return torch.tensor(labels)

    @staticmethod
    def task_labels(task: TaskConfig, labels: torch.Tensor) -> torch.Tensor:
        """Return the labels of a task's entries without those that only other tasks of the head have."""
        return labels

    @staticmethod
    def task_scores(task: TaskConfig, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of a task's entries without those that only other tasks of the head have."""
        return scores[..., : task.num_outputs]

    @staticmethod
    def label_space(task: TaskConfig) -> Hashable | None:
        """Return what two tasks have in common if their answers can be merged; None where no answers can."""
        return None

    @staticmethod
    def merge_probabilities(logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, outputs) of the weighted means of probabilities; of outputs that stand for none, such
        as numbers, their means.

        Args:
            logits: (N, tasks, outputs) what several tasks say of each entry.
            weights: (N, tasks, 1), of each entry 1 in sum.
        """
        return (weights * logits).sum(dim=1)

    @staticmethod
    @abstractmethod
    def summary(answer: Answer) -> str:
        """Return an answer in a line for a person."""

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
    """The base of heads that read one task state per entry: logits = W_t H_t + b_t."""

    def forward(self, token_states: torch.Tensor, task_states: torch.Tensor, entries: Entries) -> torch.Tensor:
        weight, bias = self._weight_and_bias(entries["tasks"])
        states = self.dropout(task_states[entries["rows"], entries["slots"]])  # (N, hidden)
        return at_least_float32(torch.einsum("nd,ncd->nc", states, weight.to(states.dtype))) + bias

    def answer_values(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what another task can read of an answer (N, outputs), 0 for outputs that a task does not have:
        probabilities, where outputs have some.

        Args:
            logits: (N, outputs).
        """
        return logits.masked_fill(logits.isinf(), 0.0)


class TokenLevelHead(TaskHead):
    """The base of heads that read every token: logits = W_t (Z + P) + b_t; P = W_tok H_t is zero at first."""

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
