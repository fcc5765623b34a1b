"""A run on the screen: lines that fit it, tables of evaluations with their changes, the loggers' part untouched."""

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from hf_mtl.screen import NotebookScreen, PlainScreen, clock, open_screen, table
from hf_mtl.training import processor_watch
from hf_mtl.training.processor_watch import ProcessorWatch
from hf_mtl.training.progress import MultiTaskPrinterCallback, MultiTaskProgressCallback, evaluation_lines
from tests.training.test_step_loss import datasets, trainer

RUN = {"max_steps": 6, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2, "report_to": "none"}


def evaluated(tmp_path, tokenizer, **arguments):
    validation = {name: rows.select(range(8)) for name, rows in datasets().items()}
    return trainer(tmp_path, tokenizer, validation=validation, per_device_train_batch_size=8, **{**RUN, **arguments})


def test_a_log_is_one_line_that_fits_and_an_evaluation_a_table(tmp_path, tokenizer, capsys, monkeypatch):
    monkeypatch.setattr(PlainScreen, "width", 80)
    own = evaluated(tmp_path, tokenizer)
    capsys.readouterr()
    own.train()
    out = capsys.readouterr().out
    logs = [line for line in out.splitlines() if re.match(r"[1-6]/6  ", line)]
    assert len(logs) == 6 and all(len(line) <= 80 for line in logs)
    assert all(re.search(r"\d left  .*  loss \d\.\d{3}  lr \d", line) for line in logs)
    # The first has no line before it; later ones say by how much a loss has changed.
    assert re.search(r"  (mood|stars|tags) \d\.\d\d$", logs[0]) and re.search(r" [+-]\d\.\d\d", logs[1])
    tables = out.split("Validation after step ")[1:]
    assert [one.split()[0] for one in tables] == ["2", "4", "6"]
    entries = [entry for entry in own.state.log_history if "eval_mtl_average" in entry]
    for text, before, entry in zip(tables[1:], entries, entries[1:]):
        changed = entry["eval_stars_pearson"] - before["eval_stars_pearson"]
        row = next(line for line in text.splitlines() if line.startswith("stars"))
        assert row.split()[1:4] == ["pearson", f"{entry['eval_stars_pearson']:.1f}", f"{changed:+.1f}"]
    assert "{" not in out and "6 steps in 0:0" in out
    # The history holds everything that the screen leaves out.
    assert {"loss_mood", "weight_stars", "grad_norm_tags", "rows_mood", "epoch"} <= own.state.log_history[0].keys()


def test_a_resumed_run_knows_the_evaluation_before_it(tmp_path, tokenizer, capsys):
    evaluated(tmp_path, tokenizer, max_steps=2, save_strategy="steps", save_steps=2).train()
    longer = evaluated(tmp_path, tokenizer, max_steps=4, save_strategy="steps", save_steps=2)
    capsys.readouterr()
    longer.train(resume_from_checkpoint=True)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mood "))
    assert re.fullmatch(r"mood +accuracy +[\d.]+ +[+-][\d.]+ +[\d.]+", row)


@pytest.mark.parametrize(("arguments", "shown"), [({}, MultiTaskPrinterCallback), ({"disable_tqdm": False}, None)])
def test_transformers_ways_to_silence_a_trainer_hold(tmp_path, tokenizer, capsys, arguments, shown):
    """`disable_tqdm=True` has a `PrinterCallback`, else there is a `ProgressCallback`; removing it silences both."""
    kind, stock = (shown, PrinterCallback) if shown else (MultiTaskProgressCallback, ProgressCallback)
    own = quiet_trainer(tmp_path, tokenizer, **arguments)
    assert [type(one) for one in own.callback_handler.callbacks if isinstance(one, stock)] == [kind]
    own.remove_callback(stock)
    capsys.readouterr()
    own.train()
    captured = capsys.readouterr()
    assert captured.out == "" and "it/s" not in captured.err


