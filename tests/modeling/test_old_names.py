"""Parameters that were called otherwise are found in checkpoints, and PEFT finds no classifiers among our modules."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertModel

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel
from hf_mtl.modeling.errors import CheckpointError
from hf_mtl.modeling.multitask_pretrained import _current_name
from hf_mtl.recipe import read_recipe
from tests.conftest import TASKS, build_model, encoder_config, encoder_inputs, randomise
from tests.modeling.test_module_hooks import SETTINGS, build

OLD = [
    ("gate.scores.task_to_scores.", "gate.score.task_to_score."),
    ("gate.scores.", "gate.score."),
    ("aggregation.scores.task_to_scores.", "aggregation.score.task_to_score."),
    ("aggregation.scores.", "aggregation.score."),
    ("scorer.scores.", "scorer.score."),
    ("interaction.queries.", "interaction.query."),
    ("interaction.keys.", "interaction.key."),
    ("interaction.values.", "interaction.value."),
    (".task_experts.", ".own."),
]
CASES = [
    "system gated",
    "attention_scorer additive",
    "pooling_scorer additive",
    "aggregation learned",
    "interaction head_groups",
    "interaction ple",
]


def old_name(name: str) -> str:
    for now, old in OLD:
        name = name.replace(now, old)
    return name


@pytest.mark.parametrize("name", CASES)
def test_an_earlier_checkpoint_loads_and_is_saved_with_the_names_of_now(name, tmp_path):
    model = build(name)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    before = load_file(path)
    renamed = {old_name(key): tensor for key, tensor in before.items()}
    assert renamed.keys() != before.keys() and {_current_name(key) for key in renamed} == before.keys()
    save_file(renamed, path, metadata={"format": "pt"})
    again = MultiTaskAttentionModel.from_pretrained(tmp_path).eval()
    expected = model(**encoder_inputs()).logits
    for task, logits in again(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[task], msg=task)
    again.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == before.keys()
    fresh = MultiTaskAttentionModel(model.config)
    fresh.load_state_dict(renamed)
    assert all(torch.equal(tensor, before[key]) for key, tensor in fresh.state_dict().items())


@pytest.mark.parametrize(
    "name",
    [
        "encoder.gate.score.weight",
        "encoder.layers.0.scorer.score.bias",
        "mtl.gate.scores.x",
        "mtl.interaction.value.weight",
    ],
)
def test_other_names_stay(name):
    assert _current_name(name) == name


def test_a_callers_own_names_go_together_with_them(tmp_path):
    model = build("system gated")
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({f"module.{old_name(key)}": tensor for key, tensor in load_file(path).items()}, path, {"format": "pt"})
    again = MultiTaskAttentionModel.from_pretrained(tmp_path, key_mapping={"^module\\.": ""}).eval()
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in again.state_dict().items())


@pytest.mark.parametrize("name", SETTINGS)
def test_peft_finds_no_classifier(name):
    assert not [key for key, _ in build(name).named_modules() if key.endswith(("score", "classifier"))]


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("targets", ["all-linear", ["query", "value"]])
def test_an_adapter_with_a_task_type_is_read_again(task_type, targets, tmp_path):
    model = randomise(build_model())
    model.save_pretrained(tmp_path / "base")
    wrapped = get_peft_model(model, LoraConfig(task_type=task_type, target_modules=targets, r=2))
    with torch.no_grad():
        for key, tensor in wrapped.named_parameters():
            if "lora_B" in key:
                tensor.normal_(std=0.2)
    wrapped.eval().save_pretrained(tmp_path / "adapter")
    base = MultiTaskAttentionModel.from_pretrained(tmp_path / "base")
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    expected = wrapped(**encoder_inputs()).logits
    for task, logits in again(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[task], atol=1e-5, rtol=1e-5, msg=task)


def test_a_setting_is_read_by_its_old_name(tmp_path):
    """Typed, with a warning; in the files of an earlier version, without a word."""
    recipe = tmp_path / "train.yaml"
    text = "encoder: some/encoder\noutput_dir: out\ntasks:\n- {name: a, problem_type: regression, dataset: x}\n"
    recipe.write_text(f"{text}task_conditioning: modulation\n")
    old = {"tasks": TASKS, "task_conditioning": "modulation"}
    doors = {
        "configuration": lambda: MultiTaskAttentionConfig(encoder_config=encoder_config(), **old),
        "model": lambda: MultiTaskAttentionModel.from_encoder(BertModel(encoder_config()), **old).config,
        "recipe": lambda: read_recipe(recipe).model,
        "command line": lambda: read_recipe(recipe, ["--task_conditioning=modulation"]).model,
    }
    for name, door in doors.items():
        with pytest.warns(FutureWarning, match="task_conditioning is called conditioning now"):
            assert door().conditioning == "modulation", name
    with pytest.raises(InputError, match="'modulation' is the old name of conditioning='none'"):
        MultiTaskAttentionModel.from_encoder(BertModel(encoder_config()), **old, conditioning="none")
    with pytest.raises(InputError, match="'modulation' is the old name of conditioning='task_tokens'"):
        MultiTaskAttentionConfig(encoder_config=encoder_config(), **old, conditioning="task_tokens")
    model = build_model(conditioning="task_tokens")
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values["task_conditioning"] = values.pop("conditioning")
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert MultiTaskAttentionModel.from_pretrained(tmp_path).config.conditioning == "task_tokens"
    # Beside a checkpoint it is what is typed, under either name.
    with pytest.warns(FutureWarning, match="task_conditioning is called conditioning now"):
        config = MultiTaskAttentionConfig.from_pretrained(tmp_path, task_conditioning="none")
    assert config.conditioning == "none"
    with (
        pytest.warns(FutureWarning, match="task_conditioning is called conditioning now"),
        pytest.raises(CheckpointError, match="conditioning= asks for other parts than it was saved with"),
    ):
        MultiTaskAttentionModel.from_pretrained(tmp_path, task_conditioning="none")
