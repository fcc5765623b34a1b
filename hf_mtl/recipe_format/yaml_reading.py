"""A recipe's YAML by the core rules of YAML 1.2: ``no`` is a word, ``1e-6`` a number, and a key stands once."""

import re
from collections.abc import Callable
from typing import Any

import yaml

from ..modeling.errors import InputError

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _TEXT, _MERGE = (_TAG + name for name in ("null", "bool", "int", "float", "str", "merge"))
# Numbers that begin with a needless zero (01, 007) are words, as they are in the files that they were copied from.
_DIGITS = r"(?:0|[1-9][0-9]*)"
_FLOATS = rf"[-+]?(?:\.[0-9]+|{_DIGITS}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_RULES = {
    _NULL: (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    _BOOL: (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    _INT: (rf"[-+]?{_DIGITS}", list("-+0123456789")),
    _FLOAT: (_FLOATS, list("-+.0123456789")),
    _MERGE: (r"<<", ["<"]),
}
# What to do about an error, by a part of its text.
_ADVICE = {
    "'\\t'": "Indent with blanks, not with tabs.",
    "another document": "A recipe is one document; write no second line `---`.",
    "cannot start any token": "Put the text in quotes.",
    "mapping values are not allowed": "Put a text that holds `: ` in quotes.",
}


class _Loader(yaml.SafeLoader):
    """Composes nodes; what they mean is decided by `_RULES`."""

    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `_RULES`, or other readers of YAML, would take for something else."""


def _quoted_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Elsewhere than between double quotes, line breaks of every kind are folded.
    return dumper.represent_scalar(
        _TEXT, text, style='"' if len(text.splitlines()) > 1 or text.strip() != text else None
    )


_Dumper.add_representer(str, _quoted_text)
for _tag, (_pattern, _first) in _RULES.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


def read_yaml(text: str, source: str, is_words: Callable[[tuple[str, ...]], bool]) -> Any:
    """Return what a YAML text says.

    Args:
        text: The text.
        source: What an error calls it.
        is_words: Whether the values under these keys (lists passed through) are words: their numbers and booleans
            are then kept as they are written.

    Raises:
        InputError: No valid YAML, or a key that stands twice; the message has the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        return _Reading(loader, source, is_words).value(node, (), is_words(()), False)
    except yaml.MarkedYAMLError as error:
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{source}: no valid YAML: {said}{_place(error.problem_mark)}.{_advice(said)}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source}: no valid YAML: {' '.join(str(error).split())}") from error


def write_yaml(values: Any) -> str:
    """Return values as YAML that `read_yaml` reads as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _place(mark: yaml.Mark | None) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""


def _advice(said: str) -> str:
    return next((f" {advice}" for part, advice in _ADVICE.items() if part in said), "")


class _Reading:
    """Nodes become values.

    Args:
        loader: Where the nodes come from.
        source: What an error calls the text.
        is_words: See `read_yaml`.
    """

    def __init__(self, loader: _Loader, source: str, is_words: Callable[[tuple[str, ...]], bool]) -> None:
        self.loader = loader
        self.source = source
        self.is_words = is_words
        self.entered: list[yaml.Node] = []
        self.flattened: set[int] = set()

    def value(self, node: yaml.Node, path: tuple[str, ...], words: bool, inside: bool) -> Any:
        """Return a node's value.

        Args:
            node: The node.
            path: The keys above it.
            words: Whether it holds words.
            inside: Whether it stands in a list or mapping of words, where nothing may be missing.
        """
        if node in self.entered:
            raise self.error(node, "an alias stands inside what it names", "Write the values out.")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, words, inside)
        self.entered.append(node)
        result: Any
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            result = [self.value(item, path, words, words) for item in node.value]
        elif isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            result = self.mapping(node, path, words)
        else:
            raise self.error(node, f"unknown tag {node.tag!r}", "Leave the tag out.")
        self.entered.pop()
        return result

    def mapping(self, node: yaml.MappingNode, path: tuple[str, ...], words: bool) -> dict[str, Any]:
        """Return a mapping; its keys are texts as they are written."""
        self.check_keys(node)
        values = {}
        for key, item in node.value:
            below = (*path, key.value)
            values[key.value] = self.value(item, below, words or self.is_words(below), words)
        return values

    def check_keys(self, node: yaml.MappingNode) -> None:
        """Refuse a key that stands twice, and take in what ``<<`` names."""
        if id(node) in self.flattened:
            return
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(key, "a key that is no text", "Put it in quotes if it is one.")
            line = key.start_mark.line + 1
            if key.value in lines and key.tag != _MERGE:
                first = f"first in line {lines[key.value]}"
                raise self.error(key, f"the key {key.value!r} stands twice, {first}, again", "Keep one of the two.")
            lines[key.value] = line
        self.loader.flatten_mapping(node)
        self.flattened.add(id(node))

    def scalar(self, node: yaml.ScalarNode, words: bool, inside: bool) -> Any:
        """Return a text, number, boolean or None."""
        if node.tag == _NULL:
            if inside:
                what = f"{node.value!r} is nothing where a word is meant" if node.value else "a word is missing"
                raise self.error(node, what, f'If it is a word, put it in quotes: "{node.value or "null"}".')
            return None
        if node.tag not in (_TEXT, _BOOL, _INT, _FLOAT, _MERGE):
            raise self.error(node, f"unknown tag {node.tag!r}", "Leave the tag out.")
        if words or node.tag in (_TEXT, _MERGE):
            return node.value
        try:
            return _number_or_bool(node)
        except ValueError as error:
            raise self.error(
                node, f"{node.value!r} is no {node.tag.removeprefix(_TAG)}", "Leave the tag out."
            ) from error

    def error(self, node: yaml.Node, what: str, advice: str) -> InputError:
        """Return an error about a node."""
        return InputError(f"{self.source}: {what}{_place(node.start_mark)}. {advice}")


def _number_or_bool(node: yaml.ScalarNode) -> bool | int | float:
    if node.tag == _BOOL:
        return node.value.lower() == "true"
    if node.tag == _INT:
        return int(node.value)
    # Python writes infinity and NaN without the dot.
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
