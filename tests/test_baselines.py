"""The trivial predictors equal their closed form, the linear ones learn what is planted, and neither warns."""

import random
import warnings
from dataclasses import replace

import numpy as np
import pytest

from hf_mtl import baselines
from hf_mtl.baselines import (
    _LINEAR_PREDICTORS,
    _TRIVIAL_PREDICTORS,
    BaselineTask,
    _shape,
    _vectorizer,
    tfidf_scores,
    trivial_scores,
)
from hf_mtl.data.label_kinds import LABEL_KINDS
from hf_mtl.metrics import METRICS, problem_types_of
from hf_mtl.modeling.problem_types import PROBLEM_TYPES

FILLER = [f"w{number}" for number in range(60)]
KEYWORDS = ["alpha", "beta", "gamma"]
TAGS = ["O", "B-CITY", "I-CITY"]


def filler(generator, words=8):
    return " ".join(generator.choices(FILLER, k=words))


def single_label(generator):
    label = generator.randrange(3)
    return {"text": f"{filler(generator)} {KEYWORDS[label]} {filler(generator)}", "label": label}


def pair(generator):
    """Right when the two texts share their keyword: neither text alone tells."""
    first, second = generator.choice(KEYWORDS), generator.choice(KEYWORDS)
    return {"text": f"{filler(generator, 3)} {first}", "text_pair": second, "label": int(first == second)}


def multi_label(generator):
    labels = [label for label in range(3) if generator.random() < 0.5]
    return {"text": " ".join([filler(generator, 3), *(KEYWORDS[label] for label in labels)]), "labels": labels}


def regression(generator):
    label = generator.randrange(3)
    return {"text": f"{filler(generator, 3)} {KEYWORDS[label]}", "label": float(10 * label + 5)}


def tagged(generator):
    tokens = generator.choices(FILLER, k=10)
    place = generator.randrange(8)
    tokens[place : place + 3] = ["in", "New", generator.choice(["York", "Delhi"])]
    tags = [0] * 10
    tags[place + 1 : place + 3] = [1, 2]
    return {"tokens": tokens, "tags": tags}


def answered(generator):
    sentences = [f"{filler(generator)} {keyword}." for keyword in generator.sample(KEYWORDS, k=3)]
    answer = generator.choice(sentences)
    question = f"Which {answer.split()[-1][:-1]} {answer.split()[0]}?"
    return {
        "question": question,
        "context": " ".join(sentences),
        "answers": {"text": [answer], "answer_start": [" ".join(sentences).index(answer)]},
    }


def choosing(generator):
    """The right choice shares a word with the text; the number of choices varies."""
    label = generator.randrange(3)
    words = generator.sample(FILLER, k=5)
    choices = [f"{word} end" for word in words[: generator.randrange(3, 5)]]
    return {"text": f"{words[label]} begin", "choices": choices, "label": label}


ROWS = {
    "single_label_classification": single_label,
    "multi_label_classification": multi_label,
    "regression": regression,
    "token_classification": tagged,
    "question_answering": answered,
    "multiple_choice": choosing,
}
LABELS = {"multi_label_classification": KEYWORDS, "token_classification": TAGS}


def make_task(problem_type, make_row=None, rows=300):
    generator = random.Random(0)
    make_row = make_row or ROWS[problem_type]
    return BaselineTask(
        name="planted",
        problem_type=problem_type,
        labels=LABELS.get(problem_type),
        metrics=PROBLEM_TYPES[problem_type].metrics,
        train=[make_row(generator) for _ in range(rows)],
        validation=[make_row(generator) for _ in range(100)],
    )


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_both_tables_know_every_kind_of_labels():
    learned = {name for name, kind in LABEL_KINDS.items() if kind.baseline_field is not None}
    assert set(_TRIVIAL_PREDICTORS) == set(_LINEAR_PREDICTORS) == learned == set(LABEL_KINDS) - {"pieces"}
    assert set(ROWS) == {name for name, row in PROBLEM_TYPES.items() if row.labels in learned}


def test_a_problem_type_without_baseline_is_named():
    row = {"text": "a", "label": "a"}
    task = BaselineTask("words", "masked_language_modeling", None, ("masked_accuracy",), [row], [row])
    with pytest.raises(ValueError, match="'words': there is no baseline of masked_language_modeling"):
        trivial_scores(task)


