"""An encoder that was saved without its decoder is read as what it is."""

import pytest
import torch
from transformers import (
    MT5Config,
    MT5EncoderModel,
    T5Config,
    T5EncoderModel,
    T5Model,
    UMT5Config,
    UMT5EncoderModel,
)

from hf_mtl import MultiTaskAttentionModel

SIZES = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
TASK = {"name": "t", "problem_type": "single_label_classification", "labels": ["no", "yes"]}


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [(T5Model, T5Config), (T5EncoderModel, T5Config), (MT5EncoderModel, MT5Config), (UMT5EncoderModel, UMT5Config)],
)
def test_an_encoder_of_a_pair_is_read_alone(model_class, config_class, tmp_path):
    torch.manual_seed(0)
    stored = model_class(config_class(**SIZES)).eval()
    stored.save_pretrained(tmp_path / "encoder")
    model = MultiTaskAttentionModel.from_encoder(str(tmp_path / "encoder"), [TASK]).eval()
    ids = torch.tensor([[3, 4, 5, 1]])
    states = stored.get_encoder()(input_ids=ids).last_hidden_state
    torch.testing.assert_close(model.encoder(input_ids=ids).last_hidden_state, states, rtol=0, atol=0)
    assert not [name for name, _ in model.named_parameters() if "decoder" in name]
    model.save_pretrained(tmp_path / "model")
    again = MultiTaskAttentionModel.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(again(ids).logits["t"], model(ids).logits["t"], rtol=0, atol=0)
