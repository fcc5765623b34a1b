"""Scores of a task's answers: one function per metric, and its line in `METRICS`.

Every function takes (predictions, references), row by row, and returns a float. A row is, by kind of labels:

- class, choice: the id of a class or choice;
- label_set: a 0 or 1 per label;
- number: a number;
- tags: the tags of the words, as strings;
- answers: a string, and as reference the list of accepted ones; empty, only the empty prediction is right;
- pieces: the ids of the word pieces at masked places.

Scores are 0 to 100 (correlations -100 to 100), but for `rmse` and `perplexity`. A new one is a function and a line.
"""

import difflib
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .modeling.problem_types import PROBLEM_TYPES
from .modeling.tag_spans import SpanTags

Rows = Sequence[object] | np.ndarray
Labels = Sequence[int] | Sequence[Sequence[int]] | np.ndarray
Numbers = Sequence[float] | np.ndarray
StringLists = Sequence[Sequence[str]]
PieceLists = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Metric:
    """A metric, with the kinds of labels that it scores."""

    name: str
    function: Callable[..., float]
    labels: tuple[str, ...]
    description: str
    higher_is_better: bool = True
    # Whether it reads what the model gives class 1 (or every label, or the true piece) instead of what it chose.
    reads_scores: bool = False


def accuracy(predictions: Labels, references: Labels) -> float:
    """Return the share of rows whose id is right, 0 to 100."""
    predicted, true = _arrays(predictions, references, np.int64)
    return 100 * float((predicted == true).mean())


def f1(predictions: Labels, references: Labels) -> float:
    """Return the F1 of class 1 of two classes, 0 to 100; 0 where class 1 is neither predicted nor true."""
    predicted, true = _arrays(predictions, references, np.int64)
    if not {0, 1}.issuperset(classes := np.union1d(predicted, true).tolist()):
        raise ValueError(f"Metric 'f1' expects the classes 0 and 1; found {classes}. Use 'f1_macro' for more classes.")
    return 100 * float(_f1_per_label(predicted[:, None] == 1, true[:, None] == 1)[0])


def f1_macro(predictions: Labels, references: Labels) -> float:
    """Return the mean over labels of each label's F1, 0 to 100, as scikit-learn does.

    For ids the mean is over the classes that are predicted or true in some row; for multi-label rows it is over all
    labels, and a label that is neither predicted nor true in any row counts 0.
    """
    return 100 * float(_f1_per_label(*_indicators(predictions, references)).mean())


def f1_micro(predictions: Labels, references: Labels) -> float:
    """Return the F1 of all (row, label) pairs, 0 to 100; 0 where none is set; for ids it equals accuracy."""
    predicted, true = _indicators(predictions, references)
    return 100 * float(_f1_per_label(predicted.reshape(-1, 1), true.reshape(-1, 1))[0])


def matthews_correlation(predictions: Labels, references: Labels) -> float:
    """Return Matthews' correlation (of any number of classes), -100 to 100; 0 where one side is constant."""
    predicted, true = _indicators(predictions, references)
    rows = len(true)
    predicted_counts, true_counts = predicted.sum(0, dtype=float), true.sum(0, dtype=float)
    covariance = (predicted & true).sum() * rows - predicted_counts @ true_counts
    spreads = (rows**2 - predicted_counts @ predicted_counts) * (rows**2 - true_counts @ true_counts)
    return 100 * float(covariance / np.sqrt(spreads)) if spreads > 0 else 0.0


def pearson(predictions: Numbers, references: Numbers) -> float:
    """Return the linear correlation, -100 to 100; 0 where one side is constant, nan where a number is nan."""
    return 100 * _correlation(*_arrays(predictions, references, np.float64))


def spearman(predictions: Numbers, references: Numbers) -> float:
    """Return the correlation of the ranks (ties share their mean rank), -100 to 100; 0 and nan as for `pearson`."""
    predicted, true = _arrays(predictions, references, np.float64)
    return 100 * _correlation(_ranks(predicted), _ranks(true))


