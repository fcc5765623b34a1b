"""Arguments of `from_encoder`: which arguments load the encoder, which are settings; an encoder that is loaded."""

import copy
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import get_logger

from .configuration_multitask import MultiTaskAttentionConfig, current_settings
from .encoder_code import MODEL_TYPE, carries_code, code_files
from .encoder_loading import build_encoder, pooler_argument, read_encoder_config, value_names
from .encoder_towers import encoder_of
from .errors import InputError, check_choice, nearest
from .quantized_encoder import take_quantization
from .setting_names import (
    ENCODER_ARGUMENTS,
    REFUSED_ARGUMENTS,
    SETTINGS,
    SEVERAL_DEVICES,
    check_setting_names,
)
from .systems import SYSTEMS
from .task_config import EXAMPLE_TASK, TaskConfig

logger = get_logger(__name__)

# Flags of `PreTrainedConfig` that are the whole model's.
_MODEL_FLAGS = ("output_attentions", "output_hidden_states", "return_dict")
# Of an encoder's configuration, what says nothing of how it computes.
_NO_MATTER = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
_TASKS_HELP = f"expected a list such as [{EXAMPLE_TASK!r}]."
_WHEN_LOADED = {
    "dtype": "Write encoder.to(dtype) before, or load it with dtype=...",
    "torch_dtype": "Write encoder.to(dtype) before, or load it with dtype=...",
    "attn_implementation": "Write encoder.set_attn_implementation(...) before, or load it so.",
    "device_map": "Write encoder.to(device) before, or model.to(device) after.",
}


def read_tasks(tasks: Any) -> list[dict[str, Any]]:
    """Return the values of tasks, which are given as a list of tasks or of their values, a single one, or by name.

    Raises:
        InputError: Something else, or a task whose name is not the one that it is given by.
    """
    if isinstance(tasks, Mapping):
        by_name = all(isinstance(values, (TaskConfig, Mapping)) for values in tasks.values())
        tasks = [_named(name, values) for name, values in tasks.items()] if by_name else [tasks]
    elif isinstance(tasks, TaskConfig):
        tasks = [tasks]
    if isinstance(tasks, (str, bytes)) or not isinstance(tasks, Iterable):
        raise InputError(f"tasks is {tasks!r}; {_TASKS_HELP}")
    rows = []
    for task in tasks:
        if not isinstance(task, (TaskConfig, Mapping)):
            raise InputError(f"tasks holds {task!r}; expected a TaskConfig or its values: {_TASKS_HELP}")
        rows.append(task if isinstance(task, TaskConfig) else TaskConfig.from_dict(task))
    # A `TaskSpec` is a task with its data, of which a model keeps nothing.
    kept = TaskConfig.__dataclass_fields__
    return [{key: value for key, value in row.to_dict().items() if key in kept} for row in rows]


def _named(name: str, task: TaskConfig | Mapping[str, Any]) -> TaskConfig | Mapping[str, Any]:
    written = task.name if isinstance(task, TaskConfig) else task.get("name", name)
    if written != name:
        raise InputError(f"tasks names {name!r} a task whose name is {written!r}; give one name.")
    return task if isinstance(task, TaskConfig) else {"name": name, **task}


