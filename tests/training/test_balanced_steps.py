"""Steps of the whole Trainer under loss weighting and gradient balancing."""

import copy
import importlib.util

import pytest
import torch

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS
from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS
from hf_mtl.balancing.weighting_base import LossWeighting
from hf_mtl.training.shared_parameters import shared_parameters
from tests.conftest import GivenBatches, build_model
from tests.training.test_step_loss import TEXTS, datasets, trainer

SGD = {
    "optim": "sgd",
    "learning_rate": 1.0,
    "parts_learning_rate": 1.0,
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
}
TASKS = ("mood", "stars", "tags")
needs_torchjd = pytest.mark.skipif(
    importlib.util.find_spec("torchjd") is None, reason="the optional package `torchjd` is not installed"
)


def batches_of_a_step(own) -> list[dict]:
    own.sampler.set_epoch(0)
    places = own.sampler.step(0)
    return [own.data_collator([own.train_dataset[int(row)] for row in batch]) for batch in places]


def task_gradients(own, parameters) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Rows (tasks, numbers) of the gradients of each task's mean loss over the step, by autograd alone; the losses."""
    model = copy.deepcopy(own.model).train()
    chosen = dict(zip(map(id, own.model.parameters()), model.parameters()))
    copies = [chosen[id(parameter)] for parameter in parameters]
    sums, counts = 0, 0
    for batch in batches_of_a_step(own):
        output = model(**batch)
        sums, counts = sums + output.task_loss_sums, counts + output.task_label_counts
    losses = own.loss_weighting.fixed_weights * sums / counts
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, copies, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(own) if part is None else part for own, part in zip(copies, found)]
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows), losses


def moved(own, parameters) -> torch.Tensor:
    start = torch.cat([parameter.detach().flatten().clone() for parameter in parameters])
    own.train()
    return start - torch.cat([parameter.detach().flatten() for parameter in parameters])


@needs_torchjd
@pytest.mark.parametrize(
    ("name", "activation_checkpointing"), [*((name, False) for name in GRADIENT_BALANCERS), ("upgrad", True)]
)
def test_a_step_is_the_method_on_the_tasks_gradients(name, activation_checkpointing, tmp_path, tokenizer):
    """One step of the whole Trainer under SGD, beside torchjd's method on Jacobians made by autograd."""
    own = trainer(
        tmp_path,
        tokenizer,
        torch.float64,
        max_steps=1,
        gradient_balancing=name,
        per_device_train_batch_size=4,
        activation_checkpointing=activation_checkpointing,
        **SGD,
    )
    assert [task.draws for task in own.preview_mixture()] == [4, 4, 4]
    parameters = shared_parameters(own.model)
    rows, _ = task_gradients(own, parameters)
    expected = GRADIENT_BALANCERS[name](own.args.seed)(rows @ rows.T) @ rows
    assert expected.norm() > 1e-6
    # Nash-MTL's weights come from a solver that stops within 1e-8 of them, wherever it begins.
    rtol = 1e-7 if name == "nash_mtl" else 0
    torch.testing.assert_close(moved(own, parameters), expected, atol=1e-10, rtol=rtol)


@needs_torchjd
def test_parameters_that_are_not_balanced_get_the_sum(tmp_path, tokenizer):
    own = trainer(
        tmp_path,
        tokenizer,
        torch.float64,
        max_steps=1,
        gradient_balancing="mgda",
        balanced_parameters="last_1_layers",
        per_device_train_batch_size=4,
        **SGD,
    )
    balanced = shared_parameters(own.model, "last_1_layers")
    assert {id(parameter) for parameter in balanced} == {
        id(own) for own in own.model.encoder.encoder.layer[1].parameters()
    }
    others = [own for own in shared_parameters(own.model) if not any(own is known for known in balanced)]
    rows, _ = task_gradients(own, balanced)
    sums, _ = task_gradients(own, others)
    expected = GRADIENT_BALANCERS["mgda"]()(rows @ rows.T) @ rows
    start = copy.deepcopy(own.model)
    own.train()
    pairs = dict(zip(map(id, own.model.parameters()), start.parameters()))
    for parameters, direction in ((balanced, expected), (others, sums.sum(dim=0))):
        change = torch.cat([(pairs[id(parameter)] - parameter).detach().flatten() for parameter in parameters])
        torch.testing.assert_close(change, direction, atol=1e-10, rtol=0)


@needs_torchjd
def test_tasks_of_one_row_are_told_apart(tmp_path, tokenizer):
    """A row with two labels: one forward pass, a backward pass per label."""
    from datasets import Dataset

    tasks = [
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["0", "1"]},
        {"name": "stars", "problem_type": "regression"},
    ]
    rows = Dataset.from_dict(
        {
            "text": TEXTS,
            "mood": [None if index % 5 == 0 else index % 2 for index in range(24)],
            "stars": [float("nan") if index % 7 == 0 else float(index % 5) for index in range(24)],
        }
    )
    specs = [
        TaskSpec(name="mood", source="rows", problem_type="single_label_classification", columns={"label": "mood"}),
        TaskSpec(name="stars", source="rows", problem_type="regression", columns={"label": "stars"}),
    ]
    own = MultiTaskTrainer(
        build_model(tasks, vocab_size=tokenizer.vocab_size).double(),
        MultiTaskTrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, max_steps=1, gradient_balancing="pcgrad", **SGD
        ),
        train_dataset={"rows": rows},
        tasks=specs,
        processing_class=tokenizer,
    )
    parameters = shared_parameters(own.model)
    gradients, _ = task_gradients(own, parameters)
    expected = GRADIENT_BALANCERS["pcgrad"](own.args.seed)(gradients @ gradients.T) @ gradients
    torch.testing.assert_close(moved(own, parameters), expected, atol=1e-10, rtol=0)


