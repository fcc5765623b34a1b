"""The folder that a model's own push sends: the model, its tokenizer, and what lay beside the weights it was loaded
with.
"""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file

from .encoder_loading import reading_options
from .errors import InputError
from .hub_files import BESIDE, CARD_FILE, PROCESSOR_FILES
from .model_card import CardFacts, TaskFacts, render_card


def complete_folder(model: Any, folder: Path, name: str, tags: Sequence[str] | None = None) -> None:
    """Put beside a model that was saved what makes it a whole checkpoint; what is there stays.

    Its tokenizer; if its weights are still those that it was loaded with, their recipe, results and card; and a card,
    if there is none.

    Args:
        model: The multitask model, which lies in the folder.
        folder: The folder.
        name: What the model is called on its card.
        tags: Further tags of a new card.
    """
    if not any((folder / name).exists() for name in PROCESSOR_FILES):
        # Of a model that was loaded from nowhere none is known; the push then says what is missing.
        with contextlib.suppress(InputError):
            model.load_tokenizer().save_pretrained(folder)
    source = _source_folder(model)
    if source is not None and source.resolve() != folder.resolve() and _same_weights(source, folder):
        for pattern in BESIDE:
            for path in source.glob(pattern):
                if not (aim := folder / path.relative_to(source)).exists():
                    aim.parent.mkdir(exist_ok=True)
                    shutil.copyfile(path, aim)
    if not (folder / CARD_FILE).exists():
        (folder / CARD_FILE).write_text(render_card(_facts(model, folder, name, tags)), "utf-8")


def _facts(model: Any, folder: Path, name: str, tags: Sequence[str] | None) -> CardFacts:
    """Return what a model alone knows of itself."""
    tasks = [TaskFacts(config=task) for task in model.config.task_configs]
    encoder = model.config.encoder_config
    base = str(encoder.name_or_path or "")
    return CardFacts(
        name=name,
        checkpoint=str(folder),
        tasks=tasks,
        encoder=f"a {encoder.model_type} encoder",
        base_model=base if base.count("/") == 1 and not Path(base).exists() else None,
        tags=[*(tags or ()), *(model.model_tags or ())],
    )


def _source_folder(model: Any) -> Path | None:
    """Return the folder that a model was loaded from, of the Hub's cache where that is; None if it was not loaded."""
    name = model.name_or_path
    hub = dict(model.hub_arguments)
    inside = str(hub.get("subfolder") or "")
    if not name or model.encoder_source:
        return None
    if Path(name).is_dir():
        return Path(name) / inside
    patterns = [f"{inside}/{one}" if inside else one for one in (*BESIDE, "*.safetensors", "*.safetensors.index.json")]
    keys = ("revision", "token", "cache_dir", "local_files_only")
    options = {**{key: hub[key] for key in keys if key in hub}, **reading_options(name)}
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, **options)) / inside
    except (HTTPError, LocalEntryNotFoundError, OSError):
        return None


def _same_weights(first: Path, second: Path) -> bool:
    """Return whether two folders hold the same tensors."""
    files = [sorted(path.name for path in folder.glob("*.safetensors")) for folder in (first, second)]
    if files[0] != files[1]:
        return False
    for name in files[0]:
        tensors, others = load_file(first / name), load_file(second / name)
        if tensors.keys() != others.keys() or not all(_equal(value, others[key]) for key, value in tensors.items()):
            return False
    return True


def _equal(first: object, second: object) -> bool:
    return bool(first.dtype == second.dtype and first.equal(second))  # type: ignore[attr-defined]
