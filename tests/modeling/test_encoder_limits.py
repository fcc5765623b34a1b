"""An encoder says what it can read: the longest row runs and one more word piece does not, whatever its family; and a
tokenizer that gives more is refused, or cut, before a step is taken.
"""

import copy
import json
import re

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    BertModel,
    BloomConfig,
    CanineConfig,
    CTRLConfig,
    DebertaV2Config,
    LongformerConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RoFormerConfig,
)

from hf_mtl import InputError, MultiTaskTrainer, MultiTaskTrainingArguments, TaskSpec
from hf_mtl.cli import main
from hf_mtl.modeling.encoder_conditioning import TASK_CONDITIONINGS
from hf_mtl.modeling.encoder_limits import EncoderLimits, _count_positions, _greatest_id, limits_of, limits_of_model
from hf_mtl.modeling.encoder_loading import build_encoder
from hf_mtl.modeling.encoder_reader import Conditions, EncoderReader
from hf_mtl.modeling.encoder_tensors import EncoderInputs
from hf_mtl.modeling.task_tensors import Carried
from tests.conftest import build_model
from tests.modeling.test_conditioning import ENCODERS, REFUSING, SIZES, VOCABULARY, build

BART = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 2)
# What `max_position_embeddings=64` means in each family; None where it binds nobody.
POSITIONS = {
    **dict.fromkeys(("bert", "distilbert", "electra", "albert", "deberta", "gpt2"), 64),
    **dict.fromkeys(("roberta", "mpnet"), 62),
    **dict.fromkeys(("t5", "modernbert", "llama", "xlnet"), None),
}
OTHERS = {
    "relative deberta": (
        lambda: DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["p2c"], position_biased_input=False),
        None,
    ),
    "bloom": (lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=1, n_head=2), None),
    "opt": (
        lambda: OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32),
        64,
    ),
    "bart": (lambda: BartConfig(vocab_size=VOCABULARY, d_model=32, max_position_embeddings=64, **BART), 64),
    "roformer": (lambda: RoFormerConfig(**SIZES), 64),
    "longformer": (
        lambda: LongformerConfig(**{**SIZES, "max_position_embeddings": 66}, attention_window=8, pad_token_id=1),
        64,
    ),
    "ctrl": (lambda: CTRLConfig(vocab_size=VOCABULARY, n_positions=64, n_embd=32, dff=64, n_layer=1, n_head=2), 64),
}
FAMILIES = {name: (make, POSITIONS[name]) for name, make in {**ENCODERS, **REFUSING}.items()} | OTHERS
TASK = {"name": "t", "problem_type": "single_label_classification", "labels": ["no", "yes"]}


@torch.no_grad()
def read(encoder, length):
    ids = torch.full((2, length), 5)
    return EncoderReader(encoder)(Carried(encoder), EncoderInputs(ids, torch.ones_like(ids)), Conditions()).states


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_row_runs_and_a_longer_one_does_not(family):
    make, expected = FAMILIES[family]
    encoder = build_encoder(make(), pooler=False).eval()
    assert _count_positions(encoder) == expected
    read(encoder, expected or 150)
    if expected is not None:
        with pytest.raises((IndexError, RuntimeError)):
            read(encoder, expected + 1)


@pytest.mark.parametrize("told", TASK_CONDITIONINGS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "mpnet"])
def test_what_an_encoder_is_told_takes_no_position(told, family):
    model = build(told, family)
    most = limits_of_model(model).positions
    assert most == POSITIONS[family]
    model(torch.full((2, most), 5))
    with pytest.raises(InputError, match=f"reads {most} at most"):
        model(torch.full((2, most + 1), 5))


def test_measuring_leaves_everything_as_it_was():
    model = build_model().train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    limits_of_model(model)
    assert model.training and model.encoder.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_limits_follow_the_encoder():
    model = build_model()
    assert limits_of_model(model) == EncoderLimits(VOCABULARY, 64, 2)
    model.resize_token_embeddings(VOCABULARY + 5)
    model.encoder.embeddings.position_embeddings = torch.nn.Embedding(32, 32)
    assert limits_of_model(model) == EncoderLimits(VOCABULARY + 5, 32, 2)
    assert _count_positions(model.to("meta").encoder) is None


