"""A label that its task does not have stops the step, as it stops a plain model: it is never a loss of any size."""

import copy

import pytest
import torch
from torch.nn import functional as F

from hf_mtl import InputError
from hf_mtl.modeling.errors import LabelError
from tests.conftest import TASKS, build_model, random_batch

# A second multi-label task of fewer flags; its index is 7.
FEWER = {"name": "few", "problem_type": "multi_label_classification", "labels": ["p", "q"]}
NAN, INFINITE = float("nan"), float("inf")
# Entry 1 of the first problem type is of `mood`, which has 2 of at most 3 classes; row 0 of the last has 3 choices.
SINGLE, FLAGS, NUMBER = "single_label_classification", "multi_label_classification", "regression"
TAGS, SPAN, CHOICE = "token_classification", "question_answering", "multiple_choice"
IMPOSSIBLE = [
    (SINGLE, (1,), 2, "Task 'mood' is given the label 2 in entry 1; expected a number from 0 to 1 \\(bad, good\\)"),
    (SINGLE, (0,), 3, "Task 'intent' .* label 3 .* from 0 to 2 \\(a, b, c\\), or -100"),
    (SINGLE, (0,), -1, "label -1"),
    (SINGLE, (1,), -99, "label -99"),
    (SINGLE, (1,), 2**40, "label 1099511627776"),
    (FLAGS, (1, 0), 1.5, "Task 'flags' is given the label 1.5 in entry 1; expected 3 numbers from 0 to 1"),
    (FLAGS, (0, 2), -1.0, "label -1.0"),
    (FLAGS, (0, 2), INFINITE, "label inf"),
    (NUMBER, (2,), INFINITE, "Task 'stars' is given the label inf in entry 2; expected a finite number"),
    (NUMBER, (2,), -INFINITE, "label -inf"),
    (TAGS, (0, 1), 3, "Task 'names' .* label 3 .* from 0 to 2 \\(O, B-X, I-X\\)"),
    (TAGS, (5, 0), -2, "label -2"),
    (SPAN, (1, 1), 10, "Task 'span' .* label 10 .* one of the row's \\d+ pieces"),
    (SPAN, (0, 0), -1, "label -1"),
    (SPAN, (0, 0), -100, "label -100|-100 twice"),
    (CHOICE, (1,), 2, "Task 'pick' .* label 2 in entry 1; expected one of the row's 2 choices"),
    (CHOICE, (0,), 3, "label 3 in entry 0; expected one of the row's 3 choices"),
    (CHOICE, (0,), -1, "label -1"),
]


@pytest.fixture(scope="module")
def model():
    return build_model()


def with_label(problem_type, place, label):
    """A batch in which one label is another."""
    batch = random_batch()
    labels = batch["routing"][problem_type]["labels"].clone()
    labels[place] = label
    batch["routing"][problem_type] = {**batch["routing"][problem_type], "labels": labels}
    return batch


@pytest.mark.parametrize(("problem_type", "place", "label", "said"), IMPOSSIBLE)
def test_an_impossible_label_is_refused_by_name(model, problem_type, place, label, said):
    with pytest.raises(LabelError, match=said):
        model(**with_label(problem_type, place, label))


def test_padding_of_a_row_is_no_piece_of_it(model):
    batch = with_label(SPAN, (0, 0), 0)
    length = int(batch["routing"][SPAN]["token_mask"][0].sum())
    assert length < 10
    for last, fits in ((length - 1, True), (length, False)):
        batch["routing"][SPAN]["labels"][0] = torch.tensor([0, last])
        if fits:
            assert model(**batch).loss.isfinite()
        else:
            with pytest.raises(LabelError, match=f"label {last} .* {length} pieces"):
                model(**batch)


@pytest.mark.parametrize("weighted", [False, True])
def test_plain_models_and_this_one_raise_the_same(weighted):
    """An `IndexError` of the same kind, whether classes are weighted or not; and an `InputError`."""
    plain = torch.randn(2, 3)
    with pytest.raises(IndexError):
        F.cross_entropy(plain, torch.tensor([0, 3]))
    weights = {"class_weights": [1.0, 2.0]} if weighted else {}
    model = build_model([TASKS[0], {**TASKS[1], **weights}])
    ids = torch.ones(2, 4, dtype=torch.long)
    for kind in (IndexError, InputError):
        with pytest.raises(kind):
            model(ids, task_ids=torch.tensor([0, 1]), labels=torch.tensor([2, 2]))
    assert model(ids, task_ids=torch.tensor([0, 1]), labels=torch.tensor([2, 1])).loss.isfinite()