@pytest.mark.parametrize("problem_type", ROWS)
def test_planted_keywords_are_learned(problem_type):
    task = make_task(problem_type)
    trivial, linear = trivial_scores(task), tfidf_scores(task)
    assert list(trivial) == list(linear) == list(task.metrics)
    assert min(linear.values()) > 90
    assert all(linear[name] > trivial[name] + 10 for name in linear)


def test_pairs_are_compared():
    task = make_task("single_label_classification", pair, rows=600)
    assert tfidf_scores(task)["accuracy"] > 95
    without = replace(task, train=[{key: row[key] for key in ("text", "label")} for row in task.train])
    assert tfidf_scores(without)["accuracy"] < 80


@pytest.mark.parametrize("problem_type", ROWS)
def test_scores_are_the_same_every_time(problem_type):
    task = make_task(problem_type, rows=60)
    assert tfidf_scores(task) == tfidf_scores(task)
    assert tfidf_scores(task, max_rows=30) == tfidf_scores(task, max_rows=30)


@pytest.mark.parametrize("problem_type", ROWS)
def test_all_metrics_of_the_problem_type_can_be_asked_for(problem_type):
    names = [name for name in METRICS if problem_type in problem_types_of(name) and name != "f1"]
    task = replace(make_task(problem_type, rows=60), metrics=tuple(names))
    assert list(trivial_scores(task)) == list(tfidf_scores(task)) == names


@pytest.mark.parametrize("problem_type", ROWS)
def test_one_training_row_is_enough(problem_type):
    task = make_task(problem_type, rows=1)
    assert np.isfinite([*trivial_scores(task).values(), *tfidf_scores(task).values()]).all()


def test_max_rows_bounds_what_is_learned_from():
    task = make_task("single_label_classification")
    seen = []

    def predictor(task):
        seen.append(task.train)
        return [0] * len(task.validation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_LINEAR_PREDICTORS, "class", predictor)
        tfidf_scores(task, max_rows=50)
        tfidf_scores(task, max_rows=300)
    assert len(seen[0]) == 50 and all(row in task.train for row in seen[0]) and seen[0] != task.train[:50]
    assert seen[1] == task.train


def test_taggers_learn_from_a_bounded_number_of_words(monkeypatch):
    task = make_task("token_classification")
    monkeypatch.setattr(baselines, "_MAX_TRAIN_WORDS", 25)
    few = tfidf_scores(task)
    assert few == tfidf_scores(replace(task, train=task.train[:2]))


def test_trivial_class_is_the_most_frequent_of_training():
    task = make_task("single_label_classification")
    task.train = [{"text": "x", "label": label} for label in (2, 1, 1, 0)]
    share = np.mean([row["label"] == 1 for row in task.validation])
    assert trivial_scores(task)["accuracy"] == pytest.approx(100 * share)


def test_trivial_choice_is_the_most_frequent_place():
    task = make_task("multiple_choice")
    task.train = [{"text": "x", "choices": ["a", "b"], "label": label} for label in (1, 1, 0)]
    share = np.mean([row["label"] == 1 for row in task.validation])
    assert trivial_scores(task)["accuracy"] == pytest.approx(100 * share)


def test_trivial_label_set_is_that_which_scores_best_on_the_training_rows():
    train = [{"text": "x", "labels": labels} for labels in ([0, 1], [2, 0], [1], [0, 2])]
    validation = [{"text": "x", "labels": [0]}, {"text": "x", "labels": [0, 1, 2]}]
    task = BaselineTask("t", "multi_label_classification", KEYWORDS[:3], ("f1_micro",), train, validation)
    # Of training 7 labels hold: all three have F1 2 * 7 / (12 + 7) = 74 %, {0, 2} 2 * 5 / (8 + 7) = 67 %, {0} 55 %.
    # On the validation rows 4 of the 6 predicted labels hold, and all that hold are predicted.
    assert trivial_scores(task)["f1_micro"] == pytest.approx(80)
    rare = [{"text": "x", "labels": labels} for labels in ([0], [0], [0], [1])]
    task = replace(task, train=rare, validation=rare)
    assert trivial_scores(task)["f1_micro"] == pytest.approx(75)


