"""Parameters are read inside their module's forward alone, so that what hooks it (offload, adapters, ZeRO) works."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_mtl import MultiTaskAttentionModel
from hf_mtl.modeling.aggregation import TASK_AGGREGATIONS
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.head import HEAD_READINGS
from hf_mtl.modeling.interaction import TASK_INTERACTIONS
from hf_mtl.modeling.pooling import TASK_POOLINGS
from hf_mtl.modeling.systems import SYSTEMS
from tests.conftest import TASKS, build_model, encoder_inputs, random_batch, randomise

SETTINGS = {
    **{f"system {name}": dict(system.settings) for name, system in SYSTEMS.items()},
    **{f"pooling {name}": {"pooling": name} for name in TASK_POOLINGS},
    **{f"interaction {name}": {"task_interaction": name} for name in TASK_INTERACTIONS},
    **{f"pooling_scorer {name}": {"pooling_scorer": name, "lexical_rank": 3} for name in ATTENTION_SCORERS},
    **{f"attention_scorer {name}": {"attention_scorer": name, "task_affinities": True} for name in ATTENTION_SCORERS},
    **{f"head {name}": {"head": name} for name in HEAD_READINGS},
    **{f"aggregation {name}": {"aggregation": name} for name in TASK_AGGREGATIONS},
    "task_parents": {"task_parents": {"mood": "intent", "names": ["mood", "stars"]}, "detach_parents": False},
}
# Merged answers need tasks that share labels.
SHARING = [*TASKS, {**TASKS[1], "name": "temper"}]


def build(name: str) -> MultiTaskAttentionModel:
    model = build_model(SHARING if name.startswith("aggregation") else TASKS, **SETTINGS[name])
    return randomise(model)


def hide_parameters(model: nn.Module) -> None:
    """Leave every parameter without values (NaN) outside the forward of the module that it belongs to."""

    def show(module, given):
        for tensor, values in module.shown.items():
            tensor.data = values

    def hide(module, given, output):
        for tensor in module.shown:
            tensor.data = torch.full_like(tensor, float("nan"))

    for module in model.modules():
        module.shown = {tensor: tensor.data for tensor in module.parameters(recurse=False)}
        hide(module, None, None)
        module.register_forward_pre_hook(show)
        module.register_forward_hook(hide, always_call=True)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_parameter_is_read_outside_its_module(name):
    model = build(name)
    inputs, batch = encoder_inputs(), random_batch()
    expected, loss = model(**inputs, output_task_attentions=True), model(**batch).loss
    hide_parameters(model)
    with torch.no_grad():
        output = model(**inputs, output_task_attentions=True)
        for task, logits in expected.logits.items():
            torch.testing.assert_close(output.logits[task], logits, msg=task)
        for key in ("pooling_weights", "interaction_weights", "gates"):
            if expected[key] is not None if key in expected else False:
                torch.testing.assert_close(output[key], expected[key], msg=key)
        torch.testing.assert_close(model(**batch).loss, loss)


def test_the_hooks_do_hide():
    model = build("head linear")
    hide_parameters(model)
    assert all(tensor.isnan().all() for tensor in model.parameters())


@pytest.mark.parametrize(
    "name",
    [
        "system hard_sharing",
        "interaction cross_task_attention",
        "interaction cgc",
        "system projected_attention_layers",
        "system hyper_adapters",
        "system conditional_attention",
    ],
)
@pytest.mark.parametrize("place", ["cpu", "disk", "from_pretrained"])
def test_offloaded_models_answer_alike(name, place, tmp_path):
    model = build(name)
    expected = model(**encoder_inputs()).logits
    if place == "cpu":
        model = cpu_offload(model, execution_device="cpu")
    elif place == "disk":
        model = disk_offload(model, offload_dir=str(tmp_path / "offloaded"), execution_device="cpu")
    else:
        model.save_pretrained(tmp_path / "model")
        names = {"encoder": "cpu", **{f"mtl.{part}": "disk" for part, _ in model.mtl.named_children()}}
        names["read_encoder"] = "cpu"
        model = MultiTaskAttentionModel.from_pretrained(
            tmp_path / "model", device_map=names, offload_folder=str(tmp_path / "offloaded")
        ).eval()
    for task, logits in model(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[task], msg=task)


@pytest.mark.parametrize("targets", ["all-linear", ["query", "key", "value"]])
@pytest.mark.parametrize(
    "name",
    [
        "interaction cross_task_attention",
        "pooling_scorer general",
        "interaction cgc",
        "interaction head_groups",
        "system individual",
        "system projected_attention_layers",
        "system hyper_adapters",
        "system conditional_attention",
    ],
)
def test_adapters_on_linear_layers_learn_and_answer_before_they_are_merged(name, targets):
    model = build(name)
    plain = copy.deepcopy(model)(**encoder_inputs()).logits
    wrapped = get_peft_model(model, LoraConfig(target_modules=targets, r=2))
    adapters = {key: tensor for key, tensor in wrapped.named_parameters() if "lora_" in key}
    optimizer = torch.optim.SGD(adapters.values(), lr=0.5)
    learned = set()
    for step in range(3):
        wrapped(**random_batch(seed=step)).loss.backward()
        learned |= {key for key, tensor in adapters.items() if tensor.grad is not None and tensor.grad.any()}
        optimizer.step()
        optimizer.zero_grad()
    assert learned == set(adapters)
    with torch.no_grad():
        for key, tensor in adapters.items():
            if "lora_B" in key:
                tensor.normal_(std=0.3)
    adapted = wrapped.eval()(**encoder_inputs()).logits
    assert all((adapted[task] - plain[task]).abs().max() > 1e-3 for task in plain)
    merged = wrapped.merge_and_unload()(**encoder_inputs()).logits
    for task, logits in merged.items():
        torch.testing.assert_close(logits, adapted[task], atol=1e-4, rtol=1e-4, msg=task)
