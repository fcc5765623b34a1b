"""Errors of the Hub in plain words: what happened, that nothing changed, how long to wait."""

import json
from typing import cast

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from .errors import InputError

_LONGEST_WAIT_SECONDS = 60.0
_BUSY = (408, 429, 500, 502, 503, 504)
_TOKEN_HELP = "Log in with `hf auth login`, or set HF_TOKEN to a token of https://huggingface.co/settings/tokens"

# RuntimeError: the client's, of an upload; JSONDecodeError: an answer that is a page of an overloaded server.
FAILURES = (HfHubHTTPError, HTTPError, OSError, RuntimeError, json.JSONDecodeError)


class HubError(InputError):
    """Raised where a checkpoint could not be pushed; nothing of the repository changed, and the message says how to
    push it later.
    """


def _refusal(error: BaseException | None) -> HfHubHTTPError | None:
    """Return the Hub's own answer among an error and its causes."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def status_of(error: Exception) -> int | None:
    """Return the status with which the Hub refused; None if it did not answer."""
    refused = _refusal(error)
    return None if refused is None else refused.response.status_code


def wait_of(error: Exception, usual: float) -> float | None:
    """Return how many seconds to wait before a commit is sent again; None where that is no use."""
    refused = _refusal(error)
    if refused is None:
        is_local = isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError))
        return None if is_local else usual
    if refused.response.status_code not in _BUSY:
        return None
    limit = parse_ratelimit_headers(refused.response.headers)
    after = refused.response.headers.get("Retry-After", "")
    seconds = limit.reset_in_seconds + 1 if limit else float(after) + 1 if after.isdigit() else usual
    return seconds if seconds <= _LONGEST_WAIT_SECONDS else None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def what_happened(error: Exception, repo: str, revision: str | None = None, is_pull_request: bool = False) -> str:
    """Return in plain words why a call of the Hub failed, and that nothing changed.

    Args:
        error: The error.
        repo: The repository.
        revision: The branch that was pushed to.
        is_pull_request: Whether a pull request was to be opened.
    """
    status = status_of(error)
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
        return f"{repo} (revision {revision or 'main'}) does not exist, or the token may not see it."
    if status in (409, 412):
        return (
            f"{repo} changed while this was pushed: somebody else pushed to it. Nothing of yours is in it; look at it."
        )
    if status == 429:
        limit = parse_ratelimit_headers(cast(HfHubHTTPError, _refusal(error)).response.headers)
        when = f" for {limit.reset_in_seconds} more seconds" if limit else ""
        return f"The Hub takes no more requests of yours{when}."
    if status is not None:
        return f"The Hub answered {status} ({first_line(error)}); {repo} is unchanged."
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return f"The Hub refuses it: {error}."
    if is_pull_request:
        look = f"{constants.ENDPOINT}/{repo}/discussions"
        return f"The connection broke ({first_line(error)}). Look whether the pull request was opened: {look}."
    return f"The Hub is out of reach or the connection broke ({first_line(error)}); {repo} is unchanged."
