"""The `hf-mtl` program and its commands. Nothing heavy is imported before a command is known."""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "init": "draft a recipe from files",
    "train": "train a recipe and answer with the result",
    "doctor": "look a recipe's run over without training it",
    "mix": "show how often each task of a recipe would be drawn",
    "predict": "answer texts with a checkpoint",
    "evaluate": "score a checkpoint on a recipe's validation rows",
    "push": "put a checkpoint onto the Hub",
    "encoders": "show which model types of Transformers are wrapped",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    That is 0, 1 where rows of a file were not answered or the doctor found something, 2 for input that cannot be used,
    130 after an interrupt.
    """
    parser = argparse.ArgumentParser(prog="hf-mtl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, description in COMMANDS.items():
        commands.add_parser(name, help=description, add_help=False)
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = parser.parse_args(given[:1]).command
    return run(command, given[1:])


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one command, turning input that cannot be used into a short message."""
    module = importlib.import_module(f"hf_mtl.commands.{command}")
    parser = module.build_parser()
    parser.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module to import first, such as one that adds a problem type: its name, or a .py file; may be given "
        "several times",
    )
    args, rest = parser.parse_known_args(arguments)
    from .modeling import InputError

    try:
        for name in args.imports:
            import_module(name)
        return module.main(args, rest)
    except InputError as error:
        print(f"hf-mtl {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"hf-mtl {command}: interrupted.", file=sys.stderr)
        return 130


def import_module(name: str) -> None:
    """Import a module by its name or, ending in .py, its file.

    Raises:
        InputError: There is none.
    """
    from .modeling import InputError

    try:
        if not name.endswith(".py"):
            importlib.import_module(name)
            return
        # By its stem, so that what is imported from two places is one module.
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(f"--import {name}: {error}. Expected a module that Python finds, or a .py file.") from error


if __name__ == "__main__":
    sys.exit(main())
