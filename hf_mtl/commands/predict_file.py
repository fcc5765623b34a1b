"""`hf-mtl predict --file`: the answers of a file of any size, part by part, on one process or on several.

A part is some thousand rows. Its answers are written whole or not at all, so that a run that is stopped goes on where
it was, and processes share the parts; when all are there they become the output.
"""

import csv
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..data.files import iterate_rows, place_of_row
from ..data.text_lines import FileRow
from ..modeling.answering import Answerer
from ..modeling.errors import InputError
from ..modeling.input_rows import LIST_FIELDS, Row, check_row, missing_fields
from ..modeling.modalities import FILE_ENDINGS, TABLE
from .answer_tally import AnswerTally
from .console import is_main_process, say
from .file_survey import Survey, check_fields

# What a message says of a single row's place, which its file says better.
_OF_ROW = re.compile(r"^(Task '[^']*', )?row 0: ")
# Rows of a part: as many as are lost when a run is stopped, and as are in memory at once.
_ROWS_OF_PART = 2048
_JOB_FILE = "job.json"


class FileAnswers:
    """The answers of a file's rows, kept by parts beside the output until all are there.

    Args:
        path: The file.
        survey: What it holds.
        output: Where its answers go.
        tasks: Names of the tasks to answer; None for all whose fields a row has.
        batch_size: Rows in one pass of the encoder.
        named: By input field the column that it is read from, where their names differ.

    Raises:
        InputError: Parts of another job lie where its own would.
    """

    def __init__(
        self,
        path: Path,
        survey: Survey,
        output: Path,
        tasks: Sequence[str] | None = None,
        batch_size: int = 32,
        named: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path, self.survey, self.output, self.named = path, survey, output, dict(named)
        self.task_names, self.batch_size = tasks, batch_size
        self.folder = output.with_name(f"{output.name}.parts")

    @property
    def num_parts(self) -> int:
        """The number of parts of the file."""
        return math.ceil(self.survey.num_rows / _ROWS_OF_PART)

    def check_columns(self, answerer: Answerer) -> None:
        """Check that the tasks that were named can be answered from the file, and that their answers have columns.

        Raises:
            InputError: An unknown task, one of which the file has no column, or a column that a csv file would have
                twice.
        """
        columns = {*self.survey.columns, *self.named}
        check_fields(self.path, [*self.survey.columns, *self.named], answerer.tasks_by_name(self.task_names))
        for task in answerer.tasks_by_name(self.task_names):
            there = dict.fromkeys(columns, "")
            if columns & set(task.table_columns or ()):
                there[TABLE] = ""
            lacking = missing_fields(task, there)
            if self.task_names is not None and lacking:
                raise InputError(
                    f"{self.path} has no column {lacking[0]!r}, which task {task.name!r} needs; it has "
                    f"{', '.join(self.survey.columns)}. Say which it is: --columns {lacking[0]}=COLUMN."
                )
            if self.output.suffix.lower() == ".csv":
                for column in self.survey.columns:
                    if column.startswith(f"{task.name}."):
                        raise InputError(
                            f"{self.path} has a column {column!r}, a name that answers of task {task.name!r} may have "
                            "in a csv file; rename it, or write an --output that ends in .jsonl."
                        )

    def open_folder(self, fingerprint: str) -> None:
        """Make the folder of parts, or go on with what lies there.

        Args:
            fingerprint: Of the model that answers.
        """
        job = {
            "file": self.survey.digest,
            "model": fingerprint,
            "tasks": self.task_names,
            "columns": self.named,
            "rows": _ROWS_OF_PART,
        }
        path = self.folder / _JOB_FILE
        if path.is_file():
            earlier = json.loads(path.read_text("utf-8"))
            if earlier != job:
                differs = [name for name, value in job.items() if earlier.get(name) != value]
                raise InputError(
                    f"{str(self.folder)!r} holds parts of another run (it differs in: {', '.join(differs)}). Remove "
                    "that folder, or name another --output."
                )
        else:
            self.folder.mkdir(exist_ok=True)
            _write_whole(path, json.dumps(job))

    def answer_parts(self, answerer: Answerer, place: int = 0, count: int = 1) -> None:
        """Answer the parts that are not there yet.

        Args:
            answerer: What answers.
            place: Of this process among those that share the parts.
            count: How many processes share them.
        """
        rows = iterate_rows(self.path)
        there = sum(self._rows_of(part) for part in range(self.num_parts) if self._has(part))
        if there:
            say(f"Going on: {there:,} of {self.survey.num_rows:,} rows are answered.", stream=sys.stderr)
        missing = [part for part in range(self.num_parts) if not self._has(part)]
        of_process = set(missing[place::count])
        total = sum(map(self._rows_of, of_process))
        with tqdm(total=total, unit="rows", disable=place > 0) as bar:
            for part in range(self.num_parts):
                of_part = list(islice(rows, _ROWS_OF_PART))
                if part in of_process:
                    self._answer_part(answerer, part, of_part, bar.update)

    def finish(self) -> AnswerTally:
        """Make the output of the parts, and remove them; return the counts of all rows."""
        tally = AnswerTally()
        for part in range(self.num_parts):
            tally.merge(json.loads(self._summary(part).read_text("utf-8")))
        # Written whole and then renamed, so that a broken run leaves no half file.
        whole = self.folder / self.output.name
        with whole.open("w", encoding="utf-8", newline="") as stream:
            if self.output.suffix.lower() == ".csv":
                _write_table(stream, self.survey.columns, tally, map(json.loads, self._lines()))
            else:
                stream.writelines(self._lines())
        whole.rename(self.output)
        shutil.rmtree(self.folder)
        return tally

    def _lines(self) -> Iterator[str]:
        for part in range(self.num_parts):
            with self._answers(part).open(encoding="utf-8", newline="\n") as lines:
                yield from lines

    def _beside(self, value: Any) -> Any:
        """The path of an image or a sound, which begins where the file lies; any other value as it is."""
        return str(self.path.parent / value) if isinstance(value, str) and value else value

    def _answers(self, part: int) -> Path:
        return self.folder / f"{part:07}.jsonl"

    def _summary(self, part: int) -> Path:
        return self.folder / f"{part:07}.json"

    def _has(self, part: int) -> bool:
        # It is written last.
        return self._summary(part).is_file()

    def _rows_of(self, part: int) -> int:
        return min(_ROWS_OF_PART, self.survey.num_rows - part * _ROWS_OF_PART)

    def _answer_part(
        self, answerer: Answerer, part: int, rows: Sequence[FileRow], progress: Callable[[int], object]
    ) -> None:
        tasks = answerer.tasks_by_name(self.task_names)
        files = {field for task in tasks for field in task.input_fields if field in FILE_ENDINGS}
        outcomes: dict[int, dict[str, Any]] = {}
        good: dict[int, Row] = {}
        # Cells of a table are texts, whatever they hold.
        is_table = self.path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))
        for index, row in enumerate(rows):
            place = place_of_row(self.path, row.line)
            try:
                if row.fault:
                    raise InputError(f"{place}: {row.fault}.")
                values = {**row.values, **{name: row.values.get(column) for name, column in self.named.items()}}
                values |= {name: self._beside(values[name]) for name in files if name in values}
                if is_table:
                    values |= {name: _listed(values[name]) for name in LIST_FIELDS if name in values}
                good[index] = check_row(values, place, tasks, self.task_names is not None)
            except InputError as error:
                outcomes[index] = {"error": str(error)}
        progress(len(outcomes))
        places = [place_of_row(self.path, rows[index].line) for index in good]
        answered = _outcomes(answerer, [*good.values()], places, tasks, self.batch_size, progress)
        outcomes.update(zip(good, answered))
        tally = AnswerTally()
        lines = []
        for index, row in enumerate(rows):
            tally.add(outcomes[index], good.get(index), tasks)
            lines.append(_json({**row.values, **outcomes[index]}))
        _write_whole(self._answers(part), "".join(lines))
        _write_whole(self._summary(part), json.dumps(asdict(tally)))


