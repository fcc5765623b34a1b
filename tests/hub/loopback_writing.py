"""Answers to the calls with which `huggingface_hub` writes to a Hub, as a table."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

from tests.hub.loopback_calls import MODEL, Answer, Request, Route
from tests.hub.loopback_store import MAIN, Change, Refusal, Repository, content_id, is_lfs

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


def _create(request: Request) -> Answer:
    values, user = request.values, request.known_user()
    namespace = values.get("organization") or user.name
    request.writing_user(namespace)
    name = f"{namespace}/{values['name']}"
    if not _NAME.fullmatch(values["name"]) or "--" in name or ".." in name:
        raise Refusal(400, f"Invalid repo name: {name}")
    url = f"{request.hub.endpoint}/{name}"
    if name in request.hub.repositories:
        return Answer({"error": "You already created this model repo", "url": url, "name": name}, 409)
    is_private = values.get("private") or values.get("visibility") == "private"
    request.hub.repositories[name] = Repository(name, private=bool(is_private))
    return Answer({"url": url, "name": name})


def _delete(request: Request) -> Answer:
    values, user = request.values, request.known_user()
    request.parts[:] = [f"{values.get('organization') or user.name}/{values['name']}"]
    del request.hub.repositories[request.writable_repository().name]
    return Answer({})


def _settings(request: Request) -> Answer:
    """Change who sees a repository, and who may have its files."""
    repository, values = request.writable_repository(), request.values
    if "visibility" in values or "private" in values:
        repository.private = bool(values.get("private")) or values.get("visibility") == "private"
    if "gated" in values:
        repository.gated = bool(values["gated"])
    return Answer({"private": repository.private, "gated": "auto" if repository.gated else False})


def _branch(request: Request) -> Answer:
    repository, name = request.writable_repository(), request.parts[1]
    if request.method == "DELETE":
        if name == MAIN:
            raise Refusal(403, f"Cannot delete the branch {MAIN}")
        return _forget(repository.branches, name)
    if name.startswith("refs/"):
        raise Refusal(400, f"Invalid reference for a branch: {name}")
    if name in repository.branches:
        raise Refusal(409, f"Reference refs/heads/{name} already exists")
    repository.branches[name] = repository.resolve(request.values.get("startingPoint") or MAIN).sha
    return Answer({})


def _tag(request: Request) -> Answer:
    repository = request.writable_repository()
    if request.method == "DELETE":
        return _forget(repository.tags, request.parts[1])
    name = request.values["tag"]
    if name in repository.tags:
        raise Refusal(409, f"Tag reference exists already: refs/tags/{name}")
    repository.tags[name] = repository.resolve(request.parts[1]).sha
    return Answer({})


def _forget(references: dict[str, str], name: str) -> Answer:
    if references.pop(name, None) is None:
        raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return Answer({})


def _preupload(request: Request) -> Answer:
    """Say which files git LFS takes, and the hashes of what the repository has under their names."""
    repository = request.writable_repository(request.is_asked("create_pr"))
    commit = repository.resolve(request.parts[1])
    files = []
    for one in request.values["files"]:
        path, sample = one["path"], base64.b64decode(one.get("sample", ""))
        mode = "lfs" if is_lfs(path, one["size"], sample, commit.lfs_patterns) else "regular"
        entry = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if path in commit.files:
            entry["oid"] = content_id(commit, path)
        files.append(entry)
    return Answer({"files": files})


def _lfs_batch(request: Request) -> Answer:
    """Say where to put objects; nothing about those that are there."""
    values = request.values
    # The client leaves the branch out where it will ask for a pull request.
    repository = request.writable_repository(as_pr="ref" not in values)
    start, objects = request.hub.endpoint, []
    for one in values["objects"]:
        entry: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] not in repository.objects:
            entry["actions"] = {
                "upload": {"href": f"{start}/lfs/{repository.name}/{one['oid']}"},
                "verify": {"href": f"{start}/lfs-verify/{repository.name}"},
            }
        objects.append(entry)
    return Answer({"transfer": "basic", "objects": objects})


def _lfs_put(request: Request) -> Answer:
    """Take an object from whoever has its address, as a storage of signed addresses does."""
    name, oid = request.parts
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise Refusal(400, "The content is not that of its hash")
    request.hub.repositories[name].objects[oid] = request.body
    return Answer(b"", 200, {"ETag": f'"{oid}"'})


def _lfs_verify(request: Request) -> Answer:
    values = request.values
    data = request.hub.repositories[request.parts[0]].objects.get(values["oid"])
    if data is None or len(data) != values["size"]:
        raise Refusal(404, f"LFS object {values['oid']} was not uploaded")
    return Answer({})


def _commit(request: Request) -> Answer:
    as_pr = request.is_asked("create_pr")
    repository = request.writable_repository(as_pr)
    items = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    if not items or items[0]["key"] != "header" or not items[0]["value"].get("summary"):
        raise Refusal(400, "The first line must be a header with a summary")
    header = items[0]["value"]
    made, number = repository.commit(
        request.parts[1],
        header["summary"],
        list(_changes(repository, items[1:])),
        header.get("parentCommit"),
        as_pr,
        header.get("description", ""),
        request.known_user().name,
    )
    url = f"{request.hub.endpoint}/{repository.name}"
    answer = {"success": True, "commitOid": made.sha, "commitUrl": f"{url}/commit/{made.sha}", "hookOutput": ""}
    return Answer({**answer, "pullRequestUrl": f"{url}/discussions/{number}"} if number else answer)


def _changes(repository: Repository, items: Iterable[dict]) -> Iterable[Change]:
    """Yield what the lines of a commit ask for."""
    for item in items:
        key, value = item["key"], item["value"]
        if key == "file":
            yield Change(value["path"], base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in repository.objects:
                raise Refusal(400, f"LFS pointer of {value['path']}: object {value['oid']} was not uploaded")
            yield Change(value["path"], repository.objects[value["oid"]])
        elif key == "deletedFile":
            yield Change(value["path"])
        elif key == "deletedFolder":
            yield Change(f"{value['path'].rstrip('/')}/")
        else:
            raise Refusal(400, f"Unknown key of a commit: {key}")


WRITING = [
    Route("create", ("POST",), r"/api/repos/create", _create),
    Route("delete", ("DELETE",), r"/api/repos/delete", _delete),
    Route("settings", ("PUT", "POST"), rf"{MODEL}/settings", _settings),
    Route("branch", ("POST", "DELETE"), rf"{MODEL}/branch/([^/]+)", _branch),
    Route("tag", ("POST", "DELETE"), rf"{MODEL}/tag/([^/]+)", _tag),
    Route("preupload", ("POST",), rf"{MODEL}/preupload/([^/]+)", _preupload),
    Route("lfs_batch", ("POST",), r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _lfs_batch),
    Route("lfs_put", ("PUT",), r"/lfs/([^/]+/[^/]+)/([0-9a-f]{64})", _lfs_put),
    Route("lfs_verify", ("POST",), r"/lfs-verify/([^/]+/[^/]+)", _lfs_verify),
    Route("commit", ("POST",), rf"{MODEL}/commit/([^/]+)", _commit),
]
