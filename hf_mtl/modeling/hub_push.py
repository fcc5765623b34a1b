"""Pushing a checkpoint to the Hub in one commit: whoever reads it finds the one before, or this one."""

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers, validate_repo_id
from transformers.utils.logging import get_logger

from .errors import InputError
from .hub_files import CARD_FILE, PushedFiles, pushed_files, replaced_files, with_repository

logger = get_logger(__name__)

_DEFAULT_MESSAGE = "Upload a multitask model"

# A commit is sent again so often where the Hub is busy or the line is cut; it names its parent, so it is made once.
_ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 60.0
_BUSY = (408, 429, 500, 502, 503, 504)
_TOKEN_HELP = "Log in with `hf auth login`, or set HF_TOKEN to a token of https://huggingface.co/settings/tokens"

# RuntimeError: the client's, of an upload; JSONDecodeError: an answer that is a page of an overloaded server.
_Failures = (HfHubHTTPError, HTTPError, OSError, RuntimeError, json.JSONDecodeError)


class HubError(InputError):
    """Raised where a checkpoint could not be pushed; nothing of the repository changed, and the message says how to
    push it later.
    """


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

    def __post_init__(self) -> None:
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise InputError(f"{self.repo_id!r} is no name of a repository: {error}") from error
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
        flags += [f"--{key}" for key in ("private", "create_pr") if getattr(self, key)]
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
    """

    repo_id: str
    commit: CommitInfo
    files: PushedFiles
    removed: Sequence[str]


def push_folder(push: Push) -> Pushed:
    """Push a checkpoint's folder in one commit.

    Everything is checked first that can be: the checkpoint is whole, the repository takes it. The folder is only read.
    A commit whose answer was lost is looked for before it is sent again, and is never made twice.

    Raises:
        InputError: The folder holds no whole checkpoint.
        HubError: The Hub is out of reach, refuses, or changed meanwhile; the message says what to type.
    """
    files = pushed_files(push.folder, push.include)
    _check_online(push)
    api = HfApi(token=push.token)
    repo_id = _call(push, lambda: api.create_repo(push.repo_id, private=push.private, exist_ok=True).repo_id)
    head, present = _prepare_branch(push, api, repo_id)
    contents = _contents(files, repo_id, push.path_in_repo)
    removed = replaced_files(present, contents)
    commit = _commit(push, api, repo_id, head, contents, removed)
    if push.tag:
        _tag(push, api, repo_id, commit)
    return Pushed(repo_id, commit, files, removed)


def _tag(push: Push, api: HfApi, repo_id: str, commit: CommitInfo) -> None:
    try:
        api.create_tag(repo_id, tag=cast(str, push.tag), revision=commit.oid)
    except _Failures as error:
        raise HubError(
            f"It is pushed ({commit.commit_url}), but has no tag {push.tag!r}: {_first_line(error)} To tag it, type:\n"
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


def _contents(files: PushedFiles, repo_id: str, path_in_repo: str) -> dict[str, Path | bytes]:
    """Return what is uploaded by its path in the repository; a card's code names the repository."""
    start = f"{path_in_repo.strip('/')}/" if path_in_repo.strip("/") else ""
    contents: dict[str, Path | bytes] = {f"{start}{name}": path for name, path in files.sent.items()}
    if start:
        # Transformers looks for code in the root, whatever the subfolder.
        contents |= {name: path for name, path in files.sent.items() if name.endswith(".py") and "/" not in name}
    if card := files.sent.get(CARD_FILE):
        contents[f"{start}{CARD_FILE}"] = with_repository(card.read_text("utf-8"), repo_id).encode("utf-8")
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
        except _Failures as error:
            if not push.create_pr and (commit := _commit_with(push, api, repo_id, head, contents)):
                return commit
            seconds = _wait_of(error, wait)
            # A pull request that was opened although its answer was lost would be opened twice.
            if seconds is None or attempt == _ATTEMPTS or (push.create_pr and _status_of(error) is None):
                raise _explained(push, error) from error
            logger.warning(f"Pushing to {repo_id} failed ({_first_line(error)}); again in {seconds:.0f} s.")
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
    except _Failures:
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
    except (*_Failures, ValueError) as error:
        raise _explained(push, error) from error


def _refusal(error: BaseException | None) -> HfHubHTTPError | None:
    """Return the Hub's own answer among an error and its causes."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _status_of(error: Exception) -> int | None:
    refusal = _refusal(error)
    return None if refusal is None else refusal.response.status_code


def _wait_of(error: Exception, usual: float) -> float | None:
    """Return how many seconds to wait before a commit is sent again; None where that is no use."""
    refusal = _refusal(error)
    if refusal is None:
        is_local = isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError))
        return None if is_local else usual
    if refusal.response.status_code not in _BUSY:
        return None
    limit = parse_ratelimit_headers(refusal.response.headers)
    after = refusal.response.headers.get("Retry-After", "")
    seconds = limit.reset_in_seconds + 1 if limit else float(after) + 1 if after.isdigit() else usual
    return seconds if seconds <= _LONGEST_WAIT_SECONDS else None


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _explained(push: Push, error: Exception) -> HubError:
    """Return an error that says what happened, that nothing changed, and what to type."""
    return HubError(f"{_what_happened(push, error)} {_later(push)}")


def _what_happened(push: Push, error: Exception) -> str:
    repo, status = push.repo_id, _status_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE=1: nothing is pushed."
    if isinstance(error, LocalTokenNotFoundError):
        return f"Pushing needs a token. {_TOKEN_HELP} with the right to write."
    if isinstance(_refusal(error), GatedRepoError):
        return f"{repo} is gated and the token's owner has no access; ask for it on {constants.ENDPOINT}/{repo}."
    if status == 401:
        return f"The Hub does not accept the token, or none was sent. {_TOKEN_HELP} with the right to write to {repo}."
    if status == 403:
        said = cast(HfHubHTTPError, _refusal(error)).server_message or "forbidden"
        return f"The token may not write to {repo} ({said}). {_TOKEN_HELP} with the right to write there."
    if isinstance(_refusal(error), RepositoryNotFoundError) or status == 404:
        return f"{repo} (revision {push.revision or 'main'}) does not exist, or the token may not see it."
    if status in (409, 412):
        return (
            f"{repo} changed while this was pushed: somebody else pushed to it. Nothing of yours is in it; look at it."
        )
    if status == 429:
        limit = parse_ratelimit_headers(cast(HfHubHTTPError, _refusal(error)).response.headers)
        when = f" for {limit.reset_in_seconds} more seconds" if limit else ""
        return f"The Hub takes no more requests of yours{when}."
    if status is not None:
        return f"The Hub answered {status} ({_first_line(error)}); {repo} is unchanged."
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return f"The Hub refuses it: {error}."
    if push.create_pr:
        look = f"{constants.ENDPOINT}/{repo}/discussions"
        return f"The connection broke ({_first_line(error)}). Look whether the pull request was opened: {look}."
    return f"The Hub is out of reach or the connection broke ({_first_line(error)}); {repo} is unchanged."
