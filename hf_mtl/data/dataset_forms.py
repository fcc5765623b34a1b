"""Whatever form rows are given in, here they become data sets by name, or the error says what to write."""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict
from transformers.utils.logging import get_logger

from ..modeling.errors import InputError, nearest
from ..tasks import SPLITS
from .fingerprint import fingerprint_rows

logger = get_logger(__name__)

Rows: TypeAlias = Dataset | IterableDataset

# What stands in an example where the caller has named no task yet.
_EXAMPLE_TASK = "mood"
_COLUMN = (list, tuple, np.ndarray, pd.Series)
_ARGUMENTS = {"train": "train_dataset", "validation": "eval_dataset", "test": "test_dataset"}
# What becomes of the rows that each holds.
_DONE_WITH = {"train": "trained on", "validation": "scored", "test": "answered"}

# Parts of names by which a split of another name may be meant for one of `SPLITS`.
_SPLIT_WORDS = {"train": ("train",), "validation": ("val", "dev", "held", "hold"), "test": ("test",)}


def named_datasets(given: Any, names: Sequence[str], split: str) -> dict[str, Rows]:
    """Return data sets by name.

    Args:
        given: Data sets by name, or a single one where there is one name; each a `Dataset`, its splits, a list of
            mappings, a mapping of columns or a DataFrame.
        names: The names that are known: of tasks and their sources.
        split: The split to take where splits are given.

    Raises:
        InputError: Something else, or several names that it could be meant for; the message shows the line to write.
    """
    if given is None or isinstance(given, str):
        raise InputError(_no_rows((names or [_EXAMPLE_TASK])[0], given, split))
    if not isinstance(given, Mapping) or _is_splits(given, names) or _is_unnamed_table(given, names):
        if len(names) != 1:
            raise InputError(_which_task(given, names, split))
        given = {names[0]: given}
    if not given:
        raise InputError(
            f"{_ARGUMENTS[split]} is empty; expected data sets by task, such as {_example(names, split)}."
        )
    for name, rows in given.items():
        _say_which_split(name, rows, split)
    return {str(name): _rows_of(name, rows, split) for name, rows in given.items()}


def splits_of(given: Any, names: Sequence[str], split: str) -> dict[str, Rows]:
    """Return the rows of a split, by name, that stand beside the training rows of what was given to train on."""
    if _is_splits(given, names):
        given = {names[0]: given}
    if not isinstance(given, Mapping) or _is_unnamed_table(given, names):
        return {}
    return {
        str(name): _rows_of(name, rows, split) for name, rows in given.items() if _is_splits(rows) and split in rows
    }


def test_rows_beside(train_dataset: Any, eval_dataset: Any, names: Sequence[str]) -> dict[str, Rows]:
    """Return the test rows that wait, by name, beside the training or the validation rows of what was given.

    Raises:
        InputError: Both hold test rows of one name, and these differ.
    """
    waiting = splits_of(train_dataset, names, "test")
    for name, rows in splits_of(eval_dataset, names, "test").items():
        if name in waiting and not _are_same(waiting[name], rows):
            raise InputError(
                f"train_dataset and eval_dataset both have a test split of {name!r}, with other rows. Keep one of "
                f'them: eval_dataset={{"{name}": data["validation"]}} leaves that of eval_dataset out.'
            )
        waiting[name] = rows
    return waiting


def _are_same(rows: Rows, others: Rows) -> bool:
    if isinstance(rows, Dataset) and isinstance(others, Dataset):
        return fingerprint_rows(rows) == fingerprint_rows(others)
    return rows is others


def check_names(given: Iterable[str], names: Sequence[str], split: str) -> None:
    """Raise `InputError` for data sets under names that are none of a task or a source.

    Args:
        given: The names of data sets.
        names: The names that there are.
        split: Which argument has them.
    """
    for name in given:
        if name not in names:
            raise InputError(
                f"{_ARGUMENTS[split]} has the task {name!r}; expected one of {', '.join(names)}."
                f"{nearest(name, names)} {second_set_help(names[0], name, split)}"
            )


def second_set_help(task: str, name: str, split: str = "validation", rows: str = "rows") -> str:
    """Return the sentence that says how a further set of a task's rows is scored, or answered.

    Args:
        task: The task.
        name: What the set is called.
        split: "test" for rows to answer.
        rows: How the example writes them.
    """
    if split == "test":
        return f'Rows of a further set are answered by trainer.predict({{"{task}": {rows}}}).'
    return (
        f'Rows of a further set are scored by trainer.evaluate({{"{task}": {rows}}}, metric_key_prefix="eval_{name}").'
    )