@needs_torchjd
def test_adapters_alone_are_balanced(tmp_path, tokenizer):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    own = trainer(tmp_path, tokenizer, max_steps=1)
    adapter = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=["mtl"], init_lora_weights=False)
    model = peft.get_peft_model(own.model, adapter)
    arguments = MultiTaskTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        max_steps=2,
        gradient_balancing="upgrad",
        balanced_parameters="adapters",
        per_device_train_batch_size=4,
        bf16=True,
    )
    specs = [TaskSpec(name="tags", problem_type="token_classification", columns={"label": "tags"})]
    own = MultiTaskTrainer(model, arguments, train_dataset=datasets(), tasks=specs, processing_class=tokenizer)
    before = copy.deepcopy(model.state_dict())
    own.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("lora_A" in name for name in changed)
    assert any("modules_to_save" in name for name in changed)
    assert not [name for name in changed if "lora_" not in name and "modules_to_save" not in name]


@needs_torchjd
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixing_strategy": "temperature"}, "every task in every step"),
        ({"global_batch_size": 16}, "leave out global_batch_size"),
        ({"balanced_parameters": "last_9"}, "last_<k>_layers"),
        ({"balanced_parameters": "adapters"}, "peft"),
        ({"gradient_balancing_options": '{"radius": 1}'}, "radius"),
        ({"fsdp": "full_shard"}, "FSDP"),
    ],
)
def test_what_does_not_go_with_gradient_balancing_is_refused(arguments, message, tmp_path, tokenizer):
    with pytest.raises((InputError, ValueError), match=message):
        trainer(tmp_path, tokenizer, gradient_balancing="cagrad", **arguments)


def test_fp16_is_refused_with_gradient_balancing(tmp_path, tokenizer):
    from hf_mtl.training.balanced_step import choose_balancer

    arguments = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, gradient_balancing="mgda")
    arguments.fp16 = True
    with pytest.raises(InputError, match="--bf16"):
        choose_balancer(None, arguments)


@pytest.mark.parametrize("name", LOSS_WEIGHTINGS)
def test_accumulation_is_exact_or_one_step_late(name, tmp_path, tokenizer):
    """Weights that need nothing of the step at hand are the same however it is split; the others are those of the step
    before.
    """
    logged = []
    for accumulate in (1, 4):
        own = trainer(
            tmp_path / f"{name}{accumulate}",
            tokenizer,
            torch.float64,
            max_steps=4,
            gradient_accumulation_steps=accumulate,
            per_device_train_batch_size=8 // accumulate,
            loss_weighting=name,
            logging_steps=1,
            **{**SGD, "learning_rate": 1e-2, "parts_learning_rate": 1e-2},
        )
        rows = [[0, 24, 36, 37, 1, 2, 38, 25], [3, 26, 39, 40, 4, 5, 41, 27]]
        size = 8 // accumulate
        batches = [step[start : start + size] for step in rows * 2 for start in range(0, 8, size)]
        own._batch_sampler = lambda batches=batches, accumulate=accumulate: GivenBatches(batches, accumulate)
        seen = []
        weights = own.step_weighting.weights
        own.step_weighting.weights = lambda *given, weights=weights, seen=seen, **named: (
            seen.append(weights(*given, **named)) or seen[-1]
        )
        own.train()
        # Once a batch.
        logged.append(torch.stack(seen[::accumulate]))
    whole, split = logged
    needs = LOSS_WEIGHTINGS[name].needs
    if needs in ("step_losses", "losses_after"):
        assert torch.equal(split[0], own.loss_weighting.fixed_weights)
        if name not in ("famo", "stch"):
            torch.testing.assert_close(split[1], whole[0], atol=1e-3, rtol=0)
    else:
        torch.testing.assert_close(split, whole, atol=1e-6, rtol=0)


def test_a_weighting_takes_one_class_and_one_line(tmp_path, tokenizer, monkeypatch):
    class Halves(LossWeighting):
        """Half of everything."""

        def factors(self) -> torch.Tensor:
            return torch.full_like(self.fixed_weights, 0.5)

    monkeypatch.setitem(LOSS_WEIGHTINGS, "halves", Halves)
    own = trainer(tmp_path, tokenizer, max_steps=1, logging_steps=1, loss_weighting="halves")
    own.train()
    logs = next(entry for entry in own.state.log_history if "weight_tags" in entry)
    assert [logs[f"weight_{name}"] for name in TASKS] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("name", ["fixed", "uncertainty", "famo", "gradnorm"])
def test_weights_are_logged_and_out_of_weight_decay(name, tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, max_steps=6, logging_steps=6, loss_weighting=name, weight_decay=0.5)
    own.train()
    logs = next(entry for entry in own.state.log_history if "weight_tags" in entry)
    assert all(logs[f"weight_{task}"] >= 0 for task in TASKS)
    known = {id(parameter) for parameter in own.model.parameters()}
    assert all(id(tensor) in known for group in own.optimizer.param_groups for tensor in group["params"])
