"""The files of a checkpoint that go to the Hub: those that somebody needs who loads it, and no others."""

import fnmatch
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_import_files

from .encoder_code import MODEL_TYPE
from .errors import CheckpointError, InputError

CARD_FILE = "README.md"
EVAL_RESULTS_FOLDER = ".eval_results"
# The results, the recipe, the card and its figures: what lies beside a model that was trained.
BESIDE = (CARD_FILE, "recipe.yaml", "results.json", "test_results.json", f"{EVAL_RESULTS_FOLDER}/*.yaml", "*.png")

_CONFIG_FILE = "config.json"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_WEIGHTS_FILE = "model.safetensors"
_WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
# One of them says how inputs become numbers.
PROCESSOR_FILES = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")

_PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
# A checkpoint's own kinds of files. Whatever else lies in its folder may be somebody's data.
_SENT = (
    ".jinja",
    ".json",
    ".md",
    ".model",
    ".png",
    ".py",
    ".safetensors",
    ".spm",
    ".svg",
    ".tiktoken",
    ".txt",
    ".yaml",
)
_SENT_NAMES = ("LICENSE", "NOTICE", ".gitattributes")
_TENSORBOARD = "*/events.out.tfevents.*"
_TRAINING_CHECKPOINTS = "checkpoint-*"
# What of an earlier push would be read in the place of, or beside, what is pushed.
_REPLACED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "recipe.yaml",
    "results.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "test_results.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
# How a card's code loads the checkpoint, which has another name in a repository.
_LOADING = re.compile(
    r'^checkpoint = (".*")$(?=\nmodel = AutoModel\.from_pretrained\(checkpoint, trust_remote_code=True\)$)',
    re.MULTILINE,
)


@dataclass(frozen=True)
class PushedFiles:
    """The files of a folder that are pushed, and those that are not.

    Args:
        sent: Files by their path in the folder, with ``/`` between its parts.
        left_out: Why each of the others is not, by its path.
    """

    sent: Mapping[str, Path]
    left_out: Mapping[str, str]


