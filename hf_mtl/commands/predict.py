"""`hf-mtl predict CHECKPOINT`: every task's answer for a row, or for each row of a file."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from ..modeling.answering import Answerer
from ..modeling.errors import InputError, check_choice
from ..modeling.input_rows import ROW_FIELDS, missing_fields
from ..modeling.problem_heads import TASK_HEADS
from ..modeling.task_head import Answer
from .answer_tally import cut_at, lines_of_tally
from .checkpoint_loading import load_checkpoint
from .console import quiet_libraries, say


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `hf-mtl predict`."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl predict",
        description=__doc__,
        epilog="A row of a file that cannot be answered is named on standard error and stands in the output with its "
        "`error`; the others are answered, and the exit code is 1. It is 2 where nothing could be done. A run over a "
        "file that was stopped goes on where it was when the same is typed again; several processes share a file: "
        "torchrun --nproc_per_node 2 -m hf_mtl.cli predict ...",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", help="the folder that training named, or owner/name of the Hub")
    parser.add_argument("--revision", help="of the Hub: a branch, tag or commit")
    parser.add_argument("--subfolder", default="", help="where in the folder or repository the checkpoint lies")
    parser.add_argument("--text", help="the text, of tasks that read one")
    parser.add_argument("--text_pair", help="the second text, of tasks that read two")
    parser.add_argument("--tokens", nargs="+", help="the words, where they are known; else --text is split")
    parser.add_argument("--question", help="of question answering, beside --context")
    parser.add_argument("--context", help="of question answering, beside --question")
    parser.add_argument("--choices", nargs="+", help="of multiple choice, beside --text")
    parser.add_argument("--image", action=_Once, help="the file of an image")
    parser.add_argument(
        "--audio", action=_Once, help="the file of a sound (wav; other formats where torchcodec is installed)"
    )
    table = 'the row of a table, as JSON: \'{"age": 39, "sex": null}\''
    parser.add_argument("--table", action=_Once, type=_cells, help=table)
    parser.add_argument("--file", help="a file whose rows have these fields (.csv, .tsv, .jsonl, .parquet, ...)")
    parser.add_argument("--output", help="the file to write, beside --file: .jsonl, or .csv with a column per answer")
    parser.add_argument(
        "--columns", nargs="+", metavar="FIELD=COLUMN", default=[], help="of the file: text=body, where names differ"
    )
    parser.add_argument("--tasks", nargs="+", help="the tasks to answer; by default all whose fields are given")
    parser.add_argument("--batch_size", type=int, default=32, help="rows in one pass of the encoder")
    parser.add_argument("--device", help="such as cpu or cuda:1; by default the accelerator, where there is one")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON, scores and all")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run the code that the checkpoint's encoder brought along"
    )
    return parser


class _Once(argparse.Action):
    """An argument that is given once: several rows stand in a file."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} is given twice; several rows stand in a file: --file in.jsonl --output out.jsonl")
        setattr(namespace, self.dest, values)


def _cells(text: str) -> dict[str, Any]:
    """Read the row of a table that a command line gives."""
    try:
        cells = json.loads(text)
    except json.JSONDecodeError:
        cells = None
    if not isinstance(cells, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no row; expected JSON: \'{{"age": 39, "sex": null}}\'')
    return cells


def main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Answer the row on the command line, or the rows of a file; return 1 where some of them could not be."""
    if rest:
        raise InputError(f"Unknown argument {rest[0]!r}; `hf-mtl predict --help` lists them.")
    row = {name: getattr(args, name) for name in ROW_FIELDS if getattr(args, name) is not None}
    if bool(args.file) != bool(args.output) or bool(args.file) == bool(row):
        raise InputError('Give a row, e.g. --text "...", or a file: --file in.jsonl --output out.jsonl.')
    if args.batch_size < 1:
        raise InputError(f"--batch_size {args.batch_size}; expected a whole number >= 1.")
    if args.file:
        return _answer_file(args)
    if args.columns:
        raise InputError("--columns goes with --file: it says which columns are input fields.")
    answerer = _load_answerer(args)
    answers = answerer.answer([row], args.tasks)[0]
    print(json.dumps(answers, ensure_ascii=False, indent=2) if args.json else "\n".join(_lines(answerer, answers)))
    _say_cut(answerer, answers)
    for task in [] if args.tasks else [task for task in answerer.tasks if task.name not in answers]:
        print(f"{task.name}: not answered, needs --{missing_fields(task, row)[0]}", file=sys.stderr)
    return 0


def _load_answerer(args: argparse.Namespace) -> Answerer:
    quiet_libraries()
    model, tokenizer = load_checkpoint(args.checkpoint, args.trust_remote_code, args.revision, args.subfolder)
    model.to(cast(Any, _device(args.device)))
    return Answerer(model, tokenizer)


def _device(name: str | None) -> torch.device:
    """Return the device of a name; by default this process's accelerator, where there is one.

    Raises:
        InputError: There is no such device.
    """
    try:
        if name is not None and not name.startswith("meta"):
            return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from error
    if (
        os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        or not torch.accelerator.is_available()
    ):
        return torch.device("cpu")
    return torch.device(torch.accelerator.current_accelerator().type, int(os.environ.get("LOCAL_RANK", "0")))


def _answer_file(args: argparse.Namespace) -> int:
    # Imported here, since a row that is typed needs no reader of files.
    from .file_survey import check_output, survey_file
    from .predict_file import FileAnswers, answer_file

    path, output = Path(args.file), Path(args.output)
    check_output(output)
    named = _named_columns(args.columns)
    survey = survey_file(path, named)
    answerer = _load_answerer(args)
    tally = answer_file(answerer, FileAnswers(path, survey, output, args.tasks, args.batch_size, named))
    if tally is None:
        return 0
    say(f"{tally.rows - tally.num_errors:,} rows answered: {output}")
    say(*lines_of_tally(tally, answerer, output), stream=sys.stderr)
    return 1 if tally.num_errors else 0


def _named_columns(given: Sequence[str]) -> dict[str, str]:
    """Return by input field the column that it is read from.

    Raises:
        InputError: A pair of another form, or no input field.
    """
    named: dict[str, str] = {}
    for pair in given:
        name, equals, column = pair.partition("=")
        if not equals or not column:
            raise InputError(f"--columns {pair}: expected FIELD=COLUMN, such as text=body.")
        check_choice("input field", name, ROW_FIELDS)
        if name in named:
            raise InputError(f"--columns names two columns for {name}: {named[name]} and {column}; give one.")
        named[name] = column
    return named


def _say_cut(answerer: Answerer, answers: Mapping[str, Answer]) -> None:
    """Print which answers are of an input that was longer than their task reads."""
    for task in answerer.tasks:
        if (answer := answers.get(task.name, {})).get("truncated"):
            unread = len(answer["tokens"]) - answer["words_read"] if "words_read" in answer else 0
            words = f" and {unread:,} of its words, which are tagged as outside, were not read" if unread else ""
            print(f"{task.name}: 1 of 1 rows were cut {cut_at(answerer, task, words)}", file=sys.stderr)


def _lines(answerer: Answerer, answers: Mapping[str, Answer]) -> list[str]:
    """One line per answer for a person; `--json` shows everything."""
    width = max((len(name) for name in answers), default=0)
    heads = {task.name: TASK_HEADS[task.problem_type] for task in answerer.tasks}
    return [f"{name.ljust(width)}  {heads[name].summary(answer)}" for name, answer in answers.items()]
