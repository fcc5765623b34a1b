"""`hf-mtl push FOLDER REPO`: a checkpoint's folder onto the Hub, in one commit."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..modeling.errors import InputError, nearest
from ..modeling.hub_files import pushed_files
from ..modeling.hub_push import Push, Pushed, push_folder
from .console import quiet_libraries, say


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="hf-mtl push",
        description="Push a checkpoint to the Hub in one commit: weights, code, tokenizer, recipe, results and card. "
        "Whoever reads the repository meanwhile finds the checkpoint before, or this one. Pickles, training "
        "checkpoints and files that are none of a checkpoint's stay here.",
    )
    parser.add_argument("folder", help="what training named, or save_pretrained wrote")
    parser.add_argument("repo_id", metavar="repo", help="owner/name, or a name of the token's owner")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", help="a branch, made if it does not exist; by default main")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--tag", help="a tag of the commit, such as v1")
    parser.add_argument("--path_in_repo", default="", help="a folder of the repository; loaded with subfolder=")
    parser.add_argument("--commit_message", "--message", help="one line")
    parser.add_argument("--commit_description", help="further lines")
    parser.add_argument("--token", help="by default that of `hf auth login`, or HF_TOKEN")
    parser.add_argument("--include", nargs="+", default=(), metavar="PATTERN", help="further files, such as onnx/*")
    parser.add_argument("--tags", nargs="+", default=(), metavar="TAG", help="further tags of the card")
    parser.add_argument(
        "--replace_card",
        action="store_true",
        help="write over a card that somebody wrote in the repository",
    )
    parser.add_argument("--dry_run", action="store_true", help="check, and show what would be pushed")
    return parser


def main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Push, and say what is where."""
    if rest:
        flags = [action.option_strings[0] for action in build_parser()._actions if action.option_strings]
        raise InputError(f"unknown argument {rest[0]!r}.{nearest(rest[0], flags)}")
    quiet_libraries()
    values = vars(args)
    named = [name for name in Push.__dataclass_fields__ if name != "folder"]
    push = Push(Path(args.folder), **{name: values[name] for name in named})
    if args.dry_run:
        say(*_lines_of_files(push))
        return 0
    say(*lines_of_push(push, push_folder(push)))
    return 0


def _lines_of_files(push: Push) -> list[str]:
    files = pushed_files(push.folder, push.include)
    return [
        f"{push.folder} -> {push.repo_id}, in one commit:",
        *(f"  {name}  {_size(path)}" for name, path in files.sent.items()),
        *_lines_left_out(files.left_out),
    ]


def lines_of_push(push: Push, pushed: Pushed) -> list[str]:
    """Return what a push did, and what to type to load what it pushed."""
    if not pushed.has_changed:
        return [f"Nothing to push: {pushed.repo_id} has these files ({pushed.commit.commit_url})."]
    lines = [f"Pushed {len(pushed.files.sent)} files to {pushed.repo_id}: {pushed.commit.commit_url}"]
    lines += _lines_left_out(pushed.files.left_out)
    if pushed.removed:
        lines.append(f"Removed there, since this checkpoint has no such file: {', '.join(pushed.removed)}.")
    if pushed.commit.pr_url:
        return [*lines, f"The pull request: {pushed.commit.pr_url}"]
    options = {"revision": push.tag or push.revision, "subfolder": push.path_in_repo or None}
    given = "".join(f", {key}={value!r}" for key, value in options.items() if value)
    load = f"AutoModel.from_pretrained({pushed.repo_id!r}{given}, trust_remote_code=True)"
    return [*lines, "To load it anywhere:", f"  {load}"]


def _lines_left_out(left_out: Mapping[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, why in left_out.items():
        by_reason.setdefault(why, []).append(name)
    return [f"Not pushed, {why}: {_names(names)}." for why, names in by_reason.items()]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
