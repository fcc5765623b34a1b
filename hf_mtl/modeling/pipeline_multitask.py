"""Texts become every task's decoded answer, from one pass of the encoder."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from .errors import InputError
from .input_rows import Row, Rows, TaskNames, check_row, listed_rows, tasks_named
from .processing_multitask import MultiTaskProcessor
from .task_config import TaskConfig
from .task_head import Answer

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
def _answering(model: nn.Module) -> Iterator[None]:
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
        with _answering(self.model):
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


class MultiTaskPipeline(Pipeline):
    """`pipeline("multitask", model=...)`: texts or rows in, the answers of `predict` out.

    A single text or row gives a dictionary by task name, several give a list of them.

    Args:
        tasks: The tasks to answer, here or in a call; by default all whose input fields a row has.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(set(options) - {"tasks"})
        if unknown:
            raise InputError(f"The pipeline takes no {unknown[0]!r}; expected `tasks` and `batch_size`.")
        return {}, options, {}

    def __call__(self, inputs: Any, *, batch_size: int | None = None, num_workers: int = 0, **options: Any) -> Any:
        """Answer texts or rows; see `MultiTaskAttentionModel.predict`.

        Args:
            inputs: A text or a row, or several: a list, a data set or a generator.
            batch_size: Rows in one pass of the encoder.
            num_workers: 0: rows are read in this process.
            **options: `tasks`, see above.

        Raises:
            InputError: An option that the pipeline does not take, or a row that cannot be answered.
        """
        if workers := num_workers or self._num_workers:
            raise InputError(f"num_workers={workers}: the pipeline reads rows in its own process; leave it out.")
        _, settings, _ = self._sanitize_parameters(**options)
        is_single = isinstance(inputs, (str, Mapping))
        rows = [inputs] if is_single else list(inputs)
        size = batch_size or self._batch_size or 1
        answers = self._forward(self.preprocess(rows), batch_size=size, **{**self._forward_params, **settings})
        return answers[0] if is_single else answers

    def preprocess(self, inputs: Any, **options: Any) -> Any:
        """Return rows as they are: the model makes its inputs of them."""
        return inputs

    def _forward(self, rows: Any, **options: Any) -> Any:
        return cast(Any, self.model).predict(rows, tokenizer=self.tokenizer, **options)

    def postprocess(self, answers: Any, **options: Any) -> Any:
        """Return answers as they are: the model has decoded them."""
        return answers
