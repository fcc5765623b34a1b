"""What a uniform prediction costs: the natural scale of a task's loss."""

import math

from datasets import Dataset

from ..tasks import TaskSpec

# Of a choice whose number of choices is unknown, because its rows are streamed.
CHOICES = 4
MEASURED_ROWS = 1000


def chance_loss(spec: TaskSpec, rows: Dataset | None = None) -> float:
    """Return the loss of a uniform prediction: log of the number of classes, tags, positions or choices; log 2 for
    flags; 1, the variance of standardised labels, for numbers.
    """
    if spec.problem_type == "regression":
        return 1.0
    if spec.problem_type == "multi_label_classification":
        return math.log(2)
    if spec.problem_type == "question_answering":
        return math.log(spec.max_length or 512)
    if spec.problem_type == "multiple_choice":
        counts = [len(choices) for choices in rows["choices"][:MEASURED_ROWS]] if rows is not None else [CHOICES]
        return sum(map(math.log, counts)) / len(counts)
    return math.log(max(spec.num_outputs, 2))