def rmse(predictions: Numbers, references: Numbers) -> float:
    """Return the root of the mean squared error, 0 or more, in units of the label: no percentage, lower is better."""
    predicted, true = _arrays(predictions, references, np.float64)
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def auc(scores: Numbers, references: Labels) -> float:
    """Return the area under the ROC curve, 0 to 100: how often a row of a class scores above one of another class.

    Ties count half. Of two classes, rows have the score of class 1; of more, a score for each class, and the mean is
    over the classes, each against the rest. Rows of several labels have a score and a 0 or 1 per label; the mean is
    over the labels. 50, chance, where a class has no row or all of them.
    """
    given, true = np.asarray(scores), np.asarray(references)
    if true.ndim == 1 and given.ndim == 1 and given.dtype.kind in "iu" and max(given.max(), true.max()) > 1:
        given = given[:, None] == np.arange(max(given.max(), true.max()) + 1)  # (rows, classes)
    if true.ndim == 1 and given.ndim == 2:
        true = (true[:, None] == np.arange(given.shape[1])).astype(int)
    if given.shape != true.shape or not np.isin(true, (0, 1)).all():
        raise ValueError(
            f"Metric 'auc' expects the classes 0 and 1 and a score for each row, or a score for each class; found "
            f"scores {given.shape} and the classes {np.unique(true).tolist()} {true.shape}."
        )
    columns = zip(given.reshape(len(given), -1).T, true.reshape(len(true), -1).T)
    return 100 * float(np.mean([_area(column, flags == 1) for column, flags in columns]))


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return 0.5
    return (_ranks(scores)[positive].sum() - count * (count + 1) / 2) / (count * others)


def token_accuracy(predictions: StringLists, references: StringLists) -> float:
    """Return the share of all words whose tag is right, 0 to 100."""
    _check_lengths(predictions, references)
    words = [pair for row in zip(predictions, references) for pair in zip(*row)]
    if not words:
        raise ValueError("Found no words in any row; 'token_accuracy' expects at least one.")
    return 100 * sum(tag == true_tag for tag, true_tag in words) / len(words)


def span_f1(predictions: StringLists, references: StringLists) -> float:
    """Return the F1 of the spans, right in type, beginning and end, pooled over types and rows, 0 to 100.

    Spans are read off the tags as conlleval and seqeval's default do: an I- that continues no span of its type begins
    one. BIO, BIOES, BILOU, BMES and IO tags are read (`SpanTags`). 0 where nobody marks a span.
    """
    _check_lengths(predictions, references)
    all_tags = dict.fromkeys(tag for rows in (predictions, references) for tags in rows for tag in tags)
    span_tags = SpanTags.of(all_tags, are_all=False)
    if span_tags is None or span_tags.odd:
        odd = next(iter(all_tags if span_tags is None else span_tags.odd))
        raise ValueError(f"Found the tag {odd!r}; 'span_f1' expects 'O', 'B-…' and 'I-…'. Use 'token_accuracy'.")
    predicted = {(row, *span) for row, tags in enumerate(predictions) for span in span_tags.spans(tags)}
    true = {(row, *span) for row, tags in enumerate(references) for span in span_tags.spans(tags)}
    return 200 * len(predicted & true) / max(len(predicted) + len(true), 1)


def exact_match(predictions: Sequence[str], references: StringLists) -> float:
    """Return the share of predictions that equal an accepted answer after SQuAD's normalisation, 0 to 100."""
    return 100 * _best_overlap(predictions, references, lambda words, accepted: float(words == accepted))


def squad_f1(predictions: Sequence[str], references: StringLists) -> float:
    """Return the mean over rows of the best word F1 with an accepted answer, normalised as SQuAD does, 0 to 100."""
    return 100 * _best_overlap(predictions, references, _word_f1)


def masked_accuracy(predictions: PieceLists, references: PieceLists) -> float:
    """Return the share of all masked word pieces that are told right, 0 to 100."""
    return 100 * float(np.mean([piece == true for piece, true in _masked_pairs(predictions, references)]))


def perplexity(scores: PieceLists, references: PieceLists) -> float:
    """Return exp of the mean of -log p over all masked pieces, p being what the true one was given, 1 or more."""
    given = np.array([score for score, _ in _masked_pairs(scores, references)], dtype=np.float64)
    if (given < 0).any() or (given > 1 + 1e-6).any():
        raise ValueError("'perplexity' expects the probability of the true word piece at each masked place.")
    return float(np.exp(-np.log(given.clip(min=np.finfo(np.float64).tiny)).mean()))


