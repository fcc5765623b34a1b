"""Fields of a row become word pieces: pairs, windows, choices, word positions; shared by training and answering."""

import os
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from .errors import InputError
from .label_checks import IGNORED_LABEL
from .media_features import Feature, add_media, check_readers
from .modalities import TEXT, modalities_of
from .modality_reader import ModalityReader
from .piece_places import answer_pieces, first_pieces, piece_places, words_of, words_within
from .task_config import TaskConfig

Columns = Mapping[str, Sequence[Any]]
# A word piece, the segment it is in, and its characters in the context, -1 outside it.
_Piece = tuple[int, int, tuple[int, int]]


class _Tokenising:
    """Lets one thread at a time call tokenizers.

    A fast tokenizer is told of truncation before it is called, and what another thread tells it in between it does.
    """

    def __init__(self) -> None:
        self.renew()
        # A process that is forked while another thread holds the lock would wait for ever.
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Make a lock that nobody holds."""
        self.lock = threading.Lock()


_TOKENISING = _Tokenising()


class FeatureEncoder:
    """Turns rows of a task into features: pairs, windows, choices, word positions.

    A feature holds ``sequences`` (one list of word pieces; multiple choice: one per choice), ``segments`` beside them,
    ``source`` (the row it came from), ``truncated``, ``labels`` where the row has them, and what decoding needs:
    ``positions`` (each word's first piece) and ``words_read``, or ``offsets`` (each piece's characters in the
    context). No sequence of a text is empty: where a tokenizer returns nothing, one padding (or ending, or unknown)
    piece stands for it. A row that is read without a text has an empty one; what is read beside a text, or in its
    place, stands in ``media`` by field, and ``states`` says about how many states that becomes.

    Args:
        tokenizer: The encoder's tokenizer; None where no task reads a text.
        tasks: The model's tasks in order.
        positions: Word pieces that the encoder can read of a row; None for any number.
        readers: By field, what reads images, sounds and rows of tables.

    Raises:
        InputError: A task tags tokens or finds spans and the tokenizer is not a fast one, a task masks word pieces and
            it has no mask token, or a task's length has no room for a word piece.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        tasks: Sequence[TaskConfig],
        positions: int | None = None,
        readers: Mapping[str, ModalityReader] = MappingProxyType({}),
    ) -> None:
        self.tokenizer = cast(PreTrainedTokenizerBase, tokenizer)
        self.readers = dict(readers)
        self.tasks = {task.name: task for task in tasks}
        self.indices = {task.name: index for index, task in enumerate(tasks)}
        check_readers(tasks, readers, tokenizer is not None)
        # Without a tokenizer no task has word pieces.
        most = 0 if tokenizer is None else tokenizer.model_max_length
        self.most_pieces = most if positions is None else min(most, positions)
        if tokenizer is None:
            return
        needs_offsets = [task.name for task in tasks if task.problem.inputs in ("words", "windows")]
        if needs_offsets and not tokenizer.is_fast:
            raise InputError(
                f"The tasks {', '.join(needs_offsets)} need a fast tokenizer; found {type(tokenizer).__name__}."
            )
        masking = [task.name for task in tasks if task.problem.inputs == "masked"]
        if masking and tokenizer.mask_token_id is None:
            raise InputError(
                f"The task {masking[0]} masks word pieces, and the tokenizer ({type(tokenizer).__name__}) has no mask "
                "token. Take an encoder that was trained with one, such as BERT or RoBERTa; or add one beforehand "
                "(tokenizer.add_special_tokens({'mask_token': '<mask>'}), and resize the encoder's embeddings)."
            )
        ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, 0)
        self.filler = next(number for number in ids if number is not None)
        for task in tasks:
            if TEXT in modalities_of(task.input_fields):
                self._check_length(task)

    def _check_length(self, task: TaskConfig) -> None:
        """Raise `InputError` where special pieces leave no room; question answering needs two pieces, others one."""
        is_pair = any(field in task.input_fields for field in ("text_pair", "context", "choices"))
        least = self.tokenizer.num_special_tokens_to_add(pair=is_pair) + 1 + ("context" in task.input_fields)
        if self.max_length(task) < least:
            raise InputError(
                f"Task {task.name!r} reads {self.max_length(task)} word pieces; with this tokenizer expected "
                f"max_length >= {least}, special pieces included."
            )

    def features(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """Return the features of a batch of rows, given as columns, in order; labels are taken where they stand."""
        return _ENCODINGS[task.problem.inputs](self, task, rows)

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int, **kwargs: Any) -> Any:
        """Tokenise; only texts that are too long are tokenised twice, which tells how many there are."""
        options = {"add_special_tokens": True, "padding": False, "verbose": False, **kwargs}
        given = (list(texts), pairs and list(pairs))
        with _TOKENISING.lock:
            encoded = self.tokenizer(*given, truncation=False, **options)
            encoded["truncated"] = [len(ids) > max_length for ids in encoded["input_ids"]]
            if any(encoded["truncated"]):
                cut = self.tokenizer(*given, truncation=True, max_length=max_length, **options)
                cut["truncated"] = encoded["truncated"]
                return cut
        return encoded

    def max_length(self, task: TaskConfig) -> int:
        """The longest sequence of a task: its own limit, the tokenizer's or the encoder's."""
        return min(task.setting("max_length"), self.most_pieces)

    def encode_sentences(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a row, of one text or two, or none of a row without a text; and what is beside it."""
        if "text" in task.input_fields:
            pairs = rows["text_pair"] if "text_pair" in task.input_fields else None
            encoded = self._encode(rows["text"], pairs, self.max_length(task))
            features = [self._encoded_feature(encoded, [index], index) for index in range(len(rows["text"]))]
        else:
            features = [
                {"sequences": [[]], "segments": None, "source": index, "truncated": False}
                for index in range(_length(rows))
            ]
        if media := [field for field in task.input_fields if field in self.readers]:
            for index, feature in enumerate(features):
                add_media(self.readers, task, feature, {field: rows[field][index] for field in media})
        for feature, label in zip(features, rows.get("label", ())):
            feature["labels"] = label
        return features

    def encode_masked(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a row, and the places of masks in it; which other pieces are masked to learn them is drawn
        whenever a row is read.
        """
        features = self.encode_sentences(task, {key: rows[key] for key in rows if key != "label"})
        for feature in features:
            pieces = feature["sequences"][0]
            feature["masks"] = [place for place, piece in enumerate(pieces) if piece == self.tokenizer.mask_token_id]
            if "label" in rows:
                feature["labels"] = []
        return features

    def encode_tokens(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a row; a word's label stands at its first piece, the other pieces have none."""
        texts, places = zip(*(words_of({key: rows[key][index] for key in rows}) for index in range(_length(rows))))
        encoded = self._encode(texts, None, self.max_length(task), return_offsets_mapping=True)
        features = []
        for index, words in enumerate(places):
            feature = self._encoded_feature(encoded, [index], index)
            pieces = piece_places(texts[index], encoded["offset_mapping"][index])
            feature["positions"] = first_pieces(words, pieces)
            feature["words_read"] = words_within(words, pieces) if feature["truncated"] else len(words)
            if "label" in rows:
                labels = [IGNORED_LABEL] * len(feature["sequences"][0])
                for place, label in zip(feature["positions"], rows["label"][index], strict=True):
                    # Words that share a piece: it is the first one's.
                    if place >= 0 and labels[place] == IGNORED_LABEL:
                        labels[place] = label
                feature["labels"] = labels
            features.append(feature)
        return features

    def encode_windows(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a window of the context, labelled with the first accepted answer that stands in it whole.

        A window without one is labelled (0, 0), its first piece, which is never one of the context. A question takes
        at most half of the length.
        """
        with _TOKENISING.lock:
            encoded = self.tokenizer(
                list(rows["question"]),
                list(rows["context"]),
                truncation=False,
                padding=False,
                return_offsets_mapping=True,
                verbose=False,
            )
        features = []
        for source, context in enumerate(rows["context"]):
            features += self._windows(
                task, encoded, source, context, rows["label"][source] if "label" in rows else None
            )
        return features

    def _windows(
        self, task: TaskConfig, encoded: Any, source: int, context: str, answers: Mapping[str, Any] | None
    ) -> list[Feature]:
        """The features of one row."""
        max_length = self.max_length(task)
        before, inside, after, is_cut = self._parts(encoded, source, context, max_length)
        size = max_length - len(before) - len(after)
        step = size - min(task.setting("stride"), max_length // 4, size - 1)
        spans = answer_pieces(answers, context, [place for _, _, place in inside]) if answers else []
        features = []
        for start in range(0, max(len(inside) - size, 0) + step, step):
            pieces = before + inside[start : start + size] + after
            segments = [[segment for _, segment, _ in pieces]] if "token_type_ids" in encoded else None
            feature = self._feature([[piece for piece, _, _ in pieces]], segments, source, is_cut)
            feature["offsets"] = [list(place) for _, _, place in pieces]
            if answers is not None:
                whole = [span for span in spans if start <= span[0] and span[1] < start + size]
                feature["labels"] = [place - start + len(before) for place in whole[0]] if whole else [0, 0]
            features.append(feature)
        return features

    def _parts(
        self, encoded: Any, source: int, context: str, max_length: int
    ) -> tuple[list[_Piece], list[_Piece], list[_Piece], bool]:
        """Return what stands before the context, the context, what stands after it, whether the question was cut."""
        parts = encoded.sequence_ids(source)
        in_context = [index for index, part in enumerate(parts) if part == 1]
        first, past = (in_context[0], in_context[-1] + 1) if in_context else (len(parts), len(parts))
        question = [index for index, part in enumerate(parts) if part == 0]
        room = max_length - self.tokenizer.num_special_tokens_to_add(pair=True)
        surplus = set(question[min(max_length // 2, room - 1) :])
        ids = encoded["input_ids"][source]
        segments = encoded["token_type_ids"][source] if "token_type_ids" in encoded else [0] * len(ids)
        pieces = [(ids[index], segments[index], (-1, -1)) for index in range(len(ids))]
        places = piece_places(context, encoded["offset_mapping"][source][first:past])
        inside = [(*pieces[index][:2], place) for index, place in zip(in_context, places)]
        before = [pieces[index] for index in range(first) if index not in surplus]
        return before or [(self.filler, 0, (-1, -1))], inside, pieces[past:], bool(surplus)

    def encode_choices(self, task: TaskConfig, rows: Columns) -> list[Feature]:
        """One sequence a choice, each beside the row's text."""
        texts = [text for text, choices in zip(rows["text"], rows["choices"]) for _ in choices]
        pairs = [choice for choices in rows["choices"] for choice in choices]
        encoded = self._encode(texts, pairs, self.max_length(task))
        features, first = [], 0
        for index, choices in enumerate(rows["choices"]):
            features.append(self._encoded_feature(encoded, range(first, first + len(choices)), index))
            first += len(choices)
        for feature, label in zip(features, rows.get("label", ())):
            feature["labels"] = label
        return features

    def _encoded_feature(self, encoded: Mapping[str, Any], places: Sequence[int], source: int) -> Feature:
        segments = encoded.get("token_type_ids")
        return self._feature(
            [encoded["input_ids"][place] for place in places],
            [segments[place] for place in places] if segments else None,
            source,
            any(encoded["truncated"][place] for place in places),
        )

    def _feature(
        self, sequences: list[list[int]], segments: list[list[int]] | None, source: int, is_cut: bool
    ) -> Feature:
        return {
            "sequences": [sequence or [self.filler] for sequence in sequences],
            "segments": segments and [segment or [0] for segment in segments],
            "source": source,
            "truncated": is_cut,
        }


_ENCODINGS = {
    "texts": FeatureEncoder.encode_sentences,
    "masked": FeatureEncoder.encode_masked,
    "words": FeatureEncoder.encode_tokens,
    "windows": FeatureEncoder.encode_windows,
    "choices": FeatureEncoder.encode_choices,
}


def _length(rows: Columns) -> int:
    return len(next(iter(rows.values())))
