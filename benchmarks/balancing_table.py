"""Every loss weighting and gradient balancing on glue_small with equal rows: mean score, spread over seeds, time.

Run: python benchmarks/balancing_table.py --data_dir FOLDER [--output out/balancing_table] [--workers 2]

CoLA, SST-2, MRPC, RTE and STS-B with as many training rows each, so that no method gains by what a mixture's sizes do.
All arms take the same steps: a batch of each task, 8 rows of similar length, accumulated; so weightings that read a
step's losses know those of the step before. "mixed" alone has fixed weights in the library's mixed batches of as many
rows. "tuned" are fixed weights, the best of a search on a seed of its own. Time is the processor's seconds of training
beside those of fixed weights on the same seed, one thread a worker. Finished runs are kept in runs.jsonl and not run
again, so the command can be stopped and typed again.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from datasets import disable_progress_bars
from transformers import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_mtl import MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS
from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS
from hf_mtl.data.mixture import Mixture, load_mixture
from hf_mtl.recipe import read_recipe
from hf_mtl.training.scoring import AVERAGE

RECIPE = Path(__file__).parent.parent / "recipes" / "glue_small" / "train.yaml"
TRAIN_ROWS, VALIDATION_ROWS = 500, 300
TASK_ROWS = 8
SEEDS = (1, 2, 3)
SEARCH_SEED = 0
SEARCHED = 10
LEARNING_RATE = 2e-4
# Of the difference of two means over seeds: what counts as better than random weights.
STANDARD_ERRORS = 2.0

Run = dict[str, Any]


def weight_vectors(tasks: int) -> list[list[float]]:
    """The weights (tasks,) that the search tries, of sum `tasks`: each task alone at 3, the others drawn."""
    lone = [[3.0 if task == other else 1.0 for other in range(tasks)] for task in range(tasks)]
    drawn = np.exp(np.random.default_rng(0).uniform(-1.2, 1.2, (SEARCHED - tasks, tasks))).tolist()
    return [[round(weight * tasks / sum(found), 3) for weight in found] for found in [*lone, *drawn]]


def searches(tasks: int) -> list[Run]:
    """The runs of the search."""
    return [{"arm": "searched", "seed": SEARCH_SEED, "weights": found} for found in weight_vectors(tasks)]


def compared(best: list[float]) -> list[Run]:
    """The runs of the table, seed by seed."""
    return [
        {"arm": arm, "seed": seed, "weights": best if arm == "tuned" else None}
        for seed in SEEDS
        for arm in (
            "fixed",
            "mixed",
            "tuned",
            *[name for name in LOSS_WEIGHTINGS if name != "fixed"],
            *GRADIENT_BALANCERS,
        )
    ]


def read_mixture(data_dir: str) -> Mixture:
    """The recipe's tasks with equal rows."""
    recipe = read_recipe(RECIPE)
    return load_mixture(recipe.tasks, data_dir, True, TRAIN_ROWS, VALIDATION_ROWS)


def settings(arm: str, tasks: int) -> Run:
    """What an arm's training arguments are, beside those that all share."""
    if arm in GRADIENT_BALANCERS:
        return {"gradient_balancing": arm, "per_device_train_batch_size": TASK_ROWS}
    if arm == "mixed":
        return {"mixing_strategy": "round_robin", "per_device_train_batch_size": TASK_ROWS * tasks}
    return {
        "loss_weighting": arm if arm in LOSS_WEIGHTINGS else "fixed",
        "mixing_strategy": "round_robin",
        "batch_form": "one_task",
        "per_device_train_batch_size": TASK_ROWS,
        "gradient_accumulation_steps": tasks,
    }


def train(run: Run, mixture: Mixture) -> Run:
    """Train one arm on one seed; return the run with its scores and seconds."""
    set_seed(run["seed"])
    weights = run["weights"] or [1.0] * len(mixture.specs)
    specs = [dataclasses.replace(spec, weight=weight) for spec, weight in zip(mixture.specs, weights, strict=True)]
    mixture = dataclasses.replace(mixture, specs=specs)
    model = MultiTaskAttentionModel.from_encoder(
        read_recipe(RECIPE).encoder, tasks=[spec.to_config() for spec in mixture.specs]
    )
    with tempfile.TemporaryDirectory() as folder:
        args = MultiTaskTrainingArguments(
            output_dir=folder,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            num_train_epochs=1,
            per_device_eval_batch_size=64,
            learning_rate=LEARNING_RATE,
            warmup_steps=0.06,
            loss_reduction="rows" if run["arm"] == "mixed" else "tasks",
            seed=run["seed"],
            **settings(run["arm"], len(mixture.specs)),
        )
        trainer = MultiTaskTrainer(model, args, train_dataset=mixture)
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start
        metrics = trainer.evaluate()
    mean = metrics[f"eval_{AVERAGE}"]
    return {**run, "steps": trainer.total_steps(), "seconds": seconds, "mean": mean, "tasks": _tasks(trainer, metrics)}