@pytest.mark.parametrize(
    ("problem_type", "place", "label"),
    [(SINGLE, (1,), -100), (FLAGS, (0, 1), NAN), (FLAGS, (0, 1), -100), (FLAGS, (0, 1), 0.25)]
    + [(NUMBER, (0,), NAN), (NUMBER, (0,), -100), (NUMBER, (0,), 1e6), (TAGS, (0, 0), -100), (SPAN, (0,), -100)]
    + [(CHOICE, (0,), -100)],
)
def test_holes_and_every_label_of_a_task_are_taken(model, problem_type, place, label):
    assert model(**with_label(problem_type, place, label)).loss.isfinite()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("problem_type", "change", "said"),
    [
        (SINGLE, lambda labels: labels.float(), r"\(of intent, mood\) are torch.float32 .* expected torch.int64 of"),
        (SINGLE, lambda labels: labels.bool(), "are torch.bool of"),
        (SINGLE, lambda labels: labels.unsqueeze(1), r"shape \(\d+, 1\); expected torch.int64 of the shape \(\d+,\)"),
        (SINGLE, lambda labels: labels[:-1], "expected torch.int64 of the shape"),
        (SINGLE, lambda labels: torch.cat([labels, labels]), "expected torch.int64 of the shape"),
        (FLAGS, lambda labels: labels[:-1], "expected torch.float32 of the shape"),
        (FLAGS, lambda labels: labels == 1, "are torch.bool of"),
        (FLAGS, lambda labels: labels[:, 0], "Flags are given in the shape"),
        (NUMBER, lambda labels: labels.unsqueeze(1), "expected torch.float32 of the shape"),
        (NUMBER, lambda labels: labels[:1], "expected torch.float32 of the shape"),
        (TAGS, lambda labels: labels.float(), "expected torch.int64 of the shape"),
        (TAGS, lambda labels: labels[:, :-1], "expected torch.int64 of the shape"),
        (TAGS, lambda labels: labels[:, 0], "expected torch.int64 of the shape"),
        (SPAN, lambda labels: labels[:, 0], r"expected torch.int64 of the shape \(\d+, 2\)"),
        (SPAN, lambda labels: labels.float(), "expected torch.int64 of the shape"),
        (CHOICE, lambda labels: labels.unsqueeze(1), "expected torch.int64 of the shape"),
        (CHOICE, lambda labels: labels.float(), "expected torch.int64 of the shape"),
    ],
)
def test_labels_of_another_form_are_refused_on_any_device(model, problem_type, change, said, device):
    """A shape and a type are known without a look at values, and a loss could be of any size."""
    entries = random_batch()["routing"][problem_type]
    entries = {name: value.to(device) for name, value in {**entries, "labels": change(entries["labels"])}.items()}
    heads = dict(copy.deepcopy(model).mtl.heads.to(device).items())
    count = len(entries["tasks"])
    shape = {TAGS: (count, 10, 3), SPAN: (count, 10, 2), CHOICE: (count, 3), NUMBER: (count, 1)}
    with pytest.raises(LabelError, match=said):
        heads[problem_type].loss_sums(torch.zeros(shape.get(problem_type, (count, 3)), device=device), entries)


def test_whole_numbers_of_any_size_are_the_same_labels(model):
    expected = model.eval()(**random_batch()).loss
    for size in (torch.int32, torch.int16):
        batch = random_batch()
        for name in (SINGLE, TAGS, SPAN, CHOICE):
            batch["routing"][name]["labels"] = batch["routing"][name]["labels"].to(size)
        torch.testing.assert_close(model(**batch).loss, expected, rtol=0, atol=0)
    model.train()


