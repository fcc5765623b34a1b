"""`hf-mtl predict CHECKPOINT`: every task's answer for a row, or for a file of rows."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..data.loading import read_json_lines
from ..modeling import InputError, MultiTaskAttentionModel, TaskConfig
from ..modeling.pipeline_multitask import ROW_FIELDS, Answerer, missing_fields
from ..modeling.task_heads import Answer
from .checkpoints import load_checkpoint
from .train import quiet_libraries


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `hf-mtl predict`."""
    parser = argparse.ArgumentParser(prog="hf-mtl predict", description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", help="the folder that training named")
    parser.add_argument("--text", help="the text, of tasks that read one")
    parser.add_argument("--text_pair", help="the second text, of tasks that read two")
    parser.add_argument("--tokens", nargs="+", help="the words, where they are known; else --text is split")
    parser.add_argument("--question", help="of question answering, beside --context")
    parser.add_argument("--context", help="of question answering, beside --question")
    parser.add_argument("--choices", nargs="+", help="of multiple choice, beside --text")
    parser.add_argument("--file", help="a jsonl file, each line an object of these fields")
    parser.add_argument("--output", help="the jsonl file to write, beside --file")
    parser.add_argument("--tasks", nargs="+", help="the tasks to answer; by default all whose fields are given")
    parser.add_argument("--batch_size", type=int, default=32, help="rows in one pass of the encoder")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON, scores and all")
    return parser


def main(known: argparse.Namespace, rest: Sequence[str]) -> int:
    """Answer the row on the command line, or the rows of a file."""
    if rest:
        raise InputError(f"Unknown argument {rest[0]!r}; `hf-mtl predict --help` lists them.")
    row = {name: getattr(known, name) for name in ROW_FIELDS if getattr(known, name) is not None}
    if bool(known.file) != bool(known.output) or bool(known.file) == bool(row):
        raise InputError('Give a row, e.g. --text "...", or a file: --file in.jsonl --output out.jsonl.')
    if known.batch_size < 1:
        raise InputError(f"--batch_size {known.batch_size}; expected a whole number >= 1.")
    rows = read_rows(Path(known.file)) if known.file else [row]
    if known.output and Path(known.output).exists():
        raise InputError(f"{known.output!r} exists; nothing was written over. Name another --output.")
    if known.output and not Path(known.output).parent.is_dir():
        raise InputError(f"There is no folder {str(Path(known.output).parent)!r}; make it or name another --output.")
    quiet_libraries()
    model, tokenizer = load_checkpoint(known.checkpoint)
    if known.file:
        _answer_file(Answerer(model, tokenizer), rows, known)
        return 0
    answers = model.predict(rows, known.tasks, tokenizer)[0]
    print(json.dumps(answers, ensure_ascii=False, indent=2) if known.json else "\n".join(_lines(answers)))
    _say_cut(model.config.task_configs, [answers])
    for task in _unanswered(model, row, answers, known.tasks):
        print(f"{task.name}: not answered, needs --{missing_fields(task, row)[0]}", file=sys.stderr)
    return 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a jsonl file of rows; a line that is no object of known fields is an `InputError` naming it."""
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    try:
        rows = read_json_lines(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not row.keys() & set(ROW_FIELDS):
            raise InputError(f"{path}, row {number}: expected an object with fields of {ROW_FIELDS}; found {row!r}.")
    if not rows:
        raise InputError(f"{str(path)!r} holds no rows.")
    return rows


def _answer_file(answerer: Answerer, rows: Sequence[dict[str, Any]], known: argparse.Namespace) -> None:
    fields = [{name: row[name] for name in ROW_FIELDS if row.get(name) is not None} for row in rows]
    with tqdm(total=len(rows), unit="rows") as bar:
        answers = answerer.answer(fields, known.tasks, known.batch_size, progress=bar.update)
    # Written whole and then renamed, so that a broken run leaves no half file.
    part = Path(f"{known.output}.part")
    with part.open("w", encoding="utf-8") as stream:
        for row, answer in zip(rows, answers):
            stream.write(json.dumps({**row, "answers": answer}, ensure_ascii=False) + "\n")
    part.rename(known.output)
    print(f"{len(rows)} rows answered: {known.output}")
    _say_cut(answerer.tasks, answers)


def _say_cut(tasks: Sequence[TaskConfig], answers: Sequence[Mapping[str, Answer]]) -> None:
    """Print for each task how many rows were longer than it reads, apart from the answers."""
    for task in tasks:
        cut = [answer[task.name] for answer in answers if answer.get(task.name, {}).get("truncated")]
        if cut:
            unread = sum(len(answer["tokens"]) - answer["words_read"] for answer in cut if "words_read" in answer)
            words = f" and {unread:,} of their words, which are tagged as outside, were not read" if unread else ""
            print(
                f"{task.name}: {len(cut):,} of {len(answers):,} rows were cut at max_length={task.max_length} word "
                f'pieces ("truncated": true){words}. Give shorter texts, or train the task with a larger max_length.',
                file=sys.stderr,
            )


def _unanswered(
    model: MultiTaskAttentionModel, row: Mapping[str, Any], answers: Mapping[str, Answer], wanted: Sequence[str] | None
) -> list[TaskConfig]:
    return [] if wanted else [task for task in model.config.task_configs if task.name not in answers]


def _lines(answers: Mapping[str, Answer]) -> list[str]:
    width = max((len(name) for name in answers), default=0)
    return [f"{name.ljust(width)}  {_short(answer)}" for name, answer in answers.items()]


def _short(answer: Answer) -> str:
    """One line for a person; `--json` shows everything."""
    if "labels" in answer:
        return ", ".join(f"{label} ({answer['scores'][label]:.2f})" for label in answer["labels"]) or "(none)"
    if "value" in answer:
        return f"{answer['value']:.2f}"
    if "spans" in answer:
        spans = ", ".join(f"{span['text']!r} {span['label']}" for span in answer["spans"])
        plain = " ".join(f"{token}/{tag}" for token, tag in zip(answer["tokens"], answer["tags"]) if tag != "O")
        return spans or plain or "(none)"
    if "answer" in answer:
        return f"{answer['answer']!r} ({answer['score']:.2f})" if answer["answer"] else "(no answer)"
    return f"{answer.get('label') or answer.get('text')} ({answer['score']:.2f})"
