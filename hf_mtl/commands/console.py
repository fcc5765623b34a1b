"""The screen of programs: lines they print, and lines they keep others from printing."""

import logging
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TextIO

import datasets
from transformers.utils.logging import disable_progress_bar

_PROGRAM = "hf-mtl"


def quiet_libraries() -> None:
    """Leave the screen to what a user needs: progress of training and what we print."""
    datasets.disable_progress_bars()
    disable_progress_bar()  # of loading and saving weights, which takes a moment
    logging.getLogger("transformers").setLevel(logging.ERROR)


def is_main_process() -> bool:
    """Return whether this process prints and writes: the only one, or the first of torchrun or accelerate."""
    return os.environ.get("RANK", "0") == "0"


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Print lines, once for all processes."""
    if lines and is_main_process():
        print("\n".join(lines), file=stream or sys.stdout, flush=True)


def program() -> str:
    """Return what to type for this program: its name where the shell finds it, else as it was typed."""
    typed = Path(sys.argv[0])
    return _PROGRAM if shutil.which(_PROGRAM) or typed.name != _PROGRAM else shlex.quote(str(typed))
