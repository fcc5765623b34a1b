"""Two processes take the steps of one: same gradients, same parameters on every rank, same scores."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from tests.distributed.table import RUNS, STOPPED, UNSTOPPED, answer, finish, resume

ROOT = Path(__file__).parents[2]
PATIENCE = 300


def torchrun(*arguments, **options) -> subprocess.Popen:
    """Start two processes on this machine."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    port = ["--master_port", str(29500 + os.getpid() % 1000)]
    return subprocess.Popen(
        [sys.executable, *command, *port, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, tokenizer):
    """The folder in which two processes left the table's outcomes, once for all workers of this test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "two"
    with FileLock(f"{folder}.lock"):
        if not (folder / "finished").exists():
            folder.mkdir(exist_ok=True)
            process = torchrun("-m", "tests.distributed.table", folder)
            output, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, output[-4000:]
            (folder / "finished").touch()
    return folder


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_two_processes_take_the_steps_of_one(run, outcomes, tmp_path):
    first, second = (load_file(outcomes / f"{run.name}.{rank}.safetensors") for rank in (0, 1))
    scores = [json.loads((outcomes / f"{run.name}.{rank}.json").read_text("utf-8")) for rank in (0, 1)]
    expected, expected_scores = finish(run, tmp_path, processes=1)
    assert first.keys() == second.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(
            first[name], tensor, atol=1e-10, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert scores[0] == scores[1]
    assert scores[0] == pytest.approx(expected_scores, abs=1e-6)


@pytest.mark.parametrize("bf16", [False, True])
def test_every_process_returns_all_rows_in_order(bf16, outcomes, tmp_path):
    """Odd numbers of rows, a task of one row; in bf16 sums differ by its rounding (8 bits) from one process's."""
    first, second = (json.loads((outcomes / f"answers.{bf16}.{rank}.json").read_text("utf-8")) for rank in (0, 1))
    assert first == second
    expected = json.loads(json.dumps(answer(tmp_path, processes=1, bf16=bf16)))
    assert first["labels"] == expected["labels"]
    assert {name: len(rows) for name, rows in first["answers"].items()} == {
        "mood": 13,
        "stars": 7,
        "tags": 24,
        "pick": 1,
    }
    assert [row["tokens"] for row in first["answers"]["tags"]] == [
        row["tokens"] for row in expected["answers"]["tags"]
    ]
    near = {"abs": 2e-2 if bf16 else 1e-5}
    for task, key in (("mood", "score"), ("stars", "value"), ("pick", "score")):
        for row, other in zip(first["answers"][task], expected["answers"][task]):
            assert row[key] == pytest.approx(other[key], **near)
    losses = {key: value for key, value in first["scores"].items() if key.endswith("_loss")}
    assert losses == pytest.approx({key: expected["scores"][key] for key in losses}, **near)
    assert "eval_loss" in losses


def test_no_thread_of_the_group_outlives_it(outcomes):
    """One that did could abort the process at its end (1 of 13 ends on one busy core)."""
    for rank in (0, 1):
        before, after = json.loads((outcomes / f"threads.{rank}.json").read_text("utf-8"))
        if not before:
            pytest.skip("threads have no names here")
        assert after == []


def test_a_task_absent_from_every_step_stays_bit_equal(outcomes, tokenizer):
    from tests.distributed.table import build

    run = next(run for run in RUNS if run.name == "absent task")
    trained = load_file(outcomes / "absent task.1.safetensors")
    start = build(run, outcomes, processes=1).model.state_dict()
    own = [name for name in start if name.endswith(".task_stars")]
    assert own
    assert all(torch.equal(trained[name], start[name]) for name in own)
    assert any(not torch.equal(trained[name], start[name]) for name in start if name.endswith(".task_mood"))


def test_a_stopped_run_continues_on_as_many_processes_bit_for_bit(outcomes):
    for rank in (0, 1):
        whole = load_file(outcomes / f"{UNSTOPPED.name}.{rank}.safetensors")
        continued = load_file(outcomes / f"{STOPPED.name}.{rank}.safetensors")
        assert all(torch.equal(continued[name], tensor) for name, tensor in whole.items())


def test_a_run_of_two_processes_continues_on_one(outcomes, tmp_path):
    """The same global batches: the end is the same but for rounding."""
    shutil.copytree(outcomes / "half", tmp_path, dirs_exist_ok=True)
    continued = resume(tmp_path, processes=1)
    for name, tensor in load_file(outcomes / f"{UNSTOPPED.name}.0.safetensors").items():
        torch.testing.assert_close(continued[name], tensor, atol=1e-10, rtol=0)


def test_a_sharded_model_trains_and_saves_what_one_process_loads(tmp_path):
    """FSDP2 over two processes, against the same steps on one; the checkpoint is an ordinary one."""
    from hf_mtl import MultiTaskAttentionModel
    from tests.distributed.sharded import train_on_one_process

    process = torchrun("-m", "tests.distributed.sharded", tmp_path)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output[-4000:]
    loaded = MultiTaskAttentionModel.from_pretrained(tmp_path).state_dict()
    expected = train_on_one_process()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(loaded[name], tensor, atol=1e-10, rtol=0)


@pytest.mark.slow
def test_the_others_stop_when_a_process_dies(tmp_path, tokenizer):
    """Killed from outside in the middle of a run; nobody waits for the dead."""
    process = torchrun("-m", "tests.distributed.endless", tmp_path)
    deadline = time.monotonic() + PATIENCE
    pids = []
    while len(pids) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
        pids = [int(path.read_text()) for path in tmp_path.glob("*.pid") if path.read_text()]
    assert len(pids) == 2
    time.sleep(2)
    os.kill(pids[1], signal.SIGKILL)
    killed = time.monotonic()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0, output[-2000:]
    assert time.monotonic() - killed < 60