def test_an_encoder_without_a_table_of_words_has_no_vocabulary():
    sizes = {key: value for key, value in SIZES.items() if key != "vocab_size"}
    assert limits_of(build_encoder(CanineConfig(**sizes), pooler=False)).vocabulary is None


WORDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "yes": 4, "no": 5}
LONG = "yes " * 40
BINARY = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
PAIRS = Features({"text": Value("string"), "text_pair": Value("string"), "label": ClassLabel(names=["no", "yes"])})


def word_level(vocabulary=None, segments=(0, 1), without=()):
    """A tokenizer of these words and ids that ends nowhere, with these segments of a first and a second text."""
    vocabulary = vocabulary or WORDS
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    first, second = segments
    inner.post_processor = processors.TemplateProcessing(
        single=f"[CLS]:{first} $A:{first} [SEP]:{first}",
        pair=f"[CLS]:{first} $A:{first} [SEP]:{first} $B:{second} [SEP]:{second}",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    named = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    named = {key: value for key, value in named.items() if key not in without}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=inputs, **named)


def model_for(*tasks, kind=BertConfig, **config):
    return build("none", kind(**{**SIZES, "vocab_size": len(WORDS), **config}), tasks=list(tasks or [TASK]))


def rows_of(*texts, pair=None):
    columns = {"text": list(texts), "label": [place % 2 for place in range(len(texts))]}
    if pair is None:
        return Dataset.from_dict(columns, features=BINARY)
    return Dataset.from_dict({**columns, "text_pair": [pair] * len(texts)}, features=PAIRS)


def trainer_of(tmp_path, model, tokenizer, rows, tasks=None):
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    return MultiTaskTrainer(
        model, args, train_dataset={"t": rows}, eval_dataset={"t": rows}, tasks=tasks, processing_class=tokenizer
    )


@pytest.mark.parametrize(("kind", "config"), [(BertConfig, {}), (RobertaConfig, {"pad_token_id": 1})])
def test_rows_longer_than_the_positions_are_cut_and_counted(tmp_path, kind, config):
    expected = 16 if kind is BertConfig else 14
    model = model_for(kind=kind, max_position_embeddings=16, **config)
    trainer = trainer_of(tmp_path, model, word_level(), rows_of(LONG, "no", "yes " * (expected - 2), LONG))
    assert [len(row) for [row] in trainer.train_dataset.features["t"]["sequences"]] == [
        expected,
        3,
        expected,
        expected,
    ]
    assert trainer.train_dataset.truncated == {"t": 2}
    (finding,) = [own for own in trainer.doctor().findings if own.check == "truncated" and "training" in own.what]
    assert f"longer than {expected} word pieces" in finding.what and "encoder" in finding.advice
    trainer.train()
    trainer.evaluate()
    (cut,), (short,) = (model.predict(text, tokenizer=word_level()) for text in (LONG, "yes " * (expected - 2)))
    assert cut["t"]["score"] == pytest.approx(short["t"]["score"], abs=1e-6)


def test_a_shorter_limit_of_the_task_or_the_tokenizer_stays(tmp_path):
    tokenizer = word_level()
    tokenizer.model_max_length = 12
    trainer = trainer_of(tmp_path, model_for(max_position_embeddings=16), tokenizer, rows_of(LONG, "no"))
    assert trainer.processor.max_length(trainer.specs["t"]) == 12
    model = model_for({**TASK, "max_length": 8}, max_position_embeddings=16)
    trainer = trainer_of(tmp_path, model, word_level(), rows_of(LONG, "no"))
    assert trainer.processor.max_length(trainer.specs["t"]) == 8


def test_windows_of_a_context_keep_to_the_positions():
    model = model_for({"name": "span", "problem_type": "question_answering"}, max_position_embeddings=16)
    (answer,) = model.predict({"question": "yes", "context": LONG + "no"}, tokenizer=word_level())
    assert answer["span"]["answer"]


GAPS = {**WORDS, "maybe": 11}