def _is_splits(given: Any, names: Iterable[str] = ()) -> bool:
    """Return whether something is one data set's splits; a mapping whose names are tasks' is none."""
    if not isinstance(given, Mapping) or not given or _is_table(given):
        return False
    return not set(given) & set(names) and bool(set(given) & set(SPLITS))


def _is_table(given: Any) -> bool:
    """Return whether a mapping holds columns, and not lists of rows by task."""
    return (
        isinstance(given, Mapping)
        and bool(given)
        and all(isinstance(value, _COLUMN) for value in given.values())
        and not all(_is_list_of_rows(value) for value in given.values())
    )


def _is_unnamed_table(given: Any, names: Sequence[str]) -> bool:
    """Return whether a mapping is one table: its keys are columns, and not the names of tasks."""
    # Where no task is named yet, one column has nothing to learn: its key is a task.
    return _is_table(given) and not set(given) <= set(names) and (bool(names) or len(given) > 1)


def with_texts(given: Any, names: Sequence[str], columns: Mapping[str, str]) -> Any:
    """Return what was given to answer, with columns in the place of lists of texts.

    Args:
        given: See `named_datasets`.
        names: See `named_datasets`.
        columns: By the names whose rows may be texts alone, the column that the texts are.
    """
    if _are_texts(given) and len(names) == 1:
        given = {names[0]: given}
    if not isinstance(given, Mapping) or _is_splits(given, names) or _is_unnamed_table(given, names):
        return given
    return {
        name: {columns[name]: list(rows)} if name in columns and _are_texts(rows) else rows
        for name, rows in given.items()
    }


def _are_texts(given: Any) -> bool:
    return isinstance(given, _COLUMN) and len(given) > 0 and all(isinstance(text, str) for text in given)


def _rows_of(name: str, given: Any, split: str) -> Rows:
    """Return one data set, of the split that is wanted where splits are given.

    Raises:
        InputError: No rows, or splits that lack it.
    """
    if _has_splits(given):
        given = _split_of(name, given, split)
    if isinstance(given, Dataset) and given.format["type"] == "custom":
        raise InputError(
            f"The rows of {name!r} have a transform (set_transform), which rows are read without: columns are read as "
            "they are stored. Write data.map(function) to store what it makes, or data.reset_format() to leave it out."
        )
    if isinstance(given, (Dataset, IterableDataset)):
        return given
    try:
        if isinstance(given, pd.DataFrame):
            return Dataset.from_pandas(given, preserve_index=False)
        if _is_list_of_rows(given):
            # Of all rows: a key that the first row lacks is a column too.
            keys = dict.fromkeys(key for row in given for key in row)
            return Dataset.from_dict({key: [row.get(key) for row in given] for key in keys})
        if _is_table(given):
            return Dataset.from_dict({key: list(values) for key, values in given.items()})
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"The rows of {name!r} are no table: {' '.join(str(error).split())}.") from error
    raise InputError(_no_rows(name, given, split))


def _no_rows(name: str, given: Any, split: str) -> str:
    if isinstance(given, _COLUMN):
        return _no_list_of_rows(name, given, split)
    return (
        f"{_ARGUMENTS[split]} has {_kind(given)} for {name!r}; expected rows: a Dataset, a list of mappings, columns "
        f"or a DataFrame. A file is read with load_dataset('csv', data_files=...)['train'], or by the task's row: "
        "load_mixture([TaskSpec(..., data_files={'train': ...})])."
    )


def _no_list_of_rows(name: str, given: Any, split: str) -> str:
    items = given.tolist() if isinstance(given, (np.ndarray, pd.Series)) else given
    odd = [(place, item) for place, item in enumerate(items) if not isinstance(item, Mapping)]
    if not odd:
        return f"{_ARGUMENTS[split]} has {_kind(given)} for {name!r} without any row; expected one at least."
    place, item = odd[0]
    row = "{'text': ...}" if split == "test" else "{'text': ..., 'label': ...}"
    return (
        f"{_ARGUMENTS[split]} has {_kind(given)} for {name!r}, and item {place} is {reprlib.repr(item)}; expected "
        f"rows that name their fields: {_ARGUMENTS[split]}={{{name!r}: [{row}]}}, or a Dataset, columns or a "
        "DataFrame."
    )


def _has_splits(given: Any) -> bool:
    """Return whether what stands for one data set is several, whatever they are called."""
    if isinstance(given, (DatasetDict, IterableDatasetDict)) or _is_splits(given):
        return True
    is_mapping = isinstance(given, Mapping) and bool(given)
    return is_mapping and all(
        isinstance(rows, (Dataset, IterableDataset, pd.DataFrame)) or _is_list_of_rows(rows) for rows in given.values()
    )


