"""Checkpoints that programs are given by name: a folder, or a repository of the Hub."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..modeling.answering import tokenizer_of
from ..modeling.configuration_multitask import MultiTaskAttentionConfig
from ..modeling.encoder_loading import reading_options
from ..modeling.errors import InputError
from ..modeling.modeling_multitask import MultiTaskAttentionModel


def load_checkpoint(
    name: str, trust_remote_code: bool = False, revision: str | None = None, subfolder: str = ""
) -> tuple[MultiTaskAttentionModel, PreTrainedTokenizerBase | None]:
    """Return the model of a checkpoint and its tokenizer, None of one that reads no texts.

    Args:
        name: A folder, or a name of the Hub.
        trust_remote_code: Whether to run the code that an encoder brought along.
        revision: A branch, tag or commit of the Hub.
        subfolder: Where in the folder or repository it lies.

    Raises:
        InputError: No checkpoint, one of another model type, or one whose files are damaged.
    """
    hub = {"revision": revision, "subfolder": subfolder}
    path = _config_file(name, revision, subfolder)
    try:
        values = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}/config.json is no valid JSON: {error}") from error
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if model_type != MultiTaskAttentionConfig.model_type:
        raise InputError(
            f"{name!r} holds a checkpoint of type {model_type!r}; expected {MultiTaskAttentionConfig.model_type!r}. "
            "A plain encoder goes into a recipe: encoder: FOLDER, then hf-mtl train."
        )
    try:
        model = MultiTaskAttentionModel.from_pretrained(name, trust_remote_code=trust_remote_code, **hub).eval()
        return model, tokenizer_of(model)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"The checkpoint {name!r} cannot be read: {str(error).splitlines()[0]}") from error


def checkpoint_file(name: str, file: str, revision: str | None = None, subfolder: str = "") -> Path | None:
    """Return a file of a checkpoint, from the Hub or its cache where the name is no folder's; None where it has none.

    Args:
        name: A folder, or a name of the Hub.
        file: The file's name.
        revision: A branch, tag or commit of the Hub.
        subfolder: Where in the folder or repository the checkpoint lies.

    Raises:
        InputError: There is no such folder or repository, or it cannot be read now.
    """
    if Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        if revision:
            raise InputError(f"--revision {revision} is of the Hub's repositories; {name!r} is a folder.")
        path = Path(name) / subfolder / file
        return path if path.is_file() else None
    hub = {"revision": revision, "subfolder": subfolder, "_raise_exceptions_for_missing_entries": False}
    try:
        path_there = cached_file(name, file, **hub, **reading_options(name))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name!r} is no folder with a {file}, and no model of the Hub that can be read now "
            f"({str(error).splitlines()[0]}) Type the folder that training named, or OWNER/NAME."
        ) from error
    return None if path_there is None else Path(str(path_there))


def _config_file(name: str, revision: str | None, subfolder: str) -> Path:
    """Return a checkpoint's config.json."""
    path = checkpoint_file(name, "config.json", revision, subfolder)
    if path is None:
        raise InputError(
            f"{name!r} is no checkpoint folder: it holds no config.json. Type the folder that training named."
        )
    return path