def quiet_trainer(tmp_path, tokenizer, callbacks=None, **arguments):
    from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
    from tests.conftest import build_model

    tasks = [{"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]}]
    values = {"output_dir": str(tmp_path), "use_cpu": True, "disable_tqdm": True, "report_to": "none", "max_steps": 2}
    return MultiTaskTrainer(
        build_model(tasks, vocab_size=tokenizer.vocab_size),
        MultiTaskTrainingArguments(**{**values, "logging_steps": 1, "save_strategy": "no", **arguments}),
        train_dataset={"mood": datasets()["mood"]},
        processing_class=tokenizer,
        callbacks=callbacks,
    )


class MyPrinter(PrinterCallback):
    """A user's own."""


class Harmless(TrainerCallback):
    """No way to show a run."""


def test_a_users_own_way_of_showing_a_run_stays_alone(tmp_path, tokenizer):
    for given, expected in (
        (MyPrinter(), [MyPrinter]),
        (MyPrinter, [MyPrinter]),
        (Harmless(), [MultiTaskPrinterCallback]),
    ):
        own = quiet_trainer(tmp_path, tokenizer, callbacks=[given])
        shown = [one for one in own.callback_handler.callbacks if isinstance(one, ProgressCallback | PrinterCallback)]
        assert [type(one) for one in shown] == expected


def test_names_that_hold_other_names_and_further_scores():
    metrics = {
        "eval_mood_accuracy": 50.0,
        "eval_mood_accuracy_f1": 40.0,
        "eval_mood_accuracy_loss": 0.5,
        "eval_mine": 0.25,
        "eval_runtime": 1.0,
        "eval_mtl_average": 45.0,
    }
    lines = evaluation_lines(metrics, {"eval_mood_accuracy": 51.0}, ["mood", "mood_accuracy"], "eval")
    assert lines[-1] == "also: mine 0.25"
    assert [line.split() for line in lines[2:-1]] == [
        ["mood", "accuracy", "50.0", "-1.0"],
        ["mood_accuracy", "f1", "40.0", "0.500"],
        ["mean", "over", "tasks", "45.0"],
    ]


def test_a_log_file_hears_of_a_long_silence(capsys):
    screen = PlainScreen(silence=0.0)
    screen.set_status("step 3/9", 0.3)
    patient = PlainScreen()
    patient.set_status("step 4/9", 0.4)
    assert capsys.readouterr().out == "step 3/9\n"
    assert isinstance(open_screen(True, False), PlainScreen)


def test_a_notebook_has_a_bar_that_is_replaced(monkeypatch, capsys):
    pages = []
    handle = SimpleNamespace(update=pages.append)
    module = ModuleType("IPython.display")
    module.HTML = str
    module.display = lambda page, display_id: pages.append(page) or handle
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    screen = open_screen(True, True)
    assert isinstance(screen, NotebookScreen)
    screen.set_status("1/2 <left>", 0.5)
    screen.write("a line")
    screen.close()
    assert 'value="0.5000"' in pages[1] and "&lt;left&gt;" in pages[1] and pages[-1] == ""
    assert capsys.readouterr().out == "a line\n"


def test_durations_and_tables():
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 3600, 90061)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]
    assert table(["a", "b", "c"], [["x", "yy", "1"]], left=2) == ["a  b   c", "-  --  -", "x  yy  1"]


@pytest.mark.parametrize(
    ("others", "threads", "says"), [(1.0, 2, True), (0.2, 2, False), (1.0, 1, False), (0.9, 2, True), (2.0, 2, True)]
)
def test_other_programs_are_worth_a_word(monkeypatch, others, threads, says):
    """Of two processors; busy seconds less the program's own, by seconds."""
    now = [100.0]
    monkeypatch.setattr(processor_watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(processor_watch.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(ProcessorWatch, "has_warned", False)
    monkeypatch.setattr(ProcessorWatch, "_busy", lambda self: 7.0 + (now[0] - 100) * (1.0 + others))
    monkeypatch.setattr(ProcessorWatch, "_used", lambda self: 3.0 + (now[0] - 100) * 1.0)
    watch = ProcessorWatch()
    watch.processors = [0, 1]
    assert watch.warning() is None
    now[0] = 120.0
    assert watch.others() == pytest.approx(others)
    word = watch.warning()
    assert (word is not None) == says
    if word is not None:
        assert f"{others:.1f} of the 2 processors" in word and "OMP_NUM_THREADS=1" in word
        assert watch.warning() is None


def test_a_programs_own_work_is_not_that_of_others():
    watch = ProcessorWatch()
    used = watch.used
    total = 0
    while watch._used() - used < 0.3:
        total += sum(range(1000))
    assert watch._used() - watch.used >= 0.3 and watch._busy() >= watch.busy


def test_a_task_may_be_called_eval(tmp_path, tokenizer):
    """Keys of scores begin with the prefix, and then with the task's name."""
    from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
    from tests.conftest import build_model

    rows = {"eval": datasets()["mood"]}
    task = {"name": "eval", "problem_type": "single_label_classification", "labels": ["no", "yes"]}
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
    model = build_model([task], vocab_size=tokenizer.vocab_size)
    own = MultiTaskTrainer(model, args, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)
    assert own.task_scores(own.evaluate())["eval"].keys() == {"accuracy"}


def test_a_loss_that_is_no_number_is_said_once(tmp_path, tokenizer, capsys):
    own = quiet_trainer(tmp_path, tokenizer, max_steps=3, learning_rate=1e30)
    capsys.readouterr()
    own.train()
    assert capsys.readouterr().out.count("The loss of mood is not a finite number. Stop the run:") == 1


class Failing(TrainerCallback):
    """An error in a run."""

    def on_step_end(self, args, state, control, **kwargs):
        raise RuntimeError("no more")


def test_a_run_that_fails_leaves_no_screen_behind(tmp_path, tokenizer, capsys):
    own = quiet_trainer(tmp_path, tokenizer, callbacks=[Failing()])
    (shown,) = [one for one in own.callback_handler.callbacks if isinstance(one, MultiTaskPrinterCallback)]
    with pytest.raises(RuntimeError, match="no more"):
        own.train()
    assert shown.screen is None
    own.predict({"mood": ["a"]})
    assert shown.screen is None and "Validation" not in capsys.readouterr().out
