"""Texts become every task's decoded answer, from one pass of the encoder."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .configuration_multitask import INPUT_FIELDS, TaskConfig, check_choice, nearest
from .errors import InputError
from .processing_multitask import Feature, MultiTaskProcessor, words_of
from .task_heads import TASK_HEADS, Answer

ROW_FIELDS = tuple(dict.fromkeys(field for needed, optional in INPUT_FIELDS.values() for field in needed + optional))

Row = dict[str, Any]


def _listed(rows: Any) -> list[Any]:
    """Rows as a list, a single one too."""
    if isinstance(rows, (str, Mapping)):
        return [rows]
    # A table of pandas or polars is iterated over by its columns, whose names would pass for texts.
    if any(kind.__name__ == "DataFrame" for kind in type(rows).__mro__):
        raise InputError("The rows are a DataFrame; expected a list: write frame.to_dict('records').")
    if isinstance(rows, bytes) or not isinstance(rows, Iterable):
        raise InputError(
            f"The rows are {rows!r}; expected a text, a mapping of input fields such as {{'text': '...'}}, or a list "
            "of them."
        )
    return list(rows)


def _checked_value(field: str, value: Any, place: str) -> Any:
    """The value of an input field: a text, or a list of texts; None where the row has none."""
    if field not in ROW_FIELDS:
        raise InputError(
            f"{place}: unknown input field {field!r}; expected {', '.join(ROW_FIELDS)}.{nearest(field, ROW_FIELDS)} "
            "Leave other keys out."
        )
    if value is None:
        return None
    is_list = field in ("tokens", "choices")
    value = value.tolist() if isinstance(value, np.ndarray) else value
    texts = value if is_list and isinstance(value, (list, tuple)) else [value]
    is_right = isinstance(value, (list, tuple)) == is_list and all(isinstance(text, str) for text in texts)
    # An empty text is a text, of which nothing is said; without a word or a choice there is nothing to answer.
    if not is_right or (is_list and not value):
        kind = "a list of texts that is not empty" if is_list else "a text"
        several = " Several rows are a list of mappings." if isinstance(value, (list, tuple)) and not is_list else ""
        raise InputError(f"{place}: {field}={_shortened(value)}; expected {kind}.{several}")
    if any("\ud800" <= character <= "\udfff" for text in texts if not text.isascii() for character in text):
        raise InputError(
            f"{place}: {field}={_shortened(value)} holds half of a character (a surrogate); write it whole."
        )
    return value


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def missing_fields(task: TaskConfig, row: Mapping[str, Any]) -> list[str]:
    """Return the input fields a task needs and a row lacks; a text stands in for tokens."""
    lacking = [field for field in task.input_fields if row.get(field) is None]
    return [field for field in lacking if field != "tokens" or row.get("text") is None]


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
        wanted = self.tasks_by_name(tasks)
        checked = [self.check_row(row, f"Row {index}", tasks) for index, row in enumerate(_listed(rows))]
        answers = []
        for start in range(0, len(checked), batch_size):
            batch = checked[start : start + batch_size]
            answers += self._answer_batch(batch, wanted)
            if progress is not None:
                progress(len(batch))
        return answers

    def tasks_by_name(self, names: Sequence[str] | None) -> list[TaskConfig]:
        """Return the tasks of these names in the model's order; all of them for None.

        Raises:
            InputError: The model has no such task.
        """
        for name in names or ():
            check_choice("task", name, [task.name for task in self.tasks])
        return [task for task in self.tasks if names is None or task.name in names]

    def check_row(self, row: str | Mapping[str, Any], place: str, tasks: Sequence[str] | None = None) -> Row:
        """Return a row as a mapping of its input fields.

        Args:
            row: A text or a mapping.
            place: What a message calls it.
            tasks: Names of the tasks to answer; None for all whose fields it has, which must be one at least.

        Raises:
            InputError: The row is of another type, or one of its fields is unknown, missing or of the wrong type.
        """
        if not isinstance(row, (str, Mapping)):
            raise InputError(f"{place} is {row!r}; expected a text, or a mapping of input fields: {{'text': '...'}}.")
        given = {"text": row} if isinstance(row, str) else row
        checked = {field: _checked_value(field, value, place) for field, value in given.items()}
        lacking = {
            task.name: fields for task in self.tasks_by_name(tasks) if (fields := missing_fields(task, checked))
        }
        if tasks is not None and lacking:
            name, fields = next(iter(lacking.items()))
            raise InputError(f"{place}: no field {fields[0]!r}, which task {name!r} needs.")
        if tasks is None and len(lacking) == len(self.tasks):
            needs = "; ".join(f"{name} needs {' and '.join(fields)}" for name, fields in [*lacking.items()][:4])
            holds = ", ".join(f"{field}={_shortened(value)}" for field, value in checked.items()) or "no field"
            raise InputError(f"{place}: {holds}; no task can be answered from that: {needs}.")
        return checked

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