def _split_of(name: str, splits: Mapping[str, Any], split: str) -> Any:
    """The rows of a split, where no other could be meant; of training rows, none for their validation either.

    A split of another name than `SPLITS`, which nothing reads, is refused.
    """
    unsure = [other for other in _names_like(splits, "validation") if other != "validation"]
    unread = [str(other) for other in splits if other not in SPLITS]
    reason = f"expected {split!r}"
    if split in splits and unsure and split == "train":
        reason = f"whether {' or '.join(map(repr, unsure))} holds the validation rows is open"
    elif split in splits and not unread:
        return splits[split]
    elif split in splits:
        reason = f"{_ARGUMENTS[split]} would leave out {', '.join(map(repr, unread))}"
    shown = [_split_to_write(splits, one) for one in _splits_to_write(splits, split)]
    further = [other for other in unread if other not in shown and other not in _names_like(splits, "train")]
    helps = [second_set_help(name, other, split, f'data["{other}"]') for other in further[:1]]
    raise InputError(
        f"The data set {name!r} has the splits {', '.join(map(str, splits))}; {reason}. Say which rows are meant: "
        f"{' '.join([f'{_splits_example(name, splits, split)}.', *helps])}"
    )


def _say_which_split(name: str, given: Any, split: str) -> None:
    """Say which of a data set's usual splits is read, where the others are not: those beside training rows all are."""
    if split != "train" and _has_splits(given) and split in given and len(given) > 1:
        logger.warning_once(
            f"{_ARGUMENTS[split]} has the splits {', '.join(map(str, given))} of {name!r}; {split} is "
            f"{_DONE_WITH[split]} here, the others are not."
        )


def _names_like(splits: Iterable[str], split: str) -> list[str]:
    return [name for name in splits if any(word in str(name).lower() for word in _SPLIT_WORDS[split])]


def _split_to_write(splits: Mapping[str, Any], split: str) -> str:
    """The split that an example shows: never one to train on where rows to score are meant, nor the reverse."""
    if split in splits:
        return split
    held_out = [name for kind in ("validation", "test") for name in _names_like(splits, kind)]
    rest = [name for name in splits if name not in held_out]
    if split != "train":
        rest = held_out + [name for name in rest if name not in _names_like(splits, "train")]
    return next(iter([*_names_like(splits, split), *rest]), "SPLIT")


def _is_list_of_rows(given: Any) -> bool:
    return isinstance(given, _COLUMN) and len(given) > 0 and all(isinstance(row, Mapping) for row in given)


def _kind(given: Any) -> str:
    return repr(given) if isinstance(given, (str, int, float, type(None))) else f"a {type(given).__name__}"


def _which_task(given: Any, names: Sequence[str], split: str) -> str:
    """The error for rows without a name."""
    after = f"a task ({', '.join(names)})" if names else "their task"
    if _is_splits(given):
        lacking = "" if split in given else f" (none of them is called {split!r})"
        return (
            f"{_ARGUMENTS[split]} is one data set's splits ({', '.join(given)}){lacking}, and which task they are of "
            f"is open. Name them after {after}: {_splits_example((names or [_EXAMPLE_TASK])[0], given, split)}."
        )
    is_what = f"a table with the columns {', '.join(map(str, given))}" if _is_table(given) else _kind(given)
    return (
        f"{_ARGUMENTS[split]} is {is_what}, and which task its rows are of is open. Name them after {after}: "
        f"{_example(names, split)}."
    )


def _example(names: Sequence[str], split: str) -> str:
    return f"{_ARGUMENTS[split]}={{{(names or [_EXAMPLE_TASK])[0]!r}: data}}".replace("'", '"')


def _splits_to_write(given: Mapping[str, Any], split: str) -> list[str]:
    return [split, "validation"] if split == "train" and _names_like(given, "validation") else [split]


def _splits_example(task: str, given: Mapping[str, Any], split: str) -> str:
    return ", ".join(
        f'{_ARGUMENTS[name]}={{"{task}": data["{_split_to_write(given, name)}"]}}'
        for name in _splits_to_write(given, split)
    )


def dataset_of_rows(rows: Sequence[dict[str, Any]], features: Features | None) -> Dataset:
    """Return rows as a data set, with the features that a stream has, where it has any."""
    if features is None:
        return Dataset.from_list(list(rows))
    columns = {name: [row.get(name) for row in rows] for name in features}
    return Dataset.from_dict(columns, features=features)
