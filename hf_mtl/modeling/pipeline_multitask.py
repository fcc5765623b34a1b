"""Texts become every task's decoded answer, from one pass of the encoder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .configuration_multitask import TaskConfig
from .errors import InputError
from .input_rows import Row, Rows, TaskNames, check_row, listed_rows, tasks_named
from .processing_multitask import MultiTaskProcessor
from .task_heads import Answer

# By model: where its tokenizer was read from, and the tokenizer; no part of the model, so that neither copies nor
# checkpoints hold it.
_tokenizers: "WeakKeyDictionary[PreTrainedModel, tuple[Any, PreTrainedTokenizerBase]]" = WeakKeyDictionary()


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer, read once as long as the model's source stays."""
    multitask = cast(Any, model)
    source = (multitask.encoder_source, multitask.name_or_path, sorted(multitask.hub_arguments.items()))
    if model not in _tokenizers or _tokenizers[model][0] != source:
        _tokenizers[model] = source, multitask.load_tokenizer()
    return _tokenizers[model][1]


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """Let a model answer as it does after training; afterwards each of its modules is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class Answerer:
    """Answers rows with a model: features shared by tasks are encoded once, and a batch is one encoder pass.

    Args:
        model: A `MultiTaskAttentionModel`.
        tokenizer: The encoder's tokenizer.

    Raises:
        InputError: The tokenizer gives what the encoder cannot read.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tasks = model.config.task_configs
        self.processor = MultiTaskProcessor.for_model(model, tokenizer)

    def answer(
        self,
        rows: Rows,
        tasks: TaskNames | None = None,
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
    ) -> list[dict[str, Answer]]:
        """Return for each row the answers of all tasks (or of `tasks`) whose input fields it has.

        Args:
            rows: Texts, or mappings of input fields (`ROW_FIELDS`), a data set or table of them, columns; or a single
                one. Other columns are left out.
            tasks: Names of the tasks to answer, or one; a row that lacks a field of one of them is an error.
            batch_size: Rows in one pass of the encoder.
            progress: Called with the number of rows answered since the last call.

        Raises:
            InputError: An unknown task, a field that is missing or of the wrong type, a column that may be meant as a
                field, or no batch size.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}; expected a whole number >= 1.")
        wanted = self.tasks_by_name(tasks)
        checked = [
            check_row(row, f"Row {index}", wanted, tasks is not None) for index, row in enumerate(listed_rows(rows))
        ]
        answers = []
        for start in range(0, len(checked), batch_size):
            batch = checked[start : start + batch_size]
            answers += self._answer_batch(batch, wanted)
            if progress is not None:
                progress(len(batch))
        return answers

    def tasks_by_name(self, names: TaskNames | None) -> list[TaskConfig]:
        """Return the tasks of these names in the model's order; all of them for None.

        Raises:
            InputError: The model has no such task, or there is no name.
        """
        return tasks_named(self.tasks, names)

    def check_row(self, row: str | Mapping[str, Any], place: str, tasks: TaskNames | None = None) -> Row:
        """Return a row as a mapping of its input fields.

        Args:
            row: A text or a mapping.
            place: What a message calls it.
            tasks: Names of the tasks to answer; None for all whose fields it has, which must be one at least.

        Raises:
            InputError: The row is of another type, or one of its fields is missing or of the wrong type.
        """
        return check_row(row, place, self.tasks_by_name(tasks), tasks is not None)

    def _answer_batch(self, rows: list[Row], tasks: list[TaskConfig]) -> list[dict[str, Answer]]:
        features = self.processor.shared_features(rows, tasks)
        if not features:
            return [{} for _ in rows]
        with answering(self.model):
            logits = cast(Any, self.model).entry_logits(self.processor.collate(features))
        names = self.model.config.task_names
        entries = [entry for feature in features for entry in feature["entries"]]
        return self.processor.answers(
            rows,
            (
                (entry["row"], names[entry["task"]], entry["feature"], scores)
                for entry, scores in zip(entries, logits, strict=True)
            ),
        )
