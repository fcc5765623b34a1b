"""A run on two processes that goes on until it is killed; each process leaves its number in a file."""

import os
import sys
from pathlib import Path

from tests.distributed.table import UNEVEN, Run, build

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    trainer = build(Run("endless", [UNEVEN], arguments={"max_steps": 1_000_000}), folder, processes=2)
    (folder / f"{os.environ['RANK']}.pid").write_text(str(os.getpid()), "utf-8")
    trainer.train()
