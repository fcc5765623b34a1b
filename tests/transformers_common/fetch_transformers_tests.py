"""Fetches Transformers' own common tests out of its source distribution: wheels leave them out.

    python tests/transformers_common/fetch_transformers_tests.py

writes the package `transformers_tests` of the installed version into the user's cache and prints the folder that
holds it.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers

MODULES = ("test_modeling_common.py", "test_configuration_common.py")
# What the two modules import that the source distribution leaves out.
STAND_INS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": (
        "config_common_kwargs = {\n"
        '    "return_dict": False,\n'
        '    "output_hidden_states": True,\n'
        '    "output_attentions": True,\n'
        '    "dtype": "float16",\n'
        '    "chunk_size_feed_forward": 5,\n'
        '    "architectures": ["BertModel"],\n'
        '    "id2label": {0: "label"},\n'
        '    "label2id": {"label": "0"},\n'
        '    "problem_type": "regression",\n'
        "}\n"
    ),
}


class FetchError(RuntimeError):
    """The source distribution cannot be had."""


def cache_folder() -> Path:
    """Return where fetched tests are kept: a folder for each version of Transformers."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "hf_mtl" / f"transformers-{transformers.__version__}"


def fetch() -> Path:
    """Return the folder that holds the package `transformers_tests`; fetch and unpack what is not there yet.

    Raises:
        FetchError: pip cannot get the source distribution.
    """
    folder = cache_folder()
    package = folder / "transformers_tests"
    if not all((package / name).is_file() for name in MODULES):
        _unpack(_source_distribution(folder), package)
    for name, text in STAND_INS.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    (package / "__init__.py").touch()
    return folder


def _source_distribution(folder: Path) -> Path:
    version = transformers.__version__
    path = folder / f"transformers-{version}.tar.gz"
    if path.is_file():
        return path
    options = ["--no-deps", "--no-binary", ":all:", "--retries", "1", "--timeout", "15", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, f"transformers=={version}"]
    outcome = subprocess.run(command, capture_output=True, text=True)
    if not path.is_file():
        lines = (outcome.stderr or outcome.stdout).strip().splitlines()
        raise FetchError(f"pip cannot get transformers-{version}.tar.gz: {lines[-1] if lines else 'no reason given'}")
    return path


def _unpack(archive: Path, package: Path) -> None:
    package.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as files:
        for name in MODULES:
            member = files.extractfile(f"{archive.name.removesuffix('.tar.gz')}/tests/{name}")
            if member is None:
                raise FetchError(f"{archive.name} holds no tests/{name}.")
            partial = package / f"{name}.partial"
            partial.write_bytes(member.read())
            partial.replace(package / name)


if __name__ == "__main__":
    print(fetch())
