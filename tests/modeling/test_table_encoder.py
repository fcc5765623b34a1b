"""The encoder of rows of tables: a token per column, empty cells and unseen values of their own."""

import math

import pytest
import torch

from hf_mtl import InputError
from hf_mtl.modeling.modality_readers import TableReader
from hf_mtl.modeling.table_config import TableConfig
from hf_mtl.modeling.table_encoder import MISSING, UNSEEN, TableEncoder

COLUMNS = [
    {"name": "age", "kind": "number", "mean": 40.0, "scale": 10.0, "has_empty": True},
    {"name": "kind", "kind": "category", "values": ["1", "b"]},
    {"name": "size", "kind": "number", "mean": 0.0, "scale": 2.0, "has_empty": False},
]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TableEncoder(TableConfig(columns=COLUMNS, hidden_size=16, num_attention_heads=2)).eval()


def test_tokens_are_the_formula(encoder):
    tokens = encoder.tokens(torch.tensor([[2.0, math.nan]]), torch.tensor([[2]]))
    weight, bias = encoder.tokens.weight, encoder.tokens.bias
    # z = 2, drawn in: log 3; an empty cell of a column without any in training is its mean's token.
    torch.testing.assert_close(tokens[0, 0], math.log(3) * weight[0] + bias[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(tokens[0, 1], bias[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(tokens[0, 2], encoder.tokens.values.weight[2], atol=1e-6, rtol=0)
    empty = encoder.tokens(torch.tensor([[math.nan, 0.0]]), torch.tensor([[MISSING]]))
    torch.testing.assert_close(empty[0, 0], bias[0] + encoder.tokens.empty[0], atol=1e-6, rtol=0)


def test_columns_that_a_row_does_not_have_change_nothing(encoder):
    mask = torch.tensor([[1, 0, 1]])
    first = encoder(torch.tensor([[30.0, 1.0]]), torch.tensor([[1]]), mask).last_hidden_state
    second = encoder(torch.tensor([[30.0, 99.0]]), torch.tensor([[1]]), mask).last_hidden_state
    torch.testing.assert_close(first[0, [0, 2]], second[0, [0, 2]], atol=1e-6, rtol=0)


def test_the_reader_tells_empty_cells_from_unseen_values(encoder):
    reader = TableReader(encoder, None, prefixed=False)
    rows = [
        {"age": "50", "kind": 1.0, "size": None},
        {"age": math.nan, "kind": "", "size": True},
        {"age": 1, "kind": "z"},
    ]
    tensors = reader.tensors(rows)
    assert tensors["categories"].flatten().tolist() == [2, MISSING, UNSEEN]
    assert tensors["numbers"].isnan().tolist() == [[False, True], [True, False], [False, True]]
    assert tensors["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 1]]
    # Numbers come standardised.
    assert tensors["numbers"][0, 0] == 1 and tensors["numbers"][1, 1] == 0.5
    with pytest.raises(ValueError, match="'age' is 'old'"):
        reader.check({"age": "old"})
    with pytest.raises(ValueError, match="column 'hight'"):
        reader.check({"hight": 3})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, "needs its columns"),
        ([{"name": "a", "kind": "amount"}], "kind of column"),
        ([{"name": "a", "kind": "number", "mean": 1.0, "scale": 0.0}], "scale"),
        ([{"name": "a", "kind": "category"}], "needs its `values`"),
        ([COLUMNS[0], COLUMNS[0]], "twice"),
    ],
)
def test_columns_are_checked(columns, message):
    with pytest.raises(InputError, match=message):
        TableEncoder(TableConfig(columns=columns))
