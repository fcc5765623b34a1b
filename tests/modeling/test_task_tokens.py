"""Task tokens tell tasks apart, whatever an encoder has learned of its positions and words."""

import copy
import json

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, ModernBertConfig, RobertaConfig, T5Config

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.encoder_conditioning import TaskTokens
from tests.conftest import ENCODER, TASKS, VOCABULARY, encoder_config, random_batch, randomise
from tests.modeling.test_conditioning import SIZES, STILL, build, encoder_inputs, tokens_of
from tests.modeling.test_conditioning import random_batch as batch_of_words

PLAIN = {"conditioning": "task_tokens", "pooling": "mean", "task_interaction": "none", "head_dropout": 0.0}


def planted(config, words: float, heavy: tuple[int, ...] = ()):
    """An encoder whose words have this scale, and whose embeddings of some positions outweigh all others."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(config).eval()
    with torch.no_grad():
        encoder.get_input_embeddings().weight.normal_(std=words)
        for name, tensor in encoder.named_parameters():
            if name.endswith("position_embeddings.weight"):
                tensor[list(heavy)] = 200 * torch.randn(tensor.shape[1])
    return encoder


def with_global_attention():
    ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    return ModernBertConfig(**SIZES, **ids, global_attn_every_n_layers=1)


# Encoder, the position that task tokens take, and the scale of words.
ENCODERS = {
    "bert": (lambda: planted(BertConfig(**SIZES, **STILL), 0.056, heavy=(0,)), 1, 0.056),
    "bert of two heavy positions": (lambda: planted(BertConfig(**SIZES, **STILL), 0.056, heavy=(0, 1)), 2, 0.056),
    "roberta": (lambda: planted(RobertaConfig(**SIZES, **STILL, pad_token_id=1), 0.1, heavy=(2,)), 1, 0.1),
    "modernbert": (lambda: planted(with_global_attention(), 0.3), 1, 0.3),
    "t5": (
        lambda: planted(
            T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0),
            20.0,
        ),
        1,
        20.0,
    ),
}

every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def spread(states: torch.Tensor) -> float:
    """How far the states (rows, tasks, hidden) of a row's tasks lie apart, relative to their norm."""
    return ((states - states.mean(dim=1, keepdim=True)).norm() / states.norm()).item()


def spread_of(model, **inputs) -> float:
    with torch.no_grad():
        return spread(tokens_of(model.eval(), **inputs).task_tokens)


def model_of(encoder, **settings) -> MultiTaskAttentionModel:
    torch.manual_seed(0)
    return MultiTaskAttentionModel.from_encoder(encoder, copy.deepcopy(TASKS), **{**PLAIN, **settings})


def train(model, batches, encoder_rate: float) -> None:
    groups = [{"params": model.encoder.parameters(), "lr": encoder_rate}, {"params": model.mtl.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for batch in batches:
        model.train()(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@every_encoder
def test_tasks_stay_apart_up_to_the_last_layer(encoder):
    """S4.2: at the place of a heavy embedding, or with entries far smaller than words, all tokens leave as one."""
    make, place, scale = ENCODERS[encoder]
    model, inputs = model_of(make()), encoder_inputs()
    assert model.config.task_token_position == place
    assert model.config.task_token_scale == pytest.approx(scale, rel=0.05)
    assert spread_of(model, **inputs) > 0.1
    train(model, [batch_of_words(seed) for seed in range(12)], encoder_rate=1e-3)
    assert spread_of(model, **inputs) > 0.1


@pytest.mark.parametrize(
    ("encoder", "before"),
    [
        ("bert", {"task_token_position": 0}),
        ("roberta", {"task_token_position": 0}),
        ("bert", {"task_token_scale": 1e-4}),
    ],
)
def test_a_heavy_position_and_light_tokens_tell_nothing_apart(encoder, before):
    """The mistake that the measured settings avoid."""
    assert spread_of(model_of(ENCODERS[encoder][0](), **before), **encoder_inputs()) < 0.01


def test_tasks_stay_apart_in_the_packaged_encoder(tokenizer):
    """Its first position has six times the norm of others: there states are one to 1e-5."""
    texts = ["the strap broke after two days", "an honest film", "who was it that answered my letters , and when ?"]
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    first = spread_of(model_of(ENCODER, task_token_position=0), **inputs)
    model = model_of(ENCODER)
    assert first < 1e-4
    assert spread_of(model, **inputs) > 0.1
    train(model, [random_batch(seed=seed) for seed in range(4)], encoder_rate=5e-5)
    assert spread_of(model, **inputs) > 0.1


def test_tokens_have_the_scale_and_place_that_are_settings():
    """S4.2: entries of scale s of W e_t, at position p behind an encoder's place for padding."""
    model, inputs = build("task_tokens", "roberta", task_token_position=5, task_token_scale=0.3), encoder_inputs()
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, given, named: seen.append(named), with_kwargs=True)
    model(**inputs)
    count = len(TASKS)
    assert (seen[0]["position_ids"][:, :count] == 2 + 5).all()
    expected = 0.3 * model.mtl.task_encoder() @ model.mtl.conditioning.token.weight.T
    torch.testing.assert_close(seen[0]["inputs_embeds"][0, :count], expected)


def test_what_was_measured_is_saved(tmp_path):
    """Where a checkpoint is built without memory, there is nothing to measure; nor do weights that moved say it."""
    model = randomise(model_of(ENCODERS["bert of two heavy positions"][0]()))
    with torch.no_grad():
        model.encoder.embeddings.position_embeddings.weight.copy_(torch.randn(64, 32))
        model.get_input_embeddings().weight.mul_(3)
    model.save_pretrained(tmp_path)
    loaded = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(loaded(**encoder_inputs()).logits[task], logits), task
    assert (loaded.config.task_token_position, loaded.mtl.conditioning.place) == (2, 2)


def test_a_checkpoint_from_before_these_settings_keeps_its_place(tmp_path):
    """Tokens stood at a text's first position, of scale 0.02; what was trained there is answered so."""
    model = randomise(build("task_tokens", task_token_position=0, task_token_scale=0.02))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("task_token_position", "task_token_scale"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    assert (loaded.config.task_token_position, loaded.config.task_token_scale) == (0, 0.02)
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(loaded(**encoder_inputs()).logits[task], logits), task
    # What no model was saved with is no checkpoint of before.
    config.pop("architectures")
    assert MultiTaskAttentionConfig.from_dict(config).task_token_position is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task_token_position": 64}, "the encoder has the positions 0 to 63"),
        ({"task_token_position": -1}, "task_token_position=-1"),
        ({"task_token_scale": 0.0}, "task_token_scale=0.0; expected a number > 0"),
        ({"task_token_scale": float("nan")}, "task_token_scale=nan"),
    ],
)
def test_impossible_places_and_scales_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        build("task_tokens", **settings)


def test_nothing_is_measured_without_memory():
    with torch.device("meta"):
        part = TaskTokens(
            config := MultiTaskAttentionConfig(encoder_config=encoder_config(), tasks=TASKS), meta_bert()
        )
    assert (part.place, part.scale) == (config.task_token_position, config.task_token_scale) == (1, 0.02)


def meta_bert():
    return BertModel(encoder_config())
