"""Encoders with code of their own: run only where they are trusted, never asked for at a terminal, and carried by
every checkpoint, so that it reloads in a new process without this package and without the encoder's folder.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import AutoConfig, AutoModel

from hf_mtl import InputError, MultiTaskAttentionModel, MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.cli import main
from hf_mtl.training.training_order import model_of
from tests.conftest import TASKS, encoder_inputs
from tests.modeling.test_checkpoint import BLOCKED
from tests.modeling.test_encoder_limits import word_level

CONFIGURATION = """# Beside {helper}.py.
from transformers import PreTrainedConfig

class WaveConfig(PreTrainedConfig):
    model_type = "{model_type}"
    vocab_size: int = 60
    hidden_size: int = 32
    num_hidden_layers: int = 1
    num_attention_heads: int = 2
    places: int = 40
"""
MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_wave import WaveConfig
from .{helper} import waved

class WaveModel(PreTrainedModel):
    config_class = WaveConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.places = nn.Embedding(config.places, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def set_input_embeddings(self, value):
        self.words = value

    def _init_weights(self, module):
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)

    def forward(self, input_ids, attention_mask=None, return_dict=True):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return BaseModelOutput(last_hidden_state=waved(self.words(input_ids) + self.places(places)))
"""
HELPER = "def waved(states):\n    return states.sin()\n"


def write_encoder(folder, model_type="wave_of_a_test", helper="wave_shapes", vocab_size=60):
    """An encoder's folder: code, configuration, weights, tokenizer."""
    folder.mkdir(parents=True)
    (folder / "configuration_wave.py").write_text(CONFIGURATION.format(model_type=model_type, helper=helper))
    (folder / "modeling_wave.py").write_text(MODELING.format(helper=helper))
    (folder / f"{helper}.py").write_text(HELPER)
    values = {
        "model_type": model_type,
        "vocab_size": vocab_size,
        "auto_map": {"AutoConfig": "configuration_wave.WaveConfig", "AutoModel": "modeling_wave.WaveModel"},
    }
    (folder / "config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_config(config, trust_remote_code=True).save_pretrained(folder)
    word_level().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def encoder(tmp_path):
    return write_encoder(tmp_path / "wave")


def wrapped(encoder, tasks=TASKS, **settings):
    torch.manual_seed(0)
    arguments = {"encoder_kwargs": {"trust_remote_code": True}, "pooling": "mean", **settings}
    return MultiTaskAttentionModel.from_encoder(encoder, copy.deepcopy(tasks), **arguments).eval()


def in_a_new_process(tmp_path, code, *arguments):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("given", [{}, {"trust_remote_code": False}, {"trust_remote_code": None}], ids=str)
def test_code_is_not_run_unless_it_is_trusted(encoder, given, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *said: pytest.fail("asked at a terminal"))
    with pytest.raises(InputError, match="code of its own.*trust_remote_code"):
        MultiTaskAttentionModel.from_encoder(encoder, TASKS, encoder_kwargs=given)


# Of a type that Transformers has, another class would read the values without a word.
@pytest.mark.parametrize("model_type", ["bert", pytest.param("wave_of_a_test", marks=pytest.mark.slow)])
def test_a_checkpoint_carries_the_code(tmp_path, model_type):
    model = wrapped(write_encoder(tmp_path / "wave", model_type))
    assert type(model.encoder).__name__ == "WaveModel" and model.encoder.dtype == torch.float32
    model.save_pretrained(tmp_path / "model")
    word_level().save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "wave")
    for name in ("configuration_wave.py", "modeling_wave.py", "wave_shapes.py", "modeling_multitask.py"):
        assert (tmp_path / "model" / name).is_file()
    expected = model(torch.arange(1, 21).view(2, 10)).logits
    rows = json.dumps(["yes no", {"text": "yes", "choices": ["no", "yes"]}])
    found = in_a_new_process(tmp_path, BLOCKED, str(tmp_path / "model"), rows)
    for name, logits in expected.items():
        torch.testing.assert_close(torch.tensor(found["logits"][name]), logits, atol=1e-6, rtol=0)
    assert found["answers"][0]["intent"]["label"] in "abc"


