"""`hf-mtl predict CHECKPOINT`: every task's answer for a row, or for each row of a file."""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..modeling.configuration_multitask import MultiTaskAttentionConfig
from ..modeling.encoder_loading import reading_options
from ..modeling.errors import InputError
from ..modeling.input_rows import ROW_FIELDS, missing_fields
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.pipeline_multitask import Answerer
from ..modeling.problem_heads import TASK_HEADS
from ..modeling.task_config import TaskConfig
from ..modeling.task_head import Answer
from .console import quiet_libraries

if TYPE_CHECKING:
    from ..data.text_lines import FileRow

# What the output says of a row beside its own values.
_WRITTEN = ("answers", "error")
_Outcome = dict[str, Any]

# Rows whose errors are printed; the output holds all of them.
_MOST_ERRORS = 20


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `hf-mtl predict`."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl predict",
        description=__doc__,
        epilog="A row of a file that cannot be answered is named on standard error and stands in the output with its "
        "`error`; the others are answered, and the exit code is 1. It is 2 where nothing could be done.",
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
    parser.add_argument("--file", help="a file whose rows have these fields (.csv, .jsonl, .parquet, ...)")
    parser.add_argument("--output", help="the jsonl file to write, beside --file")
    parser.add_argument("--tasks", nargs="+", help="the tasks to answer; by default all whose fields are given")
    parser.add_argument("--batch_size", type=int, default=32, help="rows in one pass of the encoder")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON, scores and all")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run the code that the checkpoint's encoder brought along"
    )
    return parser


def main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Answer the row on the command line, or the rows of a file; return 1 where some of them could not be."""
    if rest:
        raise InputError(f"Unknown argument {rest[0]!r}; `hf-mtl predict --help` lists them.")
    row = {name: getattr(args, name) for name in ROW_FIELDS if getattr(args, name) is not None}
    if bool(args.file) != bool(args.output) or bool(args.file) == bool(row):
        raise InputError('Give a row, e.g. --text "...", or a file: --file in.jsonl --output out.jsonl.')
    if args.batch_size < 1:
        raise InputError(f"--batch_size {args.batch_size}; expected a whole number >= 1.")
    rows = _rows_to_answer(Path(args.file)) if args.file else []
    if args.output and Path(args.output).exists():
        raise InputError(f"{args.output!r} exists; nothing was written over. Name another --output.")
    if args.output and not Path(args.output).parent.is_dir():
        raise InputError(f"There is no folder {str(Path(args.output).parent)!r}; make it or name another --output.")
    quiet_libraries()
    model, tokenizer = load_checkpoint(args.checkpoint, args.trust_remote_code, args.revision, args.subfolder)
    answerer = Answerer(model, tokenizer)
    if args.file:
        return _answer_file(answerer, rows, args)
    answers = answerer.answer([row], args.tasks)[0]
    print(json.dumps(answers, ensure_ascii=False, indent=2) if args.json else "\n".join(_lines(model, answers)))
    _say_cut(answerer, [answers])
    for task in _unanswered(model, row, answers, args.tasks):
        print(f"{task.name}: not answered, needs --{missing_fields(task, row)[0]}", file=sys.stderr)
    return 0


def _rows_to_answer(path: Path) -> "list[FileRow]":
    """The rows of a file, of which at least one can be read and has an input field."""
    # Imported here, since a row that is typed needs no reader of files.
    from ..data.files import read_rows

    rows = read_rows(path)
    columns = dict.fromkeys(name for row in rows for name in row.values)
    if all(row.fault for row in rows):
        raise InputError(f"{path}, line {rows[0].line}: {rows[0].fault}. No row of the file can be read.")
    if not columns.keys() & set(ROW_FIELDS):
        raise InputError(
            f"{path} has the columns {', '.join(columns) or 'of no name'}; expected input fields: "
            f"{', '.join(ROW_FIELDS)}. Rename the columns to answer."
        )
    for name in _WRITTEN:
        if name in columns:
            raise InputError(f"{path} has a column {name!r}, which the output would write over; rename it.")
    return rows


def _answer_file(answerer: Answerer, rows: "Sequence[FileRow]", args: argparse.Namespace) -> int:
    """Write each row with its answers, or with the error that says why it has none; return the exit code."""
    answerer.tasks_by_name(args.tasks)
    outcomes: dict[int, _Outcome] = {}
    good: dict[int, tuple[str, dict[str, Any]]] = {}
    for index, row in enumerate(rows):
        place = f"{args.file}, line {row.line}"
        try:
            if row.fault:
                raise InputError(f"{place}: {row.fault}.")
            good[index] = (place, answerer.check_row(row.values, place, args.tasks))
        except InputError as error:
            outcomes[index] = {"error": str(error)}
    with tqdm(total=len(good), unit="rows") as bar:
        for start in range(0, len(good), args.batch_size):
            indices = [*good][start : start + args.batch_size]
            outcomes.update(zip(indices, _outcomes(answerer, [good[index] for index in indices], args.tasks)))
            bar.update(len(indices))
    # Written whole and then renamed, so that a broken run leaves no half file.
    part = Path(f"{args.output}.part")
    with part.open("w", encoding="utf-8") as stream:
        for index, row in enumerate(rows):
            written = _without_nan({**row.values, **outcomes[index]})
            stream.write(json.dumps(written, ensure_ascii=False, allow_nan=False) + "\n")
    part.rename(args.output)
    errors = [outcomes[index]["error"] for index in range(len(rows)) if "error" in outcomes[index]]
    print(f"{len(rows) - len(errors)} rows answered: {args.output}")
    _say_cut(answerer, [outcomes[index].get("answers", {}) for index in range(len(rows))])
    answered = [row for index, (_, row) in good.items() if "answers" in outcomes[index]]
    _say_lacking(answerer.tasks_by_name(args.tasks), answered, len(rows))
    return _report_errors(errors, len(rows), args.output)


def _outcomes(
    answerer: Answerer, batch: Sequence[tuple[str, dict[str, Any]]], tasks: Sequence[str] | None
) -> list[_Outcome]:
    """The answers of a batch; where they cannot be had together, each row's own, so that one spoils no other."""
    try:
        return [{"answers": answers} for answers in answerer.answer([row for _, row in batch], tasks, len(batch))]
    except InputError as error:
        if len(batch) == 1:
            return [{"error": f"{batch[0][0]}: {error}"}]
    return [outcome for row in batch for outcome in _outcomes(answerer, [row], tasks)]


