"""The table of systems: it runs what is missing, computes what it says, and says what was planted."""

import dataclasses
import json
import math
from concurrent.futures import Future

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from scipy import stats
from sklearn.metrics import matthews_corrcoef
from transformers import BertModel

from benchmarks.systems_table.comparison import as_json, compare, statement
from benchmarks.systems_table.data import DATASETS, Budget, draw_rows
from benchmarks.systems_table.differences import difference, pseudovalues, row_variance
from benchmarks.systems_table.folder import Folder, planned, run_missing
from benchmarks.systems_table.page import lines_of, notes, write_page
from benchmarks.systems_table.runs import BASELINE, Result, Run, TaskAnswers, budget_of, settings_of, train
from docs import make_systems
from hf_mtl import InputError, TaskSpec
from hf_mtl.data.mixture import mixture_from_datasets
from hf_mtl.modeling.encoder_loading import load_encoder
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.paired_intervals import holm
from tests.conftest import encoder_config

SYSTEM = "mmoe"
BUDGETS = {name: budget_of(dataset.budget, "tiny") for name, dataset in DATASETS.items()}


def result(system: str, seed: int, right: float = 0.7, rows: int = 200, shared: int = 0, **values) -> Result:
    """A run that answers a share of the rows of two tasks right, each row as hard as it is for all seeds."""
    tasks = {}
    for task in ("first", "second"):
        hardness = np.random.default_rng(len(task)).random(rows)
        luck = np.random.default_rng([seed, shared, len(task)]).normal(0, 0.03, rows)
        true = np.arange(rows) % 2
        predicted = np.where(hardness + luck < right, true, 1 - true)
        tasks[task] = TaskAnswers(["accuracy"], predicted.tolist(), true.tolist())
    given = {"training_seconds": 10.0, "scoring_seconds": 2.0, "tasks": tasks, **values}
    return Result(Run("glue_small", system, seed), settings_of(system), BUDGETS["glue_small"], **given)


class Starter:
    """Begins runs that end at once, and remembers which."""

    def __init__(self, raising=()):
        self.begun, self.raising = [], raising

    def __call__(self, run):
        self.begun.append(run)
        future = Future()
        if run in self.raising:
            future.set_exception(ValueError("no"))
        else:
            future.set_result(dataclasses.replace(result(run.system, run.seed), run=run))
        return future


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "runs", BUDGETS)


def test_only_what_is_missing_runs(folder):
    first, second = planned(["glue_small"], [SYSTEM], 1), planned(["glue_small", "fdu_mtl"], [SYSTEM, "cgc"], 2)
    assert first == [Run("glue_small", BASELINE, 1), Run("glue_small", SYSTEM, 1)]
    begun = Starter()
    run_missing(first, folder, begun, workers=2)
    assert begun.begun == first
    # A run that was killed while it was written is missing.
    folder.place(Run("glue_small", "cgc", 1)).with_suffix(".unfinished").write_text("{")
    again = Starter()
    outcome = run_missing(second, folder, again, workers=2)
    assert again.begun == [run for run in second if run not in first]
    assert not outcome.left and not outcome.failures
    assert all(folder.read(run) is not None for run in second)
    run_missing(second, folder, third := Starter(), workers=2)
    assert not third.begun


def test_a_finished_run_is_read_as_it_was_written(folder):
    written = result(SYSTEM, 3)
    folder.write(written)
    assert folder.read(written.run) == written


def test_no_run_begins_after_its_time(folder):
    runs = planned(["glue_small"], [SYSTEM], 1)
    outcome = run_missing(runs, folder, begun := Starter(), workers=1, minutes=0)
    assert outcome.left == runs and not begun.begun


def test_a_run_that_raises_leaves_the_others(folder):
    runs = planned(["glue_small"], [SYSTEM, "cgc"], 1)
    outcome = run_missing(runs, folder, Starter(raising=runs[1:2]), workers=1)
    assert list(outcome.failures) == runs[1:2]
    assert [folder.read(run) is None for run in runs] == [False, True, False]


def test_runs_of_another_budget_or_system_are_not_read_for_this_one(folder):
    run = result(SYSTEM, 1).run
    folder.write(result(SYSTEM, 1))
    other = Folder(folder.path, {**BUDGETS, "glue_small": {**BUDGETS["glue_small"], "steps": 1}})
    with pytest.raises(InputError, match="another budget.*choose another --output"):
        other.read(run)
    values = json.loads(folder.place(run).read_text())
    folder.place(run).write_text(json.dumps({**values, "settings": {"pooling": "mean"}}))
    assert folder.read(run) is None


# Statistics.


