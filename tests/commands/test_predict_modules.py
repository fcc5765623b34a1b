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
from hf_mtl import cli
assert cli.run("predict", [sys.argv[1], "--text", "Bob Smith came late"]) == 0
names = ("sklearn", "hf_mtl.", "PIL", "torchvision", "torchcodec", "soundfile")
print(*(name for name in sys.modules if name.startswith(names)))
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
    media = ("PIL", "torchvision", "torchcodec", "soundfile", "hf_mtl.modeling.modality_readers")
    assert not [name for name in modules if name.startswith(media)]
    assert len([name for name in modules if name.startswith("hf_mtl.")]) <= MOST_MODULES
