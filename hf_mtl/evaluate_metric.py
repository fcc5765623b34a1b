"""A metric of `hf_mtl.metrics` as an `evaluate.Metric`; no module imports this one: `evaluate` takes seconds."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .metrics import METRICS, compute, problem_types_of

# Ids are stored as floats too: an integer column would truncate a prediction of 1.7 to 1 without a word.
NUMBER, TEXT = datasets.Value("float64"), datasets.Value("string")
NUMBERS, TEXTS = datasets.Sequence(NUMBER), datasets.Sequence(TEXT)

# What (a prediction, a reference) is stored as, by kind of labels.
_STORED_AS: dict[str, tuple[datasets.Value | datasets.Sequence, datasets.Value | datasets.Sequence]] = {
    "class": (NUMBER, NUMBER),
    "label_set": (NUMBERS, NUMBERS),
    "number": (NUMBER, NUMBER),
    "tags": (TEXTS, TEXTS),
    "answers": (TEXT, TEXTS),
    "choice": (NUMBER, NUMBER),
    "pieces": (NUMBERS, NUMBERS),
}
_KINDS_OF_IDS = {"class", "label_set", "choice"}


def as_evaluate_metric(name: str) -> evaluate.Metric:
    """Return a metric as an `evaluate.Metric` (for `add_batch`, `evaluate.combine`); nothing is downloaded.

    Args:
        name: Of `hf_mtl.metrics.METRICS`.

    Raises:
        ValueError: An unknown name.
    """
    return EvaluateMetric(config_name=name)


class EvaluateMetric(evaluate.Metric):
    """The metric whose name is the `config_name`; `compute` returns {name: score}, 0 to 100.

    Rows are kept in memory, in one process.
    """

    def __init__(self, config_name: str) -> None:
        if config_name not in METRICS:
            raise ValueError(f"Unknown metric {config_name!r}; expected one of {list(METRICS)}.")
        super().__init__(config_name=config_name, keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        metric, types = METRICS[self.config_name], " or ".join(problem_types_of(self.config_name))
        return evaluate.MetricInfo(
            description=metric.description,
            citation="",
            inputs_description=f"predictions and references of {types}, row by row",
            features=[
                datasets.Features({"predictions": prediction, "references": reference})
                for prediction, reference in map(_STORED_AS.__getitem__, metric.labels)
            ],
        )

    def _compute(self, *, predictions: Sequence[object], references: Sequence[object]) -> dict[str, float]:
        metric = METRICS[self.config_name]
        if metric.reads_scores or _KINDS_OF_IDS.isdisjoint(metric.labels):
            return compute([self.config_name], predictions, references)
        return compute([self.config_name], _ids(predictions), _ids(references))


def _ids(rows: Sequence[object]) -> np.ndarray:
    """Return rows of whole numbers as integers; raise where one is a fraction."""
    numbers = np.asarray(rows)
    if (np.floor(numbers) != numbers).any():
        fractions = numbers[np.floor(numbers) != numbers]
        raise ValueError(f"Expected class ids, or 0s and 1s; found {fractions[0]}. Give the chosen ids, not scores.")
    return numbers.astype(np.int64)


__all__ = ["EvaluateMetric", "as_evaluate_metric"]
