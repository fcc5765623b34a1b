"""The files of a checkpoint that go to the Hub: those that somebody needs who loads it, and no others."""

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_import_files

from .encoder_code import MODEL_TYPE
from .errors import CheckpointError, InputError
from .hub_card import read_card
from .modalities import TEXT

CARD_FILE = "README.md"
EVAL_RESULTS_FOLDER = ".eval_results"
# The results, the recipe, the card and its figures: what lies beside a model that was trained.
BESIDE = (CARD_FILE, "recipe.yaml", "results.json", "test_results.json", f"{EVAL_RESULTS_FOLDER}/*.yaml", "*.png")

CONFIG_FILE = "config.json"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_WEIGHTS_FILE = "model.safetensors"
_WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
# One of them says how inputs become numbers.
PROCESSOR_FILES = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")

_PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
# The names of a checkpoint's own files. Whatever else lies in its folder may be somebody's data.
_SENT = (
    *BESIDE[:-1],
    CONFIG_FILE,
    _WEIGHTS_FILE,
    _WEIGHTS_INDEX_FILE,
    "model-*-of-*.safetensors",
    *_ADAPTER_FILES,
    "generation_config.json",
    *PROCESSOR_FILES,
    "added_tokens.json",
    "additional_chat_templates/*.jinja",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "*.spm",
    "*.tiktoken",
    "tokenizer.json",
    "tokenizer.model",
    "vocab*.json",
    "vocab*.txt",
    ".gitattributes",
    "LICENSE*",
    "NOTICE*",
)
# What a card shows.
_FIGURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
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
    _check_whole(folder)
    needed = {path.name for path in _code(folder)} | _figures(folder)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        why = None if name in needed else _why_left_out(folder, PurePosixPath(name))
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
    return PushedFiles(sent, left_out)


def _why_left_out(folder: Path, name: PurePosixPath) -> str | None:
    """Return why a file is not pushed, or None."""
    top = name.parts[0]
    if len(name.parts) > 1 and fnmatch.fnmatchcase(top, _TRAINING_CHECKPOINTS):
        return "a checkpoint of the training"
    if len(name.parts) > 1 and any((folder / top / file).is_file() for file in (CONFIG_FILE, "trainer_state.json")):
        return "another checkpoint"
    if name.suffix in _PICKLES:
        return "a pickle, which runs code when it is read"
    if any(name.as_posix().count("/") == one.count("/") and fnmatch.fnmatchcase(str(name), one) for one in _SENT):
        return None
    return "hidden" if any(part.startswith(".") for part in name.parts) else "no file of a checkpoint"


def replaced_files(present: Iterable[str], sent: Iterable[str]) -> list[str]:
    """Return which files of a repository a push takes away, since readers would take them for parts of what is pushed.

    Args:
        present: The repository's files, those in folders included.
        sent: What is pushed, by their paths there.
    """
    sent = set(sent)
    folders = {name.rpartition("/")[0] for name in sent if name.rpartition("/")[2] in (CONFIG_FILE, *_ADAPTER_FILES)}
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
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(folder)!r} is no checkpoint: it has no {CONFIG_FILE} that can be read.") from error
    if config.get("model_type") != MODEL_TYPE:
        raise InputError(
            f"{str(folder)!r} holds a model of type {config.get('model_type')!r}, not a multitask model. Other models "
            "push themselves: model.push_to_hub(repo)."
        )
    _code(folder)
    for path in _weight_files(folder):
        _check_weights(path)
    modalities = [row["name"] for row in config.get("modalities") or ()]
    if (not modalities or TEXT in modalities) and not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise InputError(
            f"{str(folder)!r} has no tokenizer, without which nobody can ask it. Save it there: "
            f"model.load_tokenizer().save_pretrained({str(folder)!r})."
        )


def _code(folder: Path) -> list[Path]:
    """Return the code that a checkpoint's configuration names, and what that imports; none of an adapter.

    Raises:
        CheckpointError: A file of it is missing.
    """
    if not (folder / CONFIG_FILE).is_file():
        return []
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    maps = [config.get("auto_map"), (config.get("encoder_config") or {}).get("auto_map")]
    maps += [{"impl": pipeline.get("impl")} for pipeline in (config.get("custom_pipelines") or {}).values()]
    named = [ref for one in maps for ref in (one or {}).values() if isinstance(ref, str) and "--" not in ref]
    again = f"Save it again: MultiTaskAttentionModel.from_pretrained({str(folder)!r}).save_pretrained(folder)."
    if not (config.get("auto_map") or {}).get("AutoModel"):
        raise CheckpointError(f"{str(folder / CONFIG_FILE)!r} names no code for AutoModel. {again}")
    code = {folder / f"{ref.rpartition('.')[0]}.py" for ref in named}
    for module in sorted(code):
        if not module.is_file():
            raise CheckpointError(f"{str(folder)!r} lacks its code {module.name}. {again}")
        try:
            imported = [Path(path) for path in get_relative_import_files(str(module))]
        except OSError as error:
            lost = Path(error.filename or "a file").name
            raise CheckpointError(f"{str(folder)!r} lacks {lost}, which its code imports. {again}") from error
        for path in imported:
            if not path.is_file():
                raise CheckpointError(f"{str(folder)!r} lacks {path.name}, which {module.name} imports. {again}")
        code.update(imported)
    return sorted(code)


def _figures(folder: Path) -> set[str]:
    """Return the figures beside a card that it shows."""
    card = folder / CARD_FILE
    return set(_FIGURE.findall(read_card(card.read_bytes(), str(card)))) if card.is_file() else set()


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
