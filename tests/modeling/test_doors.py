"""What `from_encoder`, the constructor and `from_pretrained` take has an effect, or is refused by name."""

import copy
import json
import os

import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel, TaskSpec
from hf_mtl.modeling import encoder_loading
from tests.conftest import TASKS, build_model, encoder_config, encoder_inputs, randomise

MOOD = TASKS[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT that was saved alone."""
    path = tmp_path_factory.mktemp("encoder") / "bert"
    torch.manual_seed(0)
    BertModel(encoder_config()).save_pretrained(path)
    return path


def wrap(encoder, **arguments) -> MultiTaskAttentionModel:
    return MultiTaskAttentionModel.from_encoder(encoder, tasks=[MOOD], **arguments).eval()


def test_a_loaded_encoder_is_the_same_as_its_name(folder):
    torch.manual_seed(1)
    named = wrap(str(folder))
    torch.manual_seed(1)
    loaded = wrap(AutoModel.from_pretrained(folder))
    assert named.state_dict().keys() == loaded.state_dict().keys()
    for one in (named, loaded, wrap(folder)):
        expected = AutoModel.from_pretrained(folder)(**encoder_inputs()).last_hidden_state
        torch.testing.assert_close(one.encoder(**encoder_inputs()).last_hidden_state, expected)


def test_a_loaded_encoder_stays_as_it_is_and_is_shared(folder):
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.bfloat16)
    for parameter in encoder.embeddings.parameters():
        parameter.requires_grad = False
    config = copy.deepcopy(encoder.config)
    model = wrap(encoder)
    assert encoder.pooler is not None and model.encoder.pooler is None
    assert model.encoder.embeddings is encoder.embeddings
    assert not any(parameter.requires_grad for parameter in model.encoder.embeddings.parameters())
    assert model.config._attn_implementation == model.encoder.config._attn_implementation == "eager"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config.encoder_config.to_dict() == config.to_dict()


def test_of_a_model_with_a_head_the_encoder_is_taken_and_said(tmp_path, caplog, folder, monkeypatch):
    import transformers

    monkeypatch.setattr(transformers.utils.logging.get_logger("hf_mtl"), "propagate", True)
    classifier = AutoModelForSequenceClassification.from_pretrained(folder)
    model = wrap(classifier)
    assert "Of the BertForSequenceClassification its encoder (BertModel) is taken, and nothing else" in caplog.text
    assert model.encoder.embeddings is classifier.bert.embeddings
    classifier.save_pretrained(tmp_path / "classifier")
    again = wrap(tmp_path / "classifier")
    assert all(
        torch.equal(tensor, model.state_dict()[name])
        for name, tensor in again.state_dict().items()
        if "encoder." in name
    )


def test_a_checkpoint_of_a_wrapped_encoder_loads(folder, tmp_path):
    model = wrap(AutoModel.from_pretrained(folder))
    model.save_pretrained(tmp_path)
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**encoder_inputs()).logits["mood"], model(**encoder_inputs()).logits["mood"])


EFFECTS = {
    "dtype": (torch.bfloat16, lambda model: {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}),
    "torch_dtype": ("bfloat16", lambda model: model.dtype == torch.bfloat16),
    "attn_implementation": ("eager", lambda model: model.encoder.config._attn_implementation == "eager"),
    "device_map": ("cpu", lambda model: model.device.type == "cpu"),
    "system": ("hard_sharing", lambda model: model.config.task_interaction == "none"),
    "pooling": ("first_token", lambda model: model.config.pooling == "first_token"),
    "hidden_dropout_prob": (0.25, lambda model: model.encoder.config.hidden_dropout_prob == 0.25),
    "trust_remote_code": (True, lambda model: model.hub_arguments["trust_remote_code"] is True),
    "local_files_only": (True, lambda model: model.hub_arguments["local_files_only"] is True),
    "cache_dir": ("cache", lambda model: model.hub_arguments["cache_dir"] == "cache"),
    "token": ("secret", lambda model: model.hub_arguments["token"] == "secret"),
    "revision": ("main", lambda model: model.hub_arguments["revision"] == "main"),
    "use_safetensors": (True, lambda model: model.num_tasks == 1),
    "ignore_mismatched_sizes": (True, lambda model: model.num_tasks == 1),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_what_loads_an_encoder_is_served_directly(name, folder):
    value, holds = EFFECTS[name]
    assert holds(wrap(folder, **{name: value}))


def test_a_subfolder_is_read(folder, tmp_path):
    BertModel.from_pretrained(folder).save_pretrained(tmp_path / "inside")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    model = wrap(tmp_path, subfolder="inside")
    assert model.hub_arguments["subfolder"] == "inside"


def test_a_systems_settings_stand_where_none_are_given(folder):
    model = wrap(folder, system="mmoe", pooling="first_token")
    assert (model.config.pooling, model.config.gate) == ("first_token", "none")


@pytest.mark.parametrize(
    "tasks",
    [MOOD, [MOOD], {"mood": {key: value for key, value in MOOD.items() if key != "name"}}, TaskSpec(**MOOD), (MOOD,)],
)
def test_tasks_in_any_form(tasks, folder):
    assert MultiTaskAttentionModel.from_encoder(folder, tasks).config.task_names == ["mood"]


REFUSED = [
    ({"dtypes": "bfloat16"}, "Unknown setting 'dtypes'"),
    ({"num_labels": 2}, "each task has its own"),
    ({"system": "mmo"}, "Unknown system 'mmo'.*Did you mean 'mmoe'"),
    ({"dtype": "int8"}, "dtype='int8'; expected float32"),
    ({"device_map": {"encoder": 0, "mtl": "cpu"}}, "divide the model.*from_pretrained\\(folder, device_map"),
    ({"device_map": "gpu"}, "device_map='gpu'; expected a device"),
    ({"dtype": torch.float16, "encoder_kwargs": {"dtype": torch.float32}}, "give it once"),
    ({"tasks": "mood"}, "tasks is 'mood'; expected a list"),
    ({"tasks": [3]}, "tasks holds 3; expected a TaskConfig"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_served_is_refused(arguments, message, folder):
    with pytest.raises(InputError, match=message):
        MultiTaskAttentionModel.from_encoder(folder, **{"tasks": [MOOD], **arguments})


@pytest.mark.parametrize(
    ("encoder", "arguments", "message"),
    [
        ([MOOD], {}, "is a list; expected its name"),
        (BertModel(encoder_config()), {"dtype": torch.float16}, "a loaded BertModel is given. Write encoder.to"),
        (BertModel(encoder_config()), {"revision": "v2"}, "revision='v2'.*Load it with revision="),
        (build_model([MOOD]), {}, "multitask model already"),
    ],
)
def test_what_is_no_encoder_is_refused(encoder, arguments, message):
    with pytest.raises(InputError, match=message):
        wrap(encoder, **arguments)


def test_the_constructor_keeps_an_encoder_or_refuses_it():
    encoder = BertModel(encoder_config(), add_pooling_layer=False).to(torch.bfloat16)
    encoder.set_attn_implementation("eager")
    config = MultiTaskAttentionConfig(encoder_config=copy.deepcopy(encoder.config), tasks=[MOOD])
    model = MultiTaskAttentionModel(config, encoder=encoder)
    assert model.encoder is encoder and model.config.encoder_config is encoder.config
    assert encoder.config._attn_implementation == "eager"
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    other = MultiTaskAttentionConfig(encoder_config=BertConfig(), tasks=[MOOD])
    with pytest.raises(
        InputError, match=r"hidden_size.*differ.*MultiTaskAttentionConfig\(encoder_config=encoder.config"
    ):
        MultiTaskAttentionModel(other, encoder=encoder)


def test_weights_may_come_from_memory():
    model = randomise(build_model())
    again = MultiTaskAttentionModel.from_pretrained(None, config=model.config, state_dict=model.state_dict()).eval()
    for name, logits in model(**encoder_inputs()).logits.items():
        torch.testing.assert_close(again(**encoder_inputs()).logits[name], logits)


@pytest.mark.parametrize("kind", [BertModel, BertForSequenceClassification])
def test_the_checkpoint_of_an_encoder_is_refused_with_what_to_write(kind, tmp_path):
    kind(encoder_config()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"checkpoint of a {kind.__name__}, not of a Multi.*from_encoder\("):
        MultiTaskAttentionModel.from_pretrained(tmp_path)


def test_a_multitask_checkpoint_is_no_encoder(tmp_path):
    build_model([MOOD]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"MultiTaskAttentionModel.from_pretrained\("):
        wrap(tmp_path)


def test_the_hubs_setting_is_never_changed(tmp_path, monkeypatch):
    """A cached encoder is read from the cache alone where the Hub is out of reach, in this call."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(encoder_loading, "hub_is_reachable", lambda: False)
    monkeypatch.setattr(encoder_loading, "_is_cached", lambda name, hub: True)
    before = dict(os.environ)
    assert encoder_loading.reading_options("some-encoder") == {"local_files_only": True}
    with pytest.raises(InputError, match="could not be loaded"):
        wrap("some-encoder")
    assert constants.HF_HUB_OFFLINE is False and dict(os.environ) == before
    monkeypatch.setattr(encoder_loading, "_is_cached", lambda name, hub: False)
    with pytest.raises(InputError, match="not in the local cache and the Hub is out of reach"):
        wrap("some-encoder")


def test_a_configuration_takes_tasks_as_objects_and_keeps_their_values():
    spec = TaskSpec(name="mood", problem_type="single_label_classification", labels=["bad", "good"], weight=2.0)
    objects, values = (
        MultiTaskAttentionConfig(encoder_config=encoder_config(), tasks=[task])
        for task in (spec, spec.to_config().with_settings().to_dict())
    )
    assert objects.tasks == values.tasks and isinstance(objects.tasks[0], dict)
    json.loads(objects.to_json_string())


def test_labels_of_a_model_of_one_task_are_those_of_its_configuration(tmp_path):
    one = build_model(TASKS[:1])
    assert (one.config.num_labels, one.config.id2label) == (3, {0: "a", 1: "b", 2: "c"})
    one.save_pretrained(tmp_path)
    assert MultiTaskAttentionConfig.from_pretrained(tmp_path).label2id == {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": TASKS[:1]}, "from_pretrained takes no `tasks`"),
        ({"gate": "none"}, "gate= asks for other parts than it was saved with. Leave it out"),
    ],
)
def test_a_checkpoint_has_the_tasks_and_parts_that_it_was_saved_with(given, message, tmp_path):
    build_model().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        MultiTaskAttentionModel.from_pretrained(tmp_path, **given)
    assert MultiTaskAttentionModel.from_pretrained(tmp_path, head_dropout=0.3).config.head_dropout == 0.3


