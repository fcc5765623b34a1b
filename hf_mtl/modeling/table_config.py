"""The configuration of an encoder of rows of tables: its columns, and what was measured of them."""

import math
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .errors import InputError, check_choice

NUMBER, CATEGORY = "number", "category"


class TableConfig(PreTrainedConfig):
    """Configuration of a `TableEncoder`.

    Args:
        columns: The columns in order: ``{"name", "kind": "number", "mean", "scale", "has_empty"}``, or ``{"name",
            "kind": "category", "values": [...]}``, of which other values than these are unseen ones.
        hidden_size: Width of the states, one per column.
        num_hidden_layers: Layers of self-attention between columns.
        num_attention_heads: Heads of each.
        intermediate_size: Inner size of a layer; None for twice the hidden size.
        hidden_dropout_prob: Dropout behind attention and behind the inner layer.
        initializer_range: Standard deviation of weights at the start.
    """

    model_type = "hf_mtl_table"

    columns: list[dict] | None = None
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    hidden_dropout_prob: float | int = 0.1
    initializer_range: float | int = 0.02

    @property
    def column_names(self) -> list[str]:
        """The columns' names, in order."""
        return [column["name"] for column in self.columns or ()]

    def check(self) -> None:
        """Raise `InputError` unless an encoder can be built from it."""
        if not self.columns:
            raise InputError(
                "A TableEncoder needs its columns: give a trainer the training rows, which measures them, or write "
                "TableConfig(columns=[{'name': 'age', 'kind': 'number', 'mean': 38.6, 'scale': 13.6}, ...])."
            )
        for column in self.columns:
            _check_column(column)
        if len(set(self.column_names)) < len(self.columns):
            raise InputError(f"A TableEncoder has a column twice: {self.column_names!r}.")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"num_attention_heads={self.num_attention_heads} does not divide hidden_size={self.hidden_size}."
            )


def _check_column(column: Any) -> None:
    if not isinstance(column, Mapping) or not isinstance(column.get("name"), str):
        raise InputError(f"A column of a table is {column!r}; expected a mapping with its `name` and `kind`.")
    check_choice(f"kind of column {column['name']!r}:", column.get("kind"), (NUMBER, CATEGORY))
    if column["kind"] == CATEGORY:
        if not isinstance(column.get("values"), list | tuple):
            raise InputError(f"The column {column['name']!r} of categories needs its `values`.")
        return
    numbers: list[Any] = [column.get(name) for name in ("mean", "scale")]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers) or not numbers[1] > 0:
        raise InputError(
            f"The column {column['name']!r} of numbers has mean={numbers[0]!r} and scale={numbers[1]!r}; expected two "
            "numbers, the scale above 0."
        )


AutoConfig.register(TableConfig.model_type, TableConfig, exist_ok=True)

__all__ = ["TableConfig"]
