"""A task's worth before any deep model: a trivial predictor and TF-IDF + a linear model, on the validation rows.

Both see training rows only and are scored by the task's own metrics, so that a table can show them beside the model's
scores. Everything is deterministic.
"""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier

from .metrics import Rows, compute, task_score
from .modeling.problem_types import PROBLEM_TYPES
from .modeling.words import MARKS, WORD
from .paired_intervals import AnsweredRows

# Keeps learning to tag whole documents as quick as learning to tag sentences.
_MAX_TRAIN_WORDS = 200_000


@dataclass
class BaselineTask:
    """A task's rows, whatever the data set called its columns.

    Args:
        name: The task's name.
        problem_type: Says what a row holds: ``text`` and perhaps ``text_pair`` with an int ``label`` (single label),
            a float ``label`` (regression) or ``labels``, the ids that hold (multi label); ``tokens`` with ``tags``,
            their ids, below 0 for a word without one; ``question``, ``context`` and ``answers`` with their ``text``;
            ``text``, ``choices`` and ``label``, the id of the right choice.
        labels: Names of the classes, in the order of their ids; needed for multi label and tags.
        metrics: Names in `METRICS`.
        train: What the predictors learn from.
        validation: What they are scored on.
    """

    name: str
    problem_type: str
    labels: list[str] | None
    metrics: tuple[str, ...]
    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]


def trivial_answers(task: BaselineTask) -> AnsweredRows:
    """Return the best answer that ignores the input, for the validation rows.

    That is the training rows' most frequent class, choice or answer, the set of labels that scores best on them, their
    most frequent tag for every word, or the mean of their numbers.
    """
    return _answers(task, _TRIVIAL_PREDICTORS)


def tfidf_answers(task: BaselineTask, max_rows: int = 10_000) -> AnsweredRows:
    """Return the answers of a linear model over TF-IDF of words and pairs of words (or a tagger's features).

    Args:
        task: The task.
        max_rows: It learns from at most so many training rows, drawn at random but always the same ones; a tagger
            also from at most the first `_MAX_TRAIN_WORDS` words.
    """
    if len(task.train) > max_rows:
        drawn = np.sort(np.random.default_rng(0).permutation(len(task.train))[:max_rows])
        task = replace(task, train=[task.train[row] for row in drawn])
    return _answers(task, _LINEAR_PREDICTORS)


def trivial_scores(task: BaselineTask) -> dict[str, float]:
    """Return the scores of `trivial_answers`, 0-100."""
    return trivial_answers(task).score()


def tfidf_scores(task: BaselineTask, max_rows: int = 10_000) -> dict[str, float]:
    """Return the scores of `tfidf_answers`, 0-100."""
    return tfidf_answers(task, max_rows).score()


def _answers(task: BaselineTask, predictors: Mapping[str, Callable[[BaselineTask], Rows]]) -> AnsweredRows:
    if task.problem_type not in PROBLEM_TYPES:
        raise ValueError(
            f"Task {task.name!r}: unknown problem type {task.problem_type!r}; expected one of {list(PROBLEM_TYPES)}."
        )
    for split, rows in (("training", task.train), ("validation", task.validation)):
        if not rows:
            raise ValueError(f"Task {task.name!r} has no {split} rows; a baseline needs at least one.")
    kind = PROBLEM_TYPES[task.problem_type].labels
    if kind not in predictors:
        raise ValueError(f"Task {task.name!r}: there is no baseline of {task.problem_type}; leave it out.")
    return AnsweredRows(task.metrics, predictors[kind](task), _REFERENCES.get(kind, _labels)(task))


def _labels(task: BaselineTask) -> Rows:
    return [row["label"] for row in task.validation]


def _tag_names(task: BaselineTask) -> Rows:
    names = _label_names(task)
    return [[names[tag] for tag in _tags(row)] for row in task.validation]


# The true answers of the validation rows, as the metrics read them, by kind of labels.
_REFERENCES: dict[str, Callable[[BaselineTask], Rows]] = {
    "label_set": lambda task: _indicators(task, task.validation),
    "tags": _tag_names,
    "answers": lambda task: [row["answers"]["text"] for row in task.validation],
}


def _label_names(task: BaselineTask) -> list[str]:
    if task.labels is None:
        raise ValueError(
            f"Task {task.name!r} ({task.problem_type}) has labels=None; expected the list of their names."
        )
    return task.labels


