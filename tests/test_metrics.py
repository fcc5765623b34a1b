"""Each metric equals the reference implementation of its definition; what cannot be scored is refused."""

import collections
import re
import string

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from hf_mtl.metrics import METRICS, check_metrics, compute, problem_types_of, task_score
from hf_mtl.modeling.problem_types import PROBLEM_TYPES

SEEDS = range(20)
PERFECT = {
    "single_label_classification": [0, 1, 1, 0],
    "multi_label_classification": [[1, 0], [1, 1], [0, 1]],
    "regression": [0.5, -1.0, 2.0],
    "token_classification": [["B-X", "I-X", "O"], ["O", "B-Y"]],
    "question_answering": ["Paris", ""],
    "multiple_choice": [3, 0],
    "masked_language_modeling": [[7, 3], [], [5]],
}
WORDS = ["the", "a", "an", "The", "cat", "Cat,", "cat's", "theatre", "dog.", "(dog)", "--", "été", " ", "\n", "2.5"]


def score(name, predictions, references):
    return METRICS[name].function(predictions, references)


def as_reference(problem_type, row):
    """The reference that a prediction answers perfectly."""
    if problem_type == "question_answering":
        return [row] if row else []
    return row


def cases():
    return [(name, problem_type) for name in METRICS for problem_type in problem_types_of(name)]


def random_ids(seed, classes):
    generator = np.random.default_rng(seed)
    true = generator.integers(classes, size=40)
    return np.where(generator.random(40) < 0.5, true, generator.integers(classes, size=40)), true


def random_indicators(seed, rows=30, labels=5):
    generator = np.random.default_rng(seed)
    return generator.integers(2, size=(2, rows, labels)) * (generator.random((2, 1, labels)) < 0.8)


def random_numbers(seed):
    """Numbers with ties."""
    generator = np.random.default_rng(seed)
    true = generator.normal(size=50).round(1)
    return (true + generator.normal(size=50)).round(1), true


def random_answers(seed):
    generator = np.random.default_rng(seed)

    def answer():
        return " ".join(generator.choice(WORDS, size=generator.integers(0, 4)))

    return [answer() for _ in range(40)], [[answer() for _ in range(generator.integers(0, 4))] for _ in range(40)]


def random_tags(seed, alphabet=("O", "B-A", "I-A", "B-B", "I-B")):
    generator = np.random.default_rng(seed)
    true = [[str(tag) for tag in generator.choice(alphabet, size=generator.integers(1, 12))] for _ in range(10)]
    predicted = [[str(generator.choice(alphabet)) if generator.random() < 0.4 else tag for tag in row] for row in true]
    return predicted, true


def random_pieces(seed):
    """Pieces at masked places, and true ones; some rows have none."""
    generator = np.random.default_rng(seed)
    true = [generator.integers(3, size=generator.integers(0, 5)).tolist() for _ in range(20)]
    return [[int(generator.integers(3)) for _ in row] for row in true], true


def given_rows(name, problem_type, seed):
    """Rows of a metric: chosen ones, or the probabilities of the true ones."""
    predicted, true = random_rows(problem_type, seed)
    if name == "perplexity":
        predicted = [np.random.default_rng(seed).random(len(row)).tolist() for row in true]
    return predicted, true


