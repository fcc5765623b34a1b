"""Answers of a Hub in memory to the calls that `huggingface_hub` makes, as a table."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import ModelCard

from tests.hub.loopback_store import MAIN, Refusal, Repository, file_entry, is_lfs

if TYPE_CHECKING:
    from tests.hub.loopback_hub import LoopbackHub

LICENSES = ("apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "mit", "other")
_REPO = r"/api/models/([^/]+/[^/]+)"
_REPO_COMMIT = "X-Repo-Commit"


@dataclass
class Request:
    """A call: the hub, the parts of its path, its query, headers and body."""

    hub: "LoopbackHub"
    method: str
    parts: list[str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def values(self) -> dict[str, Any]:
        """The body, as JSON."""
        return json.loads(self.body or b"{}")

    @property
    def owner(self) -> tuple[str, tuple[str, ...], bool] | None:
        """Who calls: name, namespaces, whether the token may write; None without a token."""
        from tests.hub.loopback_hub import TOKENS

        given = next((value for name, value in self.headers.items() if name.lower() == "authorization"), None)
        if given is None:
            return None
        token = given.removeprefix("Bearer ")
        if token not in TOKENS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return TOKENS[token]

    def may_write(self, namespace: str) -> None:
        """Raise `Refusal` unless the caller may write to a namespace."""
        owner = self.owner
        if owner is None:
            raise Refusal(401, "Invalid username or password.")
        if not owner[2] or namespace not in owner[1]:
            raise Refusal(403, f"You don't have the rights to write to {namespace}")

    def repository(self, write: bool = False) -> Repository:
        """Return the repository that the path names; raise `Refusal` where the caller may not see or change it."""
        name = self.parts[0].removesuffix(".git")
        repository, owner = self.hub.repositories.get(name), self.owner
        namespace = name.partition("/")[0]
        is_member = owner is not None and namespace in owner[1]
        if repository is None or (repository.private and not is_member):
            raise Refusal(404 if owner else 401, "Repository not found", "RepoNotFound")
        if repository.gated and not is_member and not write and self.method in ("GET", "HEAD"):
            raise Refusal(403, f"Access to model {name} is restricted.", "GatedRepo")
        if write:
            self.may_write(namespace)
        return repository


@dataclass
class Answer:
    """A body (bytes, or JSON values), a status and headers."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """A kind of call: its methods, its path, and what answers it."""

    methods: tuple[str, ...]
    path: str
    answer: Callable[[Request], Answer]


def _whoami(request: Request) -> Answer:
    owner = request.owner
    if owner is None:
        raise Refusal(401, "Invalid username or password.")
    orgs = [{"name": name} for name in owner[1] if name != owner[0]]
    return Answer({"type": "user", "name": owner[0], "orgs": orgs, "auth": {"accessToken": {"role": "write"}}})


def _create(request: Request) -> Answer:
    owner = request.owner
    if owner is None:
        raise Refusal(401, "Invalid username or password.")
    values = request.values
    name = f"{values.get('organization') or owner[0]}/{values['name']}"
    request.may_write(name.partition("/")[0])
    if name in request.hub.repositories:
        return Answer({"error": "You already created this model repo", "url": f"{request.hub.endpoint}/{name}"}, 409)
    private = values.get("private") or values.get("visibility") == "private"
    request.hub.repositories[name] = Repository(name, private=bool(private))
    return Answer({"url": f"{request.hub.endpoint}/{name}", "name": name})


def _validate(request: Request) -> Answer:
    """Check a card's front matter with the client's own classes, and its licence."""
    content = request.values["content"]
    try:
        data = ModelCard(content).data
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        return Answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
    named = data.get("license")
    if named is not None and named not in LICENSES:
        return Answer({"errors": [{"message": f'"license" must be one of {LICENSES}, not {named}'}]}, 400)
    empty = not data.to_dict()
    return Answer({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}] if empty else []})


def _info(request: Request) -> Answer:
    repository = request.repository()
    commit = repository.resolve(request.parts[1] or MAIN)
    siblings = [file_entry(name, data) for name, data in commit.files.items()]
    if "blobs" not in request.query:
        siblings = [{"rfilename": one["rfilename"]} for one in siblings]
    card = commit.files.get("README.md", b"").decode()
    data = ModelCard(card).data.to_dict() if card.startswith("---") else {}
    return Answer(
        {
            "_id": "0",
            "id": repository.name,
            "modelId": repository.name,
            "sha": commit.sha,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "siblings": siblings,
            "tags": data.get("tags", []),
            "pipeline_tag": data.get("pipeline_tag"),
            "library_name": data.get("library_name"),
            "cardData": data,
        }
    )


def _tree(request: Request) -> Answer:
    commit, folder = request.repository().resolve(request.parts[1]), request.parts[2].strip("/")
    start = f"{folder}/" if folder else ""
    names = [name for name in commit.files if name.startswith(start)]
    if not names:
        raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
    recursive = request.query.get("recursive", "").lower() == "true"
    entries = [file_entry(name, commit.files[name]) for name in names if recursive or "/" not in name[len(start) :]]
    folders = {name[: name.index("/", len(start))] for name in names if "/" in name[len(start) :]}
    entries += [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
    return Answer(entries)


def _paths_info(request: Request) -> Answer:
    commit = request.repository().resolve(request.parts[1])
    values = request.values if request.body[:1] == b"{" else {"paths": []}
    return Answer([file_entry(name, commit.files[name]) for name in values["paths"] if name in commit.files])


def _refs(request: Request) -> Answer:
    repository = request.repository()

    def listed(start: str, names: Mapping[str, str]) -> list[dict]:
        return [{"name": name, "ref": f"{start}{name}", "targetCommit": sha} for name, sha in names.items()]

    branches = {name: sha for name, sha in repository.branches.items() if not name.startswith("refs/")}
    requests = {name: sha for name, sha in repository.branches.items() if name.startswith("refs/")}
    values = {"branches": listed("refs/heads/", branches), "tags": listed("refs/tags/", repository.tags)}
    return Answer({**values, "converts": [], "pullRequests": listed("", requests)})


def _history(request: Request) -> Answer:
    commits = request.repository().history(request.parts[1])
    return Answer([{"id": one.sha, "title": one.message, "authors": [], "date": "2026-01-01"} for one in commits])


def _branch(request: Request) -> Answer:
    repository, name = request.repository(write=True), request.parts[1]
    if request.method == "DELETE":
        del repository.branches[name]
    elif name in repository.branches:
        raise Refusal(409, f"Reference {name} already exists")
    else:
        repository.branches[name] = repository.resolve(request.values.get("startingPoint") or MAIN).sha
    return Answer({})


def _tag(request: Request) -> Answer:
    repository = request.repository(write=True)
    if request.method == "DELETE":
        del repository.tags[request.parts[1]]
        return Answer({})
    name = request.values["tag"]
    if name in repository.tags:
        raise Refusal(409, f"Tag {name} already exists")
    repository.tags[name] = repository.resolve(request.parts[1]).sha
    return Answer({})


def _preupload(request: Request) -> Answer:
    """Say which files git LFS takes, and what the repository has under their names."""
    repository = request.repository(write=True)
    present = repository.resolve(request.parts[1]).files
    files = []
    for one in request.values["files"]:
        mode = "lfs" if is_lfs(one["path"], one["size"]) else "regular"
        entry = file_entry(one["path"], present[one["path"]]) if one["path"] in present else {}
        oid = entry["lfs"]["oid"] if "lfs" in entry else entry.get("oid")
        files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Answer({"files": files})


def _lfs_batch(request: Request) -> Answer:
    request.repository(write=True)
    objects = []
    for one in request.values["objects"]:
        entry: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] not in request.hub.objects:
            start = request.hub.endpoint
            entry["actions"] = {
                "upload": {"href": f"{start}/lfs/{one['oid']}"},
                "verify": {"href": f"{start}/lfs-verify/{request.parts[0]}"},
            }
        objects.append(entry)
    return Answer({"transfer": "basic", "objects": objects})


def _lfs_put(request: Request) -> Answer:
    oid = request.parts[0]
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, "The content is not that of its hash")
    request.hub.objects[oid] = request.body
    return Answer({})


def _lfs_verify(request: Request) -> Answer:
    if request.values["oid"] not in request.hub.objects:
        raise Refusal(404, "The object was not uploaded")
    return Answer({})


def _commit(request: Request) -> Answer:
    repository = request.repository(write=True)
    items = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header = next(item["value"] for item in items if item["key"] == "header")
    changes: dict[str, bytes | None] = {}
    for item in items:
        value = item["value"]
        if item["key"] == "file":
            changes[value["path"]] = base64.b64decode(value["content"])
        elif item["key"] == "lfsFile":
            if value["oid"] not in request.hub.objects:
                raise Refusal(400, f"LFS object {value['oid']} was not uploaded")
            changes[value["path"]] = request.hub.objects[value["oid"]]
        elif item["key"] == "deletedFile":
            changes[value["path"]] = None
    made, number = repository.commit(
        request.parts[1], header["summary"], changes, header.get("parentCommit"), request.query.get("create_pr") == "1"
    )
    url = f"{request.hub.endpoint}/{repository.name}"
    answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{url}/commit/{made.sha}", "hookOutput": ""}
    return Answer({**answer, "pullRequestUrl": f"{url}/discussions/{number}" if number else None})


def _resolve(request: Request) -> Answer:
    """Give a file, or the part of it that is asked for."""
    commit = request.repository().resolve(request.parts[1])
    name = request.parts[2]
    if name not in commit.files:
        headers = {_REPO_COMMIT: commit.sha, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return Answer({"error": "Entry not found"}, 404, headers)
    data, entry = commit.files[name], file_entry(name, commit.files[name])
    etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
    headers = {_REPO_COMMIT: commit.sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    if "lfs" in entry:
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{etag}"'}
    asked = next((value for key, value in request.headers.items() if key.lower() == "range"), None)
    if asked is None:
        return Answer(data, 200, headers)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    part = data[int(first) : int(last) + 1 if last else None]
    headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
    return Answer(part, 206, headers)


def _unknown(request: Request) -> Answer:
    raise Refusal(404, f"This Hub has no {request.method} {request.parts[0]}")


# The kinds of calls, as `LoopbackHub.fail` names them; the first that fits is taken.
ROUTES: dict[str, Route] = {
    "whoami": Route(("GET",), r"/api/whoami-v2", _whoami),
    "create": Route(("POST",), r"/api/repos/create", _create),
    "validate": Route(("POST",), r"/api/validate-yaml", _validate),
    "info": Route(("GET",), rf"{_REPO}(?:/revision/([^/]+))?", _info),
    "tree": Route(("GET",), rf"{_REPO}/tree/([^/]+)(/.*)?", _tree),
    "paths_info": Route(("POST",), rf"{_REPO}/paths-info/([^/]+)", _paths_info),
    "refs": Route(("GET",), rf"{_REPO}/refs", _refs),
    "history": Route(("GET",), rf"{_REPO}/commits/([^/]+)", _history),
    "branch": Route(("POST", "DELETE"), rf"{_REPO}/branch/([^/]+)", _branch),
    "tag": Route(("POST", "DELETE"), rf"{_REPO}/tag/([^/]+)", _tag),
    "preupload": Route(("POST",), rf"{_REPO}/preupload/([^/]+)", _preupload),
    "lfs_batch": Route(("POST",), r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _lfs_batch),
    "lfs_put": Route(("PUT",), r"/lfs/([0-9a-f]{64})", _lfs_put),
    "lfs_verify": Route(("POST",), r"/lfs-verify/(.*)", _lfs_verify),
    "commit": Route(("POST",), rf"{_REPO}/commit/([^/]+)", _commit),
    "resolve": Route(("GET", "HEAD"), r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
    "unknown": Route((), r"", _unknown),
}
