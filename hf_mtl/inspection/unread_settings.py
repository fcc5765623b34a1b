"""Settings of a model that change nothing, since no part of it reads them."""

import dataclasses
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.configuration_multitask import MultiTaskAttentionConfig
from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.multitask_module import MultiTaskModule
from ..modeling.several_encoders import first_encoder


class _Listened:
    """Stands in for a configuration, and remembers what was asked of it."""

    def __init__(self, config: MultiTaskAttentionConfig) -> None:
        self._config = config
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._config, name)


def unread_settings(model: MultiTaskAttentionModel) -> dict[str, Any]:
    """Return the settings that are not their defaults and that no part reads, by name.

    The parts are built once more, without memory, and asked what they read. A choice of "none" needs no reader.

    Args:
        model: Of several tasks; a single task's has no interaction to read the settings of one.
    """
    config, encoder = model.config, model.encoder
    listened = _Listened(config)
    first = first_encoder(encoder)
    with torch.device("meta"):
        MultiTaskModule(cast(MultiTaskAttentionConfig, listened), cast(PreTrainedModel, first))
    inherited = {item.name for item in dataclasses.fields(PreTrainedConfig)}
    # These say what the encoder is.
    not_parts = inherited | {"encoder_axis", "encoder_config", "encoder_layers", "encoder_width", "tasks", "tower"}
    settings = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.name not in not_parts | listened.read and _plain(value) not in (_plain(item.default), "none"):
            settings[item.name] = value
    return settings


def _plain(value: Any) -> Any:
    """A tuple as the list that a file makes of it."""
    return list(value) if isinstance(value, tuple) else value