def _indicators(task: BaselineTask, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return (rows, labels) integers, 1 where the label holds."""
    indicators = np.zeros((len(rows), len(_label_names(task))), dtype=np.int64)
    for place, row in enumerate(rows):
        indicators[place, row["labels"]] = 1
    return indicators


def _most_frequent(values: Iterable[Any]) -> Any:
    """Return the most frequent value; the first seen of several."""
    return Counter(values).most_common(1)[0][0]


def _majority_label(task: BaselineTask) -> Rows:
    return [_most_frequent(row["label"] for row in task.train)] * len(task.validation)


def _mean_label(task: BaselineTask) -> Rows:
    return np.full(len(task.validation), np.mean([row["label"] for row in task.train]))


def _best_label_set(task: BaselineTask) -> Rows:
    """One set of labels for every row: of the most frequent one and the k most frequent labels, for any k, that which
    scores best on the training rows. F1 likes many labels: all of them may be hard to beat.
    """
    true = _indicators(task, task.train)
    order = np.argsort(-true.sum(axis=0), kind="stable")
    candidates = [np.array(_most_frequent(map(tuple, true.tolist())))]
    candidates += [np.isin(np.arange(true.shape[1]), order[:count]).astype(int) for count in range(1, len(order) + 1)]

    def score(labels: np.ndarray) -> float:
        return task_score(compute(task.metrics, np.tile(labels, (len(true), 1)), true))

    return np.tile(max(candidates, key=score), (len(task.validation), 1))


def _majority_tag(task: BaselineTask) -> Rows:
    tag = _label_names(task)[_most_frequent(itertools.chain.from_iterable(map(_tags, task.train)))]
    return [[tag] * len(_tags(row)) for row in task.validation]


def _tags(row: Mapping[str, Any]) -> list[int]:
    """Return the tags of the words that have one."""
    return [tag for tag in row["tags"] if tag >= 0]


def _majority_answer(task: BaselineTask) -> Rows:
    answers = (row["answers"]["text"] for row in task.train)
    return [_most_frequent(texts[0] if texts else "" for texts in answers)] * len(task.validation)


_TRIVIAL_PREDICTORS: dict[str, Callable[[BaselineTask], Rows]] = {
    "class": _majority_label,
    "label_set": _best_label_set,
    "number": _mean_label,
    "tags": _majority_tag,
    "answers": _majority_answer,
    "choice": _majority_label,
}


def _linear_label(task: BaselineTask) -> Rows:
    """Multinomial logistic regression."""
    train, validation = _text_features(task)
    labels = np.array([row["label"] for row in task.train])
    if len(np.unique(labels)) == 1:
        return _majority_label(task)
    return _logistic_regression(train, labels).predict(validation)


def _linear_label_set(task: BaselineTask) -> Rows:
    """A logistic regression per label, at 0.5; a row where none holds gets its best, unless rows may have no label."""
    train, validation = _text_features(task)
    true = _indicators(task, task.train)
    scores = np.column_stack([_probability(train, column, validation) for column in true.T])
    predicted = (scores >= 0.5).astype(np.int64)
    if true.any(axis=1).all():
        none = ~predicted.any(axis=1)
        predicted[none, scores[none].argmax(axis=1)] = 1
    return predicted


def _linear_number(task: BaselineTask) -> Rows:
    """Ridge regression."""
    train, validation = _text_features(task)
    return Ridge(solver="sparse_cg").fit(train, [row["label"] for row in task.train]).predict(validation)


def _linear_choice(task: BaselineTask) -> Rows:
    """Logistic regression of which choice is right, over its TF-IDF and its cosine with the text; the row's best."""
    vectorizer = _vectorizer().fit([text for row in task.train for text in (row["text"], *row["choices"])])
    right = [place == row["label"] for row in task.train for place in range(len(row["choices"]))]
    train, validation = (_choice_features(vectorizer, rows) for rows in (task.train, task.validation))
    scores = _probability(train, np.array(right, dtype=np.int64), validation)
    return _best_of_each(scores, [len(row["choices"]) for row in task.validation])


def _choice_features(vectorizer: TfidfVectorizer, rows: Sequence[Mapping[str, Any]]) -> csr_matrix:
    choices = vectorizer.transform([choice for row in rows for choice in row["choices"]])
    texts = vectorizer.transform([row["text"] for row in rows for _ in row["choices"]])
    return hstack([_cosines(texts, choices)[:, None], choices], format="csr")


def _closest_sentence(task: BaselineTask) -> Rows:
    """The context's sentence closest to the question; nothing is learned but how rare words are in the contexts."""
    sentences = [re.split(r"(?<=[.!?])\s+|\n+", row["context"].strip()) for row in task.validation]
    vectorizer = _vectorizer().fit({sentence for row in sentences for sentence in row})
    questions = vectorizer.transform([row["question"] for row in task.validation])
    sizes = [len(row) for row in sentences]
    flat = vectorizer.transform(itertools.chain.from_iterable(sentences))
    best = _best_of_each(_cosines(questions[np.repeat(np.arange(len(sizes)), sizes)], flat), sizes)
    return [row[place] for row, place in zip(sentences, best)]


def _linear_tags(task: BaselineTask) -> Rows:
    """Logistic regression per tag, by stochastic gradient descent, over a word's form and that of its neighbours."""
    names = _label_names(task)
    words = np.cumsum([len(row["tokens"]) for row in task.train])
    rows = task.train[: max(int(np.searchsorted(words, _MAX_TRAIN_WORDS, side="right")), 1)]
    tags = np.array([tag for row in rows for tag in row["tags"]])
    if len(np.unique(tags[tags >= 0])) == 1:
        return _majority_tag(replace(task, train=rows))
    train, validation = _word_features(rows)[tags >= 0], _word_features(task.validation)
    model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=5, tol=None, random_state=0, average=True)
    predicted = iter(model.fit(train, tags[tags >= 0]).predict(validation))
    answers = [[names[next(predicted)] for _ in row["tokens"]] for row in task.validation]
    return [
        [name for name, tag in zip(names_of_row, row["tags"]) if tag >= 0]
        for names_of_row, row in zip(answers, task.validation)
    ]


