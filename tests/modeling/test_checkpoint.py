"""A checkpoint is whole: it reloads bit for bit, without this package too, and a damaged one is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers import BertModel

from hf_mtl import InputError, MultiTaskAttentionConfig, MultiTaskAttentionModel
from tests.conftest import TASKS, build_model, encoder_config, random_batch, randomise

ROWS = ["Bob Smith came late", {"text": "pick one", "choices": ["this", "that"]}]

BLOCKED = """
import json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "hf_mtl" or name.startswith("hf_mtl."):
            raise ImportError("hf_mtl is blocked")
sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
assert not any(name == "hf_mtl" or name.startswith("hf_mtl.") for name in sys.modules)
ids = torch.arange(1, 21).view(2, 10)
logits = {name: value.tolist() for name, value in model(ids).logits.items()}
print(json.dumps({"logits": logits, "answers": model.predict(json.loads(sys.argv[2]))}))
"""


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A checkpoint of a randomised model with every head type, its tokenizer beside it."""
    randomise(build_model(vocab_size=tokenizer.vocab_size)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_reload_is_bit_equal():
    model = randomise(build_model())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        model.save_pretrained(name)
        again = MultiTaskAttentionModel.from_pretrained(name).eval()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in again.state_dict().items())
    batch = random_batch()
    expected = model(**batch)
    found = again(**batch)
    for name, logits in found.entry_logits.items():
        torch.testing.assert_close(logits, expected.entry_logits[name], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=0)


def test_the_config_keeps_the_tasks_in_order(folder):
    config = MultiTaskAttentionConfig.from_pretrained(folder)
    assert config.task_names == [task["name"] for task in TASKS]
    assert [task.labels for task in config.task_configs] == [task.get("labels") for task in TASKS]
    assert config.hidden_size == 32


def test_it_loads_where_this_package_is_not(folder, tmp_path):
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "",
    }
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(folder), json.dumps(ROWS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    model = MultiTaskAttentionModel.from_pretrained(folder).eval()
    for name, logits in model(torch.arange(1, 21).view(2, 10)).logits.items():
        torch.testing.assert_close(torch.tensor(found["logits"][name]), logits, atol=1e-6, rtol=0)
    assert found["answers"] == json.loads(json.dumps(model.predict(ROWS)))


def damage(folder, change) -> None:
    """Rewrite the weights of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


HEAD = "mtl.heads.regression.weight.task_stars"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(HEAD), "lacks"),
        (lambda tensors: tensors.update(extra=torch.ones(2)), "unexpected"),
        (lambda tensors: tensors.update({HEAD: torch.ones(3, 32)}), "cannot be read|another shape"),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_a_damaged_checkpoint_is_refused(folder, change, said):
    damage(folder, change)
    with pytest.raises(InputError, match=said):
        MultiTaskAttentionModel.from_pretrained(folder)


def test_a_truncated_file_is_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read"):
        MultiTaskAttentionModel.from_pretrained(folder)


def test_what_was_done_to_a_loaded_encoder_stays():
    """Adapters and layers that are added to an encoder before it is wrapped are not drawn anew."""
    encoder = BertModel(encoder_config(), add_pooling_layer=False)
    encoder.embeddings.position_embeddings = torch.nn.Embedding(64, 32)
    encoder.add_adapter(LoraConfig(target_modules=["query", "value"], r=4))
    with torch.no_grad():
        for tensor in encoder.parameters():
            tensor.normal_(std=0.5)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    config = MultiTaskAttentionConfig(encoder_config=encoder.config, tasks=TASKS)
    after = MultiTaskAttentionModel(config, encoder=encoder).encoder.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("part", [{"head": "recurrent"}, {"head": "convolution"}, {"task_interaction": "mmoe"}])
def test_parts_that_a_checkpoint_has_not_are_drawn(part, tmp_path):
    build_model(task_interaction="none").save_pretrained(tmp_path)
    config = MultiTaskAttentionConfig.from_pretrained(tmp_path)
    for name, value in part.items():
        setattr(config, name, value)
    model = MultiTaskAttentionModel.from_pretrained(tmp_path, config=config, ignore_mismatched_sizes=True)
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all() and tensor.abs().max() < 10, name
