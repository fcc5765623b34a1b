"""Pushing a checkpoint to the Hub in one commit: whoever reads it finds the one before, or this one."""

import hashlib
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.utils.logging import get_logger

from .errors import InputError
from .hub_card import is_written, read_card, with_repository, with_tags
from .hub_errors import FAILURES, HubError, first_line, status_of, wait_of, what_happened
from .hub_files import CARD_FILE, PushedFiles, pushed_files, replaced_files
from .hub_folder import card_of_folder

logger = get_logger(__name__)

_RECIPE_FILE = "recipe.yaml"
# Its line, and those on which a long value goes on.
_OUTPUT_FOLDER = re.compile(r"^output_dir:.*(?:\n|\Z)(?:[ \t]+.*(?:\n|\Z))*", re.MULTILINE)
_DEFAULT_MESSAGE = "Upload a multitask model"

# A commit is sent again so often where the Hub is busy or the line is cut; it names its parent, so it is made once.
_ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class Push:
    """A folder's way to a repository.

    Args:
        folder: The checkpoint.
        repo_id: ``owner/name``, or a name of the token's owner.
        token: As of `huggingface_hub`: by default the one of the login, or of ``HF_TOKEN``.
        private: Whether a new repository is private; by default as its owner's repositories are.
        revision: The branch, made if it does not exist; or ``refs/pr/1`` of an open pull request. By default main.
        create_pr: Whether to open a pull request instead.
        tag: A tag of the new commit, such as ``v1``.
        commit_message: One line.
        commit_description: Further lines.
        path_in_repo: A folder of the repository, read with ``subfolder=``; by default its root.
        include: Patterns of further files of the folder.
        replace_card: Whether a card that somebody wrote in the repository is replaced by a generated one.
        tags: Further tags of the card.
    """

    folder: Path
    repo_id: str
    token: str | bool | None = None
    private: bool | None = None
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    commit_message: str | None = None
    commit_description: str | None = None
    path_in_repo: str = ""
    include: Sequence[str] = ()
    replace_card: bool = False
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.repo_id, str):
            raise InputError(f"repo_id={self.repo_id!r}; expected owner/name, or a name of the token's owner.")
        inside = self.path_in_repo.removesuffix("/")
        if inside and any(part in ("", ".", "..") for part in inside.split("/")):
            raise InputError(f"path_in_repo={self.path_in_repo!r}; expected a folder of the repository, such as a/b.")
        object.__setattr__(self, "path_in_repo", inside)
        object.__setattr__(self, "revision", self.revision or None)
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise InputError(
                f"{self.repo_id!r} is no name of a repository: {error} Name one: repo_id='owner/name' "
                "(hub_model_id in training)."
            ) from error
        if self.create_pr and self.revision not in (None, constants.DEFAULT_REVISION):
            raise InputError(
                f"create_pr=True opens a pull request for main; revision={self.revision!r} cannot be given beside it."
            )
        if self.create_pr and self.tag:
            raise InputError("A pull request has no commit of its own to tag before it is merged; leave `tag` out.")
        if not self.folder.is_dir():
            raise InputError(f"There is no folder {str(self.folder)!r}; expected a checkpoint's.")

    def command(self) -> str:
        """Return what to type to push it later."""
        named = {
            "revision": self.revision,
            "tag": self.tag,
            "commit_message": self.commit_message,
            "commit_description": self.commit_description,
            "path_in_repo": self.path_in_repo,
        }
        flags = [f"--{key} {shlex.quote(value)}" for key, value in named.items() if value]
        flags += [f"--{key}" for key in ("private", "create_pr", "replace_card") if getattr(self, key)]
        flags += [f"--tags {' '.join(map(shlex.quote, self.tags))}"] if self.tags else []
        flags += [f"--include {' '.join(map(shlex.quote, self.include))}"] if self.include else []
        return " ".join(["hf-mtl push", shlex.quote(str(self.folder)), shlex.quote(self.repo_id), *flags])


@dataclass(frozen=True)
class Pushed:
    """A push that was made.

    Args:
        repo_id: The repository, its owner included.
        commit: What `huggingface_hub` says of the commit.
        files: What was pushed and what was not.
        removed: Files of the repository that the checkpoint does not have, removed by the same commit.
        has_changed: Whether there was anything to push.
        kept_card: Whether the card of the repository stayed, since somebody wrote it.
    """

    repo_id: str
    commit: CommitInfo
    files: PushedFiles
    removed: Sequence[str]
    has_changed: bool
    kept_card: bool


