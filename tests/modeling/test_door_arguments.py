"""Every argument with which Transformers loads a model is served by the doors or refused by name."""

import ast
import inspect
import os
import re
import textwrap
import time

import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils.logging import get_logger

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel, TaskConfig
from hf_mtl.modeling import encoder_loading
from hf_mtl.modeling.setting_names import ENCODER_ARGUMENTS, REFUSED_ARGUMENTS, check_setting_names
from tests.conftest import TASKS, build_model, encoder_config, encoder_inputs, randomise
from tests.modeling.test_encoder_limits import word_level

MOOD = TASKS[1]
# What `from_pretrained` calls its first arguments, and what Transformers' own callers tell it.
NOT_ARGUMENTS = {
    "cls",
    "pretrained_model_name_or_path",
    "model_args",
    "kwargs",
    "_commit_hash",
    "_fast_init",
    "_from_auto",
    "_from_pipeline",
}


def wrap(encoder, **arguments) -> MultiTaskAttentionModel:
    return MultiTaskAttentionModel.from_encoder(encoder, **{"tasks": [MOOD], **arguments})


def save(folder, seed=0, kind=BertModel):
    """Save an encoder with weights of this seed, and a tokenizer that has a word of that name."""
    torch.manual_seed(seed)
    kind(encoder_config()).save_pretrained(folder)
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    word_level({word: place for place, word in enumerate((*special, f"seed{seed}"))}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture
def log(monkeypatch, caplog):
    monkeypatch.setattr(get_logger("hf_mtl"), "propagate", True)
    return caplog


def test_every_argument_of_transformers_is_served_or_refused():
    """Read off the installed version: what a later one adds fails here until somebody decides."""
    body = ast.parse(textwrap.dedent(inspect.getsource(PreTrainedModel.from_pretrained.__func__)))
    names = set(inspect.signature(PreTrainedModel.from_pretrained).parameters)
    for node in ast.walk(body):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("kwargs.pop", "kwargs.get"):
            names |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
        elif isinstance(node, ast.For) and isinstance(node.iter, ast.List):
            names |= {item.value for item in node.iter.elts}
    assert {"dtype", "revision", "from_tf", "gguf_file"} < names
    assert names - NOT_ARGUMENTS - set(ENCODER_ARGUMENTS) - REFUSED_ARGUMENTS.keys() == set()
    assert not set(ENCODER_ARGUMENTS) & REFUSED_ARGUMENTS.keys()


@pytest.mark.parametrize("name", REFUSED_ARGUMENTS)
def test_what_is_refused_is_named_with_the_way_to_go(name):
    """Before an encoder is looked for; also in the mapping, of a loaded encoder, and among a trainer's settings."""
    calls = (
        lambda: wrap("./nowhere", **{name: "x"}),
        lambda: wrap("./nowhere", encoder_kwargs={name: "x"}),
        lambda: wrap(BertModel(encoder_config()), **{name: "x"}),
        lambda: check_setting_names([name], ENCODER_ARGUMENTS),
    )
    for call in calls:
        with pytest.raises(InputError, match=rf"^{name}= cannot be given here\. [A-Z].*\.") as error:
            call()
        assert "{name}" not in str(error.value)


def test_the_lines_that_report_how_an_encoder_was_loaded_run(folder):
    with pytest.raises(InputError) as error:
        wrap(folder, output_loading_info=True)
    load, build = re.search(r"(encoder, info = .*?\)), then (.*?\[)\.\.\.\]\)", str(error.value)).groups()
    names = {"AutoModel": AutoModel, "MultiTaskAttentionModel": MultiTaskAttentionModel, "name": folder, "task": MOOD}
    exec(f"{load}\nmodel = {build}task])", names)
    assert names["info"]["missing_keys"] == set() and names["model"].config.task_names == ["mood"]


@pytest.mark.parametrize("name", ENCODER_ARGUMENTS)
def test_what_loads_an_encoder_is_refused_beside_a_loaded_one(name):
    with pytest.raises(
        InputError, match=f"^{name}='x' says how an encoder is loaded, and a loaded BertModel is given"
    ):
        wrap(BertModel(encoder_config()), **{name: "x"})
    assert wrap(BertModel(encoder_config()), **{name: None}).num_tasks == 1


def test_values_of_an_encoders_configuration_reach_its_layers(folder):
    model = wrap(folder, hidden_dropout_prob=0.25, num_hidden_layers=1)
    assert {layer.p for name, layer in model.encoder.named_modules() if name.endswith("output.dropout")} == {0.25}
    assert len(model.encoder.encoder.layer) == 1
    changed = BertConfig.from_pretrained(folder, hidden_dropout_prob=0.5)
    assert wrap(folder, config=changed).encoder.embeddings.dropout.p == 0.5
    assert wrap(folder, config=changed, hidden_dropout_prob=0.125).encoder.embeddings.dropout.p == 0.125
    assert changed.hidden_dropout_prob == 0.5
    with pytest.raises(InputError, match="'hidden_dropout_probs'.*Did you mean 'hidden_dropout_prob'"):
        wrap(folder, encoder_kwargs={"hidden_dropout_probs": 0.5})
    with pytest.raises(InputError, match="hidden_dropout_prob=0.5 is a value of the encoder's configuration.*loaded"):
        wrap(AutoModel.from_pretrained(folder), hidden_dropout_prob=0.5)


def test_a_configuration_may_lie_elsewhere(folder, tmp_path):
    BertConfig.from_pretrained(folder, hidden_dropout_prob=0.5).save_pretrained(tmp_path)
    assert wrap(folder, config=str(tmp_path)).encoder.embeddings.dropout.p == 0.5


@pytest.mark.parametrize("changed", [{"num_hidden_layers": 3}, {"vocab_size": 99}, {"hidden_size": 64}])
def test_an_encoder_whose_weights_do_not_fit_is_refused(folder, changed):
    with pytest.raises(InputError, match="(lacks encoder.layer.2|has in another shape).*ignore_mismatched_sizes=True"):
        wrap(folder, **changed)
    model = wrap(folder, **changed, ignore_mismatched_sizes=True)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_a_head_beside_an_encoder_is_left_out_and_said(tmp_path, log):
    model = wrap(save(tmp_path / "mlm", kind=BertForMaskedLM))
    assert f"Of the BertForMaskedLM {str(tmp_path / 'mlm')!r} the encoder is taken, without cls." in log.text
    expected = BertForMaskedLM.from_pretrained(tmp_path / "mlm").bert(**encoder_inputs()).last_hidden_state
    torch.testing.assert_close(model.encoder(**encoder_inputs()).last_hidden_state, expected)
    wrap(tmp_path / "mlm", pooling="pooler")
    assert "holds no pooler (pooler.dense.bias, pooler.dense.weight)" in log.text


def test_of_an_encoder_with_a_decoder_nothing_else_has_to_be_there(tmp_path, log):
    torch.manual_seed(0)
    whole = T5ForConditionalGeneration(
        T5Config(vocab_size=60, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    )
    whole.save_pretrained(tmp_path)
    inputs = {key: encoder_inputs()[key] for key in ("input_ids", "attention_mask")}
    expected = whole.eval().get_encoder()(**inputs).last_hidden_state
    for encoder in (whole, str(tmp_path)):
        torch.testing.assert_close(wrap(encoder).encoder(**inputs).last_hidden_state, expected)
    assert "its encoder (T5Stack) is taken, and nothing else" in log.text


def test_flags_are_the_whole_models(folder, tmp_path):
    model = wrap(folder, output_attentions=True, output_hidden_states=True)
    output = model(**encoder_inputs())
    assert len(output.attentions) == 2 and len(output.hidden_states) == 3
    model.save_pretrained(tmp_path)
    assert len(MultiTaskAttentionModel.from_pretrained(tmp_path)(**encoder_inputs()).attentions) == 2
    assert isinstance(wrap(folder, return_dict=False)(**encoder_inputs()), tuple)
    for encoder, given in ((folder, {"attn_implementation": "sdpa"}), (AutoModel.from_pretrained(folder), {})):
        with pytest.raises(InputError, match="output_attentions=True, and attn_implementation='sdpa' returns none"):
            wrap(encoder, output_attentions=True, **given)


def test_a_model_is_in_the_mode_of_its_encoder(folder):
    """As `from_pretrained` of Transformers, a name gives a model that evaluates."""
    for system in (None, "individual"):
        assert not any(module.training for module in wrap(folder, system=system).modules())
    encoder = AutoModel.from_pretrained(folder).train()
    encoder.embeddings.eval()
    model = wrap(encoder)
    assert model.training and model.mtl.gate.training and encoder.encoder.training
    assert not model.encoder.embeddings.training


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_constructor_keeps_the_attention_of_a_configuration_in_use(folder, attention):
    """A configuration that is made of the encoder's own does not reset it."""
    encoder = AutoModel.from_pretrained(folder, attn_implementation=attention)
    config = MultiTaskAttentionConfig(encoder_config=encoder.config, tasks=[MOOD])
    model = MultiTaskAttentionModel(config, encoder=encoder)
    implementations = {one.config._attn_implementation for one in (encoder, model.encoder, model)}
    assert implementations == {attention}
    assert model.config.encoder_config is encoder.config
    assert model.encoder_source == str(folder) and len(model.load_tokenizer()) == 5


@pytest.mark.parametrize("kind", [BertForSequenceClassification, T5ForConditionalGeneration])
def test_the_constructor_takes_no_head(kind):
    small = {"vocab_size": 60, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    model = kind(encoder_config() if kind is BertForSequenceClassification else T5Config(**small))
    config = MultiTaskAttentionConfig(encoder_config=model.config, tasks=[MOOD])
    with pytest.raises(InputError, match=rf"is a {kind.__name__}; expected an encoder alone.*from_encoder\(model"):
        MultiTaskAttentionModel(config, encoder=model)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"mood": TaskConfig(**MOOD)}, None),
        ({"other": MOOD}, "names 'other' a task whose name is 'mood'"),
        ({"name": "mood", "labels": ["a", "b"]}, "needs 'problem_type'"),
        (["mood"], "tasks holds 'mood'; expected a TaskConfig or its values"),
        (None, "tasks is None"),
    ],
)
def test_tasks_by_name_are_served_where_they_are_clear(tasks, message, folder):
    if message is None:
        assert wrap(folder, tasks=tasks).config.task_names == ["mood"]
    else:
        with pytest.raises(InputError, match=message):
            wrap(folder, tasks=tasks)


