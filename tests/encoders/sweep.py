"""A sweep over model types of Transformers: each built tiny and wrapped, in a process of its own.

    python -m tests.encoders.sweep --types bert vit --output wrapped.json

writes a JSON by type and prints what is not wrapped; docs/make_encoders.py makes docs/encoders.md of it.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.utils.logging import set_verbosity_error

from tests.encoders.wrapping import wrap

LIMIT_SECONDS, PROCESSES = 180, 2


def line_of(error: BaseException) -> str:
    """Return an error and where it was raised, on one line."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" ({Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:250]}{where}"


def work(model_type: str, end: Connection) -> None:
    """Wrap a type and send what came of it; the end of a process of its own."""
    warnings.filterwarnings("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.manual_seed(0)
    try:
        answer = wrap(model_type)
    # Any class of Transformers raises what it likes.
    except Exception as error:
        answer = {"failed": line_of(error)}
    end.send(answer)
    end.close()
    # What Python would clean up takes longer than the work.
    os._exit(0)


def sweep(types: Sequence[str], processes: int = PROCESSES) -> dict[str, Any]:
    """Return what comes of wrapping each type; one that dies or hangs takes no other along."""
    set_verbosity_error()
    torch.set_num_threads(1)
    answers: dict[str, Any] = {}
    running: dict[Connection, tuple[str, Any, float]] = {}
    left = list(types)[::-1]
    with tqdm(total=len(types), unit="type", disable=None) as bar:
        while left or running:
            while left and len(running) < processes:
                ours, theirs = multiprocessing.Pipe(duplex=False)
                process = multiprocessing.get_context("fork").Process(target=work, args=(left[-1], theirs))
                process.start()
                theirs.close()
                running[ours] = (left.pop(), process, time.monotonic())
            ready = wait(list(running), timeout=1)
            for end, (name, process, begin) in list(running.items()):
                if end not in ready and time.monotonic() - begin < LIMIT_SECONDS:
                    continue
                try:
                    answers[name] = end.recv() if end in ready else {"failed": f"no answer in {LIMIT_SECONDS} seconds"}
                except EOFError:
                    answers[name] = {"failed": "the process died"}
                process.kill()
                process.join()
                del running[end]
                bar.update(1)
    return {name: answers[name] for name in types}


def main() -> int:
    """Sweep, write and print; return 1 where a type was not wrapped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="*", default=list(MODEL_MAPPING_NAMES))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    begin, answers = time.monotonic(), sweep(arguments.types)
    if arguments.output:
        arguments.output.write_text(json.dumps(answers, indent=1) + "\n", "utf-8")
    failed = {name: answer["failed"] for name, answer in answers.items() if "failed" in answer}
    print("\n".join(f"{name}: {reason}" for name, reason in failed.items()))
    print(f"{len(answers) - len(failed)} of {len(answers)} wrapped in {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