def random_rows(problem_type, seed):
    if problem_type == "multi_label_classification":
        return tuple(random_indicators(seed))
    return {
        "regression": random_numbers,
        "token_classification": random_tags,
        "question_answering": random_answers,
        "masked_language_modeling": random_pieces,
    }.get(problem_type, lambda seed: random_ids(seed, classes=2))(seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("classes", [2, 5])
def test_class_metrics_equal_sklearn(seed, classes):
    predicted, true = random_ids(seed, classes)
    assert score("accuracy", predicted, true) == pytest.approx(100 * sklearn_metrics.accuracy_score(true, predicted))
    for average in ("macro", "micro"):
        expected = 100 * sklearn_metrics.f1_score(true, predicted, average=average, zero_division=0)
        assert score(f"f1_{average}", predicted, true) == pytest.approx(expected)
    expected = 100 * sklearn_metrics.matthews_corrcoef(true, predicted)
    assert score("matthews_correlation", predicted, true) == pytest.approx(expected)
    if classes == 2:
        assert score("f1", predicted, true) == pytest.approx(100 * sklearn_metrics.f1_score(true, predicted))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("average", ["macro", "micro"])
def test_multi_label_f1_equals_sklearn(seed, average):
    predicted, true = random_indicators(seed)
    expected = 100 * sklearn_metrics.f1_score(true, predicted, average=average, zero_division=0)
    assert score(f"f1_{average}", predicted, true) == pytest.approx(expected)
    assert score(f"f1_{average}", predicted.tolist(), true.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_auc_equals_sklearn(seed):
    generator = np.random.default_rng(seed)
    true = generator.integers(2, size=(60, 4))
    true[0], true[1] = 0, 1
    scores = (generator.normal(size=(60, 4)) + true).round(1)
    for label in range(4):
        expected = 100 * sklearn_metrics.roc_auc_score(true[:, label], scores[:, label])
        assert score("auc", scores[:, label], true[:, label]) == pytest.approx(expected)
    assert score("auc", scores, true) == pytest.approx(100 * sklearn_metrics.roc_auc_score(true, scores))
    assert score("auc", scores[:, 0], np.ones(60)) == 50
    assert (
        compute(["auc"], true[:, 0], true[:, 0], scores[:, 0])["auc"] < compute(["auc"], true[:, 0], true[:, 0])["auc"]
    )
    with pytest.raises(ValueError, match="classes 0 and 1"):
        score("auc", scores[:, 0], np.arange(60) % 3)
    classes = np.arange(60) % 4
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = sklearn_metrics.roc_auc_score(classes, probabilities, multi_class="ovr", average="macro")
    assert score("auc", probabilities, classes) == pytest.approx(100 * expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_regression_metrics_equal_scipy(seed):
    predicted, true = random_numbers(seed)
    assert score("pearson", predicted, true) == pytest.approx(100 * stats.pearsonr(predicted, true).statistic)
    assert score("spearman", predicted, true) == pytest.approx(100 * stats.spearmanr(predicted, true).statistic)
    assert score("rmse", predicted, true) == pytest.approx(sklearn_metrics.root_mean_squared_error(true, predicted))


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e9])
def test_a_constant_correlates_with_nothing(name, constant):
    true = [0.1, 0.2, 0.7]
    assert score(name, [constant] * 3, true) == 0.0
    assert score(name, true, [constant] * 3) == 0.0
    assert score(name, [constant], [1.0]) == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearman", "rmse"])
def test_nan_predictions_do_not_get_a_score(name):
    assert np.isnan(score(name, [1.0, float("nan"), 3.0], [1.0, 2.0, 3.0]))


def test_infinite_predictions_have_ranks_but_no_linear_correlation():
    assert np.isnan(score("pearson", [1.0, float("inf"), 3.0], [1.0, 4.0, 3.0]))
    assert score("spearman", [1.0, float("inf"), 3.0], [1.0, 4.0, 3.0]) == pytest.approx(100)


def test_matthews_correlation_of_a_constant_is_zero_and_of_the_opposite_minus_100():
    assert score("matthews_correlation", [1, 1, 1], [0, 1, 1]) == 0.0
    assert score("matthews_correlation", [1, 1, 0, 0], [0, 0, 1, 1]) == pytest.approx(-100)


def test_low_precision_numbers_are_scored_in_full_precision():
    true = np.linspace(200, 300, 1000)
    expected = score("pearson", true.astype(np.float16).astype(np.float64), true)
    assert score("pearson", true.astype(np.float16), true) == pytest.approx(expected)


def test_span_f1_equals_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics", reason="the oracle `seqeval` is not installed")
    for alphabet in (("O", "B-A", "I-A", "B-B", "I-B"), ("O", "I-A", "I-B", "B-A"), ("O", "B", "I", "B-A", "I-A")):
        for seed in SEEDS:
            predicted, true = random_tags(seed, alphabet)
            assert score("span_f1", predicted, true) == pytest.approx(100 * seqeval.f1_score(true, predicted))


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        # The two examples in seqeval's own documentation.
        ("O O B-M I-M I-M I-M O | B-P I-P O", "O O O B-M I-M I-M O | B-P I-P O", 50),
        ("O O B-M I-M B-M I-M O | B-P I-P O", "O O B-M I-M B-M O O | B-P I-P O", 200 / 3),
        ("I-A I-A O", "B-A I-A O", 100),  # I- without B- begins a span
        ("O I-A I-A", "O B-A I-A", 100),
        ("B-A I-B", "B-A B-B", 100),  # I- of another type begins a span
        ("I-A I-B", "B-A B-B", 100),
        ("B-A B-A", "B-A I-A", 0),  # B- always begins a span
        ("B-A I-A", "I-A I-A", 100),
        ("I-A O I-A", "I-A I-A I-A", 0),
        ("B-A I-A I-A", "B-A I-A O", 0),  # a part of a span is not right
        ("B-A O", "B-B O", 0),  # nor is another type
        ("O O", "O O", 0),
        ("B-A O", "O O", 0),
        ("B-A | I-A", "B-A | B-A", 100),  # no span crosses rows
        ("O B-A I-A", "O B-A I-A", 100),
        ("S-A B-B E-B", "B-A B-B I-B", 100),
        ("B-A-X I-A-X", "B-A-X I-A-Y", 0),
    ],
)
def test_span_f1_worked_by_hand(predicted, true, expected):
    rows = [[row.split() for row in text.split(" | ")] for text in (predicted, true)]
    assert score("span_f1", *rows) == pytest.approx(expected)
    assert score("span_f1", *reversed(rows)) == pytest.approx(expected)


