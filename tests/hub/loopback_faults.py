"""What goes wrong on a Hub, and when, as data."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.hub.loopback_store import Refusal

ANY = "any"
# Broken lines, beside statuses and names of errors.
LINES = ("cut", "drop", "lost", "no_range", "stall")
# The Hub's names of errors: status and message.
NAMED = {
    "GatedRepo": (403, "Access to this model is restricted and you are not in the authorized list."),
    "RepoNotFound": (404, "Repository not found"),
    "RevisionNotFound": (404, "Invalid rev id"),
    "EntryNotFound": (404, "Entry not found"),
}
MESSAGES = {
    401: "Invalid credentials in Authorization header",
    403: "You don't have the rights to do this",
    404: "Repository not found",
    409: "Conflict: the branch was updated meanwhile",
    412: "A commit has happened since. Please refresh and try again.",
    429: "We had to rate limit you",
    500: "Internal Error - We're working hard to fix this as soon as possible!",
    503: "Service Unavailable",
}
_RATE_LIMIT = {"RateLimit": '"api";r=0;t=1', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}


@dataclass
class Fault:
    """A failure of calls of one kind; see `LoopbackHub.fail`."""

    where: str
    how: int | str
    times: int = 1
    after: int = 0
    headers: Mapping[str, str] | None = None
    message: str | None = None
    # Of one call that stalls: set by `Faults.release`.
    released: threading.Event | None = None

    def __post_init__(self) -> None:
        if isinstance(self.how, str) and self.how not in (*LINES, *NAMED):
            raise ValueError(f"No way to fail is called {self.how!r}; there are {', '.join((*LINES, *NAMED))}")

    @property
    def refusal(self) -> Refusal | None:
        """The error that is answered; None where it is the line that breaks."""
        if self.how in LINES:
            return None
        if isinstance(self.how, str):
            status, message = NAMED[self.how]
            return Refusal(status, self.message or message, self.how, self.headers)
        headers = _RATE_LIMIT if self.how == 429 and self.headers is None else self.headers
        code = "RepoNotFound" if self.how == 404 else None
        return Refusal(self.how, self.message or MESSAGES.get(self.how, "As the test says"), code, headers)


@dataclass
class Faults:
    """Faults that wait for their calls, in the order in which they were asked for, and the kinds of calls so far."""

    waiting: list[Fault] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    held: list[threading.Event] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, kind: str) -> Fault | None:
        """Count a call, and return what is wrong with it; the first that is due."""
        with self.lock:
            self.kinds.append(kind)
            due = None
            for fault in [one for one in self.waiting if one.where in (kind, ANY)]:
                if fault.after:
                    fault.after -= 1
                elif due is None:
                    due = fault
            if due is None:
                return None
            due.times -= 1
            self.waiting = [one for one in self.waiting if one.times]
            if due.how != "stall":
                return due
            # Made before anybody sees the call counted, who could release it then.
            self.held.append(threading.Event())
            return replace(due, released=self.held[-1])

    def release(self) -> None:
        """Let go of the calls that stall now."""
        with self.lock:
            while self.held:
                self.held.pop().set()
