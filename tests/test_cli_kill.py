"""Runs killed from outside, at any step and inside the writing of a checkpoint, continue as if nothing had been."""

import hashlib
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch

from hf_mtl.training.checkpoints import _WRITING
from tests.test_cli import NEEDS_ENCODER, PATIENCE, PROGRAM, environment, hf_mtl, workplace

__all__ = ["workplace"]

STEPS = 60
SETTINGS = ("--max_steps", str(STEPS), "--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "no")
QUIET = ("--baselines", "false", "--report_parts", "false", "--disable_tqdm", "true", "--save_total_limit", "4")
COMMAND = ("train", "recipe.yaml", *SETTINGS, *QUIET, "--logging_steps", "1", "--output_dir")

pytestmark = [NEEDS_ENCODER, pytest.mark.slow]


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def optimizer_state(folder, steps=STEPS) -> str:
    """A hash of the last checkpoint's optimizer; the file itself holds names of its own folder."""
    state = torch.load(folder / f"checkpoint-{steps}" / "optimizer.pt", weights_only=True)["state"]
    found = hashlib.sha256()
    for _, own in sorted(state.items()):
        for _, value in sorted(own.items()):
            found.update(torch.as_tensor(value).numpy().tobytes())
    return found.hexdigest()


def drawn_rows(folder) -> str:
    """What the run logged of every step's losses, task by task: other batches would have others."""
    import json

    history = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text("utf-8"))["log_history"]
    return json.dumps([[entry["step"], entry["loss"], entry["grad_norm"]] for entry in history if "loss" in entry])


@pytest.fixture(scope="module")
def whole(workplace):
    """A run that nobody disturbed."""
    done = hf_mtl(workplace, *COMMAND, "undisturbed")
    assert done.returncode == 0, done.stderr
    return workplace / "undisturbed"


def kill_when(workplace, name, ready, command=COMMAND) -> None:
    """Start the run, and kill it as soon as `ready` says so."""
    with subprocess.Popen(
        [*PROGRAM, *command, name],
        cwd=workplace,
        env=environment(workplace),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while not ready(workplace / name) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


def steps_done(folder) -> int:
    numbers = [int(path.name.split("-")[1]) for path in folder.glob("checkpoint-[0-9]*") if path.is_dir()]
    return max(numbers, default=0)


def at_a_random_step(folder) -> bool:
    return steps_done(folder) >= random.Random(7).randrange(9, 40)


def in_a_checkpoint(folder) -> bool:
    return steps_done(folder) >= 6 and (folder / _WRITING).exists()


def before_the_first_checkpoint(folder) -> bool:
    return (folder / _WRITING).exists()


@pytest.mark.parametrize("moment", [at_a_random_step, in_a_checkpoint, before_the_first_checkpoint])
def test_a_killed_run_ends_like_one_that_was_not(moment, workplace, whole):
    name = moment.__name__
    shutil.rmtree(workplace / name, ignore_errors=True)
    kill_when(workplace, name, moment)
    assert steps_done(workplace / name) < STEPS
    again = hf_mtl(workplace, *COMMAND, name)
    assert again.returncode == 0, again.stderr
    assert sha256(workplace / name / "model.safetensors") == sha256(whole / "model.safetensors")
    assert optimizer_state(workplace / name) == optimizer_state(whole)
    assert drawn_rows(workplace / name) == drawn_rows(whole)
    assert not (workplace / name / _WRITING).exists()
