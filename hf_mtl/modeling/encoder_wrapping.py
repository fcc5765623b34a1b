"""Encoders are looked up, loaded or built, and become the model of some tasks: the work of `from_encoder`."""

import copy
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from .configuration_multitask import MultiTaskAttentionConfig
from .encoder_arguments import (
    bare_encoder,
    check_encoder,
    follow_mode,
    on_one_device,
    read_tasks,
    split_arguments,
)
from .encoder_code import hub_arguments
from .encoder_loading import build_encoder, find_encoder, load_with_config, reading_options
from .encoder_measures import state_form, with_pooling
from .errors import InputError, check_choice
from .modalities import MODALITIES, TEXT, check_modality, modality_of_encoder
from .modality_readers import PROCESSOR_CLASSES, check_processor_values, processor_values
from .pooling import TASK_POOLINGS
from .table_config import TableConfig

# Keys of an encoder that is described by a mapping, beside the values of its configuration.
_NAME, _MODEL, _TOWER, _PROCESSOR, _TYPE = "name", "model", "tower", "processor", "model_type"


class _Ready(NamedTuple):
    """An encoder that is at hand.

    Args:
        encoder: The encoder.
        whole: The configuration that builds it again.
        source: Where it was loaded from; None of one that was given loaded, or has fresh weights.
        tower: Of a model of several the one that it is.
        processor: The values of what reads its images or sounds.
        is_fresh: Whether its weights are random.
    """

    encoder: PreTrainedModel
    whole: PreTrainedConfig
    source: str | None = None
    tower: str | None = None
    processor: Mapping[str, Any] | None = None
    is_fresh: bool = False


class EncoderRequest:
    """The arguments of `from_encoder`, read before anything is loaded.

    Args:
        encoder: As of `MultiTaskAttentionModel.from_encoder`, like the others.
        tasks: See `encoder`.
        encoder_kwargs: See `encoder`.
        system: See `encoder`.
        arguments: See `encoder`.

    Raises:
        InputError: An argument that cannot be used.

    Attributes:
        config: The settings and tasks, of a model whose encoder is not known yet.
    """

    def __init__(
        self,
        encoder: Any,
        tasks: Any,
        encoder_kwargs: Mapping[str, Any] | None,
        system: str | None,
        arguments: Mapping[str, Any],
    ) -> None:
        self.encoders = _by_modality(encoder)
        first = next(iter(self.encoders.values()))
        if isinstance(first, Mapping) and _MODEL in first:
            first = first[_MODEL]
        _check_given(first)
        values = read_tasks(tasks)
        is_described = isinstance(first, Mapping | PreTrainedConfig)
        loaded_by = (_named(first) or "") if is_described else first
        self.settings, self.loading = split_arguments(loaded_by, system, encoder_kwargs, arguments)
        if is_described and not any(map(_is_loaded, self.encoders.values())):
            _refuse_loading(self.loading)
        attention: dict[str, Any] = {"attn_implementation": self.loading.get("attn_implementation")}
        self.config = MultiTaskAttentionConfig(tasks=values, **attention, **self.settings)

    def model(self, model_class: Any) -> Any:
        """Return the model, its encoders loaded or built.

        Args:
            model_class: `MultiTaskAttentionModel`.

        Raises:
            InputError: An encoder cannot be found or loaded, or reads something else than it is given for.
        """
        ready = self._ready()
        first = next(iter(ready.values()))
        settings = with_pooling({**self.settings, _TOWER: first.tower}, first.encoder)
        rows = [_row(name, one, is_first=one is first) for name, one in ready.items()]
        model = model_class(
            MultiTaskAttentionConfig(
                encoder_config=first.whole,
                tasks=_with_fields(self.config.tasks or [], list(ready)),
                modalities=None if list(ready) in ([TEXT], [""]) else rows,
                **settings,
            ),
            first.encoder if len(ready) == 1 else {name: one.encoder for name, one in ready.items()},
        )
        if first.source is not None:
            model.hub_arguments = hub_arguments(self.loading)
        follow_mode(model, first.encoder)
        return model

    def _ready(self) -> dict[str, _Ready]:
        """The encoders by modality; a single one that reads something else has none."""
        pooler, tower = TASK_POOLINGS[self.config.pooling].reads_pooler, self.config.tower
        ready: dict[str, _Ready] = {}
        for name, encoder in self.encoders.items():
            one = _at_hand(encoder, pooler, None if ready else tower, self.loading)
            try:
                modality = modality_of_encoder(one.encoder)
            except InputError:
                if name:
                    raise
                modality = ""
            if name and modality != name:
                raise InputError(
                    f"The encoder of {name} is a {type(one.encoder).__name__}, which reads {modality}; give it as "
                    f"{modality!r}, or another one of {name}."
                )
            ready[modality] = one
        return ready


