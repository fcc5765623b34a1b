"""`hf-mtl encoders`: the model types of Transformers, and how each is wrapped."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..modeling.errors import InputError, check_choice
from ..screen import table

# Made by docs/make_encoders.py, which wraps them all.
_MATRIX_FILE = Path(__file__).parent.parent / "encoder_matrix.json"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `hf-mtl encoders`."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl encoders",
        description="Show which model types of Transformers are wrapped, by which tower, and what they read. With "
        "types as arguments those alone; a type that cannot be wrapped says why.",
        allow_abbrev=False,
    )
    parser.add_argument("types", nargs="*", metavar="TYPE", help="such as bert, vit or clip; by default all")
    return parser


def main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the matrix; return 1 where a type that was named is not wrapped."""
    if rest:
        raise InputError(f"Unknown argument {rest[0]!r}; `hf-mtl encoders --help` lists them.")
    matrix = json.loads(_MATRIX_FILE.read_text("utf-8"))
    types = matrix["types"]
    for name in args.types:
        check_choice("model type", name, types)
    shown = {name: types[name] for name in args.types or types}
    header = ["type", "model", "tower", "reads", "pooling"]
    print("\n".join(table(header, encoder_rows(shown), left=len(header))))
    failed = [f"{name}: {row['failed']}" for name, row in shown.items() if "failed" in row]
    if args.types:
        print(*failed, sep="\n", end="\n" if failed else "")
        return 1 if failed else 0
    print(f"\n{matrix['wrapped']} of {matrix['readable']} wrapped (Transformers {matrix['transformers']})")
    return 0


def encoder_rows(types: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a row per type and tower; one of a type that is not wrapped says so."""
    rows = []
    for name, row in types.items():
        for tower, facts in row.get("towers", {"": {"reads": "not wrapped", "pooling": ""}}).items():
            rows.append([name, row.get("model", ""), tower or "-", facts["reads"], facts["pooling"]])
    return rows


__all__ = ["build_parser", "encoder_rows", "main"]
