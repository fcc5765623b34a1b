"""Facts of a checkpoint and of its tasks, of which its card is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .modalities import TABLE
from .task_config import TaskConfig

NO_LICENSE = (
    "Its owner has not said under which licence it may be used: ask before you do. The encoder and the data sets have "
    "terms of their own."
)

# What examples of the card ask, by input field; written for it.
_EXAMPLE_INPUTS: dict[str, Any] = {
    "image": "image.png",
    "audio": "sound.wav",
    "text": "The kettle I ordered on Monday arrived broken, please send my money back.",
    "text_pair": "A customer wants a refund for a damaged kettle.",
    "tokens": ["Anna", "Weber", "wrote", "from", "Hamburg", "on", "Monday", "."],
    "question": "When was the kettle ordered?",
    "context": "The kettle was ordered on Monday and arrived broken on Thursday.",
    "choices": ["The customer gets a new kettle.", "The kettle grows wings."],
}
_MASKED_TEXT = "The kettle I ordered on Monday arrived {mask} on Thursday."


@dataclass
class TaskFacts:
    """Facts of a task on its model's card; what is None or empty is not known, and left out.

    Args:
        config: The task.
        metrics: Scores on the validation split by metric, 0-100.
        trivial: The same of the best answer that ignores the input.
        tfidf: The same of a linear model over TF-IDF.
        single_task: The same of a model of this task alone.
        test: The same of this model, on the test split.
        lower_is_better: Metrics of which the least is the best.
        train_rows: How many rows it learned from.
        validation_rows: How many rows scored it.
        dataset: Where the rows come from: a data set of the Hub, or a name.
        subset: Its configuration.
        split: The split that scored it.
        example: The row that the card asks; by default `example_row`'s.
        answer: The task's answer to it.
    """

    config: TaskConfig
    metrics: Mapping[str, float] = field(default_factory=dict)
    trivial: Mapping[str, float] = field(default_factory=dict)
    tfidf: Mapping[str, float] = field(default_factory=dict)
    single_task: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: Sequence[str] = ()
    train_rows: int | None = None
    validation_rows: int | None = None
    dataset: str | None = None
    subset: str | None = None
    split: str = "validation"
    example: Mapping[str, Any] | None = None
    answer: Any = None


@dataclass
class CardFacts:
    """Facts of a checkpoint on its card; what is None or empty is not known, and left out.

    Args:
        name: The model's name.
        checkpoint: What `from_pretrained` is given, a folder or a repository; None for an adapter.
        tasks: Its tasks.
        description: A sentence or more on what it reads and answers.
        base_model: The encoder, as a name of the Hub.
        encoder: The encoder, however it was named.
        languages: Codes such as ``en``.
        datasets: Further data sets of the Hub.
        reads_hub: Whether the rows were read from the Hub, so that its data sets can show the scores, or from files
            of somebody's.
        license: A licence of the Hub, such as ``apache-2.0``.
        license_note: What else is known of who may use it.
        tags: Further tags.
        training: Lines on mixture, weighting and schedule.
        data: Lines on leaks and on what was cut off.
        parts: The report of what the model's parts contribute.
        figures: Pictures beside the card, by what they show.
        command: What trains it again.
        environment: Versions, hardware and time by name.
        limits: Further lines on what it does not do.
    """

    name: str
    checkpoint: str | None
    tasks: Sequence[TaskFacts]
    description: str | None = None
    base_model: str | None = None
    encoder: str | None = None
    languages: Sequence[str] = ()
    datasets: Sequence[str] = ()
    reads_hub: bool | None = None
    license: str | None = None
    license_note: str | None = None
    tags: Sequence[str] = ()
    training: Sequence[str] = ()
    data: Sequence[str] = ()
    parts: Sequence[str] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[str] = ()


def example_row(task: TaskConfig, mask_token: str = "[MASK]") -> dict[str, Any]:
    """Return the example that the card asks a task."""
    if task.problem.inputs == "masked":
        return {"text": _MASKED_TEXT.format(mask=mask_token)}
    row = {name: _EXAMPLE_INPUTS.get(name) for name in task.input_fields}
    # Empty cells are cells, and say nothing of anybody.
    return {**row, TABLE: dict.fromkeys(task.table_columns or ())} if TABLE in row else row
