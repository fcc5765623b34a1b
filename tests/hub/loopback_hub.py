"""A Hub on 127.0.0.1 that speaks to the real `huggingface_hub` client, and fails where a test says so.

hub = LoopbackHub()
hub.start()
hub.fail("commit", 503)          # the next commit; "drop", "lost", "cut", "stall" break the line instead
hub.files("ann/model")           # what main holds
hub.stop()
"""

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.loopback_calls import Answer, Request, Route, User
from tests.hub.loopback_faults import Fault, Faults
from tests.hub.loopback_reading import READING
from tests.hub.loopback_store import MAIN, Change, Commit, Refusal, Repository
from tests.hub.loopback_writing import WRITING

TOKENS = {"hf_writer": User("ann", ("acme",)), "hf_reader": User("bob", may_write=False)}
ROUTES = [*READING, *WRITING]
# Longer than any test waits for a call to stall, so that a forgotten `release` ends a test, not the suite.
_STALL_SECONDS = 60


class LoggedRequest(NamedTuple):
    """A request that came: its method, its path with the query, and the answer's status; 0 where there was none."""

    method: str
    path: str
    status: int


class LoopbackHub:
    """Repositories, tokens, and a server in a thread.

    Args:
        tokens: The users of tokens; `TOKENS` if not given.
    """

    def __init__(self, tokens: Mapping[str, User] | None = None) -> None:
        self.tokens: dict[str, User] = dict(TOKENS if tokens is None else tokens)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[LoggedRequest] = []
        # What the client of the tests' process would have slept.
        self.waits: list[float] = []
        # Mistakes of this Hub itself, which clients see as a status of 500.
        self.errors: list[Exception] = []
        self.lock = threading.RLock()
        self._faults = Faults()
        self._before: dict[str, Callable[[], object]] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self

    @property
    def endpoint(self) -> str:
        """The address, as of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Serve, until `stop`."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End the server, requests that stall included."""
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self,
        where: str,
        how: int | str,
        times: int = 1,
        after: int = 0,
        headers: Mapping[str, str] | None = None,
        message: str | None = None,
    ) -> None:
        """Let calls fail.

        Args:
            where: Their kind, as of `ROUTES`; "any" for all.
            how: A status, or the Hub's name of an error, such as "GatedRepo"; or "drop": the line is cut before
                anything is done; "lost": after it is done, before the answer; "cut": in the middle of the answer's
                body; "no_range": a part that was asked for is answered by the whole; "stall": nothing comes until
                `release`, and nothing is done then.
            times: How many calls.
            after: How many calls succeed before.
            headers: Of the answer; a status of 429 has a `RateLimit` if they are not given.
            message: Of the error.
        """
        kinds = [route.kind for route in ROUTES]
        if where not in ("any", *kinds):
            raise ValueError(f"No call is of the kind {where!r}; there are {', '.join(kinds)}")
        self._faults.waiting.append(Fault(where, how, times, after, headers, message))

    def recover(self) -> None:
        """Let no call fail any more."""
        self._faults.waiting.clear()

    def release(self) -> None:
        """Let go of the calls that stall now."""
        self._faults.release()

    def before(self, where: str, call: Callable[[], object]) -> None:
        """Do something when the next call of a kind comes, before it is served."""
        self._before[where] = call

    def calls(self, where: str) -> int:
        """Return how many calls of a kind came, those that failed included; "any" for all."""
        kinds = self._faults.kinds
        return len(kinds) if where == "any" else kinds.count(where)

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes] | None = None,
        private: bool = False,
        gated: bool = False,
        granted: Iterable[str] = (),
    ) -> Repository:
        """Make a repository, with a second commit of files if there are some.

        Args:
            repo_id: Namespace and name.
            files: Contents by path.
            private: Whether only members of the namespace see it.
            gated: Whether only members and `granted` users may have its files.
            granted: Users that were let in.
        """
        repository = self.repositories[repo_id] = Repository(repo_id, private, gated, set(granted))
        if files:
            self.commit(repo_id, files, "Add files")
        return repository

    def files(self, repo_id: str, revision: str = MAIN) -> dict[str, bytes]:
        """Return what a revision holds."""
        return dict(self.repositories[repo_id].resolve(revision).files)

    def head(self, repo_id: str, revision: str = MAIN) -> str:
        """Return the hash of a revision's commit."""
        return self.repositories[repo_id].resolve(revision).sha

    def commits(self, repo_id: str, revision: str = MAIN) -> list[Commit]:
        """Return a revision's commits, the newest first."""
        return self.repositories[repo_id].history(revision)

    def commit(self, repo_id: str, changes: Mapping[str, bytes | None], message: str, revision: str = MAIN) -> Commit:
        """Commit as somebody else would; None removes a file."""
        asked = [Change(path, data) for path, data in changes.items()]
        with self.lock:
            return self.repositories[repo_id].commit(revision, message, asked)[0]

    def take_fault(self, kind: str) -> Fault | None:
        """Return what is wrong with a call that came, once it no longer stalls."""
        with self.lock:
            call = self._before.pop(kind, None)
        if call is not None:
            call()
        fault = self._faults.take(kind)
        if fault is not None and fault.released is not None:
            fault.released.wait(_STALL_SECONDS)
        return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: LoopbackHub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    # A head and a body sent apart wait 40 ms for each other otherwise.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *given: Any) -> None:
        """Keep the screen free."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        body, split = self._body(), urlsplit(self.path)
        route, groups = _route(self.command, split.path)
        fault = self.server.hub.take_fault(route.kind)
        how = fault.how if fault is not None else None
        if how in ("drop", "stall"):
            return self._hang_up()
        headers = {name.lower(): value for name, value in self.headers.items()}
        if how == "no_range":
            headers.pop("range", None)
        parts = [unquote(one) for one in groups]
        request = Request(self.server.hub, self.command, parts, parse_qs(split.query), headers, body)
        answer = self._answer(route, request, fault)
        # An answer without a body has no middle.
        if how == "lost" or (how == "cut" and not answer.body and self.command != "HEAD"):
            return self._hang_up()
        return self._send(answer, cut=how == "cut" and self.command != "HEAD")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, route: Route, request: Request, fault: Fault | None) -> Answer:
        try:
            if fault is not None and fault.refusal is not None:
                raise fault.refusal
            with request.hub.lock:
                return route.answer(request)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            return Answer({"error": refusal.message}, refusal.status, headers)
        except Exception as error:
            request.hub.errors.append(error)
            return Answer({"error": f"A mistake of the tests' Hub: {error!r}"}, 500)

    def _send(self, answer: Answer, cut: bool) -> None:
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body, default=str).encode()
        kind = "application/octet-stream" if isinstance(answer.body, bytes) else "application/json"
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **answer.headers}
        headers["X-Request-Id"] = f"Root=1-{self._log(answer.status):08x}"
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def _hang_up(self) -> None:
        self._log(0)
        self.close_connection = True

    def _log(self, status: int) -> int:
        """Keep what came and what was answered; return its number."""
        requests = self.server.hub.requests
        requests.append(LoggedRequest(self.command, self.path, status))
        return len(requests)


def _route(method: str, path: str) -> tuple[Route, list[str]]:
    """Return the kind of a call, and the parts of its path."""
    for route in ROUTES:
        if method in route.methods and (match := re.fullmatch(route.path, path)):
            return route, [group or "" for group in match.groups()]

    def refuse(request: Request) -> Answer:
        raise Refusal(404, f"This Hub has no {method} {path}")

    return Route("unknown", (), "", refuse), []


def main() -> None:
    """Serve, and write the address to the file that was named."""
    hub = LoopbackHub()
    hub.start()
    Path(sys.argv[1]).write_text(hub.endpoint, "utf-8")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
