"""Answers to the calls with which `huggingface_hub` reads from a Hub, as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.hub.loopback_calls import MODEL, Answer, Request, Route
from tests.hub.loopback_cards import CARD, check_card, described
from tests.hub.loopback_store import (
    MAIN,
    Commit,
    Refusal,
    Repository,
    content_id,
    file_entry,
    folder_entry,
    sibling_entry,
)


def _whoami(request: Request) -> Answer:
    user = request.known_user()
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in user.organisations]
    role = {"displayName": "tests", "role": "write" if user.may_write else "read"}
    auth = {"type": "access_token", "accessToken": role}
    return Answer({"type": "user", "name": user.name, "fullname": user.name, "orgs": orgs, "auth": auth})


def _validate(request: Request) -> Answer:
    errors, notes = check_card(request.values["content"])
    body = {name: [{"message": one} for one in found] for name, found in (("errors", errors), ("warnings", notes))}
    return Answer(body, 400 if errors else 200)


def _info(request: Request) -> Answer:
    """Describe a model; with `expand`, by the properties that are asked for alone."""
    repository = request.repository()
    commit = repository.resolve(request.parts[1] or MAIN)
    first = repository.history(commit.sha)[-1]
    values = {
        "_id": "0" * 24,
        "id": repository.name,
        "modelId": repository.name,
        "author": repository.name.partition("/")[0],
        "sha": commit.sha,
        "createdAt": first.date,
        "lastModified": commit.date,
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "siblings": [sibling_entry(commit, name, request.is_asked("blobs")) for name in sorted(commit.files)],
        "usedStorage": sum(len(data) for data in commit.files.values()),
        **described(commit.files.get(CARD, b"").decode(errors="replace")),
    }
    asked = request.query.get("expand")
    if asked is None:
        del values["usedStorage"]
        return Answer(values)
    return Answer({name: value for name, value in values.items() if name in ("_id", "id", "modelId", *asked)})


def _tree(request: Request) -> Answer:
    repository = request.repository()
    commit, folder = repository.resolve(request.parts[1]), request.parts[2].strip("/")
    start = f"{folder}/" if folder else ""
    names = [name for name in sorted(commit.files) if name.startswith(start)]
    if folder and not names:
        raise Refusal(404, f"{folder} does not exist on {request.parts[1]}", "EntryNotFound")
    is_deep = request.is_asked("recursive")
    folders = {one for name in names for one in _folders(name) if one.startswith(start)}
    paths = [one for one in (*sorted(folders), *names) if is_deep or "/" not in one[len(start) :]]
    return Answer(_entries(repository, commit, paths, request.is_asked("expand")))


def _paths_info(request: Request) -> Answer:
    """Describe the files and folders that are there; what is not is left out."""
    repository, values = request.repository(), request.values
    commit = repository.resolve(request.parts[1])
    folders = {one for name in commit.files for one in _folders(name)}
    asked = values.get("paths", [])
    paths = [one.strip("/") for one in ([asked] if isinstance(asked, str) else asked)]
    is_expanded = str(values.get("expand", "")).strip("[]'").lower() == "true"
    there = [one for one in dict.fromkeys(paths) if one in commit.files or one in folders]
    return Answer(_entries(repository, commit, there, is_expanded))


def _entries(repository: Repository, commit: Commit, paths: Iterable[str], is_expanded: bool) -> list[dict]:
    entries = []
    for path in paths:
        entry = file_entry(commit, path) if path in commit.files else folder_entry(commit, path)
        if is_expanded:
            last = repository.last_change(commit, path)
            entry["lastCommit"] = {"id": last.sha, "title": last.message, "date": last.date}
        entries.append(entry)
    return entries


def _folders(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _refs(request: Request) -> Answer:
    repository = request.repository()

    def listed(start: str, names: Mapping[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"{start}{name}", "targetCommit": sha} for name, sha in names.items()]

    requests = {name: sha for name, sha in repository.branches.items() if name.startswith("refs/pr/")}
    branches = {name: sha for name, sha in repository.branches.items() if name not in requests}
    values: dict[str, Any] = {"branches": listed("refs/heads/", branches), "converts": []}
    values["tags"] = listed("refs/tags/", repository.tags)
    if request.is_asked("include_prs"):
        values["pullRequests"] = listed("", requests)
    return Answer(values)


def _history(request: Request) -> Answer:
    return Answer(
        [
            {"id": one.sha, "title": one.message, "message": one.description, "date": one.date}
            | {"authors": [{"user": one.author}]}
            for one in request.repository().history(request.parts[1])
        ]
    )


def _auth_check(request: Request) -> Answer:
    request.open_repository()
    if request.parts[1]:
        request.writable_repository()
    return Answer({})


def _resolve(request: Request) -> Answer:
    """Give a file, or the part of it that is asked for."""
    commit, name = request.open_repository().resolve(request.parts[1]), request.parts[2]
    if name not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.sha})
    data, etag = commit.files[name], f'"{content_id(commit, name)}"'
    headers = {"X-Repo-Commit": commit.sha, "ETag": etag, "Accept-Ranges": "bytes"}
    if commit.has_lfs(name):
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": etag}
    asked = request.headers.get("range")
    if asked is None or request.method == "HEAD":
        return Answer(data, 200, headers)
    first, last = _range(asked, len(data))
    if first >= len(data):
        raise Refusal(416, "Range Not Satisfiable", None, {"Content-Range": f"bytes */{len(data)}"})
    return Answer(data[first : last + 1], 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})


def _range(asked: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte that a Range header asks for."""
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


def _agents(request: Request) -> Answer:
    """Name no program that a client would look for around itself, which it asks once a process."""
    return Answer({"standardEnvVars": [], "harnesses": {}})


def _no_xet(request: Request) -> Answer:
    raise Refusal(404, "This Hub has no Xet storage")


READING = [
    Route("agents", ("GET",), r"/api/agent-harnesses", _agents),
    Route("whoami", ("GET",), r"/api/whoami-v2", _whoami),
    Route("validate", ("POST",), r"/api/validate-yaml", _validate),
    Route("info", ("GET",), rf"{MODEL}(?:/revision/([^/]+))?", _info),
    Route("tree", ("GET",), rf"{MODEL}/tree/([^/]+)(/.*)?", _tree),
    Route("paths_info", ("POST",), rf"{MODEL}/paths-info/([^/]+)", _paths_info),
    Route("refs", ("GET",), rf"{MODEL}/refs", _refs),
    Route("history", ("GET",), rf"{MODEL}/commits/([^/]+)", _history),
    Route("auth_check", ("GET",), rf"{MODEL}/auth-check(/write)?", _auth_check),
    Route("xet", ("GET",), rf"{MODEL}/xet-(?:read|write)-token/.+", _no_xet),
    Route("resolve", ("GET", "HEAD"), r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
]