def test_span_f1_refuses_tags_of_no_spans():
    with pytest.raises(ValueError, match="'NN'.*token_accuracy"):
        score("span_f1", [["NN"]], [["NN"]])


def test_token_accuracy_counts_words_not_rows():
    assert score("token_accuracy", [["A"], ["A", "B", "C"]], [["B"], ["A", "B", "C"]]) == 75


@pytest.mark.parametrize("name", ["token_accuracy", "span_f1"])
def test_rows_of_tags_have_the_same_length(name):
    with pytest.raises(ValueError, match="Row 1: found 2 predicted tags; expected 1"):
        score(name, [["O"], ["O", "O"]], [["O"], ["O"]])


def official_normalise(text):
    """As the script of SQuAD writes it."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def official_scores(prediction, accepted):
    """(exact, f1), 0 or 1 and 0 to 1, as the script of SQuAD 2.0 computes them."""
    accepted = [answer for answer in accepted if official_normalise(answer)] or [""]
    exact, f1 = 0, 0.0
    for answer in accepted:
        gold, given = official_normalise(answer).split(), official_normalise(prediction).split()
        exact = max(exact, int(official_normalise(answer) == official_normalise(prediction)))
        same = sum((collections.Counter(gold) & collections.Counter(given)).values())
        if not gold or not given:
            f1 = max(f1, float(gold == given))
        elif same:
            precision, recall = same / len(given), same / len(gold)
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return exact, f1


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_are_scored_as_the_squad_script_does(seed):
    predicted, accepted = random_answers(seed)
    expected = np.mean([official_scores(*row) for row in zip(predicted, accepted)], axis=0) * 100
    assert [score("exact_match", predicted, accepted), score("squad_f1", predicted, accepted)] == pytest.approx(
        list(expected)
    )


def test_no_answer_is_right_only_when_nothing_is_answered():
    assert compute(["exact_match", "squad_f1"], ["", "Paris"], [[], []]) == {"exact_match": 50, "squad_f1": 50}
    assert compute(["exact_match", "squad_f1"], ["", ""], [["Paris"], ["the"]]) == {"exact_match": 50, "squad_f1": 50}


def test_an_accepted_answer_that_is_no_list_is_refused():
    with pytest.raises(ValueError, match=r"expected the list of accepted answers, \['Paris'\]"):
        score("exact_match", ["Paris"], ["Paris"])


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_pieces_are_scored_one_by_one(seed):
    predicted, true = random_pieces(seed)
    pairs = [pair for row in zip(predicted, true) for pair in zip(*row)]
    assert score("masked_accuracy", predicted, true) == pytest.approx(100 * np.mean([a == b for a, b in pairs]))
    given, _ = given_rows("perplexity", "masked_language_modeling", seed)
    flat = [value for row in given for value in row]
    assert score("perplexity", given, true) == pytest.approx(1 / np.prod(flat) ** (1 / len(flat)))


@pytest.mark.parametrize("name", ["masked_accuracy", "perplexity"])
def test_masked_pieces_that_do_not_fit_are_refused(name):
    for given, true in (([[1.0]], [[]]), ([[]], [[]]), ([[1.0, 1.0]], [[1]])):
        with pytest.raises(ValueError, match="as it has masked word pieces"):
            score(name, given, true)
    for wrong in (-0.1, 3):
        with pytest.raises(ValueError, match="the probability of the true word piece"):
            score("perplexity", [[wrong]], [[1]])


@pytest.mark.parametrize(("name", "problem_type"), cases())
def test_perfect_is_100(name, problem_type):
    rows = PERFECT[problem_type]
    given = [[1.0] * len(row) for row in rows] if name == "perplexity" else rows
    found = compute([name], given, [as_reference(problem_type, row) for row in rows])[name]
    assert found == pytest.approx({"rmse": 0, "perplexity": 1}.get(name, 100))


@pytest.mark.parametrize(("name", "problem_type"), cases())
def test_the_order_of_rows_does_not_matter_and_scores_stay_in_range(name, problem_type):
    for seed in SEEDS:
        predicted, true = given_rows(name, problem_type, seed)
        order = np.random.default_rng(seed).permutation(len(true))
        found = compute([name], predicted, true)[name]
        shuffled = compute([name], [predicted[row] for row in order], [true[row] for row in order])[name]
        assert found == pytest.approx(shuffled)
        if METRICS[name].higher_is_better:
            assert -100 <= found <= 100
        assert type(found) is float


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_refuses_no_rows_and_different_numbers_of_rows(name):
    with pytest.raises(ValueError, match="0 predictions for 0 references"):
        compute([name], [], [])
    rows = PERFECT[problem_types_of(name)[0]]
    with pytest.raises(ValueError, match=f"{len(rows) - 1} predictions for {len(rows)} references"):
        compute([name], rows[1:], rows)


@pytest.mark.parametrize("predictions", [[0.2, 0.9], [[0.1, 0.9], [0.8, 0.2]], ["0", "1"]])
def test_scores_and_names_are_no_class_ids(predictions):
    with pytest.raises(ValueError, match="int64"):
        compute(["accuracy"], predictions, [0, 1])


def test_a_column_of_predictions_is_not_spread_over_a_row_of_references():
    with pytest.raises(ValueError, match=r"\(3, 1\)"):
        compute(["pearson"], np.ones((3, 1)), np.ones(3))


def test_f1_is_for_two_classes_and_indicators_for_zeros_and_ones():
    with pytest.raises(ValueError, match="f1_macro"):
        score("f1", [0, 2], [0, 1])
    with pytest.raises(ValueError, match=r"\[0, 1, 2\]"):
        score("f1_micro", [[0, 2]], [[0, 1]])


def test_the_table_of_metrics_is_in_order():
    assert all(name == metric.name and metric.description for name, metric in METRICS.items())
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["rmse", "perplexity"]
    for problem_type, row in PROBLEM_TYPES.items():
        check_metrics("task", problem_type, row.metrics)
    assert {problem_type for name in METRICS for problem_type in problem_types_of(name)} == {*PROBLEM_TYPES}


@pytest.mark.parametrize(
    ("problem_type", "names", "message"),
    [
        (
            "single_label_classification",
            ["f1_marco"],
            "Task 'mood': unknown metric 'f1_marco'.*Did you mean 'f1_macro'",
        ),
        ("single_label_classification", ["zzz"], r"unknown metric 'zzz'; expected some of \['accuracy', 'f1'"),
        ("regression", ["pearson", "accuracy"], "'accuracy' scores single_label_classification and multiple_choice;"),
        ("regression", ["rmse"], r"Add one of \['pearson', 'spearman'\]"),
        ("regression", [], "Add one of"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(problem_type, names, message):
    with pytest.raises(ValueError, match=message):
        check_metrics("mood", problem_type, names)


def test_metrics_that_fit_are_accepted():
    check_metrics("mood", "regression", ("rmse", "pearson"))
    check_metrics("mood", "multi_label_classification", ["f1_macro"])


def test_task_score_is_the_mean_of_the_scores_where_higher_is_better():
    assert task_score({"accuracy": 80.0, "f1": 90.0}) == 85
    assert task_score({"pearson": 80.0, "rmse": 3.0}) == 80
    with pytest.raises(ValueError, match="higher is better"):
        task_score({"rmse": 3.0})


class TestEvaluateMetric:
    """The wrappers, where `evaluate` is installed."""

    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("evaluate", reason="the optional package `evaluate` is not installed")
        from hf_mtl.evaluate_metric import as_evaluate_metric

        self.as_evaluate_metric = as_evaluate_metric

    @pytest.mark.parametrize(("name", "problem_type"), cases())
    def test_it_equals_the_function(self, name, problem_type):
        predicted, true = given_rows(name, problem_type, seed=0)
        metric = self.as_evaluate_metric(name)
        for rows in (slice(0, 5), slice(5, None)):
            metric.add_batch(predictions=predicted[rows], references=true[rows])
        assert metric.compute() == pytest.approx(compute([name], predicted, true))
        assert metric.compute(predictions=predicted, references=true) == pytest.approx(
            compute([name], predicted, true)
        )

    def test_they_combine(self):
        import evaluate

        combined = evaluate.combine([self.as_evaluate_metric("accuracy"), self.as_evaluate_metric("f1")])
        combined.add_batch(predictions=[1, 0, 1, 0], references=[1, 1, 1, 0])
        assert combined.compute() == pytest.approx({"accuracy": 75, "f1": 80})

    def test_fractions_are_not_truncated_to_ids(self):
        with pytest.raises(ValueError, match="found 1.7"):
            self.as_evaluate_metric("accuracy").compute(predictions=[1.7, 0.0], references=[1, 0])

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="Unknown metric 'acc'; expected one of"):
            self.as_evaluate_metric("acc")
