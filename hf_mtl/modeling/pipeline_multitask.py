"""`transformers.pipeline("multi-task", model=...)`: texts or rows in, every task's answers out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import islice
from types import GeneratorType
from typing import Any, cast

from torch.utils.data import Dataset, IterableDataset
from transformers import Pipeline

from .answer_forms import AnswerForm
from .encoder_code import MODEL_TYPE
from .errors import InputError, nearest
from .input_rows import ROW_FIELDS, listed_rows, tasks_named

_FORM = tuple(field.name for field in fields(AnswerForm))
_CALL = ("tasks", *_FORM, "is_split_into_words")
# Batches of a data set that are read at once, so that rows of one length can go together.
_BATCHES_READ = 64

# Options of other pipelines, and what stands in their place.
_REFUSED = {
    "candidate_labels": "labels are those that the tasks were trained with; model.config.task_configs names them",
    "function_to_apply": "scores are probabilities, numbers stand in the units of the training labels",
    "truncation": "a task reads as many word pieces as its max_length says; an answer that was cut says `truncated`",
    "max_length": "a task reads as many word pieces as its max_length says",
    "max_seq_len": "a context is read whole, in windows of the task's max_length",
    "doc_stride": "windows of a context share as many word pieces as the task's stride says",
    "stride": "windows of a context share as many word pieces as the task's stride says",
    "max_answer_len": "the task's max_answer_length says it",
    "handle_impossible_answer": "the task's null_answer says it",
    "grouped_entities": "aggregation_strategy='simple'",
    "targets": "top_k gives the best word pieces",
}


class MultiTaskPipeline(Pipeline):
    """Answers texts and rows, as `MultiTaskAttentionModel.predict` does, behind the call of Transformers' pipelines.

    A single text or row gives a dictionary of answers by task name, a list gives a list of them, a data set of torch
    (`KeyDataset`) or a generator an iterator, which reads no further than it has to.

    Args:
        tasks: The tasks to answer, here or in a call; by default all whose input fields a row has.
        top_k: As all that follow, see `AnswerForm`.
        return_all_scores: Whether an answer holds the scores of all labels.
        aggregation_strategy: How word pieces become ``entities``.
        ignore_labels: Tags that are no entities.
        is_split_into_words: Whether an input is a list of words, as ``tokens`` of a row are.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    # There is none where no task reads a text.
    _load_tokenizer: Any = None

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name in options:
            if name not in _CALL:
                reason = f": {_REFUSED[name]}." if name in _REFUSED else f".{nearest(name, _CALL)}"
                raise InputError(
                    f"The pipeline takes no {name!r}{reason} It takes {', '.join(_CALL)}, batch_size and, as inputs "
                    f"by name, {', '.join(ROW_FIELDS)}."
                )
        AnswerForm(**{name: options[name] for name in _FORM if name in options})
        if self.model.config.model_type != MODEL_TYPE:
            raise InputError(
                f"The model is a {type(self.model).__name__}; expected a multitask one. A plain encoder is trained "
                "first: hf-mtl train."
            )
        if options.get("tasks") is not None:
            tasks_named(cast(Any, self.model).config.task_configs, options["tasks"])
        return {}, options, {}

    def __call__(
        self, inputs: Any = None, *, batch_size: int | None = None, num_workers: int | None = None, **options: Any
    ) -> Any:
        """Answer texts or rows.

        Args:
            inputs: A text or a mapping of input fields, or several: a list, a data set, a generator, a mapping of
                columns. Fields may be given by name instead: ``pipe(question="...", context="...")``.
            batch_size: Rows in one pass of the encoder; 1 by default, as in Transformers.
            num_workers: 0: rows are read in this process.
            **options: See above.

        Raises:
            InputError: An option that the pipeline does not take, or a row that cannot be answered.
        """
        if workers := num_workers or self._num_workers:
            raise InputError(f"num_workers={workers}: the pipeline reads rows in its own process; leave it out.")
        by_name = {name: options.pop(name) for name in ROW_FIELDS if name in options}
        _, given, _ = self._sanitize_parameters(**options)
        settings = {**self._forward_params, **given}
        answerer = self._answerer(settings)
        size = next((one for one in (batch_size, self._batch_size) if one is not None), 1)
        rows = _named_rows(inputs, by_name)
        in_words = settings.get("is_split_into_words", False)
        if isinstance(rows, (GeneratorType, Dataset)):
            together = size if isinstance(rows, GeneratorType) else size * _BATCHES_READ
            return _read_on(answerer, rows, settings.get("tasks"), size, together, in_words)
        is_single = in_words and isinstance(rows, (list, tuple)) and bool(rows) and isinstance(rows[0], str)
        listed = [rows] if is_single else listed_rows(rows)
        answers = answerer.answer(_rows_of_words(listed) if in_words else listed, settings.get("tasks"), size)
        return answers[0] if is_single or isinstance(rows, str) or listed == [rows] else answers

    def _answerer(self, settings: Mapping[str, Any]) -> Any:
        form = AnswerForm(**{name: settings[name] for name in _FORM if name in settings})
        return cast(Any, self.model).answerer(self.tokenizer, None if form == AnswerForm() else form)

    def preprocess(self, inputs: Any, **options: Any) -> Any:
        """Return rows as they are: the model makes its inputs of them."""
        return inputs

    def _forward(self, rows: Any, **options: Any) -> Any:
        return self(rows, **options)

    def postprocess(self, answers: Any, **options: Any) -> Any:
        """Return answers as they are: they are decoded."""
        return answers


def _named_rows(inputs: Any, by_name: Mapping[str, Any]) -> Any:
    """Return the inputs of a call, those that were given by name among them."""
    if not by_name:
        if inputs is None:
            raise InputError("There are no rows; expected a text, a mapping of input fields, or several of them.")
        return inputs
    if inputs is None:
        return dict(by_name)
    if not isinstance(inputs, (str, list, tuple)) or "text" in by_name:
        raise InputError(
            f"Fields by name ({', '.join(by_name)}) go beside a text or a list of texts, or alone; expected all of a "
            "row's fields in one mapping."
        )
    return {"text": inputs, **by_name}


def _rows_of_words(rows: Iterable[Any]) -> list[Any]:
    rows = list(rows)
    for row in rows:
        if isinstance(row, str):
            raise InputError(f"is_split_into_words=True, and an input is the text {row!r}; expected a list of words.")
    return [{"tokens": list(row)} if isinstance(row, (list, tuple)) else row for row in rows]


def _read_on(answerer: Any, rows: Any, tasks: Any, batch_size: int, together: int, in_words: bool) -> Iterator[Any]:
    """Yield the answers of rows as they are read, some at a time."""
    rest = iter(rows) if isinstance(rows, GeneratorType) else _items(rows)
    first = 0
    while read := list(islice(rest, together)):
        yield from answerer.answer(_rows_of_words(read) if in_words else read, tasks, batch_size, first=first)
        first += len(read)


def _items(rows: Any) -> Iterator[Any]:
    """The items of a data set, which may know its length and no iteration."""
    if isinstance(rows, IterableDataset):
        return iter(rows)
    return (rows[place] for place in range(len(rows)))