def split_arguments(
    encoder: str | Path | PreTrainedModel,
    system: str | None,
    encoder_kwargs: Mapping[str, Any] | None,
    arguments: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the parts, and what the encoder is loaded with.

    Args:
        encoder: A name or folder, or a loaded encoder.
        system: A name of `SYSTEMS`, whose settings stand where `arguments` say nothing.
        encoder_kwargs: Arguments that load the encoder, under one name.
        arguments: Settings and arguments that load the encoder, together.

    Raises:
        InputError: An unknown name, one that cannot be served, or one argument that is given twice.
    """
    if system is not None:
        check_choice("system", system, SYSTEMS)
    arguments = current_settings(arguments)
    settings = {} if system is None else dict(SYSTEMS[system].settings)
    settings.update({name: value for name, value in arguments.items() if name in _model_settings()})
    loading = {name: value for name, value in arguments.items() if name not in settings}
    for name, value in (encoder_kwargs or {}).items():
        if name in arguments and not arguments[name] == value:
            raise InputError(f"{name}={arguments[name]!r}, and encoder_kwargs say {value!r}; give it once.")
        loading[name] = value
    if "torch_dtype" in loading and "dtype" in loading:
        raise InputError("Both `dtype` and its old name `torch_dtype` are given; give `dtype`.")
    # Attentions are there to be returned where they are computed without a fused kernel.
    if settings.get("output_attentions") and isinstance(encoder, (str, Path)):
        loading.setdefault("attn_implementation", "eager")
    if isinstance(encoder, (str, Path)):
        check_setting_names(loading, [*ENCODER_ARGUMENTS, *_values_of(str(encoder), loading)])
    else:
        _refuse_loading(encoder, loading)
    return settings, loading


def _values_of(name: str, loading: Mapping[str, Any]) -> list[str]:
    """The names of the values of an encoder's configuration; none where it cannot be read."""
    if not set(loading) - set(ENCODER_ARGUMENTS) - REFUSED_ARGUMENTS.keys():
        return []
    try:
        return value_names(read_encoder_config(name, loading))
    except (OSError, ValueError, ImportError):
        return []


def _model_settings() -> set[str]:
    return {*SETTINGS, *_MODEL_FLAGS} - {"tasks"}


def _refuse_loading(encoder: PreTrainedModel, loading: Mapping[str, Any]) -> None:
    kind = type(encoder).__name__
    for name, value in loading.items():
        if name in ENCODER_ARGUMENTS:
            if value is not None and value is not False:
                raise InputError(
                    f"{_written(name, value)} says how an encoder is loaded, and a loaded {kind} is given. "
                    f"{_WHEN_LOADED.get(name, f'Load it with {name}=..., or give its name instead of the model.')}"
                )
        elif name in value_names(encoder.config):
            raise InputError(
                f"{_written(name, value)} is a value of the encoder's configuration, and a loaded {kind} is given, "
                f"which is built already. Load it with {name}=..., or give its name instead of the model."
            )
        else:
            check_setting_names([name], value_names(encoder.config))


def _written(name: str, value: object) -> str:
    """An argument as it was written, where that fits a line."""
    return f"{name}={value!r}" if len(repr(value)) < 40 else f"{name}="


def bare_encoder(
    model: PreTrainedModel, pooler: bool, tower: str | None = None
) -> tuple[PreTrainedModel, PreTrainedConfig]:
    """Return a loaded model's encoder, without a head or, unless `pooler`, a pooler, and the configuration that builds
    it again; the model itself stays as it is.

    Its tensors are those of the model, so that training one trains the other.
    """
    if tower is not None:
        # Of a model with a head, what AutoModel would have loaded.
        whole = model if type(model) is _whole_class(model) else cast(PreTrainedModel, model.base_model)
        return encoder_of(whole, tower), whole.config
    encoder = _encoder_inside(model)
    if encoder is not model:
        logger.warning(
            f"Of the {type(model).__name__} its encoder ({type(encoder).__name__}) is taken, and nothing else."
        )
    left_out = not pooler and pooler_argument(encoder.config, pooler)
    if left_out and isinstance(dict(encoder.named_children()).get("pooler"), nn.Module):
        # A pooler that nobody reads would be parameters without gradient. Everything else is shared.
        encoder = copy.copy(encoder)
        encoder._modules = {**encoder._modules, "pooler": None}
    return encoder, encoder.config


def follow_loaded(model: Any, encoder: PreTrainedModel) -> None:
    """Put the parts of a model where a loaded encoder is, in its precision; let its quantized weights be saved.

    Args:
        model: A `MultiTaskAttentionModel`.
        encoder: The encoder that it was built around.
    """
    model.mtl.to(device=encoder.device, dtype=encoder.dtype)
    model.encoder_source = str(encoder.name_or_path or model.config.encoder_config.name_or_path or "")
    model.hub_arguments = {"trust_remote_code": carries_code(encoder.config)}
    take_quantization(model, encoder)


def follow_mode(model: nn.Module, encoder: nn.Module) -> None:
    """Put a model around an encoder in its mode: one that was loaded by name evaluates, as in Transformers."""
    inside = set(encoder.modules())
    for module in model.modules():
        if module not in inside:
            module.training = encoder.training


def _encoder_inside(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of a loaded model: what `AutoModel` would have loaded, without a decoder.

    Raises:
        InputError: It is a multitask model, carries code that a checkpoint could not, or is not what its configuration
            builds.
    """
    if not isinstance(model, PreTrainedModel):
        # Wrapped by peft, whose adapters are part of how it computes.
        return model
    if model.config.model_type == MODEL_TYPE:
        raise InputError(
            "The encoder is a multitask model already; go on training it with MultiTaskTrainer(model, ...), or give "
            "its encoder, model.encoder."
        )
    whole = _whole_class(model)
    base = model if type(model) is whole else cast(PreTrainedModel, model.base_model)
    encoder = encoder_of(base)
    if encoder is base is model and inspect.isclass(whole) and type(base) is not whole:
        # A class for what the whole model has beside a decoder, around it.
        inside = dict(base.named_children()).get("encoder")
        encoder = inside if isinstance(inside, PreTrainedModel) and not _shares_tensors(inside) else base
    if inspect.isclass(whole) and type(base) is not whole:
        _check_rebuilt(model.config, encoder, None)
    code_files(encoder)
    if whole is None and type(model.config).__module__.startswith("transformers."):
        raise InputError(
            f"AutoModel knows no model of a {type(model.config).__name__}, so that a checkpoint could not be loaded. "
            "Give the whole model that this one is a part of, with tower=."
        )
    return encoder


def _shares_tensors(encoder: PreTrainedModel) -> bool:
    """Whether tensors of an encoder are one, of which only the class around it knows."""
    tensors = [id(tensor) for _, tensor in encoder.named_parameters(remove_duplicate=False)]
    return len(tensors) > len(set(tensors))


def _whole_class(model: PreTrainedModel) -> Any:
    """The class that `AutoModel` builds of a model's configuration; None for one that it does not know."""
    return MODEL_MAPPING[type(model.config)] if type(model.config) in MODEL_MAPPING else None


def _check_rebuilt(config: PreTrainedConfig, encoder: PreTrainedModel, tower: str | None) -> None:
    """Raise `InputError` where a checkpoint would not hold this encoder, since the configuration builds another."""
    with torch.device("meta"):
        # As a file would say it: without what was chosen for the whole model and not for each of its parts.
        again = build_encoder(type(config).from_dict(config.to_dict()), True, tower)
    # Quantized weights have other shapes, and a pooler that nobody reads is left out of one of them.
    given, built = (
        {
            name: tensor.shape if getattr(encoder, "hf_quantizer", None) is None else None
            for name, tensor in one.named_parameters()
            if not name.startswith("pooler.")
        }
        for one in (encoder, again)
    )
    if type(again) is not type(encoder) or given != built:
        raise InputError(
            f"A {type(encoder).__name__} is no encoder that its configuration ({type(config).__name__}) builds again: "
            f"that would be a {type(again).__name__}. Give one that AutoModel loads, or its name; of several inside "
            "it one with tower=."
        )


def check_encoder(encoder: Any) -> None:
    """Raise `InputError` for something that is neither a name nor a loaded encoder."""
    if isinstance(encoder, (str, Path)):
        return
    if isinstance(encoder, PreTrainedModel) and not encoder._hf_peft_config_loaded:
        return
    if isinstance(encoder, PreTrainedModel) or type(encoder).__module__.startswith("peft."):
        raise InputError(
            f"The encoder is a {type(encoder).__name__} with adapters, which its checkpoint could not be loaded with. "
            "Wrap the encoder first, and then the multitask model in its adapters: get_peft_model(model, "
            "LoraConfig(..., modules_to_save=['mtl']))."
        )
    if isinstance(encoder, PreTrainedConfig):
        raise InputError(
            f"The encoder is a {type(encoder).__name__}, which holds no weights; give the encoder's name, or for "
            "fresh weights AutoModel.from_config(config)."
        )
    raise InputError(
        f"The encoder is a {type(encoder).__name__}; expected its name, its folder or a loaded encoder, and then the "
        "tasks: from_encoder('bert-base-uncased', tasks=[...])."
    )


def take_loaded(config: MultiTaskAttentionConfig, encoder: PreTrainedModel) -> None:
    """Put what a loaded encoder computes with into a configuration.

    Raises:
        InputError: It has a head, or is another one than the configuration speaks of.
    """
    if config.tower is not None:
        _check_rebuilt(cast(PreTrainedConfig, config.encoder_config), encoder, config.tower)
        config._attn_implementation = encoder.config._attn_implementation
        return
    if _encoder_inside(encoder) is not encoder:
        raise InputError(
            f"The encoder is a {type(encoder).__name__}; expected an encoder alone, such as model.base_model, or "
            "MultiTaskAttentionModel.from_encoder(model, tasks=[...]), which takes the encoder of it."
        )
    written, loaded = (
        {name: value for name, value in one.to_dict().items() if name not in _NO_MATTER}
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
    config.encoder_config = encoder.config
    config._attn_implementation = encoder.config._attn_implementation


def on_one_device(loading: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an encoder is loaded with, placed whole on the device that its `device_map` names."""
    device = _one_device(loading.get("device_map"))
    return dict(loading) if device is None else {**loading, "device_map": {"": device}}


def _one_device(device_map: Any) -> torch.device | None:
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
