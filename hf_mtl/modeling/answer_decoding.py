"""From scores to answers: probabilities, tagged spans, the best answer spans of a context."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .tag_spans import SpanTags
from .task_config import TaskConfig
from .words import WholeWords

_CANDIDATES = 20


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of a vector of scores."""
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def tag_spans(row: Mapping[str, Any], tags: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the spans that tags mark, as label, text and character offsets (of the text, where it is known).

    Args:
        row: Its ``tokens``, and perhaps their ``text`` and ``word_spans`` in it.
        tags: The tag of each word.
        labels: All tags of the task, which say how they mark spans (`SpanTags`).
    """
    span_tags = SpanTags.of(labels)
    if span_tags is None:
        return []
    words = row["tokens"]
    text = row.get("text") or " ".join(words)
    places = row.get("word_spans") or word_places(words)
    spans = []
    for span in span_tags.spans(tags):
        start, end = places[span.first][0], places[span.last][1]
        spans.append({"label": span.label, "text": text[start:end], "start": start, "end": end})
    return spans


def word_places(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return where each word stands in the words joined by blanks, as (first, past last) characters."""
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return places


def best_spans(
    logits: Sequence[np.ndarray], offsets: Sequence[Sequence[Sequence[int]]], context: str, task: TaskConfig
) -> list[dict[str, Any]]:
    """Return the best answers over all windows of a context, best first.

    A window's tokens that are no context have offsets of -1. An answer is widened to whole words, without blanks and
    invisible characters at its ends; answers that become one keep the best score. "No answer" scores as the first
    token of the window where it scores least, as in SQuAD 2.0.

    Args:
        logits: For each window (length, 2) scores of beginning and end.
        offsets: For each window each token's (first, past last) character in the context.
        context: The text that is searched.
        task: Gives `max_answer_length`, `num_best` and `null_answer`.
    """
    candidates: dict[tuple[int, int], float] = {}
    words = WholeWords(context)
    for scores, places in zip(logits, offsets):
        for span, score in _window_spans(scores, np.asarray(places), words, task):
            candidates[span] = max(score, candidates.get(span, -np.inf))
    if task.null_answer or not candidates:
        candidates[0, 0] = min(float(scores[0].sum()) for scores in logits)
    ranked = sorted(candidates.items(), key=lambda item: (-item[1], item[0]))[: max(task.setting("num_best"), 1)]
    probabilities = softmax(np.array([score for _, score in ranked]))
    return [
        {"answer": context[start:end], "start": start, "end": end, "score": float(probability)}
        for ((start, end), _), probability in zip(ranked, probabilities)
    ]


def _window_spans(
    scores: np.ndarray, places: np.ndarray, words: WholeWords, task: TaskConfig
) -> Iterator[tuple[tuple[int, int], float]]:
    """The candidates of one window, widened to whole words, with their scores; one may come several times."""
    in_context = np.flatnonzero(places[:, 0] >= 0)
    starts = in_context[np.argsort(-scores[in_context, 0], kind="stable")[:_CANDIDATES]]
    ends = in_context[np.argsort(-scores[in_context, 1], kind="stable")[:_CANDIDATES]]
    beginnings = {start: words.beginning(int(places[start, 0])) for start in starts}
    endings = {end: words.ending(int(places[end, 1])) for end in ends}
    for start, first in beginnings.items():
        for end, past in endings.items():
            if start <= end < start + task.setting("max_answer_length") and first < past:
                yield (first, past), float(scores[start, 0] + scores[end, 1])
