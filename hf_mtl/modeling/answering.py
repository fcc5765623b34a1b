"""Rows become every task's answers: rows of like length go through the encoder together, each once for all tasks."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answer_forms import AnswerForm
from .encoder_modules import reads_words
from .errors import InputError, check_choice
from .input_rows import Row, Rows, TaskNames, check_row, listed_rows, tasks_named
from .media_features import Feature
from .multitask_output import MultiTaskOutput
from .problem_heads import TASK_HEADS
from .processing_multitask import MultiTaskProcessor
from .several_encoders import first_encoder
from .task_config import TaskConfig
from .task_head import Answer

# Rows that are tokenised and sorted by length together, in batches: many, so that those of a batch are of one length;
# few, so that the memory of a long file is that of these.
_BATCHES_TOGETHER = 64

# By model: where its tokenizer was read from, and the tokenizer; no part of the model, so that neither copies nor
# checkpoints hold it.
_tokenizers: "WeakKeyDictionary[PreTrainedModel, tuple[Any, PreTrainedTokenizerBase]]" = WeakKeyDictionary()


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """Return a model's tokenizer, read once as long as the model's source stays; None of one that reads no texts."""
    multitask = cast(Any, model)
    if not reads_words(first_encoder(multitask.encoder)):
        return None
    source = (multitask.encoder_source, multitask.name_or_path, sorted(multitask.hub_arguments.items()))
    if model not in _tokenizers or _tokenizers[model][0] != source:
        _tokenizers[model] = source, multitask.load_tokenizer()
    return _tokenizers[model][1]


def decoded_rows(tasks: Sequence[TaskConfig], outputs: Any) -> list[dict[str, Answer]]:
    """Return the answers of each row by task name; see `MultiTaskAttentionModel.decode`."""
    logits = outputs.logits if isinstance(outputs, MultiTaskOutput) else outputs
    if not isinstance(logits, Mapping):
        raise InputError(
            f"The outputs are a {type(outputs).__name__}; expected what the model returns with return_dict=True, or "
            "logits by task name."
        )
    for name in logits:
        check_choice("task", name, [task.name for task in tasks])
    for task in tasks:
        if task.name in logits and task.problem.inputs != "texts":
            raise InputError(
                f"Answers of task {task.name!r} ({task.problem_type}) are made of the words of a row, which logits do "
                "not hold; expected processor.post_process(outputs, batch) of a MultiTaskProcessor."
            )
    scored = {name: np.atleast_1d(_array(values)) for name, values in logits.items()}
    is_by_task = isinstance(outputs, MultiTaskOutput) and outputs.entry_logits is not None
    if is_by_task or len({len(values) for values in scored.values()}) > 1:
        raise InputError(
            "The logits are those of rows that were answered for one task each (task_ids=), and do not say which; "
            "leave task_ids out, or decode the logits of one task."
        )
    count = max(map(len, scored.values()), default=0)
    return [
        {
            task.name: TASK_HEADS[task.problem_type].decode(task, [np.atleast_1d(scored[task.name][row])], {}, ())
            for task in tasks
            if task.name in scored
        }
        for row in range(count)
    ]


def _array(values: Any) -> np.ndarray:
    return (
        values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, np.float32)
    )


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
        form: Of the answers; by default as they are decoded.

    Raises:
        InputError: The tokenizer gives what the encoder cannot read, or nothing reads what a task does.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, form: AnswerForm | None = None
    ) -> None:
        self.model = model
        self.form = form
        self.tasks: list[TaskConfig] = model.config.task_configs
        self.wide_tasks = {task.name: form.wide_task(task) for task in self.tasks} if form else {}
        self.processor = MultiTaskProcessor.for_model(model, tokenizer)

    def answer(
        self,
        rows: Rows,
        tasks: TaskNames | None = None,
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
        first: int = 0,
    ) -> list[dict[str, Answer]]:
        """Return for each row the answers of all tasks (or of `tasks`) whose input fields it has.

        Args:
            rows: Texts, or mappings of input fields (`ROW_FIELDS`), a data set or table of them, columns; or a single
                one. Other columns are left out.
            tasks: Names of the tasks to answer, or one; a row that lacks a field of one of them is an error.
            batch_size: Sequences in one pass of the encoder: rows, windows of a long context, choices.
            progress: Called with the number of rows answered since the last call.
            first: What messages call the first row.

        Raises:
            InputError: An unknown task, a field that is missing or of the wrong type, a column that may be meant as a
                field, or no batch size.
        """
        wanted = self.tasks_by_name(tasks)
        checked = [
            check_row(row, f"Row {place}", wanted, tasks is not None)
            for place, row in enumerate(listed_rows(rows), first)
        ]
        return self.answer_checked(checked, wanted, batch_size, progress)

    def answer_checked(
        self,
        rows: Sequence[Row],
        tasks: Sequence[TaskConfig],
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
    ) -> list[dict[str, Answer]]:
        """Return the answers of rows that `check_row` returned, by task name in the model's order.

        Args: as of `answer`, but for
            tasks: The tasks to answer.

        Raises:
            InputError: A row that cannot be encoded, or no batch size.
        """
        if type(batch_size) is not int or batch_size < 1:
            raise InputError(f"batch_size={batch_size!r}; expected a whole number >= 1.")
        answers: list[dict[str, Answer]] = []
        together = batch_size * _BATCHES_TOGETHER
        with _answering(self.model):
            for start in range(0, len(rows), together):
                answers += self._answer_together(rows[start : start + together], tasks, batch_size, progress)
        return answers

    def tasks_by_name(self, names: TaskNames | None) -> list[TaskConfig]:
        """Return the tasks of these names in the model's order; all of them for None.

        Raises:
            InputError: The model has no such task, or there is no name.
        """
        return tasks_named(self.tasks, names)

    def _answer_together(
        self,
        rows: Sequence[Row],
        tasks: Sequence[TaskConfig],
        batch_size: int,
        progress: Callable[[int], object] | None,
    ) -> list[dict[str, Answer]]:
        features = self.processor.shared_features(rows, tasks)
        # Of a row and a task: how many windows are still to come, and what the model said of the others.
        left = Counter((entry["row"], entry["task"]) for feature in features for entry in feature["entries"])
        rows_left = Counter(entry["row"] for feature in features for entry in feature["entries"])
        parts: dict[tuple[int, int], list[tuple[int, Feature, np.ndarray]]] = {}
        answers: list[dict[int, Answer]] = [{} for _ in rows]
        for batch in _batches(features, batch_size):
            answered = 0
            for place, entry, scores in self._scored(features, batch):
                row, task = key = entry["row"], entry["task"]
                parts.setdefault(key, []).append((place, entry["feature"], np.atleast_1d(scores)))
                left[key] -= 1
                rows_left[row] -= 1
                answered += not rows_left[row]
                if not left[key]:
                    windows = [(feature, scores) for _, feature, scores in sorted(parts.pop(key), key=_first)]
                    answers[row][task] = self._answer_of_row(self.tasks[task], rows[row], windows)
            if progress is not None and answered:
                progress(answered)
        return [{self.tasks[task].name: answer[task] for task in sorted(answer)} for answer in answers]

    def _answer_of_row(self, task: TaskConfig, row: Row, windows: Sequence[tuple[Feature, np.ndarray]]) -> Answer:
        answer = self.processor.answer(task, row, windows)
        if self.form is None:
            return answer
        wide = self.processor.answer(self.wide_tasks[task.name], row, windows)
        return self.form.formed(answer, wide, task, row, windows, self.processor.tokenizer)

    def _scored(
        self, features: Sequence[Feature], batch: Sequence[int]
    ) -> Iterator[tuple[int, dict[str, Any], np.ndarray]]:
        """The entries of a batch of features, each with its feature's place and its logits."""
        inputs = self.processor.collate([features[place] for place in batch])
        logits = cast(Any, self.model).entry_logits(inputs)
        entries = [(place, entry) for place in batch for entry in features[place]["entries"]]
        for (place, entry), scores in zip(entries, logits, strict=True):
            yield place, entry, scores


def _first(part: tuple[Any, ...]) -> Any:
    return part[0]


def _batches(features: Sequence[Feature], batch_size: int) -> Iterator[list[int]]:
    """Yield places of features of the same tasks and of like length, the longest first, `batch_size` sequences each.

    A feature of more sequences (choices) is a batch of its own.
    """
    kinds: dict[tuple[int, ...], list[int]] = {}
    for place, feature in enumerate(features):
        kinds.setdefault(tuple(entry["task"] for entry in feature["entries"]), []).append(place)
    lengths = [max(map(len, feature["sequences"])) + feature.get("states", 0) for feature in features]
    for places in kinds.values():
        batch: list[int] = []
        size = 0
        for place in sorted(places, key=lambda place: -lengths[place]):
            count = len(features[place]["sequences"])
            if batch and size + count > batch_size:
                yield batch
                batch, size = [], 0
            batch.append(place)
            size += count
        yield batch
