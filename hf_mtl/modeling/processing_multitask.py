"""Rows become batches, and what the model says of them becomes answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from .batch_tensors import (
    CONVERSIONS,
    MultiTaskBatch,
    converted,
    padded,
    routing_of,
    stack_asked_tasks,
    stacked_choices,
)
from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_limits import check_tokenizer, limits_of_model
from .errors import InputError
from .given_labels import LabelsByTask, labels_of_rows
from .input_rows import Row, Rows, TaskNames, check_row, listed_rows, missing_fields, tasks_named
from .media_features import Feature, media_key, media_tensors
from .modalities import TEXT
from .modality_reader import ModalityReader
from .piece_places import words_of
from .problem_heads import TASK_HEADS
from .processor_arguments import check_arguments, check_kind
from .processor_loading import SavedProcessor, read_modalities
from .several_encoders import encoders_by_modality
from .task_config import TaskConfig
from .task_head import Answer


class MultiTaskProcessor(SavedProcessor):
    """Turns rows into what `model(**batch)` takes, and what it returns into answers.

    Args:
        tokenizer: The encoder's tokenizer; None where no task reads a text.
        tasks: The model's tasks in order, or its configuration.
        positions: Word pieces that the encoder can read of a row; None for any number.
        readers: By field, what reads images, sounds and rows of tables.

    Raises:
        InputError: A task tags tokens or finds spans and the tokenizer is not a fast one, or a task's length has no
            room for a word piece.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        tasks: Sequence[TaskConfig | Mapping[str, Any]] | MultiTaskAttentionConfig,
        positions: int | None = None,
        readers: Mapping[str, ModalityReader] = MappingProxyType({}),
    ) -> None:
        if tokenizer is not None or not readers:
            check_kind(tokenizer)
        if isinstance(tasks, PreTrainedConfig):
            tasks = cast(MultiTaskAttentionConfig, tasks).task_configs
        objects = [TaskConfig.from_dict(task) if isinstance(task, Mapping) else task for task in tasks]
        super().__init__(tokenizer, objects, positions, readers)

    @classmethod
    def for_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> "MultiTaskProcessor":
        """Return the processor of a `MultiTaskAttentionModel`, its rows no longer than the encoder reads.

        Raises:
            InputError: The tokenizer gives what the encoder cannot read.
        """
        encoders, tasks = encoders_by_modality(cast(Any, model).encoder), model.config.task_configs
        readers = read_modalities(cast(Any, model).config, encoders)
        if TEXT not in encoders:
            return cls(None, tasks, None, readers)
        check_kind(tokenizer)
        assert tokenizer is not None
        limits = limits_of_model(model)
        check_tokenizer(limits, tokenizer, tasks)
        return cls(tokenizer, tasks, limits.positions, readers)

    def __call__(
        self,
        rows: Rows | None = None,
        tasks: TaskNames | None = None,
        *,
        labels: Any = None,
        padding: bool | str = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = "pt",
        **others: Any,
    ) -> MultiTaskBatch:
        """Return what `model(**batch)` takes to answer rows.

        For one task these are plain inputs, ``input_ids``, ``attention_mask`` and ``token_type_ids`` (rows, length)
        or, of multiple choice, (rows, choices, length), with ``labels`` and, in a model of several tasks,
        ``task_ids``. For several tasks a row is read once for all that read it alike; ``routing`` and
        ``asked_tasks`` say which. In both cases `logits[task]` are those of the rows that have its fields, in order;
        of question answering a row becomes one per window of its context (see `MultiTaskBatch.row_indices`).

        Args:
            rows: As of `MultiTaskAttentionModel.predict`.
            tasks: Names of the tasks, or one; by default all whose input fields a row has.
            labels: One per row of the only task, or by task name: class names or ids, flags, numbers, tags, answers,
                places of choices; None in place of a label that is missing. By default those in the rows' column
                ``label`` or ``labels`` (question answering: also ``answers``), of several tasks mappings by task name.
                False for none.
            padding: True or "longest" for the longest row's length, "max_length" for the longest that the tasks read.
            pad_to_multiple_of: Of what the length shall be a multiple.
            return_tensors: "pt" for what the model takes, "np" for arrays, None for lists.
            **others: Refused, by name.

        Raises:
            InputError: An unknown argument or task, a row that cannot be answered, or a label that its task does not
                have.
        """
        check_arguments(others, padding, pad_to_multiple_of, return_tensors, CONVERSIONS)
        wanted = tasks_named(list(self.tasks.values()), tasks)
        given = listed_rows(rows)
        if not given:
            raise InputError("There are no rows; expected at least one.")
        checked = [check_row(row, f"Row {place}", wanted, tasks is not None) for place, row in enumerate(given)]
        features = self.shared_features(checked, wanted, labels_of_rows(given, checked, wanted, labels))
        size = (max(map(self.max_length, wanted)) if padding == "max_length" else 0, pad_to_multiple_of or 1)
        entries = self.entries_by_task(features)
        if len(wanted) == 1:
            batch: Any = self._plain([feature for _, feature in entries[wanted[0].name]], wanted[0], *size)
        else:
            batch = self._with_routing(self._inputs(features, *size), features, whole=True)
        return MultiTaskBatch(converted(batch, return_tensors), checked, entries)

    def post_process(self, outputs: Any, batch: MultiTaskBatch) -> list[dict[str, Answer]]:
        """Return the answers of each row by task name, as `MultiTaskAttentionModel.predict` returns them.

        Args:
            outputs: What the model returned for the batch, or its logits by task name.
            batch: The batch.

        Raises:
            InputError: They do not belong together.
        """
        if not isinstance(batch, MultiTaskBatch):
            raise InputError(f"The batch is a {type(batch).__name__}; expected what the processor returned.")
        by_task = outputs.get("logits") if isinstance(outputs, ModelOutput) else outputs
        if not isinstance(by_task, Mapping):
            raise InputError("The outputs hold no logits by task name; expected what model(**batch) returned.")
        scored = []
        for name, entries in batch.entries.items():
            scores = _as_array(by_task[name]) if name in by_task else np.zeros(0)
            if len(scores) != len(entries):
                raise InputError(
                    f"There are {len(scores)} rows of logits for task {name!r}, the batch has {len(entries)}; "
                    "expected what model(**batch) returned for this batch."
                )
            head, features = TASK_HEADS[self.tasks[name].problem_type], [feature for _, feature in entries]
            scores = head.scores_of_rows(torch.from_numpy(scores), features).numpy()
            scored += [(row, name, feature, scores[place]) for place, (row, feature) in enumerate(entries)]
        return self.answers(batch.rows, scored)

    def answers(
        self, rows: Sequence[Row], scored: Iterable[tuple[int, str, Feature, np.ndarray]]
    ) -> list[dict[str, Answer]]:
        """Return the answers of each row by task name, in the model's order of tasks.

        Args:
            rows: The input fields of the rows.
            scored: Of each entry the row's place, the task's name, the feature, the logits; windows in order.
        """
        grouped: dict[tuple[int, int], list[tuple[Feature, np.ndarray]]] = {}
        for row, name, feature, scores in scored:
            grouped.setdefault((row, self.indices[name]), []).append((feature, np.atleast_1d(scores)))
        answers: list[dict[str, Answer]] = [{} for _ in rows]
        tasks = list(self.tasks.values())
        for (row, index), windows in sorted(grouped.items(), key=lambda item: item[0]):
            answers[row][tasks[index].name] = self.answer(tasks[index], rows[row], windows)
        return answers

    def answer(self, task: TaskConfig, row: Row, windows: Sequence[tuple[Feature, np.ndarray]]) -> Answer:
        """Return a task's answer of a row.

        Args:
            task: The task.
            row: The row's input fields.
            windows: The task's features of the row with their logits: one, of a long context one per window in order.
        """
        features, scores = zip(*windows)
        head = TASK_HEADS[task.problem_type]
        return head.answer(task, scores, answer_row(task, row), features, self.tokenizer)

    def entries_by_task(self, features: Sequence[Feature]) -> dict[str, list[tuple[int, Feature]]]:
        """Return by task name the row's place and the feature of each entry that `shared_features` listed."""
        names, by_task = list(self.tasks), dict[str, list[tuple[int, Feature]]]()
        for entry in (entry for feature in features for entry in feature["entries"]):
            by_task.setdefault(names[entry["task"]], []).append((entry["row"], entry["feature"]))
        return by_task

    def shared_features(
        self, rows: Sequence[Row], tasks: Sequence[TaskConfig], labels: LabelsByTask | None = None
    ) -> list[Feature]:
        """Return the distinct encoder inputs of rows, in their order, each with its ``entries``.

        Args:
            rows: The input fields of the rows; tasks whose fields one lacks are left out for it.
            tasks: The tasks to answer.
            labels: By task name a label per row; empty for none.
        """
        labels = labels or {}
        readings: dict[Any, list[tuple[int, Feature]]] = {}
        shared: dict[Any, Feature] = {}
        for task in tasks:
            # Tasks that read rows alike share what is tokenised; labels are a task's own.
            reading = task.name if task.name in labels else self._reading(task)
            if reading not in readings:
                readings[reading] = list(self._features_of(rows, task, labels.get(task.name)))
            for row, feature in readings[reading]:
                # Rows stay apart, so that what is remembered of an entry is the row's own.
                key = (
                    row,
                    media_key(feature),
                    *map(tuple, feature["sequences"]),
                    *map(tuple, feature["segments"] or ()),
                )
                together = shared.setdefault(key, {**feature, "entries": []})
                entry = {"task": self.indices[task.name], "row": row, "feature": feature}
                together["entries"].append({**entry, "labels": feature.get("labels")})
        return [feature for _, feature in sorted(shared.items(), key=lambda item: item[0][0])]

    def _reading(self, task: TaskConfig) -> tuple[Any, ...]:
        """Return what a task's features depend on beside the row."""
        inputs = task.problem.inputs
        stride = task.setting("stride") if inputs == "windows" else None
        columns = tuple(task.table_columns or ())
        return inputs, tuple(task.input_fields), columns, self.max_length(task), stride

    def _features_of(
        self, rows: Sequence[Row], task: TaskConfig, labels: Sequence[Any] | None
    ) -> Iterator[tuple[int, Feature]]:
        """The features of the rows that have a task's fields; where there are labels, those without one have holes."""
        ready = [place for place, row in enumerate(rows) if not missing_fields(task, row)]
        labelled = [place for place in ready if labels is not None and labels[place] is not None]
        head = TASK_HEADS[task.problem_type]
        fields = [*task.input_fields, *(["text"] if task.problem.inputs == "words" else [])]
        for places in (labelled, sorted({*ready} - {*labelled})):
            columns: dict[str, list[Any]] = {field: [rows[place].get(field) for place in places] for field in fields}
            if labels is not None and places is labelled:
                columns["label"] = [labels[place] for place in places]
            for feature in self.features(task, columns) if places else ():
                if labels is not None:
                    feature.setdefault("labels", head.hole(task.num_outputs, len(feature["sequences"][0])))
                yield places[feature["source"]], feature

    def _plain(
        self, features: Sequence[Feature], task: TaskConfig, least: int, multiple: int
    ) -> dict[str, torch.Tensor]:
        """Inputs and labels of one task as Transformers' models take them."""
        batch = self._inputs(features, least, multiple)
        length = batch["input_ids"].shape[1] if "input_ids" in batch else 1
        if task.problem.inputs == "choices":
            batch = stacked_choices(batch, [len(feature["sequences"]) for feature in features])
        if len(self.tasks) > 1:
            batch["task_ids"] = torch.full((len(features),), self.indices[task.name])
        if "labels" in features[0]:
            labels = [feature["labels"] for feature in features]
            batch["labels"] = TASK_HEADS[task.problem_type].label_tensor(labels, length)
        return batch

    def collate(
        self, features: Sequence[Feature], pad_to_multiple_of: int | None = None, fill: bool = False
    ) -> dict[str, Any]:
        """Return one batch of features.

        A feature's ``entries`` list the tasks it is answered for, each with its ``labels``; the result holds
        ``input_ids``, ``attention_mask``, ``token_type_ids`` (rows, length) and ``routing``: by problem type the
        tensors that `TaskHead` reads, and each entry's place in the ``order`` in which the features list them; and
        ``asked_tasks`` (rows, asked), the tasks each row is answered for.

        Args:
            features: Features of any tasks.
            pad_to_multiple_of: Rows are padded to the next multiple of this length; None pads to the longest.
            fill: Whether every batch has equally many entries of every problem type (see `routing_of`).
        """
        return self._with_routing(self._inputs(features, multiple=pad_to_multiple_of or 1), features, fill)

    def _inputs(self, features: Sequence[Feature], least: int = 0, multiple: int = 1) -> dict[str, torch.Tensor]:
        """Return what the encoders read: texts, images, sounds, rows of tables."""
        has_texts = any(sequence for feature in features for sequence in feature["sequences"])
        batch = self._text_inputs(features, least, multiple) if has_texts else {}
        media = media_tensors(features, self.readers, self.tokenizer is not None) if self.readers else {}
        return {**batch, **media}

    def _text_inputs(self, features: Sequence[Feature], least: int, multiple: int) -> dict[str, torch.Tensor]:
        """Texts (rows, length): of the longest row's length, or `least`, up to a multiple."""
        sequences = [sequence for feature in features for sequence in feature["sequences"]]
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        length = -(-max(int(lengths.max()), least) // multiple) * multiple
        batch = {
            "input_ids": padded(sequences, length, self.tokenizer.pad_token_id or 0),
            "attention_mask": (torch.arange(length) < lengths.unsqueeze(1)).long(),
        }
        if any(feature.get("segments") is not None for feature in features):
            segments = [segment for feature in features for segment in feature["segments"] or [[]]]
            batch["token_type_ids"] = padded(segments, length, 0)
        return batch

    def _with_routing(
        self, inputs: dict[str, torch.Tensor], features: Sequence[Feature], fill: bool = False, whole: bool = False
    ) -> dict[str, Any]:
        mask = inputs.get("attention_mask")
        if mask is None or "input_ids" not in inputs:
            # Nothing is said of word pieces where there are none.
            mask = torch.ones(sum(len(feature["sequences"]) for feature in features), 1, dtype=torch.long)
        routing = routing_of(features, list(self.tasks.values()), mask, fill, whole)
        return {**inputs, "routing": routing, "asked_tasks": stack_asked_tasks(features)}


def answer_row(task: TaskConfig, row: Mapping[str, Any]) -> Row:
    """Return what decoding reads of a row: for token tasks its words and their places in its text."""
    if task.problem.inputs != "words":
        return dict(row)
    text, places = words_of(row)
    return {"text": text, "word_spans": places, "tokens": [text[start:end] for start, end in places]}


def _as_array(logits: Any) -> np.ndarray:
    return logits.detach().float().cpu().numpy() if isinstance(logits, torch.Tensor) else np.asarray(logits)
