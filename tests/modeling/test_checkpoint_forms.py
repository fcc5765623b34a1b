"""Checkpoints cut anywhere, in other precisions, of other task sets, and after a second saving."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, BertModel

from hf_mtl import InputError, MultiTaskAttentionModel
from hf_mtl.modeling import encoder_loading
from tests.conftest import TASKS, build_model, encoder_config, encoder_inputs, randomise


@pytest.fixture
def folder(tmp_path):
    randomise(build_model()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999], ids=str)
def test_a_file_cut_anywhere_is_refused(folder, kept):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError):
        MultiTaskAttentionModel.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_reloads_bit_for_bit(tmp_path, dtype):
    model = randomise(build_model()).to(dtype)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    again = MultiTaskAttentionModel.from_pretrained(tmp_path, dtype=dtype).eval()
    for name, tensor in model.state_dict().items():
        assert stored[name].dtype == dtype
        assert torch.equal(again.state_dict()[name], tensor), name
    expected = model(**encoder_inputs()).logits
    for name, logits in again(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling": "pooler"},
        {"pooling": "mean", "gate": "none"},
        {"pooling": "first_token", "task_interaction": "none"},
        {"interaction_heads": 2, "gate_size": 8, "self_attention_prior": 0.5},
    ],
    ids=str,
)
def test_every_choice_of_parts_reloads(tmp_path, settings):
    model = randomise(build_model(**settings))
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(again, MultiTaskAttentionModel)
    assert {key: getattr(again.config, key) for key in settings} == settings
    expected = model(**encoder_inputs()).logits
    for name, logits in again(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-6, rtol=0)


def test_one_task_reloads_without_interaction(tmp_path):
    model = randomise(build_model(TASKS[:1]))
    model.save_pretrained(tmp_path)
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    assert not [name for name in again.state_dict() if name.startswith(("mtl.interaction", "mtl.gate"))]
    torch.testing.assert_close(again(**encoder_inputs()).logits["intent"], model(**encoder_inputs()).logits["intent"])


def test_saving_what_was_loaded_writes_the_same(folder, tmp_path):
    MultiTaskAttentionModel.from_pretrained(folder).save_pretrained(tmp_path / "again")
    first, second = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    configs = [json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "again")]
    assert configs[0]["tasks"] == configs[1]["tasks"]
    encoders = [{**config["encoder_config"], "dtype": None} for config in configs]  # the precision is noted on loading
    assert encoders[0] == encoders[1]


def test_the_config_alone_rebuilds_the_architecture(folder):
    config = AutoConfig.from_pretrained(folder)
    assert type(config.encoder_config) is type(encoder_config())
    fresh, saved = MultiTaskAttentionModel(config).state_dict(), load_file(folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in fresh.items()} == {
        name: tensor.shape for name, tensor in saved.items()
    }


def test_reordered_tasks_in_a_checkpoint_keep_their_logits(folder):
    """Tensors go by task name, so that a reordered config.json moves no task's weights."""
    expected = MultiTaskAttentionModel.from_pretrained(folder).eval()(**encoder_inputs()).logits
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "tasks": config["tasks"][::-1]}))
    again = MultiTaskAttentionModel.from_pretrained(folder).eval()
    assert again.config.task_names == [task["name"] for task in TASKS][::-1]
    for name, logits in again(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[name], atol=1e-5, rtol=0)


def test_a_task_added_to_the_config_is_a_missing_tensor(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["tasks"].append({**copy.deepcopy(config["tasks"][0]), "name": "added"})
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="lacks .*task_added"):
        MultiTaskAttentionModel.from_pretrained(folder)


def test_loading_reports_on_request(folder):
    model, report = MultiTaskAttentionModel.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, MultiTaskAttentionModel)
    assert not report["missing_keys"]


def test_an_encoder_with_code_of_its_own_is_trusted_as_a_whole(tmp_path, monkeypatch):
    """What says which files are read is said of the encoder's configuration too."""
    BertModel(encoder_config()).save_pretrained(tmp_path)
    given, load = [], AutoConfig.from_pretrained
    monkeypatch.setattr(
        encoder_loading.AutoConfig,
        "from_pretrained",
        lambda name, **options: given.append(options) or load(name, **options),
    )
    options = {"trust_remote_code": True, "revision": "main", "dtype": torch.float32}
    MultiTaskAttentionModel.from_encoder(str(tmp_path), tasks=TASKS, encoder_kwargs=options)
    assert {"trust_remote_code": True, "revision": "main"} in given