def _masked_pairs(given: PieceLists, references: PieceLists) -> list[tuple[float, float]]:
    """Return what was given and is true at every masked place; raise for none, and for rows that differ in length."""
    if [len(row) for row in given] != [len(row) for row in references] or not any(map(len, references)):
        raise ValueError("Expected as much for each row as it has masked word pieces, and one of these at least.")
    return [pair for row in zip(given, references) for pair in zip(*row)]


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", accuracy, ("class", "choice"), "share of rows whose class or choice is right"),
    "f1": Metric("f1", f1, ("class",), "F1 of class 1 of two classes"),
    "f1_macro": Metric("f1_macro", f1_macro, ("class", "label_set"), "mean over labels of each label's F1"),
    "f1_micro": Metric("f1_micro", f1_micro, ("class", "label_set"), "F1 of all (row, label) pairs pooled"),
    "auc": Metric("auc", auc, ("class", "label_set"), "area under the ROC curve", reads_scores=True),
    "matthews_correlation": Metric("matthews_correlation", matthews_correlation, ("class",), "Matthews' correlation"),
    "pearson": Metric("pearson", pearson, ("number",), "linear correlation"),
    "spearman": Metric("spearman", spearman, ("number",), "correlation of the ranks"),
    "rmse": Metric("rmse", rmse, ("number",), "root mean squared error, in label units", higher_is_better=False),
    "token_accuracy": Metric("token_accuracy", token_accuracy, ("tags",), "share of words whose tag is right"),
    "span_f1": Metric("span_f1", span_f1, ("tags",), "F1 of the tagged spans (seqeval's default)"),
    "exact_match": Metric("exact_match", exact_match, ("answers",), "share of answers that equal an accepted one"),
    "squad_f1": Metric("squad_f1", squad_f1, ("answers",), "mean word F1 with the best accepted answer"),
    "masked_accuracy": Metric("masked_accuracy", masked_accuracy, ("pieces",), "share of masked pieces told right"),
    "perplexity": Metric("perplexity", perplexity, ("pieces",), "exp of the mean loss", False, reads_scores=True),
}


def default_metrics(problem_type: str, labels: Sequence[str] | None = None) -> list[str]:
    """Return the metrics of a task whose row names none: its problem type's, of those that can score its labels.

    Args:
        problem_type: The task's.
        labels: Its labels, where they are known: of tags that mark no spans, the tags are scored.
    """
    names = list(PROBLEM_TYPES[problem_type].metrics)
    return ["token_accuracy"] if names == ["span_f1"] and SpanTags.of(labels or []) is None else names


def check_metrics(task_name: str, problem_type: str, names: Sequence[str]) -> None:
    """Raise ValueError unless all names are metrics of the problem type, and higher is better for one of them."""
    kind = PROBLEM_TYPES[problem_type].labels
    scoring = [metric.name for metric in METRICS.values() if kind in metric.labels]
    for name in names:
        if name not in METRICS:
            nearest = "".join(f" Did you mean {close!r}?" for close in difflib.get_close_matches(name, METRICS, n=1))
            raise ValueError(f"Task {task_name!r}: unknown metric {name!r}; expected some of {scoring}.{nearest}")
        if name not in scoring:
            raise ValueError(
                f"Task {task_name!r}: {name!r} scores {' and '.join(problem_types_of(name))}; use some of {scoring}, "
                f"of {problem_type}."
            )
    if not any(METRICS[name].higher_is_better for name in names):
        better = [name for name in scoring if METRICS[name].higher_is_better]
        raise ValueError(
            f"Task {task_name!r}: a higher score is better for none of the metrics {list(names)}. Add one of {better}."
        )


def problem_types_of(metric: str) -> list[str]:
    """Return the names of the problem types that a metric scores."""
    return [row.name for row in PROBLEM_TYPES.values() if row.labels in METRICS[metric].labels]


def compute(names: Sequence[str], predictions: Rows, references: Rows, scores: Rows | None = None) -> dict[str, float]:
    """Return the score of each named metric; raise ValueError for no rows, or numbers of rows that differ.

    Args:
        names: Names in `METRICS`.
        predictions: What was chosen, row by row.
        references: What is true.
        scores: What class 1 of two, or every label, was given; read by `auc` alone, which else reads the predictions.
    """
    if len(predictions) != len(references) or not len(references):
        raise ValueError(
            f"Found {len(predictions)} predictions for {len(references)} references; "
            "expected one prediction for each reference, and at least one."
        )
    by_metric = {}
    for name in names:
        given = scores if METRICS[name].reads_scores and scores is not None else predictions
        by_metric[name] = float(METRICS[name].function(given, references))
    return by_metric