def test_what_is_no_encoder_is_refused_with_what_to_write(folder):
    pytest.importorskip("peft", reason="peft is not installed")
    from peft import LoraConfig, get_peft_model

    adapted = AutoModel.from_pretrained(folder)
    adapted.add_adapter(LoraConfig(target_modules=["query"]))
    for encoder, message in (
        (word_level(), "is a PreTrainedTokenizerFast|TokenizersBackend"),
        (torch.nn.Linear(2, 2), "is a Linear; expected its name, its folder or a loaded encoder"),
        (None, "is a NoneType"),
        (adapted, r"BertModel with adapters.*get_peft_model\(model"),
        (get_peft_model(AutoModel.from_pretrained(folder), LoraConfig(target_modules=["query"])), "with adapters"),
    ):
        with pytest.raises(InputError, match=message):
            wrap(encoder)


@pytest.fixture(scope="module")
def hub_cache(tmp_path_factory):
    """A cache of the Hub: two revisions of an encoder, another one in a folder of the second."""
    cache = tmp_path_factory.mktemp("cache")
    repository = cache / "models--team--bert"
    for seed, branch in enumerate(("main", "v2")):
        commit = str(seed + 1) * 40
        save(repository / "snapshots" / commit, seed)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
    save(repository / "snapshots" / ("2" * 40) / "inner", 2)
    return cache