ONE, SEVERAL = TASKS[:1], TASKS
LABELS = {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize(
    ("tasks", "given", "message"),
    [
        (ONE, {"num_labels": 5}, "num_labels=5, and the task has `labels`: .'a', 'b', 'c'"),
        (ONE, {"id2label": {0: "x", 1: "y", 2: "z"}}, "id2label has the labels .'x', 'y', 'z'"),
        (ONE, {"label2id": {"b": 0, "a": 1, "c": 2}}, "label2id has the labels .'b', 'a', 'c'"),
        (SEVERAL, {"num_labels": 3}, "num_labels=3, and each task has its own `labels`"),
        (SEVERAL, {"id2label": LABELS}, "id2label has the labels"),
    ],
)
def test_labels_that_are_not_the_tasks_are_refused(tasks, given, message):
    """Transformers' common tests ask that a configuration of several tasks takes them; no model is built from one."""
    with pytest.raises(InputError, match=message):
        MultiTaskAttentionModel(MultiTaskAttentionConfig(encoder_config=encoder_config(), tasks=tasks, **given))


@pytest.mark.parametrize("given", [{"num_labels": 3}, {"id2label": LABELS}, {"id2label": {"0": "LABEL_0"}}])
def test_labels_that_are_the_tasks_are_taken(given):
    config = MultiTaskAttentionConfig(encoder_config=encoder_config(), tasks=ONE, **given)
    assert (config.num_labels, config.id2label) == (3, LABELS)


def test_tasks_by_name_are_no_list_of_tasks():
    with pytest.raises(InputError, match="expected a list of mappings"):
        build_model({"mood": MOOD})