def task_score(scores: Mapping[str, float]) -> float:
    """Return the one number per task is judged by: the mean of its scores where higher is better, as GLUE does.

    Scores where lower is better (`rmse`, `perplexity`) are left out: they have no common scale with the others.
    """
    counted = [score for name, score in scores.items() if METRICS[name].higher_is_better]
    if not counted:
        raise ValueError(f"Found the scores {dict(scores)}; expected one of a metric where higher is better.")
    return sum(counted) / len(counted)


def _arrays(predictions: Rows, references: Rows, dtype: type[np.generic]) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays of one type; raise where numpy would truncate numbers to ids or stretch one array."""
    predicted, true = np.asarray(predictions), np.asarray(references)
    castable = [np.can_cast(array.dtype, dtype, "same_kind") for array in (predicted, true)]
    if predicted.shape != true.shape or not all(castable):
        raise ValueError(
            f"Found predictions of {predicted.dtype} {predicted.shape}, references of {true.dtype} {true.shape}; "
            f"expected one shape for both, and {dtype.__name__} numbers."
        )
    return predicted.astype(dtype), true.astype(dtype)


def _indicators(predictions: Labels, references: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, labels) booleans of both; ids become one column for each class that occurs."""
    predicted, true = _arrays(predictions, references, np.int64)
    classes = np.union1d(predicted, true)
    if true.ndim == 1:
        return predicted[:, None] == classes, true[:, None] == classes
    if not np.isin(classes, (0, 1)).all():
        raise ValueError(f"Expected multi-label rows of one 0 or 1 per label; found the values {classes.tolist()}.")
    return predicted == 1, true == 1


def _f1_per_label(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the F1, 0 to 1, of each column of (rows, labels) booleans; 0 for a column that is empty in both."""
    return 2 * (predicted & true).sum(0) / np.maximum(predicted.sum(0) + true.sum(0), 1)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation, -1 to 1; 0 where one side is constant up to rounding."""
    directions = []
    for values in (first, second):
        with np.errstate(invalid="ignore"):  # infinite numbers give nan
            centred = values - (mean := values.mean())
        length = np.linalg.norm(centred)
        # The mean of equal numbers can differ from them by a rounding error, whose direction means nothing.
        if length <= 1e-13 * abs(mean):
            return 0.0
        directions.append(centred / length)
    return float(np.clip(directions[0] @ directions[1], -1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return each value's rank from 1; equal values share the mean of theirs, nan has none."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.where(np.isnan(values), np.nan, (counts.cumsum() - (counts - 1) / 2)[places])


def _check_lengths(predictions: StringLists, references: StringLists) -> None:
    """Raise ValueError unless each row has as many predicted as true tags."""
    for row, (tags, true_tags) in enumerate(zip(predictions, references)):
        if len(tags) != len(true_tags):
            raise ValueError(f"Row {row}: found {len(tags)} predicted tags; expected {len(true_tags)}, one per word.")


def _best_overlap(predictions: Sequence[str], references: StringLists, overlap: Callable[..., float]) -> float:
    """Return the mean over rows of the greatest overlap, 0 to 1, with an accepted answer; both as normalised words."""
    best = []
    for predicted, answers in zip(map(_normalised_words, predictions), references):
        if isinstance(answers, str):
            raise ValueError(f"Found the reference {answers!r}; expected the list of accepted answers, [{answers!r}].")
        accepted = [words for words in map(_normalised_words, answers) if words] or [[]]
        best.append(max(overlap(predicted, words) for words in accepted))
    return sum(best) / len(best)


def _normalised_words(answer: str) -> list[str]:
    """Return an answer's words in lower case without punctuation and articles, as SQuAD's script does."""
    bare = answer.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _word_f1(predicted: list[str], true: list[str]) -> float:
    """Return the F1, 0 to 1, of two bags of words; where one is empty, whether both are."""
    if not (predicted and true):
        return float(predicted == true)
    return 2 * (Counter(predicted) & Counter(true)).total() / (len(predicted) + len(true))
