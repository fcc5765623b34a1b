"""A card on its way to the Hub: it names the repository, gets tags, and never replaces what somebody wrote."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from .errors import InputError

# The last line of a card that was generated, which holds its digest: a card that was changed by hand is not.
_SEAL = re.compile(r"\n<!-- A card of hf_mtl, ([0-9a-f]{16}); a card changed by hand is left as it is. -->\n\Z")
_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
# What the templates of libraries have where somebody has yet to write.
_TEMPLATE = "[More Information Needed]"
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
# How a card's code loads the checkpoint, which has another name in a repository.
_LOADING = re.compile(
    r'^checkpoint = (".*")\n'
    r'model = AutoModel\.from_pretrained\(checkpoint(, subfolder=".*")?, trust_remote_code=True\)$',
    re.MULTILINE,
)


def sealed(card: str) -> str:
    """Return a generated card with its digest."""
    text = _SEAL.sub("", card)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
    return f"{text}\n<!-- A card of hf_mtl, {digest}; a card changed by hand is left as it is. -->\n"


def _is_generated(card: str) -> bool:
    """Return whether a card is as it was generated."""
    return _SEAL.search(card) is not None and sealed(card) == card


def is_written(card: str) -> bool:
    """Return whether somebody wrote a card, or changed one: it is none of ours, and no template to be filled in."""
    return bool(card.strip()) and not _is_generated(card) and _TEMPLATE not in card


def with_repository(card: str, repo_id: str, subfolder: str = "") -> str:
    """Return a card whose code loads the checkpoint from a repository; what a card of somebody's own says stays.

    Args:
        card: The text.
        repo_id: The repository.
        subfolder: Where in it the checkpoint lies.
    """
    text = card
    inside = f" --subfolder {shlex.quote(subfolder)}" if subfolder else ""
    for written, _ in _LOADING.findall(card):
        folder = json.loads(written)
        command = f"hf-mtl predict {shlex.quote(folder)} "
        text = re.sub(rf"^{re.escape(command)}", f"hf-mtl predict {repo_id}{inside} ", text, flags=re.MULTILINE)
        command = f"hf-mtl train {shlex.quote(f'{folder}/recipe.yaml')} "
        lies = f"{subfolder}/recipe.yaml" if subfolder else "recipe.yaml"
        fetched = f"hf download {repo_id} {shlex.quote(lies)} --local-dir .\nhf-mtl train {shlex.quote(lies)} "
        text = re.sub(rf"^{re.escape(command)}", fetched.replace("\\", r"\\"), text, flags=re.MULTILINE)
    option = f", subfolder={json.dumps(subfolder)}" if subfolder else ""
    loading = (
        f"checkpoint = {json.dumps(repo_id)}\n"
        f"model = AutoModel.from_pretrained(checkpoint{option}, trust_remote_code=True)"
    )
    text = _LOADING.sub(lambda _: loading, text)
    name, heading = repo_id.rpartition("/")[2], _HEADING.search(card)
    if (
        _is_generated(card)
        and heading
        and any(heading[1] == Path(json.loads(one)).name for one, _ in _LOADING.findall(card))
    ):
        # It was called after its folder.
        text = _HEADING.sub(lambda _: f"# {name}", text, count=1)
        text = text.replace(f"\nmodel-index:\n- name: {heading[1]}\n", f"\nmodel-index:\n- name: {name}\n", 1)
    return sealed(text) if _is_generated(card) else text


def with_tags(card: str, tags: Sequence[str]) -> str:
    """Return a card whose front matter has further tags.

    Raises:
        InputError: The front matter is no YAML mapping.
    """
    match = _FRONT_MATTER.match(card)
    try:
        data = yaml.safe_load(match.group(1)) if match else {}
    except yaml.YAMLError as error:
        raise InputError(f"The card's front matter is no valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise InputError("The card's front matter is no mapping; expected lines such as `license: mit`.")
    present = data.get("tags") or []
    present = [present] if isinstance(present, str) else list(present)
    new = [tag for tag in dict.fromkeys(tags) if tag not in present]
    if not new:
        return card
    written = yaml.safe_dump({**data, "tags": present + new}, sort_keys=False, allow_unicode=True)
    text = f"---\n{written}---\n{card[match.end() :] if match else card}"
    return sealed(text) if _is_generated(card) else text


def read_card(data: bytes, place: str) -> str:
    """Return a card's text.

    Raises:
        InputError: It is not in UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is not in UTF-8 ({error.reason} at byte {error.start}); write it so.") from error
