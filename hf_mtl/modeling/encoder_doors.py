"""What `from_encoder` is given: which arguments load the encoder, which are settings; an encoder that is loaded."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import get_logger

from .configuration_multitask import MultiTaskAttentionConfig, TaskConfig, check_choice, nearest
from .encoder_code import hub_arguments
from .encoders import check_dtype, encoder_of, find_encoder
from .errors import InputError
from .part_checks import ENCODER_ARGUMENTS, SETTINGS, TASK_VALUES, check_setting_names
from .systems import SYSTEMS

logger = get_logger(__name__)

# Of an encoder's configuration, what says nothing of how it computes.
NO_MATTER = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "_attn_implementation")
SEVERAL_DEVICES = (
    "Save the model (model.save_pretrained(folder)) and write MultiTaskAttentionModel.from_pretrained(folder, "
    "device_map=...), which places all of its parts."
)


def read_tasks(tasks: Any) -> list[TaskConfig]:
    """Return tasks however they are given: a list of tasks or of their values, a single one, or values by name.

    Raises:
        InputError: Something else.
    """
    if isinstance(tasks, TaskConfig) or (isinstance(tasks, Mapping) and "problem_type" in tasks):
        tasks = [tasks]
    if isinstance(tasks, Mapping) and all(isinstance(values, Mapping) for values in tasks.values()):
        tasks = [{"name": name, **values} for name, values in tasks.items()]
    if isinstance(tasks, (str, bytes)) or not isinstance(tasks, Iterable):
        raise InputError(
            f"tasks is {tasks!r}; expected a list such as [{{'name': 'mood', 'problem_type': "
            "'single_label_classification', 'labels': ['bad', 'good']}]."
        )
    rows = []
    for task in tasks:
        if not isinstance(task, (TaskConfig, Mapping)):
            raise InputError(f"tasks holds {task!r}; expected a TaskConfig, or its values as a mapping.")
        rows.append(task if isinstance(task, TaskConfig) else TaskConfig.from_dict(task))
    return rows


def split_arguments(
    encoder: Any, system: str | None, encoder_kwargs: Mapping[str, Any] | None, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the parts, and what the encoder is loaded with.

    Args:
        encoder: A name or folder, or a loaded encoder.
        system: A name of `SYSTEMS`, whose settings stand where `arguments` say nothing.
        encoder_kwargs: Arguments that load the encoder, under one name.
        arguments: Settings and arguments that load the encoder, together.

    Raises:
        InputError: An unknown name, or one argument that is given twice.
    """
    settings = {} if system is None else dict(_system(system))
    loading = dict(encoder_kwargs or {})
    others = {}
    for name, value in arguments.items():
        if name in ENCODER_ARGUMENTS:
            if name in loading and loading[name] != value:
                raise InputError(f"{name}={value!r}, and encoder_kwargs say {loading[name]!r}; give it once.")
            loading[name] = value
        elif name in SETTINGS and name != "tasks":
            settings[name] = value
        else:
            others[name] = value
    if others and not isinstance(encoder, PreTrainedModel) and not set(others) & set(TASK_VALUES):
        known = encoder_values(encoder, loading)
        loading.update({name: value for name, value in others.items() if name in known})
        others = {name: value for name, value in others.items() if name not in known}
    check_setting_names(others)
    return settings, loading


def _system(name: str) -> Mapping[str, Any]:
    check_choice("system", name, SYSTEMS)
    return SYSTEMS[name].settings


def encoder_values(name: str | Path, loading: Mapping[str, Any]) -> set[str]:
    """Return the names of the values of an encoder's configuration; none where it cannot be read."""
    try:
        config = AutoConfig.from_pretrained(find_encoder(str(name)), **hub_arguments(loading))
    except (OSError, ValueError, ImportError):
        return set()
    return set(config.to_dict()) - {"tasks", "encoder_config"}