def push_folder(push: Push) -> Pushed:
    """Push a checkpoint's folder in one commit.

    Everything is checked first that can be: the checkpoint is whole, the repository takes it. The folder is only read.
    A commit whose answer was lost is looked for before it is sent again, and is never made twice.

    Raises:
        InputError: The folder holds no whole checkpoint.
        HubError: The Hub is out of reach, refuses, or changed meanwhile; the message says what to type.
    """
    files = pushed_files(push.folder, push.include)
    card = _local_card(push, files)
    _check_online(push)
    api = HfApi(token=push.token)
    repo_id = _call(push, lambda: api.create_repo(push.repo_id, private=push.private, exist_ok=True).repo_id)
    head, present = _prepare_branch(push, api, repo_id)
    contents = _contents(files, repo_id, push.path_in_repo)
    path = "/".join(part for part in (push.path_in_repo, CARD_FILE) if part)
    kept = False
    if card is not None:
        kept = not push.replace_card and not is_written(card) and _is_written(push, api, repo_id, head, path, present)
        contents[path] = with_repository(card, repo_id, push.path_in_repo).encode("utf-8")
    if kept:
        del contents[path]
        logger.warning(f"The card of {repo_id} was written by somebody and stays; replace_card=True replaces it.")
    removed = replaced_files(present, contents)
    commit = _commit(push, api, repo_id, head, contents, removed)
    if push.tag:
        _tag(push, api, repo_id, commit)
    return Pushed(repo_id, commit, files, removed, commit.oid != head, kept)


def _tag(push: Push, api: HfApi, repo_id: str, commit: CommitInfo) -> None:
    try:
        api.create_tag(repo_id, tag=cast(str, push.tag), revision=commit.oid)
    except FAILURES as error:
        raise HubError(
            f"It is pushed ({commit.commit_url}), but has no tag {push.tag!r}: {first_line(error)} To tag it, type:\n"
            f"  hf repos tag create {repo_id} {push.tag} --revision {commit.oid}"
        ) from error


def _check_online(push: Push) -> None:
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"HF_HUB_OFFLINE=1: nothing is pushed. {_later(push)}")


def _later(push: Push) -> str:
    return f"What would be pushed is in {str(push.folder)!r}; to push it, type:\n  {push.command()}"


