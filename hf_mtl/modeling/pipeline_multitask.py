"""Texts become every task's decoded answer, from one pass of the encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .configuration_multitask import INPUT_FIELDS, TaskConfig, check_choice
from .errors import InputError
from .processing_multitask import Feature, MultiTaskProcessor, words_of
from .task_heads import TASK_HEADS, Answer

ROW_FIELDS = tuple(dict.fromkeys(field for needed, optional in INPUT_FIELDS.values() for field in needed + optional))

Row = dict[str, Any]


def missing_fields(task: TaskConfig, row: Mapping[str, Any]) -> list[str]:
    """Return the input fields a task needs and a row lacks; a text stands in for tokens."""
    lacking = [field for field in task.input_fields if row.get(field) is None]
    return [field for field in lacking if field != "tokens" or row.get("text") is None]


class Answerer:
    """Answers rows with a model: features shared by tasks are encoded once, and a batch is one encoder pass.

    Args:
        model: A `MultiTaskAttentionModel`.
        tokenizer: The encoder's tokenizer.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tasks = model.config.task_configs
        self.processor = MultiTaskProcessor(tokenizer, self.tasks)

    def answer(
        self,
        rows: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        tasks: Sequence[str] | None = None,
        batch_size: int = 32,
        progress: Callable[[int], object] | None = None,
    ) -> list[dict[str, Answer]]:
        """Return for each row the answers of all tasks (or of `tasks`) whose input fields it has.

        Args:
            rows: Texts, or mappings of input fields (`ROW_FIELDS`); or a single one.
            tasks: Names of the tasks to answer; a row that lacks a field of one of them is an error.
            batch_size: Rows in one pass of the encoder.
            progress: Called with the number of rows answered since the last call.

        Raises:
            InputError: An unknown task or field, a field that is missing or of the wrong type, or no batch size.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}; expected a whole number >= 1.")
        rows = [rows] if isinstance(rows, (str, Mapping)) else rows
        checked = [self._checked(index, row, tasks) for index, row in enumerate(rows)]
        wanted = [task for task in self.tasks if tasks is None or task.name in tasks]
        answers = []
        for start in range(0, len(checked), batch_size):
            batch = checked[start : start + batch_size]
            answers += self._answer_batch(batch, wanted)
            if progress is not None:
                progress(len(batch))
        return answers

    def _checked(self, index: int, row: str | Mapping[str, Any], tasks: Sequence[str] | None) -> Row:
        row = {"text": row} if isinstance(row, str) else dict(row)
        for field, value in row.items():
            check_choice(f"input field of row {index}:", field, ROW_FIELDS)
            listed = field in ("tokens", "choices")
            texts = value if listed and isinstance(value, (list, tuple)) else [value]
            right = isinstance(value, (list, tuple)) == listed and all(isinstance(text, str) for text in texts)
            if value is not None and not (right and value):
                kind = "a list of texts" if listed else "a text"
                raise InputError(f"Row {index} has {field}={value!r}; expected {kind} that is not empty.")
        configs = {task.name: task for task in self.tasks}
        for name in tasks or ():
            check_choice("task", name, configs)
            if lacking := missing_fields(configs[name], row):
                raise InputError(f"Task {name!r} needs the field {lacking[0]!r}, which row {index} lacks.")
        return row

    @torch.no_grad()
    def _answer_batch(self, rows: Sequence[Row], tasks: Sequence[TaskConfig]) -> list[dict[str, Answer]]:
        features, entries = self._shared_features(rows, tasks)
        answers: list[dict[str, Answer]] = [{} for _ in rows]
        if not features:
            return answers
        was_training = self.model.training
        self.model.eval()
        logits = cast(Any, self.model).entry_logits(self.processor.collate(features))
        self.model.train(was_training)
        # The k-th entry of (row, task) is the k-th window of its context.
        grouped: dict[tuple[int, int], list[tuple[Feature, Any]]] = {}
        for (row, task, feature), scores in zip(entries, logits, strict=True):
            grouped.setdefault((row, task), []).append((feature, scores))
        for (row, index), found in sorted(grouped.items()):
            task = self.tasks[index]
            parts, scores = zip(*found)
            answers[row][task.name] = TASK_HEADS[task.problem_type].answer(
                task, scores, answer_row(task, rows[row]), parts
            )
        return answers

    def _shared_features(
        self, rows: Sequence[Row], tasks: Sequence[TaskConfig]
    ) -> tuple[list[Feature], list[tuple[int, int, Feature]]]:
        """The distinct encoder inputs of a batch, and (row, task, feature) of its entries in collation order."""
        shared: dict[Any, Feature] = {}
        for task in tasks:
            index = self.processor.indices[task.name]
            for row, feature in self._features(rows, task):
                # Rows stay apart, so that what is remembered of an entry is the row's own.
                key = (row, str(feature["sequences"]), str(feature["segments"]))
                own = shared.setdefault(key, {**feature, "entries": []})
                own["entries"].append({"task": index, "row": row, "feature": feature})
        features = list(shared.values())
        entries = [
            (entry["row"], entry["task"], entry["feature"]) for feature in features for entry in feature["entries"]
        ]
        return features, entries

    def _features(self, rows: Sequence[Row], task: TaskConfig) -> Iterator[tuple[int, Feature]]:
        ready = [index for index, row in enumerate(rows) if not missing_fields(task, row)]
        if not ready:
            return
        fields = [*task.input_fields, *(["text"] if task.problem_type == "token_classification" else [])]
        columns = {field: [rows[index].get(field) for index in ready] for field in fields}
        for feature in self.processor.features(task, columns):
            yield ready[feature["source"]], feature


def answer_row(task: TaskConfig, row: Mapping[str, Any]) -> Row:
    """Return what decoding reads of a row: for token tasks its words and their places in its text."""
    if task.problem_type != "token_classification":
        return dict(row)
    text, places = words_of(row)
    return {"text": text, "word_spans": places, "tokens": [text[start:end] for start, end in places]}