def test_a_checkpoint_reloads_saves_and_reloads(encoder, tmp_path):
    model = wrapped(encoder)
    model.save_pretrained(tmp_path / "first")
    shutil.rmtree(encoder)
    for load in (MultiTaskAttentionModel.from_pretrained, AutoModel.from_pretrained):
        with pytest.raises(InputError, match="modeling_wave.py.*trust_remote_code=True"):
            load(tmp_path / "first")
        again = load(tmp_path / "first", trust_remote_code=True).eval()
        again.save_pretrained(tmp_path / "second")
        third = MultiTaskAttentionModel.from_pretrained(tmp_path / "second", trust_remote_code=True).eval()
        for name, logits in model(**encoder_inputs()).logits.items():
            torch.testing.assert_close(third(**encoder_inputs()).logits[name], logits, atol=1e-6, rtol=0)
    config = json.loads((tmp_path / "second" / "config.json").read_text())
    assert config["encoder_config"]["auto_map"]["AutoModel"] == "modeling_wave.WaveModel"
    assert AutoConfig.from_pretrained(tmp_path / "second").task_names == [task["name"] for task in TASKS]


def test_a_value_of_the_encoder_may_be_changed_on_reloading(encoder, tmp_path):
    wrapped(encoder).save_pretrained(tmp_path / "model")
    again = MultiTaskAttentionModel.from_pretrained(
        tmp_path / "model", trust_remote_code=True, encoder_config={"note": "changed"}
    )
    assert again.config.encoder_config.note == "changed" and again.config.encoder_config.hidden_size == 32


def test_separate_encoders_and_some_of_the_tasks_keep_it(encoder, tmp_path):
    model = wrapped(encoder, TASKS[:2], conditioning="separate_encoders")
    model.save_pretrained(tmp_path / "model")
    again = MultiTaskAttentionModel.from_pretrained(tmp_path / "model", trust_remote_code=True).eval()
    torch.testing.assert_close(again(**encoder_inputs()).logits, model(**encoder_inputs()).logits)
    part = model_of(again, ["mood"])
    torch.testing.assert_close(part(**encoder_inputs()).logits["mood"], model(**encoder_inputs()).logits["mood"])
    part.save_pretrained(tmp_path / "part")
    assert (tmp_path / "part" / "modeling_wave.py").is_file()


def test_files_that_a_checkpoint_could_not_hold_are_refused_at_once(tmp_path):
    encoder = write_encoder(tmp_path / "wave", helper="errors")
    with pytest.raises(InputError, match=r"'errors.py'.*rename"):
        wrapped(encoder)


def test_a_trainer_takes_it_and_its_tokenizer(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *said: pytest.fail("asked at a terminal"))
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = Dataset.from_dict({"text": ["yes", "no"] * 4, "label": [1, 0] * 4}, features=features)
    task = {"name": "t", "problem_type": "single_label_classification", "labels": ["no", "yes"]}
    args = MultiTaskTrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, save_steps=1, use_cpu=True, report_to="none", disable_tqdm=True
    )
    trainer = MultiTaskTrainer(wrapped(encoder, [task]), args, train_dataset={"t": rows})
    assert trainer.processor.max_length(trainer.specs["t"]) == 40
    trainer.train()
    again = MultiTaskAttentionModel.from_pretrained(tmp_path / "out" / "checkpoint-2", trust_remote_code=True).eval()
    found = again.predict("yes", tokenizer=again.load_tokenizer())
    assert found[0]["t"]["score"] == pytest.approx(trainer.model.predict("yes")[0]["t"]["score"], abs=1e-6)


def test_a_recipe_trusts_it(encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "validation"):
        lines = [{"text": f"{split} {word} {place}", "label": word} for place in range(3) for word in ("yes", "no")]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = {split: f"{split}.jsonl" for split in ("train", "validation")}
    task = {"name": "t", "problem_type": "single_label_classification", "data_files": files}
    recipe = {"encoder": encoder, "output_dir": "out", "max_steps": 1, "use_cpu": True, "pooling": "mean"}
    Path("r.yaml").write_text(json.dumps({**recipe, "tasks": [task]}))
    for command in ("mix", "train"):
        assert main([command, "r.yaml"]) == 2
        assert "trust_remote_code: true" in capsys.readouterr().err
    Path("r.yaml").write_text(json.dumps({**recipe, "tasks": [task], "trust_remote_code": True}))
    assert main(["mix", "r.yaml"]) == 0
    assert main(["train", "r.yaml"]) == 0
    assert main(["evaluate", "out"]) == 0
    capsys.readouterr()
    assert main(["predict", "out", "--text", "yes"]) == 2
    assert "--trust_remote_code" in capsys.readouterr().err
    assert main(["predict", "out", "--text", "yes", "--trust_remote_code"]) == 0
    assert capsys.readouterr().out.startswith("t  ")