def _prepare_branch(push: Push, api: HfApi, repo_id: str) -> tuple[str, list[str]]:
    """Return a branch's commit and files, the branch made if there is none; what cannot be is said before uploads."""
    info = _call(push, lambda: api.model_info(repo_id))
    if push.private is not None and info.private is not None and info.private != push.private:
        kind = "private" if info.private else "public"
        raise HubError(
            f"{repo_id} exists and is {kind}; private={push.private} would have no effect. Leave it out, or change "
            f"the repository: hf repos settings {repo_id} --{'public' if info.private else 'private'}."
        )
    if push.tag:
        tags = [ref.name for ref in _call(push, lambda: api.list_repo_refs(repo_id)).tags]
        if push.tag in tags:
            raise HubError(f"{repo_id} has a tag {push.tag!r} already; choose another one.")
    if push.revision not in (None, constants.DEFAULT_REVISION):
        revision = cast(str, push.revision)
        if not revision.startswith("refs/"):
            _call(push, lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
        info = _call(push, lambda: api.model_info(repo_id, revision=revision))
    return cast(str, info.sha), [file.rfilename for file in info.siblings or ()]


def _local_card(push: Push, files: PushedFiles) -> str | None:
    """Return the card of the folder, or one of what its configuration says, with further tags; None of an adapter.

    Raises:
        InputError: It cannot be read.
    """
    path = files.sent.get(CARD_FILE)
    name = push.repo_id.rpartition("/")[2]
    text = card_of_folder(push.folder, name) if path is None else read_card(path.read_bytes(), str(path))
    return text and with_tags(text, push.tags)


def _is_written(push: Push, api: HfApi, repo_id: str, head: str, path: str, present: Sequence[str]) -> bool:
    """Return whether a repository has a card that somebody wrote, or changed."""
    if path not in present:
        return False
    file = _call(push, lambda: api.hf_hub_download(repo_id, path, revision=head))
    return is_written(Path(file).read_text("utf-8", errors="replace"))


def _contents(files: PushedFiles, repo_id: str, path_in_repo: str) -> dict[str, Path | bytes]:
    """Return what is uploaded by its path in the repository."""
    start = f"{path_in_repo}/" if path_in_repo else ""
    contents: dict[str, Path | bytes] = {f"{start}{name}": path for name, path in files.sent.items()}
    if start:
        # Transformers looks for code in the root, whatever the subfolder.
        contents |= {name: path for name, path in files.sent.items() if name.endswith(".py") and "/" not in name}
    if recipe := files.sent.get(_RECIPE_FILE):
        # Where it was trained is nobody's to know.
        text = _OUTPUT_FOLDER.sub("", recipe.read_text("utf-8"))
        contents[f"{start}{_RECIPE_FILE}"] = text.encode("utf-8")
    return contents


def _commit(
    push: Push, api: HfApi, repo_id: str, head: str, contents: Mapping[str, Path | bytes], removed: Sequence[str]
) -> CommitInfo:
    """Make the commit, again where the Hub is busy, but not where it was made and its answer lost."""
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, content) for name, content in contents.items()
    ]
    operations += [CommitOperationDelete(name) for name in removed]
    message = push.commit_message or _DEFAULT_MESSAGE
    wait = _FIRST_WAIT_SECONDS
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                commit_description=push.commit_description,
                revision=push.revision,
                create_pr=push.create_pr,
                parent_commit=head,
            )
        except FAILURES as error:
            if not push.create_pr and (commit := _commit_with(push, api, repo_id, head, contents)):
                return commit
            seconds = wait_of(error, wait)
            # A pull request that was opened although its answer was lost would be opened twice.
            if seconds is None or attempt == _ATTEMPTS or (push.create_pr and status_of(error) is None):
                raise _explained(push, error) from error
            logger.warning(f"Pushing to {repo_id} failed ({first_line(error)}); again in {seconds:.0f} s.")
            time.sleep(seconds)
            wait *= 2
        except ValueError as error:
            # The Hub does not take the card's front matter.
            raise HubError(f"{push.folder / CARD_FILE} is refused by the Hub: {error} {_later(push)}") from error
    raise AssertionError("the last attempt returns or raises")


def _commit_with(
    push: Push, api: HfApi, repo_id: str, head: str, contents: Mapping[str, Path | bytes]
) -> CommitInfo | None:
    """Return the commit after `head` if it holds what was pushed."""
    try:
        info = api.model_info(repo_id, revision=push.revision, files_metadata=True)
    except FAILURES:
        return None
    present = {file.rfilename: file for file in info.siblings or ()}
    if info.sha == head or not contents.keys() <= present.keys():
        return None
    if not all(_is_content(present[name], content) for name, content in contents.items()):
        return None
    return CommitInfo(
        commit_url=f"{api.endpoint}/{repo_id}/commit/{info.sha}",
        commit_message=push.commit_message or _DEFAULT_MESSAGE,
        commit_description=push.commit_description or "",
        oid=cast(str, info.sha),
        _endpoint=api.endpoint,
    )


def _is_content(file: Any, content: Path | bytes) -> bool:
    """Return whether a file of a repository has a content, by the hash that the Hub gives."""
    if file.lfs is None:
        data = content if isinstance(content, bytes) else content.read_bytes()
        return file.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if isinstance(content, bytes):
        return file.lfs.sha256 == hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return file.lfs.sha256 == hashlib.file_digest(stream, "sha256").hexdigest()


def _call(push: Push, call: Callable[[], Any]) -> Any:
    """Return what a call of the Hub returns.

    Raises:
        HubError: It failed; in plain words.
    """
    try:
        return call()
    except (*FAILURES, ValueError) as error:
        raise _explained(push, error) from error


def _explained(push: Push, error: Exception) -> HubError:
    """Return an error that says what happened, that nothing changed, and what to type."""
    return HubError(f"{what_happened(error, push.repo_id, push.revision, push.create_pr)} {_later(push)}")
