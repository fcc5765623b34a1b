"""An encoder of rows of tables: one token per column, which read each other."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from .table_config import CATEGORY, NUMBER, TableConfig

# Ids of categories that are no value: of a cell that is empty, and of a value that training rows do not have.
MISSING, UNSEEN = 0, 1


class _ColumnTokens(nn.Module):
    """Cells become tokens: x w_c + b_c of a number x, an embedding per category (Gorishniy et al. 2021, section 3.3).

    Numbers come standardised, and far ones are drawn in: sign(z) log(1 + |z|). A cell that is empty is a token of its
    column's own; of a column of numbers that has none in the training rows it is the mean's.

    Args:
        config: Gives the columns.
    """

    def __init__(self, config: TableConfig) -> None:
        super().__init__()
        numbers, categories = ([c for c in config.columns or () if c["kind"] == kind] for kind in (NUMBER, CATEGORY))
        hidden = config.hidden_size
        self.weight = nn.Parameter(torch.empty(len(numbers), hidden))
        self.bias = nn.Parameter(torch.empty(len(numbers), hidden))
        self.holed = [place for place, column in enumerate(numbers) if column.get("has_empty")]
        self.empty = nn.Parameter(torch.empty(len(self.holed), hidden)) if self.holed else None
        sizes = [len(column["values"]) + 2 for column in categories]
        self.starts = [sum(sizes[:place]) for place in range(len(sizes))]
        self.values = nn.Embedding(max(sum(sizes), 1), hidden) if categories else None

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor | None) -> torch.Tensor:
        """Return (rows, columns, hidden), those of numbers first.

        Args:
            numbers: (rows, columns of numbers), standardised, NaN where a cell is empty.
            categories: (rows, columns of categories), ids.
        """
        is_empty = numbers.isnan()
        standard = numbers.float()
        standard = (standard.sign() * standard.abs().log1p()).to(self.weight.dtype).unsqueeze(-1)
        # Of an empty cell z is 0 here, and its token b_c.
        standard = standard.masked_fill(is_empty.unsqueeze(-1), 0.0)
        tokens = standard * self.weight + self.bias
        if self.empty is not None:
            added = self.empty * is_empty[:, self.holed].unsqueeze(-1).to(tokens.dtype)
            tokens = tokens.index_add(1, torch.tensor(self.holed, device=tokens.device), added)
        if self.values is None or categories is None:
            return tokens
        starts = categories.new_tensor(self.starts)
        return torch.cat([tokens, self.values(categories + starts)], dim=1)


class _TableLayer(nn.Module):
    """Self-attention between columns and a small network, each behind a norm.

    Args:
        config: Gives sizes and dropout.
    """

    def __init__(self, config: TableConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size or 2 * config.hidden_size
        self.num_heads, self.dropout = config.num_attention_heads, config.hidden_dropout_prob
        self.attention_norm, self.norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.reads, self.attended = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.inner, self.outer = nn.Linear(hidden, inner), nn.Linear(inner, hidden)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return (rows, columns, hidden).

        Args:
            states: (rows, columns, hidden).
            mask: (rows, 1, 1, columns), True at columns that are read; None for all.
        """
        heads = self.reads(self.attention_norm(states)).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # (rows, heads, columns, size) each
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        attended = self.attended(mixed.transpose(1, 2).flatten(2))
        states = states + F.dropout(attended, self.dropout, self.training)
        inner = self.outer(F.gelu(self.inner(self.norm(states))))
        return states + F.dropout(inner, self.dropout, self.training)


class TableEncoder(PreTrainedModel):
    """Rows of a table as states of their columns.

    Args:
        config: Its columns and sizes.

    Raises:
        InputError: It has no columns, or sizes that do not go together.
    """

    config: TableConfig
    config_class = TableConfig
    base_model_prefix = "table"
    main_input_name = "numbers"
    _supports_sdpa = True

    def __init__(self, config: TableConfig) -> None:
        super().__init__(config)
        config.check()
        self.tokens = _ColumnTokens(config)
        self.layers = nn.ModuleList(_TableLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(
        self,
        numbers: torch.Tensor,
        categories: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Return the columns' states (rows, columns, hidden), those of numbers first.

        Args:
            numbers: (rows, columns of numbers), less their column's mean and divided by its scale, as `TableReader`
                makes them; NaN where a cell is empty.
            categories: (rows, columns of categories), ids of `TableReader`.
            attention_mask: (rows, columns), 0 at columns that a row does not have, 1 at all others.
            output_hidden_states: Whether to return the states before and behind each layer too.
            **kwargs: Flags that say nothing of it.
        """
        states = self.tokens(numbers, categories)
        mask = None if attention_mask is None else attention_mask[:, None, None].bool()
        layers = [states]
        for layer in self.layers:
            states = layer(states, mask)
            layers.append(states)
        states = self.norm(states)
        return BaseModelOutput(
            last_hidden_state=states, hidden_states=(*layers[:-1], states) if output_hidden_states else None
        )

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, _ColumnTokens):
            for parameter in module.parameters(recurse=False):
                init.normal_(parameter, mean=0.0, std=self.config.initializer_range)
        else:
            super()._init_weights(module)


__all__ = ["MISSING", "TableEncoder", "UNSEEN"]
