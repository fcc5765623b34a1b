"""Any encoder: 25 families in the default run, every readable type in the slow one."""

import json
import os
from pathlib import Path

import pytest
import transformers

from hf_mtl.cli import main
from hf_mtl.commands.encoders import encoder_rows
from tests.encoders.sweep import sweep

MATRIX = json.loads((Path(__file__).parents[2] / "hf_mtl" / "encoder_matrix.json").read_text("utf-8"))
PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text("utf-8")
WRAPPED = [name for name, row in MATRIX["types"].items() if row["readable"] and "towers" in row]
# Texts both ways, one way, with a decoder, of experts, of states that go on; images as patches, maps and frames; waves
# and features of sound; models of several encoders.
FAMILIES = (
    *("bert", "albert", "deberta-v2", "xlnet", "funnel", "reformer", "canine", "longformer", "layoutlm", "modernbert"),
    *("gpt2", "llama", "mixtral", "mamba", "t5", "bart", "vit", "swin", "convnext", "resnet", "videomae"),
    *("wav2vec2", "whisper", "clip", "clap"),
)
# What another version of Transformers builds may differ.
SAME_VERSION = pytest.mark.skipif(
    transformers.__version__ != MATRIX["transformers"], reason=f"measured with Transformers {MATRIX['transformers']}"
)


@SAME_VERSION
def test_25_families_are_wrapped_trained_saved_reloaded_and_asked():
    assert len(FAMILIES) == len(set(FAMILIES)) == 25
    answers = sweep(FAMILIES)
    assert {name: answer["failed"] for name, answer in answers.items() if "failed" in answer} == {}
    for name, answer in answers.items():
        assert answer["towers"] == MATRIX["types"][name]["towers"], name


@SAME_VERSION
@pytest.mark.slow
def test_every_type_of_the_page_is_wrapped():
    assert len(WRAPPED) == MATRIX["wrapped"] >= 490
    answers = sweep(WRAPPED, processes=min(os.cpu_count() or 1, 4))
    # What took too long beside other tests is tried once more.
    again = sweep([name for name, answer in answers.items() if "failed" in answer], processes=1)
    assert {name: answer["failed"] for name, answer in again.items() if "failed" in answer} == {}


def test_the_page_and_the_program_say_the_same(capsys):
    assert main(["encoders"]) == 0
    printed = capsys.readouterr().out.splitlines()
    said = f"{MATRIX['wrapped']} of {MATRIX['readable']} wrapped"
    assert printed[-1].startswith(said) and f"**{said}**" in PAGE
    wrapped = {name: row for name, row in MATRIX["types"].items() if "towers" in row}
    for row in encoder_rows(wrapped):
        assert f"| {' | '.join(row)} |" in PAGE
    assert len(printed) == 2 + len(encoder_rows(MATRIX["types"])) + 2
    assert main(["encoders", "clip"]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[2:4]] == ["text_model", "vision_model"]


def test_a_type_that_is_not_wrapped_says_why(capsys):
    name = next(name for name, row in MATRIX["types"].items() if "failed" in row)
    assert main(["encoders", name]) == 1
    printed = capsys.readouterr().out
    assert "not wrapped" in printed and MATRIX["types"][name]["failed"] in printed
    assert main(["encoders", "brt"]) == 2
    assert "Did you mean 'bert'" in capsys.readouterr().err
