"""Checkpoints of earlier versions load for ever, by this package and by the code that they carry."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from hf_mtl import MultiTaskAttentionModel
from tests.conftest import assert_answers_close
from tests.modeling.test_checkpoint import BLOCKED, ROWS

# A checkpoint with its code, and what it answered when it was saved.
SAVED = sorted(Path(__file__).parent.glob("saved_by_*.zip"))


def by_package(folder) -> dict:
    model = MultiTaskAttentionModel.from_pretrained(folder).eval()
    logits = {name: values.tolist() for name, values in model(torch.arange(1, 21).view(2, 10)).logits.items()}
    return {"logits": logits, "answers": json.loads(json.dumps(model.predict(ROWS)))}


def by_its_own_code(folder) -> dict:
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(folder), json.dumps(ROWS)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_there_is_one_of_the_first_version():
    assert [path.name for path in SAVED][:1] == ["saved_by_0_1_0.zip"]


@pytest.mark.parametrize("load", [by_package, by_its_own_code])
@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_checkpoint_of_before_answers_as_it_did(path, load, tmp_path):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "checkpoint"
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    found = load(folder)
    assert found["logits"].keys() == expected["logits"].keys()
    for task, logits in expected["logits"].items():
        torch.testing.assert_close(torch.tensor(found["logits"][task]), torch.tensor(logits), atol=1e-5, rtol=0)
    assert_answers_close(found["answers"], expected["answers"], tolerance=1e-4)