@pytest.mark.parametrize(
    ("tokenizer", "greatest", "named"),
    [(word_level(), 7, "[URL]"), (word_level(GAPS), 11, "maybe")],
    ids=["tokens added", "ids with gaps"],
)
def test_word_pieces_without_embeddings_are_refused(tmp_path, tokenizer, greatest, named):
    tokenizer = copy.deepcopy(tokenizer)
    if named == "[URL]":
        assert _greatest_id(tokenizer) == 5
        tokenizer.add_tokens(["[USR]", "[URL]"])
    assert _greatest_id(tokenizer) == greatest
    model = model_for()
    said = re.escape(f"id {greatest} ({named!r})")
    for ask in (
        lambda: trainer_of(tmp_path, model, tokenizer, rows_of("yes", "no")),
        lambda: model.predict("yes", tokenizer=tokenizer),
    ):
        with pytest.raises(InputError, match=said) as error:
            ask()
        assert f"resize_token_embeddings({greatest + 1})" in str(error.value) and "up to 5" in str(error.value)
    model.resize_token_embeddings(greatest + 1)
    trainer_of(tmp_path, model, tokenizer, rows_of(f"yes {named}", "no")).train()
    assert model.predict(f"yes {named}", tokenizer=tokenizer)[0]["t"]


def test_more_embeddings_than_word_pieces_are_no_fault(tmp_path):
    trainer_of(tmp_path, model_for(vocab_size=64), word_level(), rows_of("yes", "no")).train()


def test_an_encoder_with_one_kind_of_segment_is_given_none(tmp_path):
    task = {**TASK, "fields": ["text", "text_pair"]}
    model = model_for(task, type_vocab_size=1)
    spec = TaskSpec(**task, columns={"text": "text", "text_pair": "text_pair", "label": "label"})
    trainer = trainer_of(tmp_path, model, word_level(), rows_of("yes", "no", pair="no"), [spec])
    trainer.train()
    ids = torch.tensor([[2, 4, 3, 5, 3]])
    segments = torch.tensor([[0, 0, 0, 1, 1]])
    found = model.eval()(ids, token_type_ids=segments).logits["t"]
    torch.testing.assert_close(found, model(ids, token_type_ids=segments * 0).logits["t"])
    (answer,) = model.predict({"text": "yes", "text_pair": "no"}, tokenizer=word_level())
    assert answer["t"]["scores"]["yes"] == pytest.approx(found.softmax(-1)[0, 1].item(), abs=1e-6)


def test_segments_that_an_encoder_has_not_are_refused():
    pair = {**TASK, "fields": ["text", "text_pair"]}
    row = {"text": "yes", "text_pair": "no"}
    with pytest.raises(InputError, match=r"segments up to 2 .* 2 kinds .*type_vocab_size"):
        model_for(pair).predict(row, tokenizer=word_level(segments=(0, 2)))
    assert model_for(pair, type_vocab_size=3).predict(row, tokenizer=word_level(segments=(0, 2)))
    # A task that reads one text is given the first segment alone.
    assert model_for().predict("yes", tokenizer=word_level(segments=(0, 2)))


def test_a_tokenizer_without_padding_pads_what_the_mask_hides():
    model, tokenizer = model_for(), word_level(without=("pad_token",))
    assert tokenizer.pad_token_id is None
    together = model.predict(["yes", "yes no yes no"], tokenizer=tokenizer)
    for text, answer in zip(["yes", "yes no yes no"], together):
        (alone,) = model.predict(text, tokenizer=tokenizer)
        assert answer["t"]["score"] == pytest.approx(alone["t"]["score"], abs=1e-6)


@pytest.mark.parametrize("command", ["mix", "train"])
def test_the_program_refuses_before_it_trains(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    tokenizer = word_level()
    BertModel(BertConfig(**{**SIZES, "vocab_size": len(WORDS)})).save_pretrained("encoder")
    tokenizer.add_tokens(["[URL]"])
    tokenizer.save_pretrained("encoder")
    for split in ("train", "validation"):
        rows_of(*(f"{split} {place} yes" for place in range(4))).to_json(f"{split}.jsonl")
    recipe = {"encoder": "./encoder", "output_dir": "out", "max_steps": 1, "use_cpu": True}
    files = {split: f"{split}.jsonl" for split in ("train", "validation")}
    row = {**TASK, "data_files": files}
    (tmp_path / "r.yaml").write_text(json.dumps({**recipe, "tasks": [row]}))
    assert main([command, "r.yaml"]) == 2
    assert "resize_token_embeddings(7)" in capsys.readouterr().err
    encoder = AutoModel.from_pretrained("encoder")
    encoder.resize_token_embeddings(7)
    encoder.save_pretrained("encoder")
    assert main([command, "r.yaml"]) == 0