def _report_errors(errors: Sequence[str], num_rows: int, output: str) -> int:
    """Print which rows were not answered; return the exit code."""
    for error in errors[:_MOST_ERRORS]:
        print(f"hf-mtl predict: {error}", file=sys.stderr)
    if len(errors) > _MOST_ERRORS:
        print(f"hf-mtl predict: ... and {len(errors) - _MOST_ERRORS} rows more.", file=sys.stderr)
    if errors:
        print(
            f"hf-mtl predict: {len(errors)} of {num_rows} rows not answered; `error` in {output} says why.",
            file=sys.stderr,
        )
    return 1 if errors else 0


def _say_cut(answerer: Answerer, answers: Sequence[Mapping[str, Answer]]) -> None:
    """Print for each task how many rows were longer than it reads, apart from the answers."""
    for task in answerer.tasks:
        cut = [answer[task.name] for answer in answers if answer.get(task.name, {}).get("truncated")]
        if cut:
            unread = sum(len(answer["tokens"]) - answer["words_read"] for answer in cut if "words_read" in answer)
            words = f" and {unread:,} of their words, which are tagged as outside, were not read" if unread else ""
            most = answerer.processor.max_length(task)
            print(
                f"{task.name}: {len(cut):,} of {len(answers):,} rows were cut at max_length={most} "
                f'word pieces ("truncated": true){words}. Give shorter texts, or train the task with a larger '
                "max_length.",
                file=sys.stderr,
            )


