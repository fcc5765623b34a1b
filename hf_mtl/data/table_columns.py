"""Columns of tables, measured in training rows: numbers by mean and scale, categories by their values."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.utils.logging import get_logger

from ..modeling.errors import InputError
from ..modeling.modalities import TABLE
from ..modeling.modality_readers import is_empty, table_number, table_text
from ..modeling.table_config import CATEGORY, NUMBER
from ..tasks import TaskSpec

logger = get_logger(__name__)

# Values of a category that are told apart at most; the rarest others are unseen ones.
_MOST_VALUES = 1000
# Values that stand in one row alone teach nothing; as unseen ones they teach what is unseen.
_LEAST_ROWS = 2


def with_measured_columns(encoder: Any, specs: Iterable[TaskSpec], train: Mapping[str, Dataset]) -> Any:
    """Return encoders by modality, that of tables with the columns of the tasks' training rows.

    Args:
        encoder: What `from_encoder` takes; anything else than a mapping with an encoder of tables stays as it is.
        specs: The tasks.
        train: Their training rows.

    Raises:
        InputError: A column that is neither of numbers nor of categories.
    """
    if not isinstance(encoder, Mapping) or not isinstance(encoder.get(TABLE), Mapping):
        return encoder
    values = dict(encoder[TABLE])
    if "columns" in values or "name" in values:
        return encoder
    said = {kind: set(values.pop(plural, ())) for kind, plural in ((NUMBER, "numbers"), (CATEGORY, "categories"))}
    cells: dict[str, list[Any]] = {}
    read: set[tuple[str, str]] = set()
    for spec in specs:
        if TABLE not in spec.input_fields or spec.name not in train:
            continue
        # Tasks of one source have the same rows, but for those that lack a label.
        names = [name for name in spec.table_columns or () if (spec.source_name, name) not in read]
        read |= {(spec.source_name, name) for name in names}
        table = train[spec.name].with_format("arrow")[:].column(TABLE).combine_chunks() if names else None
        for name in names:
            assert table is not None
            cells.setdefault(name, []).extend(table.field(name).to_pylist())
    if unknown := sorted((said[NUMBER] | said[CATEGORY]) - cells.keys()):
        raise InputError(
            f"The encoder of tables names a column {unknown[0]!r}, which no task reads; tasks read {', '.join(cells)}."
        )
    if unsettled := [name for name, column in cells.items() if not _is_said(name, said) and _are_numerals(column)]:
        firsts = {name: next(cell for cell in cells[name] if not is_empty(cell)) for name in unsettled}
        examples = ", ".join(f"{name} ({cell})" for name, cell in firsts.items())
        raise InputError(
            f"Columns of a table hold texts that are numbers: {examples}. Are they amounts or codes? Say it of the "
            f"encoder of tables, of each: numbers: [{', '.join(unsettled)}], or categories: [...]."
        )
    rare: dict[str, int] = {}
    columns = [_measured(name, column, said, rare) for name, column in cells.items()]
    if rare:
        counts = ", ".join(f"{name} {count:,}" for name, count in rare.items())
        logger.warning(f"Values of tables that too few training rows have count as unseen ones: {counts}.")
    return {**encoder, TABLE: {**values, "columns": columns}}


def _measured(name: str, cells: list[Any], said: Mapping[str, set[str]], rare: dict[str, int]) -> dict[str, Any]:
    present = [cell for cell in cells if not is_empty(cell)]
    if not present:
        raise InputError(f"The column {name!r} of a table is empty in all {len(cells):,} training rows; leave it out.")
    if name in said[NUMBER] or (name not in said[CATEGORY] and _are_numbers(name, present)):
        try:
            numbers = np.array([table_number(cell, name) for cell in present], dtype=np.float64)
        except ValueError as error:
            raise InputError(f"The column {name!r} of a table is to hold numbers; {error}.") from error
        scale = float(numbers.std())
        return {
            "name": name,
            "kind": NUMBER,
            "mean": float(numbers.mean()),
            "scale": scale if scale > 0 else 1.0,
            "has_empty": len(present) < len(cells),
        }
    counts = Counter(map(table_text, present))
    values = sorted(value for value, count in counts.most_common(_MOST_VALUES) if count >= _LEAST_ROWS)
    if not values:
        raise InputError(
            f"The column {name!r} of a table has another text in every row, so that nothing can be learned of it; "
            "leave it out of the tasks' `table`."
        )
    if len(values) < len(counts):
        rare[name] = len(counts) - len(values)
    return {"name": name, "kind": CATEGORY, "values": values}


def _is_said(name: str, said: Mapping[str, set[str]]) -> bool:
    """Return whether somebody said what a column holds."""
    return any(name in names for names in said.values())


def _are_numerals(cells: list[Any]) -> bool:
    """Return whether cells are texts that are numbers, and could be codes as well."""
    present = [cell for cell in cells if not is_empty(cell)]
    try:
        return all(isinstance(cell, str) and math.isfinite(float(cell)) for cell in present) and bool(present)
    except ValueError:
        return False


def _are_numbers(name: str, cells: list[Any]) -> bool:
    """Return whether cells are numbers; texts, True and False are categories.

    Raises:
        InputError: They are something else.
    """
    kinds = {type(cell) for cell in cells}
    if kinds <= {str, bool}:
        return False
    if kinds <= {int, float, Decimal}:
        return True
    other = next((cell for cell in cells if not isinstance(cell, (str, bool, int, float))), cells[0])
    raise InputError(
        f"The column {name!r} of a table holds {', '.join(sorted(kind.__name__ for kind in kinds))}, such as "
        f"{str(other)[:60]!r}; expected numbers, texts or truth values. Make it one of them, say it of the encoder of "
        f"tables (categories: [{name}]), or leave it out."
    )
