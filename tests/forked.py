"""Programs in processes of their own that share one start: what they import is imported once, and each is a fork.

`python tests/forked.py MODULE...` imports the modules and then runs what it reads, a request per line.
"""

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

# How often a program is looked at.
POLL_SECONDS = 0.01

PROGRAM = "import sys; from hf_mtl.cli import main; sys.exit(main())"


class Forks:
    """A process that has imported modules, and runs code in forks of itself; close it with `with`.

    Args:
        modules: What it imports.
        environment: Its environment, read by what it imports.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self.files = tempfile.TemporaryDirectory()
        self.numbers, self.lock = itertools.count(), threading.Lock()
        command = [sys.executable, "-W", "ignore", __file__, *modules]
        environment = {**environment, "PYTHONPATH": str(Path(__file__).parents[1])}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True)

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *given: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.files.cleanup()

    def run(
        self, folder: str | Path, *arguments: str, code: str = PROGRAM, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run code in a folder, with `arguments` as its command line; by default the program hf-mtl."""
        request = {"code": code, "arguments": list(map(str, arguments)), "folder": str(folder)}
        assert self.process.stdin is not None
        with self.lock:
            base = Path(self.files.name) / str(next(self.numbers))
            self.process.stdin.write(json.dumps({**request, "base": str(base)}) + "\n")
            self.process.stdin.flush()
        end = time.monotonic() + timeout
        while not base.with_suffix(".code").exists():
            if time.monotonic() > end or self.process.poll() is not None:
                raise TimeoutError(base.with_suffix(".err").read_text("utf-8"))
            time.sleep(POLL_SECONDS)
        printed, said, code_text = (base.with_suffix(end).read_text("utf-8") for end in (".out", ".err", ".code"))
        return subprocess.CompletedProcess(arguments, int(code_text), printed, said)


def run_here(request: Mapping[str, str]) -> int:
    """Run a request in this process, and return its exit code."""
    for number, ending in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(f"{request['base']}{ending}", os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    sys.argv = ["hf-mtl", *request["arguments"]]
    sys.path.insert(0, "")
    try:
        exec(compile(request["code"], "<forked>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> None:
    """Fork for each request; the fork leaves its exit code in a file."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request = json.loads(line)
            code = run_here(request)
            sys.stdout.flush()
            sys.stderr.flush()
            part = Path(f"{request['base']}.part")
            part.write_text(str(code), "utf-8")
            part.rename(f"{request['base']}.code")
            os._exit(0)


if __name__ == "__main__":
    serve()