def fingerprint_of(model: torch.nn.Module) -> str:
    """Return a digest of a model's tensors, by which parts of another model are told."""
    digest = hashlib.blake2b()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def answer_file(answerer: Answerer, job: FileAnswers) -> AnswerTally | None:
    """Answer a file with all processes; return the counts of its rows in the first of them.

    Raises:
        InputError: An unknown task, or parts of another job lie where its own would.
    """
    job.check_columns(answerer)
    place, count, wait = _processes(answerer.model.device.type)
    lock = FileLock(job.folder.with_suffix(".lock"), timeout=0)
    if is_main_process():
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(f"Another run is writing {str(job.output)!r} now; name another --output.") from error
    try:
        if is_main_process():
            job.open_folder(fingerprint_of(answerer.model))
        wait()
        job.answer_parts(answerer, place, count)
        wait()
        return job.finish() if is_main_process() else None
    finally:
        if lock.is_locked:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def _processes(device: str) -> tuple[int, int, Callable[[], object]]:
    """Return this process's place, how many there are, and what waits for all of them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, lambda: None
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    return state.process_index, state.num_processes, state.wait_for_everyone


def _outcomes(
    answerer: Answerer,
    rows: Sequence[Row],
    places: Sequence[str],
    tasks: Sequence[Any],
    batch_size: int,
    progress: Callable[[int], object],
) -> list[dict[str, Any]]:
    """The answers of rows; where they cannot be had together, of each half, so that a bad row spoils no other."""
    if not rows:
        return []
    try:
        return [{"answers": answers} for answers in answerer.answer_checked(rows, tasks, batch_size, progress)]
    except InputError as error:
        if len(rows) == 1:
            progress(1)
            return [{"error": f"{places[0]}: {_OF_ROW.sub('', str(error))}"}]
    middle = len(rows) // 2
    halves = (slice(None, middle), slice(middle, None))
    return [
        outcome
        for half in halves
        for outcome in _outcomes(answerer, rows[half], places[half], tasks, batch_size, progress)
    ]


def _listed(value: Any) -> Any:
    """Return the list that a cell of a csv file holds as JSON; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8")
    part.rename(path)


def _json(values: Mapping[str, Any]) -> str:
    # Dates and bytes of a parquet file are written as texts.
    return json.dumps(_without_nan(values), ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _without_nan(value: Any) -> Any:
    """A value with null for the numbers that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, (list, tuple)) else value


def _write_table(
    stream: TextIO, columns: Sequence[str], tally: AnswerTally, lines: Iterator[Mapping[str, Any]]
) -> None:
    """Write answers as a csv file: the row's own columns, one per key of a task's answers, and errors."""
    keys = [(task, key) for task, keys in tally.keys.items() for key in keys]
    header = [*columns, *(f"{task}.{key}" for task, key in keys), *(["error"] if tally.num_errors else [])]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        answers = line.get("answers", {})
        cells = [line.get(name) for name in columns]
        cells += [answers.get(task, {}).get(key) for task, key in keys]
        cells += [line.get("error")] if tally.num_errors else []
        writer.writerow([_cell(value) for value in cells])


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else value