def _refuse_loading(loading: Mapping[str, Any]) -> None:
    """Raise `InputError` for an argument that says how an encoder is loaded, where none is."""
    for name, value in loading.items():
        if name not in ("attn_implementation", "dtype", "torch_dtype") and value is not None and value is not False:
            raise InputError(
                f"{name}={value!r} says how an encoder is loaded, and a configuration is given, which builds one with "
                "fresh weights. Leave it out, or give the name of an encoder."
            )


def _by_modality(encoder: Any) -> dict[str, Any]:
    """Encoders by modality, that of texts first; a single one that is no mapping of them has the name "".

    Raises:
        InputError: A name of no modality, or no encoder.
    """
    if not isinstance(encoder, Mapping):
        return {"": encoder}
    if not encoder:
        raise InputError("encoder is an empty mapping; expected an encoder for each modality: {'image': ...}.")
    for name in encoder:
        check_modality(name)
    ordered = sorted(encoder, key=lambda name: name != TEXT)
    return {name: encoder[name] for name in ordered}


def _check_given(encoder: Any) -> None:
    """Raise `InputError` for something that is no encoder: a name, a loaded one, a configuration or its values."""
    if not isinstance(encoder, Mapping | PreTrainedConfig):
        check_encoder(encoder)


def _is_loaded(encoder: Any) -> bool:
    return isinstance(encoder, str | Path) or _named(encoder) is not None


def _named(described: Any) -> str | None:
    """The name of the encoder that a mapping describes."""
    return described.get(_NAME) if isinstance(described, Mapping) else None


def _at_hand(encoder: Any, pooler: bool, tower: str | None, loading: Mapping[str, Any]) -> _Ready:
    """Load, build or take an encoder.

    Args:
        encoder: Its name or folder, the encoder, its configuration, or a mapping of ``name`` or the values of its
            configuration, or ``model``, a loaded one; and ``tower`` and ``processor``.
        pooler: Whether its pooler is read.
        tower: Of a model of several, the one that is meant, where the mapping does not say it.
        loading: What loads it.
    """
    if isinstance(encoder, str | Path):
        return _loaded(str(encoder), pooler, tower, loading)
    if isinstance(encoder, PreTrainedConfig):
        fresh = _built(copy.deepcopy(encoder), pooler, tower, loading)
        return _Ready(fresh, fresh.config if tower is None else encoder, None, tower, is_fresh=True)
    if not isinstance(encoder, Mapping):
        check_encoder(encoder)
        bare, whole = bare_encoder(encoder, pooler, tower)
        source = str(encoder.name_or_path or "")
        return _Ready(bare, whole, None, tower, _processor_beside(source, bare, loading) if source else None)
    values = dict(encoder)
    name, model, given = (values.pop(key, None) for key in (_NAME, _MODEL, _PROCESSOR))
    tower = values.pop(_TOWER, tower)
    if model is not None:
        if name is not None or values:
            raise InputError(
                f"An encoder is described by its `{_MODEL}` and {', '.join(values) or _NAME}; give the loaded model "
                f"with its `{_TOWER}` and `{_PROCESSOR}` alone."
            )
        ready = _at_hand(model, pooler, tower, loading)
    elif name is not None:
        ready = _loaded(str(name), pooler, tower, {**loading, **values})
    else:
        config = _built_config(values)
        fresh = _built(config, pooler, tower, loading)
        ready = _Ready(fresh, fresh.config if tower is None else config, None, tower, is_fresh=True)
    return ready if given is None else ready._replace(processor=_given_processor(ready.encoder, given, loading))


