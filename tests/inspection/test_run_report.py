"""What a run leaves to read: parts judged task by task, flags never set, curves, and a page without a network."""

import base64
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from hf_mtl import RunReportCallback, TaskSpec
from hf_mtl.data.mixing import TaskShare
from hf_mtl.inspection import learning_curves, run_report
from hf_mtl.inspection.flag_thresholds import flag_lines
from hf_mtl.inspection.learning_curves import draw_learning_curves, read_history
from hf_mtl.inspection.part_report import PartReport, _verdict, answer_validation_rows, initial_parts
from hf_mtl.inspection.run_report import RunReport
from hf_mtl.paired_intervals import AnsweredRows, paired_scores
from hf_mtl.tables import BaselineScores, baseline_scores, mixture_table, score_table
from tests.conftest import randomise
from tests.training.test_progress import evaluated

ENTRIES = [
    {
        "step": 2,
        "loss": 1.0,
        "loss_a": 1.2,
        "loss_b": 0.8,
        "rows_a": 4,
        "rows_b": 12,
        "weight_a": 1.0,
        "weight_b": 1.0,
    },
    {"step": 2, "eval_a_accuracy": 50.0, "eval_b_pearson": 10.0, "eval_b_spearman": 30.0, "eval_mtl_average": 35.0},
    {"step": 4, "loss": 0.9, "loss_a": 1.0, "rows_a": 10, "rows_b": 22, "weight_a": 1.5, "weight_b": 0.5},
    {"step": 4, "eval_a_accuracy": 60.0, "eval_b_pearson": 20.0, "eval_b_spearman": 30.0, "eval_mtl_average": 42.5},
    {"step": 4, "train_runtime": 3.0},
    {"step": 4, "eval_a_accuracy": 60.0, "eval_b_pearson": 22.0, "eval_b_spearman": 30.0, "eval_mtl_average": 43.0},
]


def difference(right: int, wrong: int, same: int):
    """An arm that is right where another is wrong on some rows, and the other way round on others."""
    first = np.array([1] * right + [0] * wrong + [1] * same)
    second = np.array([0] * right + [1] * wrong + [1] * same)
    metrics, true, keys = ("accuracy",), np.ones(len(first), dtype=int), [str(place) for place in range(len(first))]
    return paired_scores(AnsweredRows(metrics, first, true), AnsweredRows(metrics, second, true), keys)


def test_a_verdict_is_of_tasks_and_not_of_their_mean():
    """One task gains what another loses: the mean says nothing, and both are named."""
    gains, loses, unclear, same = (
        difference(80, 5, 200),
        difference(5, 80, 200),
        difference(6, 5, 300),
        difference(0, 0, 9),
    )
    words = _verdict("the part", {"cola": gains, "rte": loses, "sst2": unclear})
    assert words == "  the part: helps cola; does harm to rte; for sst2 these rows cannot tell"
    assert _verdict("it", {"sst2": unclear, "wnli": same}).endswith("these rows cannot tell whether it helps any task")
    assert "IDLE" in _verdict("it", {"wnli": same})


def test_the_part_report_adds_up(tmp_path, tokenizer):
    own = evaluated(tmp_path, tokenizer)
    randomise(own.model)
    whole = answer_validation_rows(own)
    report = PartReport(initial_parts(own.model))
    lines = report.lines(own, whole)
    rows = {line.split()[0]: line for line in lines if re.match(r"  (mood|stars|tags) ", line)}
    assert list(rows) == ["mood", "stars", "tags"]
    mean = next(line for line in lines if line.startswith("  mean over tasks"))
    adds = re.findall(r"([+-][\d.]+) \(", mean)
    for text, name in zip(adds, ("interaction bypassed", "tasks shuffled")):
        assert float(text) == pytest.approx(report.means["as trained"] - report.means[name], abs=0.06)
    assert [line.split(":")[0].strip() for line in lines[-2:]] == ["the interaction", "telling tasks apart"]


FLAGS = TaskSpec(
    name="flags", problem_type="multi_label_classification", labels=["angry", "happy"], metrics=["f1_micro"]
)


