"""A setting of the model stands in its configuration alone: recipes, command line and docs read it there."""

import dataclasses
from typing import Any

import pytest
from transformers import HfArgumentParser

from hf_mtl.modeling import MultiTaskAttentionConfig
from hf_mtl.modeling.multitask_module import CHOICES
from hf_mtl.modeling.setting_names import SETTINGS
from hf_mtl.recipe_format import model_settings
from hf_mtl.recipe_format.model_settings import _argument_type, setting_fields
from hf_mtl.recipe_format.recipe_arguments import _NOT_SETTINGS, ModelArguments


def test_a_recipe_has_the_settings_of_the_configuration_with_their_defaults():
    assert {item.name for item in dataclasses.fields(ModelArguments)} == {*SETTINGS, *_NOT_SETTINGS} - {"tasks"}
    config, model = MultiTaskAttentionConfig(), ModelArguments()
    for name, value in model.settings().items():
        expected = getattr(config, name)
        assert value == (list(expected) if isinstance(expected, tuple) else expected), name


def test_what_a_part_may_be_called_stands_in_its_help():
    helps = {name: made.metadata["help"] for name, _, made in setting_fields()}
    for name, choices in CHOICES.items():
        assert all(choice in helps[name] for choice in choices), name
    assert not [name for name, text in helps.items() if "`TASK_" in text or "_SCORERS" in text]


def test_a_new_setting_is_one_line_and_its_help(monkeypatch):
    class Wider(MultiTaskAttentionConfig):
        __doc__ = (
            f"{(MultiTaskAttentionConfig.__doc__ or '').rstrip()}\n        depth: How deep it is, in 100 % of cases.\n"
        )
        model_type = "wider"
        depth: float | int = 3.0

    annotations = {**MultiTaskAttentionConfig.__annotations__, **Wider.__annotations__}
    monkeypatch.setattr(Wider, "__annotations__", annotations)
    monkeypatch.setattr(model_settings, "MultiTaskAttentionConfig", Wider)
    monkeypatch.setattr(model_settings, "SETTINGS", [*SETTINGS, "depth"])
    made = dataclasses.make_dataclass("Arguments", setting_fields())
    parser = HfArgumentParser(made)
    assert parser.parse_args_into_dataclasses(["--depth", "4"])[0].depth == 4.0
    assert parser.parse_args_into_dataclasses([])[0].depth == 3.0
    assert "How deep it is, in 100 % of cases." in parser.format_help()


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (float | int, float),
        (int | None, int | None),
        (bool, bool),
        (list[str] | tuple[str, ...], list[str]),
        (dict[str, float] | None, dict[str, Any] | str | None),
    ],
)
def test_types_are_those_that_a_command_line_can_give(annotation, expected):
    assert _argument_type(annotation) == expected