def bare_encoder(model: PreTrainedModel, loading: Mapping[str, Any], pooler: bool) -> PreTrainedModel:
    """Return a loaded model's encoder, without a head or, unless `pooler`, a pooler; the model itself stays as it is.

    Raises:
        InputError: Arguments of loading, of a model that is loaded; they are named with what to write.
    """
    given = {name: value for name, value in loading.items() if value is not None and value is not False}
    for name, value in given.items():
        advice = {
            "dtype": "Write encoder.to(dtype) before, or load it with dtype=...",
            "torch_dtype": "Write encoder.to(dtype) before, or load it with dtype=...",
            "attn_implementation": "Write encoder.set_attn_implementation(...) before, or load it so.",
            "device_map": "Write encoder.to(device) before, or model.to(device) after.",
        }
        raise InputError(
            f"{name}={value!r} says how an encoder is loaded, and a loaded {type(model).__name__} is given. "
            f"{advice.get(name, 'Load it with ' + name + '=..., or give its name instead of the model.')}"
        )
    if model.config.model_type == MultiTaskAttentionConfig.model_type:
        raise InputError("The encoder is a multitask model already; expected an encoder, such as model.encoder.")
    base = cast(PreTrainedModel, model.base_model)
    if base is not model:
        logger.warning(
            f"Of the {type(model).__name__} its encoder ({type(base).__name__}) is taken, without its head."
        )
    encoder = encoder_of(base)
    if not pooler and isinstance(dict(encoder.named_children()).get("pooler"), nn.Module):
        # A pooler that nobody reads would be parameters without gradient. Everything else is shared.
        encoder = copy.copy(encoder)
        encoder._modules = {**encoder._modules, "pooler": None}
    return encoder


def check_encoder(encoder: Any) -> None:
    """Raise `InputError` for something that is neither a name nor a loaded encoder."""
    if isinstance(encoder, (str, Path, PreTrainedModel)):
        return
    if isinstance(encoder, PreTrainedConfig):
        raise InputError(
            f"The encoder is a {type(encoder).__name__}, which holds no weights; give the encoder's name, or for "
            "fresh weights AutoModel.from_config(config)."
        )
    base = getattr(encoder, "get_base_model", None)
    advice = (
        "Wrap the encoder first, and then the multitask model in its adapter: get_peft_model(model, LoraConfig(...))."
        if callable(base)
        else "Write from_encoder('bert-base-uncased', tasks=[...])."
    )
    raise InputError(
        f"The encoder is a {type(encoder).__name__}; expected its name, its folder or a loaded encoder. {advice}"
    )


def check_same_encoder(config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
    """Raise `InputError` if a configuration speaks of another encoder than the one that is loaded."""
    written, loaded = (
        {name: value for name, value in one.to_dict().items() if name not in NO_MATTER}
        for one in (cast(PreTrainedConfig, config.encoder_config), encoder.config)
    )
    differing = sorted(name for name in written.keys() | loaded.keys() if written.get(name) != loaded.get(name))
    if differing:
        name = differing[0]
        raise InputError(
            f"config.encoder_config says {name}={written.get(name)!r}, the loaded encoder has {loaded.get(name)!r} "
            f"({', '.join(differing)} differ); write MultiTaskAttentionConfig(encoder_config=encoder.config, ...), or "
            "MultiTaskAttentionModel.from_encoder(encoder, tasks=[...])."
        )


def one_device(device_map: Any) -> torch.device | None:
    """Return the device that a `device_map` places everything on; None for none.

    Raises:
        InputError: It divides the model among devices.
    """
    if device_map is None:
        return None
    if isinstance(device_map, Mapping) and set(device_map) == {""}:
        device_map = device_map[""]
    if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        accelerator = torch.accelerator.current_accelerator()
        if accelerator is None:
            return torch.device("cpu")
        if torch.accelerator.device_count() == 1:
            return accelerator
        raise InputError(f"device_map={device_map!r} would divide the model among devices. {SEVERAL_DEVICES}")
    if isinstance(device_map, Mapping) or device_map == "disk":
        raise InputError(f"device_map={device_map!r} would divide the model among devices. {SEVERAL_DEVICES}")
    try:
        return torch.device(device_map)
    except (RuntimeError, TypeError) as error:
        names = ("auto", "cpu", "cuda", "cuda:0", "mps")
        raise InputError(
            f"device_map={device_map!r}; expected a device such as 'cpu' or 'cuda:0', or 'auto'."
            f"{nearest(str(device_map), names)}"
        ) from error


__all__ = ["bare_encoder", "check_dtype", "check_encoder", "check_same_encoder", "one_device", "read_tasks"]
