"""Weights that were stored in half precision are trained in float32, unless somebody says otherwise."""

import json
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from safetensors.torch import load_file
from transformers import AutoConfig, BertConfig, BertModel

from hf_mtl import (
    InputError,
    MultiTaskAttentionConfig,
    MultiTaskAttentionModel,
    MultiTaskTrainer,
    MultiTaskTrainingArguments,
)
from hf_mtl.cli import main
from hf_mtl.recipe import ModelArguments
from hf_mtl.training import task_agreement
from tests.conftest import TASKS, encoder_inputs
from tests.modeling.test_conditioning import SIZES
from tests.modeling.test_encoder_limits import word_level

FULL, HALF, SHORT = torch.float32, torch.float16, torch.bfloat16
TASK = {"name": "t", "problem_type": "single_label_classification"}


@pytest.fixture(params=[HALF, SHORT], ids=str)
def stored(request, tmp_path):
    """An encoder's folder, and the precision in which its weights lie there."""
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES), add_pooling_layer=False).to(request.param).save_pretrained(tmp_path / "encoder")
    word_level().save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder"), request.param


def precisions(model):
    return {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}


def test_an_encoder_is_float32_whatever_was_stored(stored):
    folder, dtype = stored
    model = MultiTaskAttentionModel.from_encoder(folder, TASKS)
    assert precisions(model) == {FULL} and model.config.encoder_config.dtype == FULL
    for name, tensor in load_file(Path(folder) / "model.safetensors").items():
        assert tensor.dtype == dtype
        assert torch.equal(model.encoder.state_dict()[name], tensor.float()), name


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [("bfloat16", SHORT), (torch.bfloat16, SHORT), ("float32", FULL), (HALF, HALF), (None, FULL)],
    ids=str,
)
def test_what_is_said_is_taken(stored, key, said, expected):
    model = MultiTaskAttentionModel.from_encoder(stored[0], TASKS, encoder_kwargs={key: said})
    assert precisions(model) == {expected}


def test_what_was_stored_can_be_asked_for(stored):
    model = MultiTaskAttentionModel.from_encoder(stored[0], TASKS, encoder_kwargs={"dtype": "auto"})
    assert precisions(model) == {stored[1]}


def test_fresh_weights_have_the_precision_of_other_layers(stored):
    """A configuration remembers what its weights were stored in; a model that is built from it has none of those."""
    config = MultiTaskAttentionConfig(encoder_config=AutoConfig.from_pretrained(stored[0]), tasks=TASKS)
    model = MultiTaskAttentionModel(config)
    assert precisions(model) == {FULL}
    model(**encoder_inputs())


@pytest.mark.parametrize("dtype", [HALF, SHORT, FULL], ids=str)
def test_a_checkpoint_keeps_its_precision(tmp_path, stored, dtype):
    MultiTaskAttentionModel.from_encoder(stored[0], TASKS, {"dtype": dtype}).save_pretrained(tmp_path / "model")
    assert precisions(MultiTaskAttentionModel.from_pretrained(tmp_path / "model")) == {dtype}
    assert precisions(MultiTaskAttentionModel.from_pretrained(tmp_path / "model", dtype=FULL)) == {FULL}


@pytest.mark.parametrize("said", [{}, {"dtype": SHORT}, {"dtype": "auto"}], ids=str)
def test_a_checkpoint_in_half_precision_is_trained_in_float32(tmp_path, stored, said, monkeypatch):
    lines = []
    monkeypatch.setattr(task_agreement.logger, "warning", lines.append)
    tasks = [{**TASK, "labels": ["no", "yes"]}]
    MultiTaskAttentionModel.from_encoder(stored[0], tasks, {"dtype": SHORT}).save_pretrained(tmp_path / "model")
    model = MultiTaskAttentionModel.from_pretrained(tmp_path / "model", **said)
    trainer = MultiTaskTrainer(model, arguments(tmp_path), train_dataset={"t": rows()}, processing_class=word_level())
    trainer.train()
    assert precisions(trainer.model) == {SHORT if said else FULL}
    assert [f"dtype={SHORT}" in line for line in lines] == ([] if said else [True])


