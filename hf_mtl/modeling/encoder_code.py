"""Encoders with code of their own, which lies beside their weights: run where it is trusted, and carried along."""

import copy
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module, get_relative_import_files

from .errors import InputError

# The type of multitask models in a config.json.
MODEL_TYPE = "hf_mtl"
# Arguments of `from_pretrained` that say which files are read, and so a configuration's and a tokenizer's too.
HUB_ARGUMENTS = (
    "cache_dir",
    "code_revision",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)
TRUST_HELP = (
    "Read it, and if you trust it say so: from_encoder(..., trust_remote_code=True) (a trainer's "
    "model_settings take it too), from_pretrained(..., trust_remote_code=True) of a checkpoint, "
    "trust_remote_code: true in a recipe, --trust_remote_code of hf-mtl predict."
)


def hub_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments of `from_pretrained` that say which files are read; code among them is not run unless
    they say so.
    """
    return {
        "trust_remote_code": False,
        **{key: arguments[key] for key in HUB_ARGUMENTS if arguments.get(key) is not None},
    }


class EncoderConfigOfCode(PreTrainedConfig):
    """Stands for the configuration of an encoder whose code has not been run: its values, of no class yet."""

    # Told by its type: where code is copied beside checkpoints, a class may exist several times.
    model_type = "hf_mtl_encoder_of_code"

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.values = None if values is None else dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as they were."""
        if self.values is None:
            # Transformers leaves out what is a new instance's; of a class nobody knows, no value is.
            return dict.fromkeys(super().to_dict(), math.nan)
        # Transformers removes the version of every part of a configuration.
        return {"transformers_version": None, **copy.deepcopy(self.values)}


def awaits_code(config: Any) -> bool:
    """Return whether a configuration stands for one whose code has not been run."""
    return isinstance(config, PreTrainedConfig) and config.model_type == EncoderConfigOfCode.model_type


def names_code(values: Any) -> bool:
    """Return whether the values of a configuration name code of its own."""
    return isinstance(values, Mapping) and "AutoConfig" in (values.get("auto_map") or {})


def carries_code(config: PreTrainedConfig) -> bool:
    """Return whether a configuration's class comes from code beside its checkpoint, which was trusted and run."""
    return type(config)._auto_class is not None


def code_files(encoder: PreTrainedModel) -> dict[str, Path]:
    """Return the files of an encoder's own code by name, those that they import included; none of most encoders.

    Raises:
        InputError: A checkpoint could not carry them.
    """
    if not carries_code(encoder.config):
        if type(encoder).__module__.startswith("transformers_modules."):
            raise InputError(
                f"{type(encoder).__name__} is code of the encoder's own, its configuration is not: a checkpoint could "
                "not find that code again. Name a configuration class beside the model in its auto_map (AutoConfig)."
            )
        return {}
    modules = [Path(str(sys.modules[kind.__module__].__file__)) for kind in (type(encoder.config), type(encoder))]
    needed = [str(path) for module in modules for path in (module, *get_relative_import_files(module))]
    files = {Path(path).name: Path(path) for path in needed}
    ours = {path.name for path in Path(__file__).parent.glob("*.py")}
    if taken := sorted(files.keys() & ours):
        raise InputError(
            f"The encoder's code has a file {taken[0]!r}, a name that a checkpoint's own files have; rename it in the "
            "encoder's folder, and where it is imported."
        )
    return files


def save_code(encoder: PreTrainedModel, folder: Path) -> None:
    """Copy an encoder's own code into a checkpoint's folder, and let its configuration name it there."""
    files = code_files(encoder)
    for name, path in files.items():
        if not (folder / name).exists() or not path.samefile(folder / name):
            shutil.copyfile(path, folder / name)
    if files:
        # A reference to a repository ("owner/name--module.Class") becomes one to the file beside the checkpoint.
        encoder.config.auto_map = {kind: ref.rpartition("--")[2] for kind, ref in encoder.config.auto_map.items()}


def with_encoder_code(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a checkpoint's `from_pretrained`; an encoder's own code, if trusted, is run for them.

    Values of the encoder's configuration are put where it lies, in `encoder_config`.

    Args:
        name: The checkpoint.
        arguments: Its arguments as they were given.

    Raises:
        InputError: It is no checkpoint of a multitask model, or the encoder has code of its own and nobody says that
            it is trusted.
    """
    config, hub = arguments.get("config"), {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}
    trusted = bool(hub.pop("trust_remote_code", False))
    if isinstance(config, PreTrainedConfig):
        check_model_type(name, config.model_type, config.architectures)
        stand_in = vars(config).get("encoder_config")
        values: Any = cast(Any, stand_in).values if awaits_code(stand_in) else None
    else:
        source = {key: value for key, value in hub.items() if key != "code_revision"}
        written = PreTrainedConfig.get_config_dict(config or name, **source)[0]
        if not written:
            # An adapter's folder: the checkpoint that it names is read in its place.
            return dict(arguments)
        check_model_type(name, written.get("model_type"), written.get("architectures"))
        values = written.get("encoder_config")
        arguments = _with_encoder_values(arguments, written)
    if not names_code(values):
        return dict(arguments)
    if not trusted:
        code = ", ".join(f"{ref.partition('.')[0]}.py" for ref in dict.fromkeys(values["auto_map"].values()))
        raise InputError(f"The encoder of {name!r} has code of its own ({code}). {TRUST_HELP}")
    encoder_config = _run_code(name, values, hub)
    if isinstance(config, PreTrainedConfig):
        config = copy.deepcopy(config)
        config.encoder_config = encoder_config
        return {**arguments, "config": config}
    changed = arguments.get("encoder_config")
    if isinstance(changed, Mapping):
        encoder_config.update(dict(changed))
    return {**arguments, "encoder_config": encoder_config}


def _with_encoder_values(arguments: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    inside = (written.get("encoder_config") or {}).keys() - written.keys() - set(HUB_ARGUMENTS)
    values = {key: value for key, value in arguments.items() if key in inside}
    if not values or isinstance(arguments.get("encoder_config"), PreTrainedConfig):
        return dict(arguments)
    rest = {key: value for key, value in arguments.items() if key not in values}
    return {**rest, "encoder_config": {**(arguments.get("encoder_config") or {}), **values}}


def check_model_type(name: str, model_type: str | None, architectures: Sequence[str] | None) -> None:
    """Raise `InputError` unless a configuration is a multitask model's, before weights are read."""
    if model_type != MODEL_TYPE:
        kind = (architectures or [model_type or "model of unknown type"])[0]
        raise InputError(
            f"{name!r} is the checkpoint of a {kind}, not of a MultiTaskAttentionModel; to wrap it write "
            f"MultiTaskAttentionModel.from_encoder({name!r}, tasks=[...])."
        )


def _run_code(name: str, values: Mapping[str, Any], hub: Mapping[str, Any]) -> PreTrainedConfig:
    """An encoder's configuration, its classes made known to Transformers for as long as the process lives."""
    config_class, model_class = (
        cast(Any, get_class_from_dynamic_module(values["auto_map"][kind], name, **hub))
        for kind in ("AutoConfig", "AutoModel")
    )
    config_class.register_for_auto_class()
    model_class.register_for_auto_class("AutoModel")
    AutoModel.register(config_class, model_class, exist_ok=True)
    return config_class.from_dict(dict(values))
