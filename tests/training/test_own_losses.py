"""A subclass adds to the loss of a step: the example of the docs, held to its formula."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.modeling.multitask_output import labels_by_task
from hf_mtl.training.ignored_arguments import IGNORED_ARGUMENTS, IGNORED_OF_TRAINER
from hf_mtl.training.task_freezing import TaskFreezer
from tests.conftest import TASKS, GivenBatches, build_model, random_batch
from tests.training.test_step_loss import datasets, specs, step_gradients

DOCS = Path(__file__).parents[2] / "docs" / "transformers.md"
TITLE = "A loss of one's own"
ROWS = [0, 1, 24, 36, 2, 37, 38, 40, 3, 4, 5, 6, 25, 26, 39, 7]  # mood, stars and tags, unevenly spread


def example() -> type[MultiTaskTrainer]:
    """The class of the docs page."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text("utf-8").partition(TITLE)[2], re.M | re.S)
    names: dict = {}
    exec(compile(block, str(DOCS), "exec"), names)
    return names["SmoothedTrainer"]


def build(kind, tmp_path, tokenizer, rows=None, tasks=None, **arguments) -> MultiTaskTrainer:
    model = build_model(
        [
            {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
            {"name": "stars", "problem_type": "regression"},
            {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
        ][: len(rows or datasets())],
        vocab_size=tokenizer.vocab_size,
    ).double()
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **arguments)
    return kind(
        model,
        args,
        train_dataset=rows or datasets(),
        tasks=tasks or [*specs()][: not rows],
        processing_class=tokenizer,
    )


def smoothing(own: MultiTaskTrainer, batch: dict) -> torch.Tensor:
    """What smoothing adds to each label of mood: 0.1 (mean over classes of -log p, less -log p of the label)."""
    logits = own.model(**batch).logits["mood"]
    labels = batch["routing"]["single_label_classification"]["labels"]
    surprise = -logits.log_softmax(-1)
    return 0.1 * (surprise.mean(-1) - surprise.gather(1, labels.unsqueeze(1)).squeeze(1))


def test_of_one_task_it_is_transformers_own_label_smoothing(tmp_path, tokenizer):
    own = build(example(), tmp_path, tokenizer, {"mood": datasets()["mood"]})
    batch = own.data_collator([own.train_dataset[row] for row in range(8)])
    counts = own._get_num_items_in_batch([batch], torch.device("cpu"))
    loss, outputs = own.compute_loss(own.model, batch, return_outputs=True, num_items_in_batch=counts)
    labels = own.labels_of_batch(batch)["mood"]
    expected = F.cross_entropy(outputs.logits["mood"], labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("reduction", ["rows", "tasks"])
@pytest.mark.parametrize("pieces", [1, 4, 8])
def test_what_is_added_counts_as_the_tasks_own_loss(pieces, reduction, weight, tmp_path, tokenizer):
    """By the rows of the step or the number of tasks, with the task's weight, however the step is split."""
    tasks = [*specs(), TaskSpec(name="mood", problem_type="single_label_classification", weight=weight)]
    kinds = (example(), MultiTaskTrainer)
    own, plain = (
        build(kind, tmp_path, tokenizer, tasks=tasks, loss_reduction=reduction, label_smoothing_factor=0.0)
        for kind in kinds
    )
    plain.model.load_state_dict(own.model.state_dict())
    found, base = step_gradients(own, ROWS, pieces), step_gradients(plain, ROWS, 1)
    batch = own.data_collator([own.train_dataset[row] for row in ROWS])
    own.model.zero_grad()
    count = 8
    share = count / len(ROWS) if reduction == "rows" else 1 / 3
    (weight * share * smoothing(own, batch).sum() / count).backward()
    added = {name: tensor.grad for name, tensor in own.model.named_parameters() if tensor.grad is not None}
    for name, gradient in found.items():
        expected = base[name] + added.get(name, torch.zeros(()))
        torch.testing.assert_close(gradient, expected, atol=1e-9, rtol=0, msg=name)
    assert weight == 0 or any(gradient.abs().max() > 1e-4 for gradient in added.values())


def test_the_trainer_accumulates_it_alike(tmp_path, tokenizer):
    found = []
    for kind, accumulate in ((example(), 1), (example(), 4), (MultiTaskTrainer, 1)):
        size = 8 // accumulate
        settings = {"gradient_accumulation_steps": accumulate, "per_device_train_batch_size": size, "max_steps": 1}
        plain = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
        own = build(kind, tmp_path, tokenizer, disable_tqdm=True, **settings, **plain)
        rows = [0, 24, 36, 37, 1, 2, 38, 25]
        batches = [rows[start : start + size] for start in range(0, 8, size)]
        own._batch_sampler = lambda batches=batches: GivenBatches(batches, len(batches))
        own.train()
        found.append(own.model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-10, rtol=0)
    head = "mtl.heads.single_label_classification.weight.task_mood"
    assert (found[0][head] - found[2][head]).abs().max() > 1e-6


def test_what_would_have_no_effect_is_refused(tmp_path, tokenizer):
    pytest.importorskip("torchjd")
    own = build(example(), tmp_path, tokenizer, gradient_balancing="pcgrad")
    with pytest.raises(InputError, match="further loss of task 'mood' would have no effect: gradient_balancing"):
        own.train()
    own = build(example(), tmp_path, tokenizer)
    counts = torch.ones(2, 3)
    with pytest.raises(InputError, match="Did you mean 'mood'"):
        own.part_of_step("mod", torch.ones(()), counts)
    with pytest.raises(InputError, match="num_items_in_batch is None"):
        own.part_of_step("mood", torch.ones(()), None)
    own.freezer = TaskFreezer({"mood": 0}, ["mood", "stars", "tags"])
    assert own.part_of_step("mood", torch.ones(()), counts) == 0


def test_labels_stand_beside_the_logits_of_their_rows():
    model, batch = build_model(), random_batch()
    labels = labels_by_task(batch["routing"], model.config.task_configs)
    logits = model(**batch).logits
    assert list(labels) == list(logits) == [task["name"] for task in TASKS]
    assert {name: len(values) for name, values in labels.items()} == {name: len(logits[name]) for name in labels}
    classes = batch["routing"]["single_label_classification"]
    assert torch.equal(labels["mood"], classes["labels"][classes["tasks"] == 1])
    for name in ("flags", "names", "span"):
        shape = logits[name].shape if name == "flags" else logits[name].shape[:2]
        assert labels[name].shape == (shape if name != "span" else (4, 2))
    for task in ("intent", "mood"):
        mean = F.cross_entropy(logits[task], labels[task])
        torch.testing.assert_close(mean, model(**batch).task_losses[task])
    without = {
        name: {key: entry for key, entry in own.items() if key != "labels"} for name, own in batch["routing"].items()
    }
    assert labels_by_task(without, model.config.task_configs) == {}


def test_flags_of_a_narrow_task_are_its_own():
    flags = {"problem_type": "multi_label_classification"}
    tasks = [{"name": "two", "labels": ["a", "b"], **flags}, {"name": "three", "labels": ["a", "b", "c"], **flags}]
    model = build_model(tasks)
    given = torch.tensor([[1.0, 0, 1], [1, 0, -100], [0, 1, -100]])
    routing = {"multi_label_classification": {"tasks": torch.tensor([1, 0, 0]), "labels": given}}
    labels = labels_by_task(routing, model.config.task_configs)
    assert labels["two"].tolist() == [[1, 0], [0, 1]] and labels["three"].tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    "advice", [IGNORED_ARGUMENTS["label_smoothing_factor"], IGNORED_OF_TRAINER["compute_loss_func"]]
)
def test_the_errors_name_the_section_of_the_docs(advice):
    path, title = re.search(r"in (docs/\S+), under '(.*)'\.$", advice).groups()
    assert f"# {title}\n" in (DOCS.parents[1] / path).read_text("utf-8")
    assert callable(getattr(MultiTaskTrainer, re.search(r"self\.(\w+)\(", advice)[1]))