@pytest.fixture
def unreachable(monkeypatch):
    """Nobody says that there is no network, and there is none."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    encoder_loading._answers.cache_clear()
    before = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    yield
    encoder_loading._answers.cache_clear()
    assert constants.HF_HUB_OFFLINE is False and before.items() <= os.environ.items()


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [({}, 0), ({"revision": "v2"}, 1), ({"revision": "2" * 40}, 1), ({"revision": "v2", "subfolder": "inner"}, 2)],
    ids=str,
)
def test_what_says_where_files_lie_is_said_of_weights_and_tokenizer(hub_cache, unreachable, arguments, seed):
    start = time.monotonic()
    model = wrap("team/bert", cache_dir=str(hub_cache), **arguments)
    torch.manual_seed(seed)
    expected = BertModel(encoder_config()).embeddings.word_embeddings.weight
    assert torch.equal(model.encoder.embeddings.word_embeddings.weight, expected)
    assert f"seed{seed}" in model.load_tokenizer().get_vocab()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "arguments", [{"revision": "v3"}, {"subfolder": "outer"}, {"local_files_only": True}], ids=str
)
def test_what_is_not_in_the_cache_is_refused_at_once(hub_cache, unreachable, arguments):
    cache = {} if "local_files_only" in arguments else {"cache_dir": str(hub_cache)}
    start = time.monotonic()
    with pytest.raises(InputError, match="'team/bert' is not in the local cache and the Hub is out of reach"):
        wrap("team/bert", **cache, **arguments)
    with pytest.raises(OSError, match="team/bert|couldn't find them in the cached files"):
        MultiTaskAttentionModel.from_pretrained("team/bert", **cache, **arguments)
    assert time.monotonic() - start < 5


def test_a_checkpoint_in_a_subfolder_has_its_tokenizer_there(tmp_path):
    randomise(build_model([MOOD])).save_pretrained(tmp_path / "inner")
    save(tmp_path / "tokenizer", 7)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "tokenizer" / name).rename(tmp_path / "inner" / name)
    model = MultiTaskAttentionModel.from_pretrained(tmp_path, subfolder="inner")
    assert "seed7" in model.load_tokenizer().get_vocab()


CHECKPOINT_EFFECTS = {
    "hidden_dropout_prob": (0.25, lambda model: model.encoder.embeddings.dropout.p == 0.25),
    "encoder_config": ({"hidden_dropout_prob": 0.25}, lambda model: model.encoder.embeddings.dropout.p == 0.25),
    "dtype": ("bfloat16", lambda model: model.dtype == torch.bfloat16),
    "attn_implementation": ("eager", lambda model: model.encoder.config._attn_implementation == "eager"),
    "output_attentions": (True, lambda model: len(model(**encoder_inputs()).attentions) == 2),
    "output_hidden_states": (True, lambda model: len(model(**encoder_inputs()).hidden_states) == 3),
    "return_dict": (False, lambda model: isinstance(model(**encoder_inputs()), tuple)),
    "device_map": ("auto", lambda model: {tensor.device for tensor in model.state_dict().values()} == {model.device}),
    "head_dropout": (0.5, lambda model: model.config.head_dropout == 0.5),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    randomise(build_model(TASKS[:2])).save_pretrained(path)
    return path


@pytest.mark.parametrize("name", CHECKPOINT_EFFECTS)
def test_what_from_pretrained_takes_has_its_effect(name, checkpoint):
    value, holds = CHECKPOINT_EFFECTS[name]
    assert holds(MultiTaskAttentionModel.from_pretrained(checkpoint, **{name: value}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_labels": 3}, "each task has its own"),
        ({"system": "mmoe"}, "system= is an argument of from_encoder"),
        ({"encoder_kwargs": {}}, "encoder_kwargs= is an argument of from_encoder"),
        ({"encoder": BertModel(encoder_config())}, "encoder= is an argument of from_encoder"),
        ({"config": encoder_config()}, "not of a MultiTaskAttentionModel"),
        ({"tasks": TASKS[:1]}, "from_pretrained takes no `tasks`"),
    ],
)
def test_what_from_pretrained_cannot_serve_is_refused(arguments, message, checkpoint):
    with pytest.raises(InputError, match=message):
        MultiTaskAttentionModel.from_pretrained(checkpoint, **arguments)


def test_weights_from_memory_need_a_configuration(checkpoint, folder):
    model = MultiTaskAttentionModel.from_pretrained(checkpoint)
    with pytest.raises(InputError, match="needs both config=model.config and state_dict=tensors"):
        MultiTaskAttentionModel.from_pretrained(None, state_dict=model.state_dict())
    with pytest.raises(InputError, match="not of a MultiTaskAttentionModel"):
        MultiTaskAttentionModel.from_pretrained(None, config=encoder_config(), state_dict=model.state_dict())
    with pytest.raises(InputError, match="lacks encoder"):
        MultiTaskAttentionModel.from_pretrained(None, config=model.config, state_dict=model.mtl.state_dict())
    with pytest.raises(ValueError, match="`state_dict` cannot be passed together with a model name"):
        MultiTaskAttentionModel.from_pretrained(checkpoint, config=model.config, state_dict=model.state_dict())


def test_the_folder_of_an_adapter_loads_the_checkpoint_that_it_names(checkpoint, tmp_path):
    pytest.importorskip("peft", reason="peft is not installed")
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        MultiTaskAttentionModel.from_pretrained(checkpoint),
        LoraConfig(target_modules=["query"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path)
    expected = model.eval()(**encoder_inputs()).logits["mood"]
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**encoder_inputs()).logits["mood"], expected)


def test_transformers_own_doors(checkpoint, folder):
    assert isinstance(AutoModel.from_pretrained(checkpoint), MultiTaskAttentionModel)
    assert MultiTaskAttentionConfig.from_pretrained(checkpoint).task_names == ["intent", "mood"]
    with pytest.raises(InputError, match="model_type 'bert' is not a multitask model's"):
        MultiTaskAttentionConfig.from_pretrained(folder)
    with pytest.raises(ValueError, match="Unrecognized configuration class.*MultiTaskAttentionConfig"):
        AutoModelForSequenceClassification.from_pretrained(checkpoint)
