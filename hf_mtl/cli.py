"""The `hf-mtl` program: train, mix, predict, evaluate. Nothing heavy is imported before a command is known."""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a recipe and answer with the result",
    "mix": "show how often each task of a recipe would be drawn",
    "predict": "answer texts with a checkpoint",
    "evaluate": "score a checkpoint on a recipe's validation rows",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    That is 0, 1 where some rows of a file were not answered, 2 for input that cannot be used, 130 after an interrupt.
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
    known, rest = parser.parse_known_args(arguments)
    from .modeling import InputError

    try:
        return module.main(known, rest)
    except InputError as error:
        print(f"hf-mtl {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"hf-mtl {command}: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
