"""Runs the README's first example where `out/support_desk` lies, and compares what it prints with what stands there.

python tests/first_example.py CHECKPOINT
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
# Another processor's sums move a number.
TOLERANCE = 0.5
NUMBER = re.compile(r"-?\d+\.\d+")


def first_example() -> tuple[str, list[str]]:
    """Return the example's code, and what it says that it prints."""
    code = re.search(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)[1]
    return code, re.findall(r"^# (.*)$", code, re.M)


def is_like(printed: str, said: str) -> bool:
    """Return whether lines have the same words and nearly the same numbers."""
    numbers = [[float(number) for number in NUMBER.findall(line)] for line in (printed, said)]
    near = all(abs(first - second) <= TOLERANCE for first, second in zip(*numbers))
    return near and NUMBER.sub("#", printed) == NUMBER.sub("#", said)


def main(checkpoint: str) -> int:
    """Run it, print what it printed, and return 1 where that is not what it says."""
    code, said = first_example()
    output = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "out").mkdir()
        (Path(folder) / "out" / "support_desk").symlink_to(Path(checkpoint).resolve())
        os.chdir(folder)
        with contextlib.redirect_stdout(output):
            exec(compile(code, "README.md", "exec"), {})
        os.chdir("/")
    printed = output.getvalue().splitlines()
    print("\n".join(printed))
    if len(printed) != len(said) or not all(map(is_like, printed, said)):
        print("README.md says:", *said, sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
