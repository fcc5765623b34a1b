"""Fields of a row become encoder inputs: pairs, windows, choices, word positions; shared by training and answering."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answer_decoding import word_places
from .configuration_multitask import TaskConfig
from .encoder_limits import check_tokenizer, limits_of_model
from .errors import InputError
from .task_heads import IGNORED_LABEL

Feature = dict[str, Any]
Columns = Mapping[str, Sequence[Any]]

WORD = re.compile(r"\w+|[^\w\s]")


class MultiTaskProcessor:
    """Turns rows of a task into features, and features of any tasks into one batch.

    A feature holds ``sequences`` (one list of word pieces; multiple choice: one a choice), ``segments`` beside them,
    ``source`` (the row it came from), ``truncated``, ``labels`` where the row has them, and what decoding needs:
    ``positions`` (each word's first piece) or ``offsets`` (each piece's characters in the context).

    Args:
        tokenizer: The encoder's tokenizer.
        tasks: The model's tasks in order.
        positions: Word pieces that the encoder can read of a row; None for any number.

    Raises:
        InputError: A task tags tokens or finds spans and the tokenizer is not a fast one.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[TaskConfig], positions: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.most_pieces = (
            tokenizer.model_max_length if positions is None else min(tokenizer.model_max_length, positions)
        )
        self.tasks = {task.name: task for task in tasks}
        self.indices = {task.name: index for index, task in enumerate(tasks)}
        needs_offsets = [
            task.name for task in tasks if task.problem_type in ("token_classification", "question_answering")
        ]
        if needs_offsets and not tokenizer.is_fast:
            raise InputError(
                f"The tasks {', '.join(needs_offsets)} need a fast tokenizer; found {type(tokenizer).__name__}."
            )

    @classmethod
    def for_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> "MultiTaskProcessor":
        """Return the processor of a `MultiTaskAttentionModel`, its rows no longer than the encoder reads.

        Raises:
            InputError: The tokenizer gives what the encoder cannot read.
        """
        limits, tasks = limits_of_model(model), model.config.task_configs
        check_tokenizer(limits, tokenizer, tasks)
        return cls(tokenizer, tasks, limits.positions)

    def features(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """Return the features of a batch of rows, given as columns, in order; labels are taken where they stand."""
        return ENCODINGS[task.problem_type](self, task, rows)

    def collate(self, features: Sequence[Feature]) -> dict[str, Any]:
        """Return one batch of features.

        A feature's ``entries`` list the tasks it is answered for, each with its ``labels``; the result holds
        ``input_ids``, ``attention_mask``, ``token_type_ids`` (rows, length) and ``routing``: by problem type the
        tensors that `TaskHead` reads, and each entry's place in the ``order`` in which the features list them; and
        ``asked`` (rows, asked), the tasks each row is answered for.
        """
        sequences = [sequence for feature in features for sequence in feature["sequences"]]
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        length = int(lengths.max())
        batch: dict[str, Any] = {
            "input_ids": self._pad(sequences, length, self.tokenizer.pad_token_id or 0),
            "attention_mask": (torch.arange(length) < lengths.unsqueeze(1)).long(),
        }
        if features[0].get("segments") is not None:
            segments = [segment for feature in features for segment in feature["segments"]]
            batch["token_type_ids"] = self._pad(segments, length, 0)
        batch["routing"] = self._routing(features, batch["attention_mask"])
        batch["asked"] = self._asked(features)
        return batch

    @staticmethod
    def _asked(features: Sequence[Feature]) -> torch.Tensor:
        """The tasks each row is answered for, (rows, asked); a row of fewer tasks names its first one again."""
        most = max(len(feature["entries"]) for feature in features)
        rows = []
        for feature in features:
            tasks = [entry["task"] for entry in feature["entries"]]
            rows += [tasks + tasks[:1] * (most - len(tasks))] * len(feature["sequences"])
        return torch.tensor(rows)

    @staticmethod
    def _pad(rows: Sequence[Sequence[int]], length: int, fill: int) -> torch.Tensor:
        # One row at a time into NumPy: several times faster than torch, which looks at every number of nested lists.
        padded = np.full((len(rows), length), fill, dtype=np.int64)
        for place, row in zip(padded, rows):
            place[: len(row)] = row
        return torch.from_numpy(padded)

    def _routing(self, features: Sequence[Feature], mask: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
        tasks = list(self.tasks.values())
        grouped: dict[str, list[tuple[int, int, int, int, Feature, Any]]] = {}
        first = order = 0
        for feature in features:
            for slot, entry in enumerate(feature["entries"]):
                group = grouped.setdefault(tasks[entry["task"]].problem_type, [])
                group.append((first, order, entry["task"], slot, feature, entry.get("labels")))
                order += 1
            first += len(feature["sequences"])
        routing = {}
        for problem_type, group in grouped.items():
            rows, orders, indices, slots, sources, labels = zip(*group)
            places = {"rows": rows, "tasks": indices, "slots": slots, "order": orders}
            entries = {name: torch.tensor(values) for name, values in places.items()}
            if problem_type == "multiple_choice":
                entries.update(_choice_rows(entries["rows"], [len(source["sequences"]) for source in sources]))
            if problem_type == "question_answering":
                entries["token_mask"] = mask[entries["rows"]]
            if all(label is not None for label in labels):
                entries["labels"] = _label_tensor(problem_type, labels, mask.shape[1])
            routing[problem_type] = entries
        return routing

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int, **kwargs: Any) -> Any:
        """Tokenise; only texts that are too long are tokenised twice, which tells how many there are."""
        options = {"add_special_tokens": True, "padding": False, "verbose": False, **kwargs}
        encoded = self.tokenizer(list(texts), pairs and list(pairs), truncation=False, **options)
        encoded["truncated"] = [len(ids) > max_length for ids in encoded["input_ids"]]
        if any(encoded["truncated"]):
            cut = self.tokenizer(list(texts), pairs and list(pairs), truncation=True, max_length=max_length, **options)
            cut["truncated"] = encoded["truncated"]
            return cut
        return encoded

    def max_length(self, task: TaskConfig) -> int:
        """The longest sequence of a task: its own limit, the tokenizer's or the encoder's."""
        return min(task.max_length, self.most_pieces)

    def encode_sentences(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a row, of one text or two."""
        pairs = rows["text_pair"] if "text_pair" in task.input_fields else None
        encoded = self._encode(rows["text"], pairs, self.max_length(task))
        features = [self._feature(encoded, [index], index) for index in range(len(rows["text"]))]
        for feature, label in zip(features, rows.get("label", ())):
            feature["labels"] = label
        return features

    def encode_tokens(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a row; a word's label stands at its first piece, the other pieces have none."""
        texts, places = zip(*(words_of({key: rows[key][index] for key in rows}) for index in range(_length(rows))))
        encoded = self._encode(texts, None, self.max_length(task), return_offsets_mapping=True)
        features = []
        for index, words in enumerate(places):
            feature = self._feature(encoded, [index], index)
            feature["positions"] = first_pieces(words, encoded["offset_mapping"][index])
            if "label" in rows:
                labels = [IGNORED_LABEL] * len(feature["sequences"][0])
                for place, label in zip(feature["positions"], rows["label"][index], strict=True):
                    if place >= 0:
                        labels[place] = label
                feature["labels"] = labels
            features.append(feature)
        return features

    def encode_windows(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a window of the context; an answer outside the window is labelled (0, 0)."""
        max_length = self.max_length(task)
        questions = [self._cut(question, max_length // 2) for question in rows["question"]]
        encoded = self.tokenizer(
            questions,
            list(rows["context"]),
            truncation="only_second",
            max_length=max_length,
            stride=min(task.stride, max_length // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=False,
            verbose=False,
        )
        encoded["truncated"] = [False] * len(encoded["input_ids"])
        features = []
        for window, source in enumerate(encoded["overflow_to_sample_mapping"]):
            feature = self._feature(encoded, [window], source)
            in_context = [part == 1 for part in encoded.sequence_ids(window)]
            places = encoded["offset_mapping"][window]
            feature["offsets"] = [list(place) if inside else [-1, -1] for place, inside in zip(places, in_context)]
            if "label" in rows:
                feature["labels"] = answer_pieces(rows["label"][source], feature["offsets"])
            features.append(feature)
        return features

    def encode_choices(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a choice, each beside the row's text."""
        texts = [text for text, choices in zip(rows["text"], rows["choices"]) for _ in choices]
        pairs = [choice for choices in rows["choices"] for choice in choices]
        encoded = self._encode(texts, pairs, self.max_length(task))
        features, first = [], 0
        for index, choices in enumerate(rows["choices"]):
            features.append(self._feature(encoded, range(first, first + len(choices)), index))
            first += len(choices)
        for feature, label in zip(features, rows.get("label", ())):
            feature["labels"] = label
        return features

    def _feature(self, encoded: Mapping[str, Any], places: Sequence[int], source: int) -> Feature:
        segments = encoded.get("token_type_ids")
        return {
            "sequences": [encoded["input_ids"][place] for place in places],
            "segments": [segments[place] for place in places] if segments else None,
            "source": source,
            "truncated": any(encoded["truncated"][place] for place in places),
        }

    def _cut(self, text: str, max_pieces: int) -> str:
        """The beginning of a text, at most `max_pieces` word pieces of it."""
        pieces = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        places = pieces["offset_mapping"]
        return text if len(places) <= max_pieces else text[: places[max_pieces - 1][1]]


ENCODINGS = {
    "single_label_classification": MultiTaskProcessor.encode_sentences,
    "multi_label_classification": MultiTaskProcessor.encode_sentences,
    "regression": MultiTaskProcessor.encode_sentences,
    "token_classification": MultiTaskProcessor.encode_tokens,
    "question_answering": MultiTaskProcessor.encode_windows,
    "multiple_choice": MultiTaskProcessor.encode_choices,
}


def _length(rows: Columns) -> int:
    return len(next(iter(rows.values())))


def words_of(row: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of a row's words and where each stands in it; a row with only a text is split into words."""
    if row.get("tokens") is None:
        return row["text"], [match.span() for match in WORD.finditer(row["text"])]
    return " ".join(row["tokens"]), word_places(row["tokens"])


def first_pieces(words: Sequence[tuple[int, int]], pieces: Sequence[tuple[int, int]]) -> list[int]:
    """Return each word's first word piece, or -1 where a word has none (cut off, or dropped by the tokenizer)."""
    positions, piece = [], 0
    for start, end in words:
        while piece < len(pieces) and pieces[piece][1] <= start:
            piece += 1
        found = piece < len(pieces) and pieces[piece][0] < end and pieces[piece][1] > pieces[piece][0]
        positions.append(piece if found else -1)
    return positions


def answer_pieces(answers: Mapping[str, Sequence[Any]], offsets: Sequence[Sequence[int]]) -> list[int]:
    """Return the first and last piece of the first accepted answer, or [0, 0] where the window does not hold it."""
    if not answers["text"]:
        return [0, 0]
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    inside = [index for index, (first, past) in enumerate(offsets) if first >= 0 and first < end and past > start]
    if not inside or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return [0, 0]
    return [inside[0], inside[-1]]


def _choice_rows(first: torch.Tensor, counts: Sequence[int]) -> dict[str, torch.Tensor]:
    """Each entry's encoder rows, (N, most choices), those it does not have pointing at its first."""
    choice = torch.arange(max(counts)).expand(len(counts), -1)
    is_choice = choice < torch.tensor(counts).unsqueeze(1)
    return {"rows": first.unsqueeze(1) + choice * is_choice, "choices": is_choice}


def _label_tensor(problem_type: str, labels: Sequence[Any], length: int) -> torch.Tensor:
    if problem_type == "regression":
        return torch.tensor(labels, dtype=torch.float32)
    if problem_type == "multi_label_classification":
        widest = max(len(label) for label in labels)
        rows = [list(label) + [IGNORED_LABEL] * (widest - len(label)) for label in labels]
        return torch.tensor(rows, dtype=torch.float32)
    if problem_type == "token_classification":
        return torch.tensor([list(label) + [IGNORED_LABEL] * (length - len(label)) for label in labels])
    return torch.tensor(labels)