def lines_on_flags(scores, true, threshold=None):
    spec = FLAGS if threshold is None else TaskSpec(**{**FLAGS.to_dict(), "threshold": threshold})
    predictions = (np.array(scores) >= (threshold or 0.5)).astype(int)
    rows = AnsweredRows(("f1_micro", "auc"), predictions, true, scores)
    return flag_lines(SimpleNamespace(specs={"flags": spec}), {"flags": rows}, "out/my run")


def test_flags_that_no_row_gets_are_said_with_a_better_threshold():
    scores, true = [[0.3, 0.1], [0.1, 0.1], [0.2, 0.4]], [[1, 0], [0, 0], [0, 1]]
    (line,) = lines_on_flags(scores, true)
    assert "threshold 0.5 sets no flag in any of 3" in line and "100.0 instead of 0.0" in line
    # Two of six flags hold: setting all has precision 1/3 and recall 1.
    assert "every flag in every row: 50.0" in line
    command = line.rpartition("): ")[2]
    threshold = float(re.fullmatch(r"hf-mtl evaluate 'out/my run' --tasks.flags.threshold ([\d.]+)", command)[1])
    assert 0.2 < threshold <= 0.3
    (line,) = lines_on_flags(scores, true, threshold=0.35)
    assert "in 3 validation rows threshold 0.35 never sets angry" in line
    assert lines_on_flags(scores, true, threshold=0.25) == []
    # Nobody is happy here: that flag is rightly never set.
    assert lines_on_flags([[0.9, 0.1], [0.1, 0.2]], [[1, 0], [0, 0]]) == []


def test_flags_that_every_row_gets_are_said_and_no_threshold_that_sets_them_all_is_praised():
    (line,) = lines_on_flags([[0.9, 0.8], [0.9, 0.8]], [[1, 0], [0, 1]])
    assert "threshold 0.5 sets the same 2 flags in each of 2" in line
    assert "(score 66.7; every flag in every row: 66.7). No other threshold beats both." in line


def test_scores_worse_than_a_linear_model_are_marked_and_chance_beats_nobody():
    baselines = {
        "a": BaselineScores({"accuracy": 50.0}, {"accuracy": 61.0}, {"accuracy": (1, 0)}),
        "b": BaselineScores(
            {"pearson": 0.0, "rmse": 2.0}, {"pearson": 5.0, "rmse": 1.5}, {"pearson": (1, 1), "rmse": (0, 0)}
        ),
    }
    lines = score_table(
        {"a": {"accuracy": 60.0}, "b": {"pearson": 9.0, "rmse": 1.2}, "c": {"accuracy": 1.0}}, baselines
    )
    assert [line.split()[-1] for line in lines[2:6]] == ["trivial", "both", "neither", "-"]
    # A lower error is better.
    assert ["<" in line for line in lines[2:6]] == [True, False, False, False]
    assert lines[-2] == "< worse than TF-IDF + linear: a (accuracy)" and lines[-1].startswith("beats: by more than")
    below = score_table({"a": {"accuracy": 49.0}}, {"a": baselines["a"]})
    assert "49.0!" in below[2] and "49.0<" in below[3]
    assert "! worse than the best answer that ignores the input: a (accuracy)" in below
    assert score_table({"a": {"accuracy": 60.0}}, {})[2].split() == ["a", "accuracy", "60.0"]


def test_a_model_is_compared_with_baselines_on_the_same_rows(tmp_path, tokenizer):
    own = evaluated(tmp_path, tokenizer)
    whole = answer_validation_rows(own)
    perfect = {
        name: AnsweredRows(rows.metrics, rows.references, rows.references, rows.scores)
        for name, rows in whole.rows.items()
    }
    compared = baseline_scores(own.mixture, perfect)
    assert compared["stars"].above["pearson"][0] == 1
    assert all(sign >= 0 for simple in compared.values() for signs in simple.above.values() for sign in signs)
    assert baseline_scores(own.mixture)["stars"].above == {}


