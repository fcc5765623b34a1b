"""Calls of a Hub: who makes them, what they may see and change, and what is answered."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from tests.hub.loopback_store import Refusal, Repository

if TYPE_CHECKING:
    from tests.hub.loopback_hub import LoopbackHub

# Of paths of calls about one model.
MODEL = r"/api/models/([^/]+/[^/]+)"


@dataclass(frozen=True)
class User:
    """Whom a token belongs to.

    Args:
        name: The user.
        organisations: Where the user is a member.
        may_write: Whether the token writes, or only reads.
    """

    name: str
    organisations: tuple[str, ...] = ()
    may_write: bool = True

    def is_member(self, namespace: str) -> bool:
        """Return whether a namespace is the user's own or that of an organisation of the user."""
        return namespace in (self.name, *self.organisations)


@dataclass
class Request:
    """A call: the hub, the parts of its path, its query, headers (lowercase) and body."""

    hub: "LoopbackHub"
    method: str
    parts: list[str]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def values(self) -> dict[str, Any]:
        """The body, as JSON or as a form; values of a form are lists of strings."""
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return dict(parse_qs(self.body.decode()))
        return json.loads(self.body or b"{}")

    def is_asked(self, name: str) -> bool:
        """Return whether the query has a flag."""
        return self.query.get(name, [""])[0].lower() in ("1", "true")

    @property
    def user(self) -> User | None:
        """Who calls; None without a token. Raises `Refusal` for a token that nobody has."""
        given = self.headers.get("authorization")
        if given is None:
            return None
        user = self.hub.tokens.get(given.removeprefix("Bearer "))
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return user

    def known_user(self) -> User:
        """Return who calls; raise `Refusal` where nobody says so."""
        user = self.user
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    def writing_user(self, namespace: str | None) -> User:
        """Return who calls; raise `Refusal` unless they may write to a namespace, or anywhere for None."""
        user = self.known_user()
        if not user.may_write or not (namespace is None or user.is_member(namespace)):
            reason = "Your token has no write access" if not user.may_write else f"{user.name} is no member"
            raise Refusal(403, f"You don't have the rights to write under the namespace {namespace!r}. {reason}")
        return user

    def repository(self) -> Repository:
        """Return the repository that the path names; raise `Refusal` where the caller may not see it."""
        name, user = self.parts[0], self.user
        repository = self.hub.repositories.get(name)
        is_member = user is not None and user.is_member(name.partition("/")[0])
        if repository is None or (repository.private and not is_member):
            raise Refusal(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return repository

    def open_repository(self) -> Repository:
        """Return the repository that the path names; raise `Refusal` where the caller may not have its files."""
        repository, user = self.repository(), self.user
        if repository.gated and (user is None or not self._is_let_in(repository, user)):
            reason = "You must be authenticated to access it" if user is None else "You are not in the authorized list"
            status = 401 if user is None else 403
            raise Refusal(status, f"Access to model {repository.name} is restricted. {reason}.", "GatedRepo")
        return repository

    def writable_repository(self, as_pr: bool = False) -> Repository:
        """Return the repository that the path names; raise `Refusal` where the caller may not change it.

        Args:
            as_pr: Whether a pull request is asked for, which everybody may open.
        """
        repository = self.repository()
        self.writing_user(None if as_pr else repository.name.partition("/")[0])
        return repository

    @staticmethod
    def _is_let_in(repository: Repository, user: User) -> bool:
        return user.is_member(repository.name.partition("/")[0]) or user.name in repository.granted


@dataclass
class Answer:
    """A body (bytes, or JSON values), a status and headers."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """What answers calls of one kind that come by some methods to paths of a pattern."""

    kind: str
    methods: tuple[str, ...]
    path: str
    answer: Callable[[Request], Answer]