def test_pseudovalues_of_accuracy_are_the_rows_and_of_another_metric_the_jackknife():
    predicted, true = [1, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 0]
    np.testing.assert_allclose(pseudovalues(["accuracy"], predicted, true), [100, 100, 0, 100, 0, 100], atol=1e-9)
    values = pseudovalues(["matthews_correlation"], predicted, true)
    for row, value in enumerate(values):
        kept = [other for other in range(6) if other != row]
        without = matthews_corrcoef([true[other] for other in kept], [predicted[other] for other in kept])
        assert value == pytest.approx(100 * (6 * matthews_corrcoef(true, predicted) - 5 * without))


def test_a_difference_is_that_of_a_hand_computation():
    """Two tasks of two and three rows, three seeds; in loops."""
    rng = np.random.default_rng(0)
    values = [rng.normal(1, 1, (3, rows)) for rows in (20, 30)]
    scores = np.stack([one.mean(axis=1) for one in values], axis=1)
    by_seed = [sum(scores[seed]) / 2 for seed in range(3)]
    mean = sum(by_seed) / 3
    of_seeds = sum((one - mean) ** 2 for one in by_seed) / 2 / 3
    of_rows = 0.0
    for one in values:
        rows = one.shape[1]
        total = sum(one[seed][row] for seed in range(3) for row in range(rows)) / (3 * rows)
        row_means = [sum(one[seed][row] for seed in range(3)) / 3 for row in range(rows)]
        seed_means = [sum(one[seed]) / rows for seed in range(3)]
        row_square = 3 * sum((row_mean - total) ** 2 for row_mean in row_means) / (rows - 1)
        rest = [one[seed][row] - row_means[row] - seed_means[seed] + total for seed in range(3) for row in range(rows)]
        rest_square = sum(left**2 for left in rest) / (2 * (rows - 1))
        of_rows += (row_square - rest_square) / (3 * rows) / 4
    variance = of_seeds + max(of_rows, 0.0)
    freedom = 2 * (variance / of_seeds) ** 2
    far = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    expected = (mean, mean - far, mean + far, 2 * stats.t.sf(abs(mean) / math.sqrt(variance), freedom))
    assert difference(scores, np.zeros_like(scores), values) == pytest.approx(expected)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Seeds, rows and their meetings all vary, and the true difference is 0."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        values = 1.0 * rng.normal(size=(3, 1)) * 0.1 + rng.normal(size=(1, 100)) + rng.normal(size=(3, 100))
        one = difference(values.mean(axis=1, keepdims=True), np.zeros((3, 1)), [values])
        inside.append(one.low < 0 < one.high)
    assert 0.93 < np.mean(inside) <= 1.0


def test_rows_that_vary_alike_for_all_seeds_are_what_rows_vary():
    rows = np.random.default_rng(0).normal(size=(1, 50))
    assert row_variance(np.repeat(rows, 3, axis=0)) == pytest.approx(rows.var(ddof=1) / 50)


def test_one_seed_has_no_interval_and_equal_answers_no_difference():
    one = difference(np.ones((1, 2)), np.zeros((1, 2)), [np.ones((1, 5))] * 2)
    assert one.mean == 1 and math.isnan(one.low) and math.isnan(one.p)
    same = difference(np.ones((3, 2)), np.ones((3, 2)), [np.zeros((3, 5))] * 2)
    assert same == (0, 0, 0, 1)


def test_holm_is_that_of_a_hand_computation():
    corrected = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.9})
    assert corrected == pytest.approx({"a": 0.09, "b": 0.04, "c": 0.09, "d": 0.9})


# Words.


def table_of(shares: dict[str, float], seeds: int = 3, systems=(BASELINE, SYSTEM, "cgc"), **values):
    """A table in which a system answers a share of the rows right."""
    results = [
        result(system, seed, right, shared=place, **values)
        for seed in range(1, seeds + 1)
        for place, (system, right) in enumerate(shares.items())
    ]
    return compare("glue_small", results, list(systems))


@pytest.mark.parametrize(
    ("right", "kind"), [(0.95, "better than hard sharing"), (0.45, "worse than hard sharing"), (0.7, "not told apart")]
)
def test_words_follow_a_planted_difference(right, kind):
    table = table_of({BASELINE: 0.7, SYSTEM: right, "cgc": 0.7})
    parts = statement(table).split(";")
    assert "corrected for 2 comparisons" in parts[0]
    naming = [part for part in parts if f"`{SYSTEM}`" in part]
    assert len(naming) == 1 and kind in naming[0]
    assert any("not told apart" in part and "`cgc`" in part for part in parts)
    cells = [line for line in lines_of(table) if f"`{SYSTEM}`" in line]
    assert ("**better**" in cells[0], "**worse**" in cells[0]) == (right == 0.95, right == 0.45)