def test_windows_and_labels_of_each_head_are_counted():
    by_kind = {"windows": SimpleNamespace(inputs="windows"), "text": SimpleNamespace(inputs="text")}
    rows = {"squad": range(100), "stars": range(80), "toxic": range(15), "plain": range(7)}
    data = SimpleNamespace(
        rows=rows,
        tasks_of={"squad": ["squad"], "reviews": ["stars", "toxic"], "plain": ["plain"]},
        sizes={"squad": 130, "reviews": 90, "plain": 7},
        specs={name: SimpleNamespace(problem=by_kind["windows" if name == "squad" else "text"]) for name in rows},
    )
    shares = [TaskShare(name, size, 0.25, 8, 0.5) for name, size in data.sizes.items()]
    lines = [line.split() for line in mixture_table(shares, data)]
    assert lines[0] == ["task", "train", "rows", "windows", "labels", "share", "draws", "passes"]
    assert lines[2][:3] == ["squad", "100", "130"] and lines[3][:2] == ["reviews", "90"]
    assert lines[4] == ["stars", "80"] and lines[5] == ["toxic", "15"]
    plain = [line.split() for line in mixture_table(shares[2:], data)]
    assert plain[0] == ["task", "train", "rows", "share", "draws", "passes"]


def test_the_history_becomes_curves():
    history = read_history(ENTRIES, ["a", "b"])
    assert history.losses == {"a": ([2, 4], [1.2, 1.0]), "b": ([2], [0.8])}
    # At the end of a run a better model may be scored again: what was measured at a step stands.
    assert history.scores == {"a": ([2, 4], [50.0, 60.0]), "b": ([2, 4], [20.0, 25.0])}
    assert history.means == ([2, 4], [35.0, 42.5])
    assert history.drawn["b"] == ([2, 4], [12, 22]) and history.weights["a"] == ([2, 4], [1.0, 1.5])


class Page(HTMLParser):
    """Collects what a page would load, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read_page(text: str) -> Page:
    page = Page()
    page.feed(text)
    assert not page.open
    return page


def test_the_page_opens_without_a_network():
    report = RunReport(
        "<my> model", ENTRIES, ["a", "b"], ["4 steps."], simple={"trivial": {"a": 30.0}}, parts=["a < b"]
    )
    text = report.render()
    page = read_page(text)
    assert len(page.loads) == 3 and all(one.startswith("data:image/svg+xml;base64,") for one in page.loads)
    for one in page.loads:
        picture = base64.b64decode(one.partition(",")[2])
        assert picture.lstrip().startswith(b"<?xml") and b"</svg>" in picture
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert "&lt;my&gt; model" in text and "a &lt; b" in text
    assert "Test split" not in text
    assert report.render() == text, "the same run gives the same page"


def test_without_matplotlib_the_page_says_so(monkeypatch):
    monkeypatch.setattr(run_report, "can_draw", lambda: False)
    text = RunReport("model", ENTRIES, ["a", "b"]).render()
    assert "hf_mtl[figures]" in text.replace("&#x27;", "'") and "<img" not in text
    read_page(text)


def test_matplotlib_that_cannot_be_imported_is_as_none(monkeypatch):
    """It may be installed for another NumPy."""

    def broken(name):
        raise ImportError("numpy.core.multiarray failed to import")

    monkeypatch.setattr(run_report.can_draw.__globals__["importlib"], "import_module", broken)
    assert not run_report.can_draw()


def test_many_tasks_share_a_figure(tmp_path):
    from matplotlib.image import imread

    entries = [{"step": step, "loss": 1.0, **{f"loss_t{task}": 1.0 / step for task in range(30)}} for step in (1, 2)]
    draw_learning_curves(tmp_path / "many.png", read_history(entries, [f"t{task}" for task in range(30)]), {})
    height, width, _ = imread(tmp_path / "many.png").shape
    assert height / width == pytest.approx((2.0 * 6 + 0.7) / (2.7 * 4 + 0.6), rel=0.02)
    assert learning_curves.CURVES_FILE.endswith(".png")


def test_a_python_user_has_the_page_from_a_callback(tmp_path, tokenizer):
    own = evaluated(tmp_path, tokenizer)
    own.add_callback(RunReportCallback)
    own.train()
    text = (tmp_path / "report.html").read_text("utf-8")
    page = read_page(text)
    assert len(page.loads) == 2, "learning curves, mixture"
    scores = own.state.log_history[-2]
    for name, metric in (("mood", "accuracy"), ("stars", "pearson")):
        assert re.search(
            rf"{name}</td><td class=\"name\">{metric}</td><td>{scores[f'eval_{name}_{metric}']:.1f}<", text
        )
