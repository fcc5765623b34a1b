"""Runs that one process and two must end alike; started by torchrun as a module, it runs the whole table at once.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.distributed.table FOLDER`
"""

import gc
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, Features, Value
from safetensors.torch import save_file
from transformers import AutoTokenizer

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.modeling.encoder_loading import find_encoder
from hf_mtl.training.processes import leave_together
from tests.conftest import ENCODER, GivenBatches, StopAfter, build_model

TEXTS = [f"{word} number {index} is here" for index, word in enumerate(["good", "bad", "odd", "fine"] * 6)]
TASKS = [
    {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
    {"name": "stars", "problem_type": "regression"},
    {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
    {"name": "pick", "problem_type": "multiple_choice"},
]
# Places in the training data: 24 rows of mood, then 12 of stars, 24 of tags, 12 of pick.
MOOD, STARS, TAGS, PICK = 0, 24, 36, 60


@dataclass
class Run:
    """A run of the table.

    Args:
        name: Its name.
        steps: The rows of each step in the order in which they are cut into batches; None takes the sampler's.
        accumulate: Batches of a step on one process; on two, half as many, or one.
        arguments: Other training arguments.
        gathered: Also keep the scores of an evaluation.
    """

    name: str
    steps: list[list[int]] | None = None
    accumulate: int = 2
    arguments: dict[str, Any] = field(default_factory=dict)
    evaluated: bool = False


# The second half of a step's rows is the second process's: without a row of `stars`, with more tags.
UNEVEN = [MOOD, STARS, STARS + 1, TAGS, MOOD + 1, TAGS + 3, TAGS + 7, TAGS + 2]
CHOICES = [PICK, MOOD, PICK + 1, PICK + 2, TAGS, PICK + 3, MOOD + 2, MOOD + 3]
WITHOUT_STARS = [MOOD + 4, MOOD + 5, TAGS + 4, TAGS + 5, MOOD + 6, PICK + 4, TAGS + 6, PICK + 5]
# Where a gradient is nothing but rounding (a key's bias, say), the usual epsilon would blow it up.
ADAMW = {"optim": "adamw_torch", "learning_rate": 1e-2, "weight_decay": 0.1, "adam_epsilon": 1e-3}

SMALL = {"learning_rate": 1e-2, "parts_learning_rate": 1e-2}
# The runs that the doctor looks over first: of each kind of method one.
LOOKED_OVER = ("mixed", "learned loss weights", "losses after", "gradient norms", "balanced", "two epochs")
LAST_LAYER = {"balanced_parameters": "last_1_layers"}

RUNS = [
    Run("mixed", [UNEVEN]),
    Run("mixed, 4 batches per process", [UNEVEN], accumulate=8),
    Run("ragged choices", [CHOICES]),
    Run("absent task", [WITHOUT_STARS] * 3, arguments=ADAMW),
    Run("absent from one step", [UNEVEN, WITHOUT_STARS, CHOICES], accumulate=4, arguments=ADAMW),
    Run("activation checkpointing", [UNEVEN, CHOICES], arguments={"activation_checkpointing": True}),
    Run("learned loss weights", [UNEVEN, WITHOUT_STARS, CHOICES], arguments={"loss_weighting": "uncertainty"}),
    Run("weights of the step's losses", [UNEVEN, CHOICES], accumulate=1, arguments={"loss_weighting": "gls"}),
    Run("losses after", [UNEVEN, WITHOUT_STARS, CHOICES], accumulate=1, arguments={"loss_weighting": "famo", **SMALL}),
    Run("gradient norms", [UNEVEN, WITHOUT_STARS, CHOICES], arguments={"loss_weighting": "gradnorm", **SMALL}),
    Run("balanced", arguments={"gradient_balancing": "pcgrad", "max_steps": 3}),
    Run("balanced last layer", arguments={"gradient_balancing": "mgda", "max_steps": 3, **LAST_LAYER}),
    Run("reduction over tasks", [UNEVEN], arguments={"loss_reduction": "tasks"}),
    Run("two epochs", arguments={"num_train_epochs": 2, "max_steps": -1}, evaluated=True),
    Run(
        "two epochs, one task per batch", arguments={"num_train_epochs": 2, "max_steps": -1, "batch_form": "one_task"}
    ),
    Run("two epochs, a token budget", arguments={"num_train_epochs": 2, "max_steps": -1, "tokens_per_batch": 60}),
    Run("clipped", [UNEVEN, CHOICES], arguments={"max_grad_norm": 0.01}),
]

# Stopped after `STOP` steps, and continued from the checkpoint before.
STOPPED = Run("stopped", arguments={**ADAMW, "max_steps": 12, "save_strategy": "steps", "save_steps": 2})
STOP = 5
UNSTOPPED = Run("unstopped", arguments={**ADAMW, "max_steps": 12})
RUNS.append(UNSTOPPED)


def datasets() -> dict[str, Dataset]:
    """Rows whose numbers of labels and choices differ."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    tokens = [text.split()[: 2 + index % 4] for index, text in enumerate(TEXTS)]
    choices = [["one", "two words", "three", "the fourth"][: 2 + index % 3] for index in range(12)]
    return {
        "mood": Dataset.from_dict({"text": TEXTS, "label": [index % 2 for index in range(24)]}, features=features),
        "stars": Dataset.from_dict({"text": TEXTS[:12], "label": [float(index % 5) for index in range(12)]}),
        "tags": Dataset.from_dict({"tokens": tokens, "tags": [(["O", "B-X"] * 3)[: len(words)] for words in tokens]}),
        "pick": Dataset.from_dict(
            {"text": TEXTS[:12], "choices": choices, "label": [index % len(own) for index, own in enumerate(choices)]}
        ),
    }


def build(run: Run, folder: Path, processes: int, dtype: torch.dtype = torch.float64) -> MultiTaskTrainer:
    """The run's trainer, for any number of processes."""
    tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    pieces = max(run.accumulate, processes)
    arguments = {
        "max_steps": len(run.steps or ()) or -1,
        "optim": "sgd",
        "learning_rate": 1.0 if run.steps else 0.01,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "activation_checkpointing": False,
        "save_strategy": "no",
        **run.arguments,
    }
    rows = datasets()
    own = MultiTaskTrainer(
        build_model(TASKS, vocab_size=tokenizer.vocab_size).to(dtype),
        MultiTaskTrainingArguments(
            output_dir=str(folder / run.name.replace(" ", "_")),
            use_cpu=True,
            disable_tqdm=True,
            per_device_train_batch_size=8 // pieces,
            gradient_accumulation_steps=pieces // processes,
            **arguments,
        ),
        train_dataset=rows,
        eval_dataset={name: own.select(range(11)) for name, own in rows.items()},
        tasks=[TaskSpec(name="tags", problem_type="token_classification", columns={"label": "tags"}, weight=2.0)],
        processing_class=tokenizer,
    )
    if run.steps is not None:
        size = 8 // pieces
        batches = [step[start : start + size] for step in run.steps for start in range(0, 8, size)]
        own._batch_sampler = lambda: GivenBatches(batches, pieces)
    return own


def finish(run: Run, folder: Path, processes: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Train the run; return its weights and scores."""
    own = build(run, folder, processes)
    if processes > 1 and run.name in LOOKED_OVER:
        # On several processes only, since that must change nothing.
        own.doctor()
    own.train()
    scores = {}
    if run.evaluated:
        # Every rank must say the same, so they are read without the speeds.
        scores = {key: value for key, value in own.evaluate().items() if "second" not in key and "time" not in key}
    return {name: tensor.contiguous() for name, tensor in own.model.state_dict().items()}, scores


def resume(folder: Path, processes: int) -> dict[str, torch.Tensor]:
    """Continue the stopped run; return its weights."""
    own = build(STOPPED, folder, processes)
    own.train(resume_from_checkpoint=True)
    return {name: tensor.contiguous() for name, tensor in own.model.state_dict().items()}


def answer(folder: Path, processes: int, bf16: bool = False) -> dict[str, Any]:
    """Return the answers and labels of odd numbers of rows of several tasks, one of them with a single row, and the
    scores of an evaluation.
    """
    run = Run("answered", arguments={"bf16": bf16})
    trainer = build(run, folder, processes, torch.float32)
    rows = datasets()
    held = {"mood": rows["mood"].select(range(13)), "stars": rows["stars"].select(range(7)), "tags": rows["tags"]}
    result = trainer.predict({**held, "pick": rows["pick"].select([3])})
    scores = {key: value for key, value in trainer.evaluate().items() if "second" not in key and "time" not in key}
    return {"answers": result.predictions, "labels": result.label_ids, "scores": scores}


def main(folder: Path) -> None:
    """Run the table on this process; leave weights and scores in files named after run and rank."""
    for run in RUNS:
        weights, scores = finish(run, folder, processes=2)
        rank = torch.distributed.get_rank()
        save_file(weights, folder / f"{run.name}.{rank}.safetensors")
        (folder / f"{run.name}.{rank}.json").write_text(json.dumps(scores), "utf-8")
    for bf16 in (False, True):
        path = folder / f"answers.{bf16}.{rank}.json"
        path.write_text(json.dumps(answer(folder, processes=2, bf16=bf16)), "utf-8")
    stopped = build(STOPPED, folder, processes=2)
    stopped.add_callback(StopAfter(STOP))
    stopped.train()
    torch.distributed.barrier()
    if rank == 0:
        shutil.copytree(folder / STOPPED.name, folder / "half" / STOPPED.name)
    torch.distributed.barrier()
    save_file(resume(folder, processes=2), folder / f"{STOPPED.name}.{rank}.safetensors")


def gloo_threads() -> list[str]:
    """The names of this process's threads that gloo runs (Linux)."""
    names = [path.read_text("utf-8").strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    # What imports made is left out of the garbage collections with which every run of a trainer begins.
    gc.collect()
    gc.freeze()
    main(Path(sys.argv[1]))
    before, rank = gloo_threads(), torch.distributed.get_rank()
    leave_together()
    (Path(sys.argv[1]) / f"threads.{rank}.json").write_text(json.dumps([before, gloo_threads()]), "utf-8")
