"""A checkpoint folder, checked before anything heavy is loaded."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..modeling.configuration_multitask import MultiTaskAttentionConfig
from ..modeling.errors import InputError
from ..modeling.modeling_multitask import MultiTaskAttentionModel


def load_checkpoint(
    folder: str, trust_remote_code: bool = False
) -> tuple[MultiTaskAttentionModel, PreTrainedTokenizerBase]:
    """Return the model of a checkpoint folder and its tokenizer.

    Args:
        folder: The folder.
        trust_remote_code: Whether to run the code that an encoder brought along.

    Raises:
        InputError: No checkpoint, one of another model type, or one whose files are damaged.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise InputError(
            f"{folder!r} is no checkpoint folder: it holds no config.json. Type the folder that training named."
        )
    try:
        values = json.loads((path / "config.json").read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{folder}/config.json is no valid JSON: {error}") from error
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if model_type != MultiTaskAttentionConfig.model_type:
        raise InputError(
            f"{folder!r} holds a checkpoint of type {model_type!r}; expected {MultiTaskAttentionConfig.model_type!r}. "
            "A plain encoder goes into a recipe: encoder: FOLDER, then hf-mtl train."
        )
    try:
        model = MultiTaskAttentionModel.from_pretrained(folder, trust_remote_code=trust_remote_code).eval()
        return model, model.load_tokenizer()
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"The checkpoint {folder!r} cannot be read: {str(error).splitlines()[0]}") from error