def _given_processor(encoder: PreTrainedModel, given: Any, loading: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a processor: of one that is loaded, of its name, or as they are written."""
    modality = modality_of_encoder(encoder)
    if modality not in PROCESSOR_CLASSES:
        raise InputError(f"An encoder of {modality} has no `{_PROCESSOR}`, as one of images has; leave it out.")
    if isinstance(given, str | Path):
        return _loaded_processor(str(given), modality, loading)
    if isinstance(given, Mapping):
        check_processor_values(modality, given)
        return dict(given)
    return processor_values(modality, given)


def _built(config: PreTrainedConfig, pooler: bool, tower: str | None, loading: Mapping[str, Any]) -> PreTrainedModel:
    """An encoder with fresh weights, of the type of numbers that the others are loaded in."""
    dtype = loading.get("dtype", loading.get("torch_dtype"))
    try:
        fresh = build_encoder(config, pooler, tower)
    except InputError:
        raise
    except ValueError as error:
        why = str(error).splitlines()[0]
        raise InputError(f"No encoder can be built of a {type(config).__name__}: {why}") from error
    if dtype is None or dtype == "auto":
        return fresh
    if isinstance(dtype, str):
        name, dtype = dtype, getattr(torch, dtype.removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype):
            raise InputError(f"dtype={name!r}; expected float32, bfloat16, float16 or auto.")
    return cast(Any, fresh).to(dtype)


def _built_config(values: dict[str, Any]) -> PreTrainedConfig:
    """The configuration of an encoder with fresh weights."""
    model_type = values.pop(_TYPE, TableConfig.model_type if "columns" in values else None)
    if model_type is None:
        raise InputError(
            f"The encoder {values!r} has no `{_TYPE}` (an encoder with fresh weights, such as model_type: resnet) and "
            f"no `{_NAME}` (a Hub name or a folder); give one of them."
        )
    check_choice("model_type", model_type, CONFIG_MAPPING)
    config = AutoConfig.for_model(model_type)
    for key in values:
        check_choice(f"value of a {model_type} configuration:", key, [*config.to_dict(), *config.attribute_map])
    return AutoConfig.for_model(model_type, **values)


def _loaded(name: str, pooler: bool, tower: str | None, loading: Mapping[str, Any]) -> _Ready:
    loaded, whole = load_with_config(name, pooler, tower, **on_one_device(loading))
    return _Ready(loaded, whole, name, tower, _processor_beside(name, loaded, loading))


def _processor_beside(name: str, encoder: PreTrainedModel, loading: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values of the processor that lies beside an encoder of images or sounds; None where there is none."""
    try:
        modality = modality_of_encoder(encoder)
        return _loaded_processor(name, modality, loading) if modality in PROCESSOR_CLASSES else None
    # Said when rows are read, with what to type; an `InputError` is a ValueError.
    except (OSError, ValueError, ImportError):
        return None


def _loaded_processor(name: str, modality: str, loading: Mapping[str, Any]) -> dict[str, Any]:
    # Of texts alone no library of images is loaded.
    kind = getattr(importlib.import_module("transformers"), PROCESSOR_CLASSES[modality])
    hub = hub_arguments(loading)
    folder = find_encoder(name, hub)
    return processor_values(modality, kind.from_pretrained(folder, **hub, **reading_options(folder)))


def _row(name: str, ready: _Ready, is_first: bool) -> dict[str, Any]:
    """What the configuration keeps of a modality."""
    row: dict[str, Any] = {"name": name, "is_fresh": ready.is_fresh}
    if ready.processor is not None:
        row["processor"] = dict(ready.processor)
    if not is_first:
        form = state_form(ready.encoder)
        row |= {"config": ready.whole.to_dict(), "tower": ready.tower, "width": form.width, "axis": form.axis}
    return row


def _with_fields(tasks: Sequence[Mapping[str, Any]], modalities: Sequence[str]) -> list[dict[str, Any]]:
    """The tasks of a model that reads no texts, those that name no fields with the field of its first modality."""
    first = modalities[0]
    if first not in MODALITIES:
        return [dict(task) for task in tasks]
    return [{**task, "fields": task.get("fields") or [first]} for task in tasks]


__all__ = ["EncoderRequest"]
