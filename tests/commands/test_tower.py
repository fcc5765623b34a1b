"""The texts' encoder of a model of several: from a recipe to answers, through every command."""

import json

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from hf_mtl import MultiTaskProcessor
from hf_mtl.cli import main

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
RECIPE = """
encoder: {folder}
{tower}output_dir: {out}
tasks:
  - name: intent
    problem_type: single_label_classification
    dataset: package:hf_mtl/data/support_desk/intent
  - name: urgency
    problem_type: regression
    dataset: package:hf_mtl/data/support_desk/urgency
max_steps: 3
max_train_samples: 60
max_eval_samples: 20
eval_strategy: steps
eval_steps: 3
save_steps: 3
report_to: none
use_cpu: true
"""


@pytest.fixture(scope="module")
def clip(tokenizer, tmp_path_factory):
    """The folder of a tiny CLIP with a tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 200,
        "eos_token_id": tokenizer.sep_token_id,
    }
    text |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    images = {**SIZES, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=images)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tower_is_mixed_looked_over_trained_scored_and_asked(clip, tmp_path, capsys):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE.format(folder=clip, tower="tower: text_model\n", out=out))
    assert main(["mix", str(recipe)]) == 0
    assert main(["doctor", str(recipe)]) == 0
    assert "no part of this model reads it" not in capsys.readouterr().out
    assert main(["train", str(recipe)]) == 0
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert (config["tower"], config["pooling"], config["encoder_layers"]) == ("text_model", "last_token", 2)
    assert main(["evaluate", str(out)]) == 0
    capsys.readouterr()
    assert main(["predict", str(out), "--text", "where is my parcel", "--json"]) == 0
    assert {"intent", "urgency"} == set(json.loads(capsys.readouterr().out))
    # What it reads is that of the tower, 200 word pieces.
    assert MultiTaskProcessor.from_pretrained(out).most_pieces == 200


def test_a_recipe_that_names_no_tower_is_asked_for_one(clip, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=clip, tower="", out=tmp_path / "out"))
    assert main(["train", str(recipe)]) == 2
    assert "Choose one: tower='text_model' or tower='vision_model'" in capsys.readouterr().err
