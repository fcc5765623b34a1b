"""One row per problem type: what its tasks read, the kind of their labels, their defaults.

To add a problem type, write its row here and its head class in problem_heads.py; from another package, give both to
`register_problem_type`. No other module compares a problem type's name: what differs between them is a column of this
table, a method of the head, or one of the kind of labels (`hf_mtl.data.label_kinds`).
"""

import dataclasses
from dataclasses import dataclass

from .errors import InputError, check_choice, check_types

# How a row's input fields (needed, optional) become what the encoder reads.
_INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # One sequence, of one text or two; an image, a sound or a row of a table beside it or in its place.
    "texts": (("text",), ("text_pair", "image", "audio", "table")),
    # The same, of which pieces may be masked.
    "masked": (("text",), ("text_pair",)),
    # One sequence, of words that are given.
    "words": (("tokens",), ()),
    # One sequence per window of the context, each beside the question.
    "windows": (("question", "context"), ()),
    # One sequence per choice, each beside the text.
    "choices": (("text", "choices"), ()),
}

# The kinds of labels: the id of a class, the ids of all labels that hold, a number, a tag per word, a span of the
# context (or several that are right), the right one of a row's choices; the word pieces of the text itself.
_LABELS = ("class", "label_set", "number", "tags", "answers", "choice", "pieces")


@dataclass(frozen=True, kw_only=True)
class ProblemType:
    """A row that holds of all tasks of one problem type.

    Args:
        name: As in ``problem_type: single_label_classification``.
        inputs: How input fields become what the encoder reads: a name of `_INPUTS`.
        labels: The kind of labels: a name of `_LABELS`.
        metrics: Names of `hf_mtl.metrics.METRICS` that score a task whose row names none.
        num_outputs: Scores per sequence (per word piece of "words" and "windows"); None for one per name of the
            task's `labels`. Of "masked" 1: the encoder says how many word pieces there are.
        max_length: The longest input in word pieces where a task does not say it.
        pipeline_tag: What the Hub calls such tasks.
    """

    name: str
    inputs: str = "texts"
    labels: str
    metrics: tuple[str, ...]
    num_outputs: int | None = None
    max_length: int = 128
    pipeline_tag: str = "text-classification"

    @property
    def fields(self) -> tuple[str, ...]:
        """The input fields that a row must have."""
        return _INPUTS[self.inputs][0]

    @property
    def optional_fields(self) -> tuple[str, ...]:
        """The input fields that a row may have."""
        return _INPUTS[self.inputs][1]

    @property
    def has_label_names(self) -> bool:
        """True where its tasks name their labels, one per output."""
        return self.num_outputs is None

    @property
    def has_label_column(self) -> bool:
        """False where the text itself is what is learned, and rows need no label."""
        return self.labels != "pieces"


PROBLEM_TYPES: dict[str, ProblemType] = {
    row.name: row
    for row in (
        ProblemType(name="single_label_classification", labels="class", metrics=("accuracy",)),
        ProblemType(name="multi_label_classification", labels="label_set", metrics=("f1_micro", "f1_macro")),
        ProblemType(name="regression", labels="number", metrics=("pearson", "spearman"), num_outputs=1),
        ProblemType(
            name="token_classification",
            inputs="words",
            labels="tags",
            metrics=("span_f1",),
            pipeline_tag="token-classification",
        ),
        ProblemType(
            name="question_answering",
            inputs="windows",
            labels="answers",
            metrics=("exact_match", "squad_f1"),
            num_outputs=2,
            max_length=384,
            pipeline_tag="question-answering",
        ),
        ProblemType(
            name="multiple_choice",
            inputs="choices",
            labels="choice",
            metrics=("accuracy",),
            num_outputs=1,
            pipeline_tag="multiple-choice",
        ),
        ProblemType(
            name="masked_language_modeling",
            inputs="masked",
            labels="pieces",
            metrics=("masked_accuracy", "perplexity"),
            num_outputs=1,
            pipeline_tag="fill-mask",
        ),
    )
}


def add_problem_type(row: ProblemType) -> None:
    """Add a row to the table, in the place of another one of its name.

    Raises:
        InputError: It is no row, or names inputs that there are not.
    """
    if not isinstance(row, ProblemType):
        raise InputError(
            f"{row!r} is no row; write ProblemType(name='ordinal', labels='class', metrics=('accuracy',))."
        )
    check_types(f" of problem type {row.name!r}", row, [item.name for item in dataclasses.fields(row)])
    check_choice(f"inputs of problem type {row.name!r}:", row.inputs, _INPUTS)
    check_choice(f"kind of labels of problem type {row.name!r}:", row.labels, _LABELS)
    if not row.metrics or row.max_length < 1:
        raise InputError(
            f"The problem type {row.name!r} has metrics={row.metrics!r} and max_length={row.max_length!r}; expected "
            "the name of a metric at least, and a whole number >= 1."
        )
    PROBLEM_TYPES[row.name] = row


def problem_type_with(labels: str) -> str:
    """Return the name of the first problem type whose labels are of a kind."""
    return next(row.name for row in PROBLEM_TYPES.values() if row.labels == labels)


def input_fields() -> list[str]:
    """Return the names of all input fields that a row of some task may have."""
    return list(dict.fromkeys(field for needed, optional in _INPUTS.values() for field in needed + optional))
