"""The Hub's checks of a model card, made with the client's own classes, and what it reads from one."""

from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

CARD = "README.md"
EMPTY = "empty or missing yaml metadata in repo card"
# https://huggingface.co/docs/hub/repositories-licenses
_LICENCES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research intel-research isc lgpl
lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa
odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
LICENCES = frozenset(_LICENCES.split())
_LISTS_OF_NAMES = ("base_model", "datasets", "language", "license", "metrics", "tags")
_MISTAKES = (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError)


def check_card(content: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings about a card.

    Args:
        content: All of README.md.
    """
    try:
        values = front_matter(content)
        ModelCard(content)
        if "model-index" in values:
            model_index_to_eval_results(values["model-index"])
    except _MISTAKES as error:
        return [f"{type(error).__name__}: {error}"], []
    if not values:
        return [], [EMPTY]
    errors = [
        f'"{name}" must be a name or a list of names'
        for name in _LISTS_OF_NAMES
        if not all(isinstance(one, str) for one in names(values, name))
    ]
    unknown = [str(one) for one in names(values, "license") if one not in LICENCES]
    errors += [f'"license" must be one of [{", ".join(sorted(LICENCES))}], not {one}' for one in unknown]
    if not isinstance(values.get("pipeline_tag", ""), str):
        errors.append('"pipeline_tag" must be a string')
    return errors, []


def front_matter(content: str) -> dict[str, Any]:
    """Return the values above a card's text; none where there are none. Raise what YAML raises."""
    content = content.lstrip("\ufeff")
    if not content.startswith("---"):
        return {}
    block, closed, _ = content[3:].partition("\n---")
    values = yaml.safe_load(block) if closed else None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError("repo card metadata block should be a dict")
    return values


def described(content: str) -> dict[str, Any]:
    """Return what the Hub says of a model from its card; nothing where the card can't be read."""
    try:
        values = front_matter(content)
    except _MISTAKES:
        return {"cardData": {}, "tags": []}
    tags = [values["library_name"]] if values.get("library_name") else []
    tags += names(values, "tags") + names(values, "language")
    for name, kind in (("license", "license"), ("datasets", "dataset"), ("base_model", "base_model")):
        tags += [f"{kind}:{one}" for one in names(values, name)]
    given = {name: values[name] for name in ("pipeline_tag", "library_name") if values.get(name)}
    return {"cardData": values, "tags": list(dict.fromkeys(tags)), **given}


def names(values: dict[str, Any], name: str) -> list[Any]:
    """Return a field that holds one name or several as a list."""
    value = values.get(name)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