_LINEAR_PREDICTORS: dict[str, Callable[[BaselineTask], Rows]] = {
    "class": _linear_label,
    "label_set": _linear_label_set,
    "number": _linear_number,
    "tags": _linear_tags,
    "answers": _closest_sentence,
    "choice": _linear_choice,
}


def _vectorizer() -> TfidfVectorizer:
    # scikit-learn's own pattern drops "I", "5" and "!", divides words at marks, and fails on
    # rows that hold nothing else.
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1, token_pattern=WORD.pattern)


def _text_features(task: BaselineTask) -> tuple[csr_matrix, csr_matrix]:
    """Return the TF-IDF of the training and validation rows' text, for pairs that of both texts and their product."""
    fields = ["text", "text_pair"] if any("text_pair" in row for row in task.train) else ["text"]
    vectorizer = _vectorizer().fit([row.get(field, "") for row in task.train for field in fields])
    features = []
    for rows in (task.train, task.validation):
        texts = [vectorizer.transform([row.get(field, "") for row in rows]) for field in fields]
        features.append(hstack([*texts, texts[0].multiply(texts[-1])], format="csr") if len(texts) > 1 else texts[0])
    return features[0], features[1]


def _logistic_regression(train: csr_matrix, classes: np.ndarray) -> LogisticRegression:
    # The solver learns a row at a time: few rows need many passes, which cost little.
    passes = max(20, 100_000 // len(classes))
    model = LogisticRegression(C=10, solver="saga", max_iter=passes, random_state=0)
    with warnings.catch_warnings():
        # So many passes are enough for a baseline, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(train, classes)


def _probability(train: csr_matrix, holds: np.ndarray, validation: csr_matrix) -> np.ndarray:
    """Return the probability that a label (0 or 1 in training) holds for each validation row."""
    if len(np.unique(holds)) == 1:
        return np.full(validation.shape[0], float(holds[0]))
    return _logistic_regression(train, holds).predict_proba(validation)[:, 1]


def _cosines(first: csr_matrix, second: csr_matrix) -> np.ndarray:
    """Return the cosine of each row of one with the same row of the other; both have rows of length 1, or 0."""
    return np.asarray(first.multiply(second).sum(axis=1)).ravel()


def _best_of_each(scores: np.ndarray, sizes: Sequence[int]) -> list[int]:
    """Return the place of the greatest score in each group; the groups follow one another."""
    return [int(group.argmax()) for group in np.split(scores, np.cumsum(sizes)[:-1])]


def _word_features(rows: Sequence[Mapping[str, Any]]) -> csr_matrix:
    """Return hashed features of each word of all rows: its form, and that of two neighbours on each side."""
    return FeatureHasher(n_features=2**18, input_type="string").transform(
        itertools.chain.from_iterable(_row_features(row["tokens"]) for row in rows)
    )


def _row_features(tokens: Sequence[str]) -> Iterator[list[str]]:
    padded = ["", "", *tokens, "", ""]
    for place, word in enumerate(tokens):
        lower = word.lower()
        features = ["bias", f"word={word}"]
        features += [f"prefix={lower[:size]}" for size in (1, 2, 3)]
        features += [f"suffix={lower[-size:]}" for size in (1, 2, 3)]
        for offset in range(5):
            near = padded[place + offset]
            features += [f"{offset}lower={near.lower()}", f"{offset}shape={_shape(near)}"]
        yield features


@lru_cache(maxsize=100_000)
def _shape(word: str) -> str:
    """Return a word's shape: X, x and 0 for capital letters, small letters and digits, equal neighbours merged.

    A letter's marks are part of it.
    """
    letters = re.sub(rf"[^\W\d_][{MARKS}]*", lambda letter: "X" if letter[0][0].isupper() else "x", word)
    shape = re.sub(r"\d", "0", letters)
    return re.sub(r"(.)\1+", r"\1", shape)


__all__ = ["BaselineTask", "tfidf_answers", "tfidf_scores", "trivial_answers", "trivial_scores"]
