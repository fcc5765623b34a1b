"""The settings of the model as a program's arguments: types, defaults and help are those of the configuration."""

import dataclasses
import inspect
import re
from typing import Any, get_args, get_origin

from ..modeling.configuration_multitask import MultiTaskAttentionConfig
from ..modeling.multitask_module import CHOICES
from ..modeling.setting_names import SETTINGS

# A line of a docstring's `Args`, and those that it goes on in.
_ARGUMENT = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.M)
# A mapping by task, which a command line gives as JSON.
_MAPPING = dict[str, Any] | str | None
_TABLE = re.compile(r"a name of `\w+`")


def setting_fields() -> list[tuple[str, Any, Any]]:
    """Return name, type and field of each setting, as `dataclasses.make_dataclass` takes them."""
    helps = dict(_ARGUMENT.findall(inspect.getdoc(MultiTaskAttentionConfig) or ""))
    values = {item.name: item.default for item in dataclasses.fields(MultiTaskAttentionConfig)}
    rows = []
    for name in SETTINGS:
        if name != "tasks":
            text = _TABLE.sub(", ".join(CHOICES.get(name, ())), " ".join(helps[name].split()))
            rows.append(
                (name, _argument_type(MultiTaskAttentionConfig.__annotations__[name]), _field(values[name], text))
            )
    return rows


def _argument_type(annotation: Any) -> Any:
    """Return what a command line's parser is told of a setting's type.

    Args:
        annotation: Of the configuration: a number may be a whole one, a list a tuple; a mapping is typed as JSON.
    """
    kinds = set(get_args(annotation)) or {annotation}
    if float in kinds:
        return float
    if any(get_origin(kind) is dict for kind in kinds):
        return _MAPPING
    return list[str] if list[str] in kinds else annotation


def mapping_settings() -> list[str]:
    """Return the settings that are given by task."""
    annotations = MultiTaskAttentionConfig.__annotations__
    return [name for name in SETTINGS if name != "tasks" and _argument_type(annotations[name]) == _MAPPING]


def _field(value: Any, text: str) -> Any:
    metadata = {"help": text.replace("%", "%%")}
    if isinstance(value, tuple):
        return dataclasses.field(default_factory=lambda: list(value), metadata=metadata)
    return dataclasses.field(default=value, metadata=metadata)