def _say_lacking(tasks: Sequence[TaskConfig], rows: Sequence[Mapping[str, Any]], num_rows: int) -> None:
    """Print for each task how many rows, which others could answer, lack a field of it."""
    for task in tasks:
        lacking = [fields for row in rows if (fields := missing_fields(task, row))]
        if lacking:
            counts = Counter(field for fields in lacking for field in fields)
            said = ", ".join(f"{count:,} without {field}" for field, count in counts.items())
            print(f"{task.name}: {len(lacking):,} of {num_rows:,} rows not answered: {said}", file=sys.stderr)


def _without_nan(value: Any) -> Any:
    """A value with null for the numbers that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value


def _unanswered(
    model: MultiTaskAttentionModel, row: Mapping[str, Any], answers: Mapping[str, Answer], wanted: Sequence[str] | None
) -> list[TaskConfig]:
    return [] if wanted else [task for task in model.config.task_configs if task.name not in answers]


def _lines(model: MultiTaskAttentionModel, answers: Mapping[str, Answer]) -> list[str]:
    """One line per answer for a person; `--json` shows everything."""
    width = max((len(name) for name in answers), default=0)
    heads = {task.name: TASK_HEADS[task.problem_type] for task in model.config.task_configs}
    return [f"{name.ljust(width)}  {heads[name].summary(answer)}" for name, answer in answers.items()]


def load_checkpoint(
    name: str, trust_remote_code: bool = False, revision: str | None = None, subfolder: str = ""
) -> tuple[MultiTaskAttentionModel, PreTrainedTokenizerBase]:
    """Return the model of a checkpoint and its tokenizer.

    Args:
        name: A folder, or a name of the Hub.
        trust_remote_code: Whether to run the code that an encoder brought along.
        revision: A branch, tag or commit of the Hub.
        subfolder: Where in the folder or repository it lies.

    Raises:
        InputError: No checkpoint, one of another model type, or one whose files are damaged.
    """
    hub = {"revision": revision, "subfolder": subfolder}
    path = _config_file(name, revision, subfolder)
    try:
        values = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}/config.json is no valid JSON: {error}") from error
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if model_type != MultiTaskAttentionConfig.model_type:
        raise InputError(
            f"{name!r} holds a checkpoint of type {model_type!r}; expected {MultiTaskAttentionConfig.model_type!r}. "
            "A plain encoder goes into a recipe: encoder: FOLDER, then hf-mtl train."
        )
    try:
        model = MultiTaskAttentionModel.from_pretrained(name, trust_remote_code=trust_remote_code, **hub).eval()
        return model, model.load_tokenizer()
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"The checkpoint {name!r} cannot be read: {str(error).splitlines()[0]}") from error


def checkpoint_file(name: str, file: str, revision: str | None = None, subfolder: str = "") -> Path | None:
    """Return a file of a checkpoint, from the Hub or its cache where the name is no folder's; None where it has none.

    Args:
        name: A folder, or a name of the Hub.
        file: The file's name.
        revision: A branch, tag or commit of the Hub.
        subfolder: Where in the folder or repository the checkpoint lies.

    Raises:
        InputError: There is no such folder or repository, or it cannot be read now.
    """
    if Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        if revision:
            raise InputError(f"--revision {revision} is of the Hub's repositories; {name!r} is a folder.")
        path = Path(name) / subfolder / file
        return path if path.is_file() else None
    hub = {"revision": revision, "subfolder": subfolder, "_raise_exceptions_for_missing_entries": False}
    try:
        path_there = cached_file(name, file, **hub, **reading_options(name))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name!r} is no folder with a {file}, and no model of the Hub that can be read now "
            f"({str(error).splitlines()[0]}) Type the folder that training named, or OWNER/NAME."
        ) from error
    return None if path_there is None else Path(str(path_there))


def _config_file(name: str, revision: str | None, subfolder: str) -> Path:
    """Return a checkpoint's config.json."""
    path = checkpoint_file(name, "config.json", revision, subfolder)
    if path is None:
        raise InputError(
            f"{name!r} is no checkpoint folder: it holds no config.json. Type the folder that training named."
        )
    return path
