"""What an answer loads, for the time that it takes."""

import os
import subprocess
import sys
import zipfile

from tests.modeling.test_saved_before import SAVED

# What is lower now stays so; a new part of the model that stands in its figure is a module more.
MOST_MODULES = 77

LOADED = """
import sys
from transformers import BertModel, PreTrainedTokenizerFast
# Transformers loads Pillow by itself, and torchvision with a BERT, wherever they are installed.
before = set(sys.modules)
from hf_mtl import cli
assert cli.run("predict", [sys.argv[1], "--text", "Bob Smith came late"]) == 0
print(*sorted(set(sys.modules) - before))
"""


def test_an_answer_loads_neither_trainer_nor_baselines(tmp_path):
    with zipfile.ZipFile(SAVED[0]) as archive:
        archive.extractall(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path / "checkpoint")],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr
    modules = run.stdout.splitlines()[-1].split()
    assert not [name for name in modules if name.split(".")[1:2] in (["training"], ["baselines"], ["recipe"])]
    assert "sklearn" not in modules
    # Texts alone are answered without what reads images, sounds and tables.
    media = ("PIL", "torchvision", "torchaudio", "torchcodec", "soundfile", "librosa", "wave")
    ours = [f"hf_mtl.modeling.{name}" for name in ("modality_readers", "sound_files", "table_encoder")]
    assert not [name for name in modules if name.split(".")[0] in media or name in ours]
    assert len([name for name in modules if name.startswith("hf_mtl.")]) <= MOST_MODULES