@pytest.mark.parametrize("dtype", [HALF, SHORT], ids=str)
@pytest.mark.parametrize("source", ["encoder", "loaded_encoder", "checkpoint", "checkpoint_with_dtype"])
def test_a_trainer_keeps_half_precision_but_of_a_checkpoint(tmp_path, stored, source, dtype):
    """As docs/training.md says: of a checkpoint it must be asked for with `dtype=`, whatever is done to it after."""
    tasks = [{**TASK, "labels": ["no", "yes"]}]
    model = MultiTaskAttentionModel.from_encoder(stored[0], tasks)
    if source == "loaded_encoder":
        encoder = BertModel.from_pretrained(stored[0], add_pooling_layer=False, dtype=FULL)
        model = MultiTaskAttentionModel.from_encoder(encoder, tasks)
    if source.startswith("checkpoint"):
        model.save_pretrained(tmp_path / "model")
        said = {"dtype": FULL} if source == "checkpoint_with_dtype" else {}
        model = MultiTaskAttentionModel.from_pretrained(tmp_path / "model", **said)
    model.to(dtype)
    trainer = MultiTaskTrainer(model, arguments(tmp_path), train_dataset={"t": rows()}, processing_class=word_level())
    assert precisions(trainer.model) == {FULL if source == "checkpoint" else dtype}


@pytest.mark.parametrize("said", ["float15", "int8", torch.int64, 3], ids=str)
def test_what_is_no_precision_is_refused(stored, said):
    with pytest.raises(InputError, match="dtype=.*expected float32"):
        MultiTaskAttentionModel.from_encoder(stored[0], TASKS, encoder_kwargs={"dtype": said})


def arguments(folder):
    return MultiTaskTrainingArguments(
        str(folder / "out"), max_steps=2, learning_rate=1e-6, use_cpu=True, report_to="none", disable_tqdm=True
    )


def rows():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    return Dataset.from_dict({"text": ["yes", "no"] * 4, "label": [1, 0] * 4}, features=features)


def test_small_steps_are_kept(stored, tmp_path):
    """A step of 1e-6 is lost in half precision of weights near 0.02."""
    trainer = MultiTaskTrainer(stored[0], arguments(tmp_path), train_dataset={"t": rows()})
    before = {name: tensor.clone() for name, tensor in trainer.model.encoder.named_parameters()}
    trainer.train()
    moved = [not torch.equal(tensor, before[name]) for name, tensor in trainer.model.encoder.named_parameters()]
    assert all(moved) and precisions(trainer.model) == {FULL}
    again = MultiTaskAttentionModel.from_pretrained(tmp_path / "out" / "checkpoint-2")
    assert precisions(again) == {FULL}


@pytest.mark.parametrize(("keys", "expected"), [({}, FULL), ({"dtype": "bfloat16"}, SHORT)], ids=str)
def test_a_recipe_says_it(stored, tmp_path, monkeypatch, keys, expected):
    monkeypatch.chdir(tmp_path)
    files = {}
    for split in ("train", "validation"):
        rows = [{"text": f"{split} {word} {place}", "label": word} for place in range(2) for word in ("yes", "no")]
        Path(f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = f"{split}.jsonl"
    recipe = {"encoder": stored[0], "output_dir": "out", "max_steps": 1, "use_cpu": True, "doctor": False, **keys}
    Path("r.yaml").write_text(json.dumps({**recipe, "tasks": [{**TASK, "data_files": files}]}))
    assert main(["train", "r.yaml"]) == 0
    assert precisions(MultiTaskAttentionModel.from_pretrained("out")) == {expected}


def test_a_recipe_refuses_what_cannot_be_trained():
    with pytest.raises(InputError, match="dtype 'float16'; expected one of float32, bfloat16"):
        ModelArguments(dtype="float16")
    assert not {"dtype", "trust_remote_code", "encoder"} & ModelArguments().settings().keys()
