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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.loopback_answers import ROUTES, Answer, Request
from tests.hub.loopback_store import MAIN, Commit, Refusal, Repository

# Who a token belongs to, the namespaces that it may write to, and whether it may write.
TOKENS = {"hf_writer": ("ann", ("ann", "acme"), True), "hf_reader": ("bob", ("bob",), False)}
_BROKEN_LINES = ("cut", "drop", "lost", "no_range", "stall")


@dataclass
class Fault:
    """A failure of calls of one kind; see `LoopbackHub.fail`."""

    where: str
    how: int | str
    times: int = 1
    after: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class LoopbackHub:
    """Repositories, tokens, and a server in a thread."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        # What git LFS keeps, by sha256.
        self.objects: dict[str, bytes] = {}
        # (method, path, status) of every request, and the kinds of calls.
        self.requests: list[tuple[str, str, int]] = []
        self.kinds: list[str] = []
        self._faults: list[Fault] = []
        self._before: dict[str, Callable[[], object]] = {}
        self._released = threading.Event()
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        """The address, as of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Serve, until `stop`."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End the server, requests that stall included."""
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self, where: str, how: int | str, times: int = 1, after: int = 0, headers: Mapping[str, str] | None = None
    ) -> None:
        """Let calls fail.

        Args:
            where: Their kind, the first column of `ROUTES`; "any" for all.
            how: A status; "GatedRepo"; "drop": the line is cut before anything is done; "lost": after it is done,
                before the answer; "cut": in the middle of the answer; "no_range": a part that was asked for is
                answered by the whole; "stall": nothing comes until `release`.
            times: How many calls.
            after: How many calls succeed before.
            headers: Of the answer.
        """
        self._faults.append(Fault(where, how, times, after, headers or {}))

    def recover(self) -> None:
        """Let no call fail any more."""
        self._faults.clear()

    def release(self) -> None:
        """Let go on what stalls."""
        self._released.set()

    def before(self, where: str, call: Callable[[], object]) -> None:
        """Do something when the next call of a kind comes, before it is served."""
        self._before[where] = call

    def calls(self, where: str) -> int:
        """Return how many calls of a kind came."""
        return self.kinds.count(where)

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
        return self.repositories[repo_id].commit(revision, message, changes, None, False)[0]

    def take_fault(self, kind: str) -> Fault | None:
        """Return what is wrong with a call that came."""
        with self.lock:
            self.kinds.append(kind)
            call = self._before.pop(kind, None)
            fault = next((one for one in self._faults if one.where in (kind, "any")), None)
            if fault is not None and fault.after:
                fault.after -= 1
                fault = None
            elif fault is not None:
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
        if call is not None:
            call()
        if fault is not None and fault.how == "stall":
            self._released.clear()
            self._released.wait(60)
        return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *given: Any) -> None:
        """Keep the screen free."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        hub: LoopbackHub = self.server.hub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        kind, groups = _route(self.command, split.path)
        fault = hub.take_fault(kind)
        how = fault.how if fault is not None else None
        if how in ("drop", "stall"):
            self._log(0)
            return self._hang_up()
        headers = {name: value for name, value in self.headers.items() if how != "no_range" or name != "Range"}
        request = Request(hub, self.command, [unquote(one) for one in groups], query, headers, body)
        answer = self._answer(kind, request, fault)
        if how == "lost":
            self._log(0)
            return self._hang_up()
        return self._send(answer, cut=how == "cut")

    def _answer(self, kind: str, request: Request, fault: Fault | None) -> Answer:
        try:
            if fault is not None and fault.how == "GatedRepo":
                raise Refusal(403, "Access to this model is restricted.", "GatedRepo")
            if fault is not None and fault.how not in _BROKEN_LINES:
                message = {401: "Invalid credentials in Authorization header"}.get(int(fault.how), "as the test says")
                code = "RepoNotFound" if fault.how == 404 else None
                raise Refusal(int(fault.how), message, code)
            with request.hub.lock:
                return ROUTES[kind].answer(request)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **(fault.headers if fault is not None else {})}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            return Answer({"error": refusal.message}, refusal.status, headers)

    def _send(self, answer: Answer, cut: bool) -> None:
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        kind = "application/octet-stream" if isinstance(answer.body, bytes) else "application/json"
        self._log(answer.status)
        self.send_response(answer.status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._hang_up()

    def _log(self, status: int) -> None:
        self.server.hub.requests.append((self.command, self.path, status))  # type: ignore[attr-defined]

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()


def _route(method: str, path: str) -> tuple[str, list[str]]:
    """Return the kind of a call, and the parts of its path."""
    for kind, route in ROUTES.items():
        if method in route.methods and (match := re.fullmatch(route.path, path)):
            return kind, [group or "" for group in match.groups()]
    return "unknown", [path]


def main() -> None:
    """Serve, and write the address to the file that was named."""
    hub = LoopbackHub()
    hub.start()
    Path(sys.argv[1]).write_text(hub.endpoint, "utf-8")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
