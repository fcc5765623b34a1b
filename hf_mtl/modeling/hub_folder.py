"""The folder that a model's own push sends: the model, its tokenizer, and what lay beside the weights it was loaded
with.
"""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from safetensors import safe_open
from transformers.utils.logging import get_logger

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_loading import reading_options
from .errors import InputError
from .hub_card import read_card, with_tags
from .hub_files import BESIDE, CARD_FILE, CONFIG_FILE, PROCESSOR_FILES
from .model_card import render_card
from .model_card_facts import NO_LICENSE, CardFacts, TaskFacts

logger = get_logger(__name__)


def complete_folder(model: Any, folder: Path, name: str, tags: Sequence[str] | None = None) -> None:
    """Put beside a model that was saved what makes it a whole checkpoint; what is there stays.

    Its tokenizer; if its weights are still those that it was loaded with, their recipe, results and card; and a card,
    if there is none.

    Args:
        model: The multitask model, which lies in the folder.
        folder: The folder.
        name: What the model is called on its card.
        tags: Further tags of the card.
    """
    if not any((folder / name).exists() for name in PROCESSOR_FILES):
        # Of a model that was loaded from nowhere none is known; the push then says what is missing.
        with contextlib.suppress(InputError):
            model.load_tokenizer().save_pretrained(folder)
    source = _source_folder(model)
    if source is not None and source.resolve() != folder.resolve():
        beside = [path for pattern in BESIDE for path in source.glob(pattern)]
        if beside and not _same_weights(source, folder):
            logger.warning(
                f"These weights are not those of {model.name_or_path}: its card, recipe and scores are not pushed "
                "with them."
            )
            beside = []
        for path in beside:
            if not (aim := folder / path.relative_to(source)).exists():
                aim.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, aim)
    card = folder / CARD_FILE
    text = read_card(card.read_bytes(), str(card)) if card.exists() else _card(model.config, str(folder), name)
    card.write_text(with_tags(text, [*(tags or ()), *(model.model_tags or ())]), "utf-8")


def card_of_folder(folder: Path, name: str) -> str | None:
    """Return a card of what a checkpoint's configuration says; None of an adapter.

    Args:
        folder: The checkpoint.
        name: What the model is called.
    """
    if not (folder / CONFIG_FILE).is_file():
        return None
    return _card(MultiTaskAttentionConfig.from_pretrained(folder), str(folder), name)


def _card(config: MultiTaskAttentionConfig, checkpoint: str, name: str) -> str:
    """Return what a configuration alone says of a model."""
    encoder: Any = config.encoder_config
    base = str(encoder.name_or_path or "")
    return render_card(
        CardFacts(
            name=name,
            checkpoint=checkpoint,
            tasks=[TaskFacts(config=task) for task in config.task_configs],
            encoder=f"a {encoder.model_type} encoder",
            base_model=base if base.count("/") == 1 and not Path(base).exists() else None,
            license_note=NO_LICENSE,
        )
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
    """Return whether two folders hold the same tensors, in as many files as there may be."""
    places, others = _tensor_files(first), _tensor_files(second)
    if places.keys() != others.keys():
        return False
    return all(_equal(_tensor(path, name), _tensor(others[name], name)) for name, path in places.items())


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder's tensors by their names."""
    places: dict[str, Path] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    return places


def _tensor(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)
