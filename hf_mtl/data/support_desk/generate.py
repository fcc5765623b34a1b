"""Rewrites the shipped support desk files, the same bytes each time: `python -m hf_mtl.data.support_desk.generate`."""

import argparse
import json
import random
import re
from pathlib import Path
from typing import cast

from hf_mtl.data.support_desk.grammar import SPLITS, PhraseBank, normalised
from hf_mtl.data.support_desk.messages import TASKS, Row

SEED = 20240
ROWS = {"train": 1200, "validation": 250}
LABEL_NOISE = {"train": 0.03, "validation": 0.0}
WORDS = range(12, 43)


def build() -> dict[str, dict[str, list[Row]]]:
    """The rows of every split of every task; no text comes twice, neither in one task nor across tasks and splits."""
    seen: set[str] = set()
    rows: dict[str, dict[str, list[Row]]] = {task: {} for task in TASKS}
    for split in SPLITS:
        bank = PhraseBank(split)
        for task in TASKS:
            rows[task][split] = _fresh_rows(task, split, bank, seen)
    return rows


def write(rows: dict[str, dict[str, list[Row]]], folder: Path) -> None:
    """Writes `<task>/<split>.jsonl` files."""
    for task, splits in rows.items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        for split, split_rows in splits.items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in split_rows)
            (folder / task / f"{split}.jsonl").write_bytes(lines.encode("utf-8"))


def text_of_row(row: Row) -> str:
    """The words of a row of any task."""
    return str(row["text"]) if "text" in row else " ".join(cast(list[str], row["tokens"]))


def seen_share(rows: dict[str, list[Row]], size: int) -> float:
    """The share of the distinct word n-grams of validation that stand in train."""
    train, validation = ({gram for row in rows[split] for gram in _ngrams(row, size)} for split in SPLITS)
    return len(train & validation) / len(validation)


def report(rows: dict[str, dict[str, list[Row]]]) -> str:
    """Row counts and n-gram shares as a Markdown table."""
    lines = ["| task | train | validation | 1-grams seen | 2-grams seen | 3-grams seen |", "|---|---|---|---|---|---|"]
    for task, splits in rows.items():
        shares = " | ".join(f"{seen_share(splits, size):.0%}" for size in (1, 2, 3))
        lines.append(f"| {task} | {len(splits['train'])} | {len(splits['validation'])} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    """Writes the files and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where the task folders go")
    folder = parser.parse_args().folder
    rows = build()
    write(rows, folder)
    print(report(rows))


def _fresh_rows(task: str, split: str, bank: PhraseBank, seen: set[str]) -> list[Row]:
    rng = random.Random(f"{SEED} {task} {split}")
    rows: list[Row] = []
    while len(rows) < ROWS[split]:
        row = TASKS[task](bank, rng, LABEL_NOISE[split])
        text = text_of_row(row)
        if len(text.split()) in WORDS and normalised(text) not in seen:
            seen.add(normalised(text))
            rows.append(row)
    return rows


def _ngrams(row: Row, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text_of_row(row).lower())
    return set(zip(*(words[start:] for start in range(size)), strict=False))


if __name__ == "__main__":
    main()
