"""The loss of a step does not depend on how the step is split, and leaves absent tasks alone."""

import copy

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.modeling.step_loss import step_loss
from tests.conftest import GivenBatches, build_model

TEXTS = [f"{word} number {index} is here" for index, word in enumerate(["good", "bad", "odd", "fine"] * 6)]
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})


def datasets() -> dict[str, Dataset]:
    """Two sentence tasks and a tagging task, whose rows carry different numbers of labels."""
    tokens = [text.split()[: 2 + index % 4] for index, text in enumerate(TEXTS)]
    return {
        "mood": Dataset.from_dict({"text": TEXTS, "label": [index % 2 for index in range(24)]}, features=FEATURES),
        "stars": Dataset.from_dict({"text": TEXTS[:12], "label": [float(index % 5) for index in range(12)]}),
        "tags": Dataset.from_dict({"tokens": tokens, "tags": [["O", "B-X"] * 3 for _ in tokens]}).map(
            lambda row: {"tags": row["tags"][: len(row["tokens"])]}
        ),
    }


def specs() -> list[TaskSpec]:
    return [TaskSpec(name="tags", problem_type="token_classification", columns={"label": "tags"}, weight=2.0)]


def trainer(tmp_path, tokenizer, dtype=torch.float32, rows=None, validation=None, **arguments) -> MultiTaskTrainer:
    """A trainer of a tiny model without dropout."""
    tasks = [
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
        {"name": "stars", "problem_type": "regression"},
        {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
    ]
    model = build_model(tasks, vocab_size=tokenizer.vocab_size).to(dtype)
    return MultiTaskTrainer(
        model,
        MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, **arguments),
        train_dataset=rows or datasets(),
        eval_dataset=validation,
        tasks=specs(),
        processing_class=tokenizer,
    )


def step_gradients(own: MultiTaskTrainer, rows: list[int], pieces: int) -> dict[str, torch.Tensor]:
    """The gradients of one step over `rows`, split into `pieces` batches."""
    size = len(rows) // pieces
    batches = [
        own.data_collator([own.train_dataset[row] for row in rows[start : start + size]])
        for start in range(0, len(rows), size)
    ]
    own.model.zero_grad()
    counts = own._get_num_items_in_batch(batches, torch.device("cpu"))
    for batch in batches:
        own.compute_loss(own.model.train(), copy.deepcopy(batch), num_items_in_batch=counts).backward()
    return {name: tensor.grad for name, tensor in own.model.named_parameters() if tensor.grad is not None}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_accumulated_batches_give_the_same_gradients(tmp_path, tokenizer, dtype, tolerance):
    own = trainer(tmp_path, tokenizer, dtype)
    rows = [0, 1, 24, 36, 2, 37, 38, 40, 3, 4, 5, 6, 25, 26, 39, 7]  # mood, stars and tags, unevenly spread
    whole, split = step_gradients(own, rows, 1), step_gradients(own, rows, 4)
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        scale = max(gradient.abs().max().item(), 1e-3) if dtype is torch.float32 else 1.0
        assert (gradient - split[name]).abs().max().item() <= tolerance * scale, name


def test_the_trainer_accumulates_alike(tmp_path, tokenizer):
    """One optimizer step of the whole Trainer: 1 batch of 8 is 4 batches of 2."""
    found = []
    for accumulate in (1, 4):
        own = trainer(
            tmp_path,
            tokenizer,
            torch.float64,
            max_steps=1,
            gradient_accumulation_steps=accumulate,
            per_device_train_batch_size=8 // accumulate,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
        )
        rows = [0, 24, 36, 37, 1, 2, 38, 25]
        size = 8 // accumulate
        batches = [rows[start : start + size] for start in range(0, 8, size)]
        own._batch_sampler = lambda batches=batches: GivenBatches(batches, len(batches))
        own.train()
        found.append(own.model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-10, rtol=0)


def test_step_loss_is_its_formula():
    sums, labels, rows = torch.tensor([6.0, 8.0, 0.0]), torch.tensor([3.0, 16.0, 0.0]), torch.tensor([3.0, 1.0, 0.0])
    assert step_loss(sums, labels, rows).item() == pytest.approx(2.0 * 3 / 4 + 0.5 * 1 / 4)
    weights = torch.tensor([2.0, 4.0, 1.0])
    assert step_loss(sums, labels, rows, weights).item() == pytest.approx(4.0 * 3 / 4 + 2.0 * 1 / 4)
    assert step_loss(sums, labels, rows, reduction="tasks").item() == pytest.approx((2.0 + 0.5) / 3)
    assert step_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2)).item() == 0


def test_two_tasks_with_one_head_are_one_task_on_all_rows(tokenizer):
    """Two single-label tasks with the same head give the gradient of plain training on the concatenated rows."""
    labels = {"problem_type": "single_label_classification", "labels": ["no", "yes"]}
    model = build_model([{"name": "one", **labels}, {"name": "two", **labels}], pooling="mean").double()
    head = model.mtl.heads["single_label_classification"]
    with torch.no_grad():
        head.weight.task_two.copy_(head.weight.task_one)
    ids, gold = torch.randint(1, 50, (9, 6)), torch.arange(9) % 2
    tasks = torch.tensor([0, 1, 1, 0, 1, 1, 1, 1, 0])
    model(ids, task_ids=tasks, labels=gold).loss.backward()
    mixed = [tensor.grad.clone() for tensor in model.encoder.parameters() if tensor.grad is not None]
    model.zero_grad()
    logits = model(ids, task_ids=torch.zeros_like(tasks)).entry_logits["single_label_classification"]
    torch.nn.functional.cross_entropy(logits, gold).backward()
    plain = [tensor.grad for tensor in model.encoder.parameters() if tensor.grad is not None]
    for one, other in zip(mixed, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


def test_an_absent_task_stays_bit_equal(tmp_path, tokenizer):
    own = trainer(
        tmp_path, tokenizer, max_steps=10, per_device_train_batch_size=4, weight_decay=0.1, learning_rate=1e-2
    )
    start = copy.deepcopy(own.model.state_dict())
    moods = [list(range(start, start + 4)) for start in range(0, 24, 4)]
    own._batch_sampler = lambda: GivenBatches(moods)
    own.train()
    moved = {name for name, tensor in own.model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert not [name for name in moved if name.endswith((".task_stars", ".task_tags"))]
    assert "mtl.heads.single_label_classification.weight.task_mood" in moved
    assert any(name.startswith("encoder.") for name in moved)