def test_an_interval_that_only_taken_alone_leaves_out_zero_is_no_difference():
    table = table_of({BASELINE: 0.7, SYSTEM: 0.7, "cgc": 0.7})
    lines = [
        line._replace(difference=line.difference._replace(mean=2.0, low=0.5, high=3.5), corrected=0.3)
        if line.system == SYSTEM
        else line
        for line in table.comparisons
    ]
    text = statement(table._replace(comparisons=lines))
    assert "better than hard sharing: none" in text
    assert f"Taken alone the interval of `{SYSTEM}` (+2.0) leaves out 0" in text


def test_one_seed_tells_nothing():
    assert "one seed" in statement(table_of({BASELINE: 0.7, SYSTEM: 0.95}, seeds=1))


def test_a_table_counts_tasks_and_cost_and_names_what_it_lacks():
    results = [result(BASELINE, 1), result(BASELINE, 2), result(SYSTEM, 1, 0.9, training_seconds=70.0)]
    results.append(dataclasses.replace(result("cgc", 1), refusal="it has no words", tasks={}))
    table = compare("glue_small", results, [BASELINE, SYSTEM, "cgc", "ple"])
    first, second = table.comparisons
    assert (first.system, first.difference, first.cost) == (BASELINE, None, 1.0)
    assert (second.system, second.seeds, second.wins, second.losses, second.cost) == (SYSTEM, [1], 2, 0, 6.0)
    assert second.is_slow and not first.is_slow
    text = "\n".join(notes(table))
    for part in ("Slower than 60 s", "fewer than 2 seeds: `mmoe` (1)", "Not run: `ple`", "`cgc` cannot be run here: "):
        assert part in text
    assert compare("glue_small", results[2:], [SYSTEM]) is None


def test_systems_md_shows_the_table_where_there_is_one(tmp_path, monkeypatch):
    table = table_of({BASELINE: 0.7, SYSTEM: 0.95, "cgc": 0.7}, systems=(BASELINE, SYSTEM, "cgc", "ple"))
    target = tmp_path / "systems_table.md"
    write_page([table], "tiny", 2, target)
    assert statement(table) in target.read_text()
    assert "2 CPU cores" in target.read_text()
    monkeypatch.setattr(make_systems, "MEASURED", target.with_suffix(".json"))
    text = make_systems.measured_section()
    assert statement(table) in text
    assert f"| `{SYSTEM}` | **{as_json(table)['systems'][SYSTEM]['difference'][0]:+.1f}**" in text
    assert "| `ple` |" not in text
    monkeypatch.setattr(make_systems, "MEASURED", tmp_path / "none.json")
    assert make_systems.measured_section() == ""


# A run.


@pytest.fixture
def mixture():
    """Two tasks of two words each."""
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    texts = [f"a {word} day number {day}" for day in range(20) for word in ("bad", "good")]
    rows = {"sentence": texts, "label": [0, 1] * 20}
    data = {name: Dataset.from_dict(rows, features=features) for name in ("first", "second")}
    columns, kind = {"text": "sentence"}, "single_label_classification"
    specs = [TaskSpec(name=name, problem_type=kind, columns=columns, max_length=16) for name in data]
    return mixture_from_datasets(data, data, specs)


def test_a_run_trains_what_the_seed_draws_and_keeps_its_answers(mixture, tokenizer, tmp_path):
    BertModel(encoder_config(len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    small = {"train_rows": 12, "test_rows": 40, "max_length": 16, "batch_rows": 8, "steps": 3}
    budget = Budget(**small, learning_rate=1e-3, parts_learning_rate=1e-2)
    drawn = [draw_rows(mixture, budget, seed) for seed in (1, 1, 2)]
    texts = [[rows["text"][:] for rows in one.train.values()] for one in drawn]
    assert texts[0] == texts[1] != texts[2]
    assert [len(one) for one in texts[0]] == [12, 12]
    encoder = load_encoder(str(tmp_path), pooler=True)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    first, again = (train(Run("glue_small", SYSTEM, 1), encoder, drawn[0], budget) for _ in range(2))
    assert first.tasks == again.tasks
    assert all(answers.references == [0, 1] * 20 and 0 <= answers.score <= 100 for answers in first.tasks.values())
    assert first.seconds > 0 and first.settings == settings_of(SYSTEM)
    # Runs share the encoder, and leave it as it is.
    assert all(tensor.equal(before[name]) for name, tensor in encoder.state_dict().items())


def test_a_system_that_cannot_be_run_is_refused_and_kept(mixture, tmp_path, monkeypatch, folder):
    monkeypatch.setitem(
        SYSTEMS,
        "broken",
        dataclasses.replace(SYSTEMS[SYSTEM], settings={"task_interaction": "mmoe", "expert_size": 1}),
    )
    run = Run("glue_small", "broken", 1)
    refused = train(run, BertModel(encoder_config()), mixture, DATASETS["glue_small"].budget)
    assert "expert_size=1" in refused.refusal and not refused.tasks
    folder.write(refused)
    assert folder.read(refused.run).refusal == refused.refusal