def test_rows_task_ids_and_labels_are_as_many():
    model = build_model([TASKS[0], TASKS[1]])
    ids, tasks, labels = torch.ones(3, 4, dtype=torch.long), torch.tensor([0, 1, 0]), torch.tensor([2, 1, 0])
    model.eval()
    expected = model(ids, task_ids=tasks, labels=labels).loss
    for size in (torch.int32, torch.int16):
        assert model(ids, task_ids=tasks.to(size), labels=labels.to(size)).loss == expected
    for wrong in (tasks[:2], tasks.unsqueeze(1), tasks[0], tasks.float(), torch.cat([tasks, tasks])):
        with pytest.raises(InputError, match=r"`task_ids` are .*; expected torch.int64 of the shape \(3,\)"):
            model(ids, task_ids=wrong)
    # A column of labels is read as Transformers' models read it.
    assert model(ids, task_ids=tasks, labels=labels.unsqueeze(1)).loss == expected
    for wrong in (labels[:2], labels.unsqueeze(0), labels[0], labels.float()):
        with pytest.raises(LabelError, match=r"expected torch.int64 of the shape \(3,\)"):
            model(ids, task_ids=tasks, labels=wrong)


def flags_of(*rows):
    """Entries of `flags`, of 3 columns, and then of `few`, of 2."""
    labels = torch.tensor(rows)
    return {"rows": torch.arange(len(rows)), "tasks": torch.tensor([2, 7])[-len(rows) :], "labels": labels}


def test_flags_past_a_task_are_refused_and_holes_there_are_not():
    model = build_model([*TASKS, FEWER])
    batch = random_batch()
    batch["routing"] = {FLAGS: flags_of([1.0, 0.0, 1.0], [1.0, 0.0, -100.0])}
    expected = model(**batch).task_losses
    assert all(loss.isfinite() for loss in expected.values())
    for label in (0.0, 1.0):
        batch["routing"] = {FLAGS: flags_of([1.0, 0.0, 1.0], [1.0, 0.0, label])}
        with pytest.raises(LabelError, match="Task 'few' .* expected 2 numbers"):
            model(**batch)
    # Two columns are all that the rows of a batch may need.
    batch["routing"] = {FLAGS: flags_of([1.0, 0.0])}
    batch["routing"][FLAGS]["rows"] += 1
    torch.testing.assert_close(model(**batch).task_losses["few"], expected["few"])
    batch["routing"] = {FLAGS: flags_of([1.0, 0.0, 1.0, 0.0])}
    with pytest.raises(LabelError, match=r"shape \(1, 4\); expected \(entries, 3\)"):
        model(**batch)


@pytest.mark.parametrize("task", [2, 6, 8, -1])
def test_an_entry_of_another_kind_of_task_is_refused(model, task):
    """Its place among the tasks of the kind would be another task's."""
    batch = random_batch()
    batch["routing"] = {SINGLE: {"rows": torch.arange(2), "tasks": torch.tensor([0, task])}}
    with pytest.raises(InputError, match=rf"index {task}; expected one of 0 \(intent\), 1 \(mood\)"):
        model(**batch)


@pytest.mark.parametrize(
    ("problem_type", "place", "label"), [case[:3] for case in IMPOSSIBLE if case[0] in (SINGLE, TAGS, SPAN, CHOICE)]
)
def test_where_labels_are_not_read_the_loss_itself_fails(model, problem_type, place, label, monkeypatch):
    """As on an accelerator, where an index past the scores stops the device and nothing waits for it."""
    monkeypatch.setattr("hf_mtl.modeling.label_checks._can_be_read", lambda values: False)
    with pytest.raises(IndexError, match="out of bounds"):
        model(**with_label(problem_type, place, label))


def test_labels_on_a_device_are_not_read(model):
    """Nothing of a device is waited for: "meta" has no values, so that reading any fails."""
    own = copy.deepcopy(model)
    heads = dict(own.mtl.heads.to("meta").items())
    for problem_type, entries in random_batch()["routing"].items():
        on_device = {name: value.to("meta") for name, value in entries.items()}
        widths = {TAGS: (len(entries["tasks"]), 10, 3), SPAN: (len(entries["tasks"]), 10, 2), CHOICE: (2, 3)}
        shape = widths.get(problem_type, (len(entries["tasks"]), 1 if problem_type == NUMBER else 3))
        sums = heads[problem_type].loss_sums(torch.zeros(shape, device="meta"), on_device)
        assert sums.shape == (len(entries["tasks"]),) and sums.device.type == "meta"


@pytest.mark.slow
def test_compiled_steps_fail_too(model):
    batch = random_batch()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch).loss, model(**batch).loss)
    with pytest.raises((IndexError, RuntimeError)):
        compiled(**with_label(SINGLE, (1,), 2))