def pushed_files(folder: Path, include: Sequence[str] = ()) -> PushedFiles:
    """Return what of a checkpoint's folder goes to the Hub: a checkpoint that loads, and nothing that is not its own.

    Args:
        folder: The checkpoint.
        include: Patterns of further files, such as ``onnx/*``.

    Raises:
        InputError: It is no checkpoint, a part of it is missing, or a pattern names a pickle or nothing.
    """
    sent, left_out = {}, {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        why = _why_left_out(folder, PurePosixPath(name))
        if why is not None and any(fnmatch.fnmatchcase(name, pattern) for pattern in include):
            if path.suffix in _PICKLES:
                raise InputError(f"include={name!r} is a pickle, which runs code when it is read; it is not pushed.")
            why = None
        if why is None:
            sent[name] = path
        else:
            left_out[name] = why
    for pattern in include:
        if not fnmatch.filter(sent, pattern):
            raise InputError(f"include={pattern!r} names no file of {str(folder)!r}.")
    _check_whole(folder)
    return PushedFiles(sent, left_out)


def _why_left_out(folder: Path, name: PurePosixPath) -> str | None:
    """Return why a file is not pushed, or None."""
    top = name.parts[0]
    if len(name.parts) > 1 and fnmatch.fnmatchcase(top, _TRAINING_CHECKPOINTS):
        return "a checkpoint of the training"
    if len(name.parts) > 1 and any((folder / top / file).is_file() for file in (_CONFIG_FILE, "trainer_state.json")):
        return "another checkpoint"
    if name.suffix in _PICKLES:
        return "a pickle, which runs code when it is read"
    if name.name in _SENT_NAMES or top == EVAL_RESULTS_FOLDER:
        return None
    if any(part.startswith(".") for part in name.parts):
        return "hidden"
    if name.suffix in _SENT or fnmatch.fnmatchcase(str(name), _TENSORBOARD):
        return None
    return "no file of a checkpoint"


def replaced_files(present: Iterable[str], sent: Iterable[str]) -> list[str]:
    """Return which files of a repository a push takes away, since readers would take them for parts of what is pushed.

    Args:
        present: The repository's files, those in folders included.
        sent: What is pushed, by their paths there.
    """
    sent = set(sent)
    folders = {name.rpartition("/")[0] for name in sent if name.rpartition("/")[2] in (_CONFIG_FILE, *_ADAPTER_FILES)}
    patterns = [
        "/".join(part for part in (folder, pattern) if part)
        for folder in folders
        for pattern in (*_REPLACED, f"{EVAL_RESULTS_FOLDER}/*.yaml")
    ]
    depths = {pattern: pattern.count("/") for pattern in patterns}
    return [
        name
        for name in present
        if name not in sent
        and any(name.count("/") == depth and fnmatch.fnmatchcase(name, one) for one, depth in depths.items())
    ]


def _check_whole(folder: Path) -> None:
    """Raise `InputError` unless everything is there that loading a folder's checkpoint takes, its code included."""
    if all((folder / name).is_file() for name in _ADAPTER_FILES):
        _check_weights(folder / _ADAPTER_FILES[1])
        return
    try:
        config = json.loads((folder / _CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r} is no checkpoint: it has no {_CONFIG_FILE} that can be read.") from error
    if config.get("model_type") != MODEL_TYPE:
        raise InputError(
            f"{str(folder)!r} holds a model of type {config.get('model_type')!r}, not a multitask model. Other models "
            "push themselves: model.push_to_hub(repo)."
        )
    _check_code(folder, config)
    for path in _weight_files(folder):
        _check_weights(path)
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise InputError(
            f"{str(folder)!r} has no tokenizer, without which nobody can ask it. Save it there: "
            f"model.load_tokenizer().save_pretrained({str(folder)!r})."
        )


def _check_code(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless the code that a configuration names, and what that imports, lies beside it."""
    maps = [config.get("auto_map"), (config.get("encoder_config") or {}).get("auto_map")]
    named = [ref for one in maps for ref in (one or {}).values() if isinstance(ref, str) and "--" not in ref]
    again = f"Save it again: MultiTaskAttentionModel.from_pretrained({str(folder)!r}).save_pretrained(folder)."
    if not (config.get("auto_map") or {}).get("AutoModel"):
        raise CheckpointError(f"{str(folder / _CONFIG_FILE)!r} names no code for AutoModel. {again}")
    modules = {folder / f"{ref.rpartition('.')[0]}.py" for ref in named}
    for module in sorted(modules):
        if not module.is_file():
            raise CheckpointError(f"{str(folder)!r} lacks its code {module.name}. {again}")
        try:
            needed = get_relative_import_files(str(module))
        except OSError as error:
            raise CheckpointError(f"{str(folder)!r} lacks code: {error}. {again}") from error
        for path in map(Path, needed):
            if not path.is_file():
                raise CheckpointError(f"{str(folder)!r} lacks {path.name}, which {module.name} imports. {again}")


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS_FILE).is_file():
        return [folder / _WEIGHTS_FILE]
    try:
        index = json.loads((folder / _WEIGHTS_INDEX_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder)!r} holds no weights: neither {_WEIGHTS_FILE} nor {_WEIGHTS_INDEX_FILE}. Save the model "
            f"there: model.save_pretrained({str(folder)!r})."
        ) from error
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _check_weights(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as weights:
            weights.keys()
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The weights {str(path)!r} are missing or cut off ({error}). Save them again."
        ) from error


def with_repository(card: str, repo_id: str) -> str:
    """Return a card whose code loads the checkpoint from a repository; what a card of somebody's own says stays."""
    for written in _LOADING.findall(card):
        command = f"hf-mtl predict {shlex.quote(json.loads(written))} "
        card = re.sub(rf"^{re.escape(command)}", f"hf-mtl predict {repo_id} ", card, flags=re.MULTILINE)
    return _LOADING.sub(lambda _: f"checkpoint = {json.dumps(repo_id)}", card)