def _tasks(trainer: MultiTaskTrainer, metrics: dict[str, float]) -> dict[str, float]:
    return {name: statistics.fmean(scores.values()) for name, scores in trainer.task_scores(metrics).items()}


_mixture: Mixture


def _begin(data_dir: str) -> None:
    global _mixture
    torch.set_num_threads(1)
    set_verbosity_error()
    disable_progress_bar()
    disable_progress_bars()
    _mixture = read_mixture(data_dir)


def _work(run: Run) -> Run:
    return train(run, _mixture)


def key(run: Run) -> str:
    """What tells a run from others."""
    return json.dumps([run["arm"], run["seed"], run["weights"]])


def finished(runs: list[Run], folder: Path, pool: Any) -> Iterator[Run]:
    """Yield every run with its scores: those kept in the folder, the others as they end."""
    path = folder / "runs.jsonl"
    kept = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    known = {key(run): run for run in kept}
    yield from (known[key(run)] for run in runs if key(run) in known)
    missing = [run for run in runs if key(run) not in known]
    for number, run in enumerate(pool.imap_unordered(_work, missing), 1):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
        print(f"{number}/{len(missing)} {run['arm']}, seed {run['seed']}: {run['mean']:.1f}, {run['seconds']:.0f} s")
        yield run


def table(runs: list[Run], searched: list[Run], best: Run) -> list[str]:
    """Return the Markdown table and what it says."""
    means = {arm: [run["mean"] for run in runs if run["arm"] == arm] for arm in dict.fromkeys(r["arm"] for r in runs)}
    fixed_seconds = {run["seed"]: run["seconds"] for run in runs if run["arm"] == "fixed"}
    names = list(runs[0]["tasks"])
    lines = [
        f"| method | mean | spread | {' | '.join(names)} | time | beside `random` |",
        f"|---|{'---|' * (len(names) + 4)}",
    ]
    beaten = []
    for arm, scores in sorted(means.items(), key=lambda item: -statistics.fmean(item[1])):
        own = [run for run in runs if run["arm"] == arm]
        difference = statistics.fmean(scores) - statistics.fmean(means["random"])
        error = ((statistics.variance(scores) + statistics.variance(means["random"])) / len(SEEDS)) ** 0.5
        if difference > STANDARD_ERRORS * error:
            beaten.append(arm)
        cells = [f"{statistics.fmean(run['tasks'][name] for run in own):.1f}" for name in names]
        slower = statistics.median(run["seconds"] / fixed_seconds[run["seed"]] for run in own)
        beside = "" if arm == "random" else f"{difference:+.1f} ± {error:.1f}"
        lines.append(
            f"| `{arm}` | {statistics.fmean(scores):.1f} | {statistics.stdev(scores):.1f} | {' | '.join(cells)} | "
            f"{slower:.2f} | {beside} |"
        )
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, best["weights"]))
    return [
        *lines,
        "",
        f"Mean over {len(SEEDS)} seeds of the mean over tasks; spread: their standard deviation; time: processor "
        "seconds of training beside fixed weights; beside `random`: difference of means ± its standard error. "
        f"{TRAIN_ROWS} training rows and at most {VALIDATION_ROWS} validation rows per task, {runs[0]['steps']} steps "
        f"of {TASK_ROWS} rows of every task. `tuned`: {weights}, the best of {len(searched)} vectors on another seed "
        f"(there {best['mean']:.1f}; the others {min(run['mean'] for run in searched):.1f} to "
        f"{sorted(run['mean'] for run in searched)[-2]:.1f}), on the same validation rows. `fixed` on the three seeds "
        f"took {', '.join(f'{seconds:.0f}' for seconds in fixed_seconds.values())} s.",
        "",
        f"Above `random` by more than {STANDARD_ERRORS:g} standard errors: {', '.join(beaten) or 'none'}. "
        f"Not: {', '.join(arm for arm in means if arm not in [*beaten, 'random']) or 'none'}.",
    ]


def main() -> None:
    """Search, run, print the table and write it beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="a folder with a folder per task")
    parser.add_argument("--output", type=Path, default=Path("out/balancing_table"))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(given.workers, _begin, (given.data_dir,)) as pool:
        searched = list(finished(searches(len(read_recipe(RECIPE).tasks)), given.output, pool))
        best = max(searched, key=lambda run: run["mean"])
        runs = list(finished(compared(best["weights"]), given.output, pool))
    order = {key(run): place for place, run in enumerate(compared(best["weights"]))}
    lines = table(sorted(runs, key=lambda run: order[key(run)]), searched, best)
    (given.output / "table.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
