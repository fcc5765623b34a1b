"""Training on an accelerator; `HF_MTL_GPU_TESTS_ON=cpu` rehearses on the processor what has a meaning there."""

import os

import pytest
import torch
from safetensors.torch import load_file

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
from tests.conftest import StopAfter
from tests.distributed.test_two_processes import torchrun
from tests.training.test_trainer_contract import DATA, TEXTS, model_of

DEVICE = os.environ.get("HF_MTL_GPU_TESTS_ON", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU here"),
]
STEPS = 6


def build(folder, tokenizer, **arguments) -> MultiTaskTrainer:
    torch.manual_seed(0)
    args = MultiTaskTrainingArguments(
        output_dir=str(folder),
        use_cpu=DEVICE == "cpu",
        report_to="none",
        disable_tqdm=True,
        **{"max_steps": STEPS, "logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-3, **arguments},
    )
    trainer = MultiTaskTrainer(
        model_of(tokenizer), args, train_dataset=DATA, eval_dataset=DATA, processing_class=tokenizer
    )
    assert trainer.model.device.type == DEVICE
    return trainer


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in trainer.model.state_dict().items()}


def test_bfloat16_learns_as_float32_does(tmp_path, tokenizer):
    runs = [
        build(tmp_path / str(bf16), tokenizer, bf16=bf16, num_train_epochs=8, max_steps=-1) for bf16 in (False, True)
    ]
    for trainer in runs:
        trainer.train()
        assert losses(trainer)[-1] < losses(trainer)[0]
    # bfloat16 keeps 8 bits.
    assert losses(runs[0])[0] == pytest.approx(losses(runs[1])[0], rel=3e-2)
    assert all(torch.isfinite(tensor).all() for tensor in weights(runs[1]).values())
    assert runs[1].evaluate()["eval_loss"] == pytest.approx(runs[0].evaluate()["eval_loss"], rel=0.2)


def test_fused_adamw_takes_the_steps_of_the_plain_one(tmp_path, tokenizer):
    runs = [build(tmp_path / optim, tokenizer, optim=optim) for optim in ("adamw_torch", "adamw_torch_fused")]
    for trainer in runs:
        trainer.train()
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-3)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_model_trains_alike(mode, tmp_path, tokenizer):
    """`reduce-overhead` replays CUDA graphs."""
    if DEVICE == "cpu":
        pytest.skip("what inductor makes for a processor needs a compiler")
    options = {"torch_compile": True, "torch_compile_mode": mode}
    runs = [build(tmp_path / str(len(given)), tokenizer, **given) for given in ({}, options)]
    for trainer in runs:
        trainer.train()
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-2)


def test_a_stopped_run_continues_bit_for_bit(tmp_path, tokenizer):
    saved = {"save_strategy": "steps", "save_steps": 2, "full_determinism": False}
    whole = build(tmp_path / "whole", tokenizer, **saved)
    whole.train()
    stopped = build(tmp_path / "stopped", tokenizer, **saved)
    stopped.add_callback(StopAfter(3))
    stopped.train()
    again = build(tmp_path / "stopped", tokenizer, **saved)
    again.train(resume_from_checkpoint=True)
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(whole).items())


@pytest.mark.parametrize("method", [{"gradient_balancing": "pcgrad"}, {"loss_weighting": "gradnorm"}])
def test_balancing_trains(method, tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer, **method)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_a_step_waits_for_no_value_of_the_device(tmp_path, tokenizer):
    if DEVICE == "cpu":
        pytest.skip("the processor's values are at hand")
    trainer = build(tmp_path, tokenizer)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    # The first call makes what is kept.
    trainer.model(**batch, output_logits=False).loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.model(**batch, output_logits=False).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_steps_keep_no_memory(tmp_path, tokenizer):
    if DEVICE == "cpu":
        pytest.skip("the processor's memory is not counted")
    trainer = build(tmp_path, tokenizer, max_steps=4)
    trainer.train()
    first = torch.cuda.memory_allocated()
    trainer.args.max_steps = 20
    trainer.train()
    assert torch.cuda.memory_allocated() <= 1.1 * first


def test_answers_are_those_of_the_processor(tmp_path, tokenizer):
    trainer = build(tmp_path, tokenizer)
    answers = trainer.model.predict(TEXTS, tokenizer=tokenizer)
    expected = trainer.model.cpu().predict(TEXTS, tokenizer=tokenizer)
    for answer, other in zip(answers, expected):
        assert answer["mood"]["score"] == pytest.approx(other["mood"]["score"], abs=1e-3)


def test_two_processes_on_one_card_take_the_steps_of_one(tmp_path, tokenizer):
    from tests.gpu.one_card import RATES, ROWS

    process = torchrun("-m", "tests.gpu.one_card", tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-4000:]
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    alone = build(tmp_path / "alone", tokenizer, per_device_train_batch_size=ROWS, **RATES)
    start = weights(alone)
    alone.train()
    for name, tensor in weights(alone).items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-4)
    assert max((first[name] - tensor).abs().max() for name, tensor in start.items()) > 1e-2