def test_trivial_number_is_the_mean_of_training():
    task = replace(make_task("regression"), metrics=("rmse", "pearson", "spearman"))
    mean = np.mean([row["label"] for row in task.train])
    expected = np.sqrt(np.mean([(row["label"] - mean) ** 2 for row in task.validation]))
    assert trivial_scores(task) == pytest.approx({"rmse": expected, "pearson": 0, "spearman": 0})


def test_trivial_tag_stands_everywhere():
    task = replace(make_task("token_classification"), metrics=("token_accuracy", "span_f1"))
    assert trivial_scores(task) == pytest.approx({"token_accuracy": 80, "span_f1": 0})


@pytest.mark.parametrize(("texts", "score"), [(["Paris", "Rome", "Paris"], 50), ([None, None, "Rome"], 25)])
def test_trivial_answer_is_the_most_frequent_first_answer(texts, score):
    def rows(answers):
        accepted = [{"text": [text] if text else [], "answer_start": [0] if text else []} for text in answers]
        return [{"question": "Where?", "context": "Paris. Rome.", "answers": answers} for answers in accepted]

    validation = rows(["Paris", "Paris", "Rome", None])
    task = BaselineTask("t", "question_answering", None, ("exact_match",), rows(texts), validation)
    assert trivial_scores(task)["exact_match"] == score


def test_rows_without_a_label_stay_so_where_training_has_such_rows():
    train = [{"text": word, "labels": labels} for word, labels in (("alpha", [0]), ("beta", [1]), ("none", []))] * 20
    validation = [{"text": "none", "labels": []}, {"text": "alpha", "labels": [0]}]
    task = BaselineTask("t", "multi_label_classification", KEYWORDS, ("f1_micro",), train, validation)
    assert tfidf_scores(task)["f1_micro"] == 100


def test_a_row_gets_its_best_label_where_every_training_row_has_one():
    train = [{"text": word, "labels": [label]} for label, word in enumerate(KEYWORDS)] * 20
    validation = [{"text": "unheard", "labels": [label]} for label in range(3)]
    task = BaselineTask("t", "multi_label_classification", KEYWORDS, ("f1_micro",), train, validation)
    # One label for each row, the same one; were none predicted, the score would be 0.
    assert tfidf_scores(task)["f1_micro"] == pytest.approx(100 / 3)


def test_words_of_one_letter_are_features():
    rows = [{"text": text, "label": label} for label, text in enumerate(["I", "5", "!"])] * 5
    task = BaselineTask("t", "single_label_classification", None, ("accuracy",), rows, rows)
    assert tfidf_scores(task)["accuracy"] == 100


def test_words_are_whole_where_only_a_vowel_sign_differs():
    vectorizer = _vectorizer().fit(["दिन दीन", "مَطَرٌ cafe\u0301"])
    words = {word for word in vectorizer.get_feature_names_out() if " " not in word}
    assert words == {"दिन", "दीन", "مَطَرٌ", "cafe\u0301"}
    assert _shape("दिल्ली") == _shape("cafe\u0301s") == "x" and _shape("E\u0301ric-5") == "Xx-0"


def test_an_empty_context_has_an_empty_answer():
    task = make_task("question_answering")
    task.validation = [*task.validation, {"question": "Who?", "context": "", "answers": {"text": []}}]
    assert tfidf_scores(task)["exact_match"] > 90


@pytest.mark.parametrize("scores", [trivial_scores, tfidf_scores])
def test_what_cannot_be_scored_is_refused(scores):
    task = make_task("single_label_classification", rows=10)
    with pytest.raises(ValueError, match="'planted' has no training rows"):
        scores(replace(task, train=[]))
    with pytest.raises(ValueError, match="'planted' has no validation rows"):
        scores(replace(task, validation=[]))
    with pytest.raises(ValueError, match="unknown problem type 'ranking'; expected one of"):
        scores(replace(task, problem_type="ranking"))
    with pytest.raises(ValueError, match="labels=None"):
        scores(replace(make_task("token_classification", rows=10), labels=None))
