"""Repositories of a Hub in memory: commits that hold whole trees, branches, tags, pull requests, LFS objects."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

MAIN = "main"
_LARGE = 10_000_000
# What the Hub puts into a new repository, without the kinds that no test has.
_LFS_SUFFIXES = "bin ckpt gz h5 model npy npz onnx parquet pickle pkl pt pth safetensors tar zip"
_LFS_PATTERNS = [*(f"*.{one}" for one in _LFS_SUFFIXES.split()), "*tfevents*"]
FIRST_FILES = {
    ".gitattributes": "".join(f"{one} filter=lfs diff=lfs merge=lfs -text\n" for one in _LFS_PATTERNS).encode()
}


class Refusal(Exception):
    """Raised for a request that the Hub refuses.

    Args:
        status: Of HTTP.
        message: The text for people.
        code: The Hub's name of the error.
        headers: More headers of the answer.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})


@dataclass(frozen=True)
class Commit:
    """A state of a repository: its files, and the commit before."""

    sha: str
    parent: str | None
    message: str
    files: Mapping[str, bytes]
    description: str = ""
    author: str = "system"
    # Seconds of a clock that only commits move, so that dates are the same in every run.
    time: int = 0

    @property
    def date(self) -> str:
        """The date as the client parses it."""
        return f"2026-01-01T{self.time // 3600 % 24:02}:{self.time // 60 % 60:02}:{self.time % 60:02}.000Z"

    @property
    def lfs_patterns(self) -> list[str]:
        """The patterns of files that this commit's .gitattributes gives to git LFS."""
        lines = self.files.get(".gitattributes", b"").decode().splitlines()
        return [line.split()[0] for line in lines if "filter=lfs" in line]

    def has_lfs(self, name: str) -> bool:
        """Return whether git LFS keeps one of the files."""
        return is_lfs(name, len(self.files[name]), self.files[name], self.lfs_patterns)


@dataclass(frozen=True)
class Change:
    """What a commit does to one path.

    Args:
        path: The file; with a slash at the end, a folder to remove.
        data: The new content; None removes.
    """

    path: str
    data: bytes | None = None

    def apply(self, files: dict[str, bytes]) -> None:
        """Change files in place; raise `Refusal` where nothing is there to remove."""
        if self.data is not None:
            _check_path(self.path)
            files[self.path] = self.data
            return
        there = [name for name in files if name == self.path or (self.path[-1:] == "/" and name.startswith(self.path))]
        if not there:
            raise Refusal(404, f"A file with this name doesn't exist: {self.path}", "EntryNotFound")
        for name in there:
            del files[name]


@dataclass
class Repository:
    """Commits by name, and the names that move: branches, tags, and pull requests as `refs/pr/N` among the branches.

    Args:
        name: Namespace and name.
        private: Whether only members of the namespace see it.
        gated: Whether only members and `granted` users may have its files.
        granted: Users that were let in.
    """

    name: str
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    # What git LFS keeps, by sha256; objects that were uploaded and never committed stay.
    objects: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.branches[MAIN] = self._add(None, "initial commit", FIRST_FILES).sha

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag, a pull request, a hash or the start of a hash names."""
        for names in (self.branches, self.tags):
            for name in (revision, revision.removeprefix("refs/heads/").removeprefix("refs/tags/")):
                if name in names:
                    return self.commits[names[name]]
        if re.fullmatch(r"[0-9a-f]{7,40}", revision):
            found = [commit for sha, commit in self.commits.items() if sha.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(
        self,
        revision: str,
        message: str,
        changes: Iterable[Change],
        parent: str | None = None,
        as_pr: bool = False,
        description: str = "",
        author: str = "system",
    ) -> tuple[Commit, str | None]:
        """Change files and move a branch, or open a pull request; return the commit and the request's number.

        Args:
            revision: The branch.
            message: One line.
            changes: In the order in which they apply; all of them or none.
            parent: The commit that the branch must be at, if given.
            as_pr: Whether to leave the branch, and open a pull request.
            description: More lines.
            author: The user.
        """
        if revision not in self.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = self.resolve(revision)
        if parent is not None and not head.sha.startswith(parent):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for change in changes:
            change.apply(files)
        made = self._add(head.sha, message, files, description, author)
        number = None
        if as_pr:
            number = str(1 + sum(name.startswith("refs/pr/") for name in self.branches))
            revision = f"refs/pr/{number}"
        self.branches[revision] = made.sha
        return made, number

    def history(self, revision: str) -> list[Commit]:
        """Return a branch's commits, the newest first."""
        commits = [self.resolve(revision)]
        while (parent := commits[-1].parent) is not None:
            commits.append(self.commits[parent])
        return commits

    def last_change(self, commit: Commit, path: str) -> Commit:
        """Return the newest commit, up to one, that changed a file or something in a folder."""
        newest = commit
        for older in self.history(commit.sha)[1:]:
            if _below(older.files, path) != _below(newest.files, path):
                break
            newest = older
        return newest

    def _add(
        self,
        parent: str | None,
        message: str,
        files: Mapping[str, bytes],
        description: str = "",
        author: str = "system",
    ) -> Commit:
        content = "".join(f"{name} {hashlib.sha1(data).hexdigest()}\n" for name, data in sorted(files.items()))
        time = len(self.commits)
        sha = hashlib.sha1(f"{self.name} {parent} {message} {time}\n{content}".encode()).hexdigest()
        made = Commit(sha, parent, message, dict(files), description, author, time)
        self.commits[sha] = made
        self.objects |= {
            hashlib.sha256(made.files[name]).hexdigest(): made.files[name] for name in files if made.has_lfs(name)
        }
        return made


def is_lfs(name: str, size: int, sample: bytes, patterns: Iterable[str]) -> bool:
    """Return whether git LFS keeps a file: one that is named so, a large one, or a binary one.

    Args:
        name: The path in the repository.
        size: Bytes.
        sample: At least its first 512 bytes.
        patterns: Of .gitattributes.
    """
    if not size:
        return False
    names = (name, PurePosixPath(name).name)
    return (
        size > _LARGE or b"\0" in sample[:512] or any(fnmatch(one, pattern) for pattern in patterns for one in names)
    )


def blob_id(data: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def content_id(commit: Commit, name: str) -> str:
    """Return what a client compares to know whether a file changed: sha256 of LFS files, git's name of others."""
    data = commit.files[name]
    return hashlib.sha256(data).hexdigest() if commit.has_lfs(name) else blob_id(data)


def file_entry(commit: Commit, name: str) -> dict:
    """Return a file as the Hub lists it in a tree."""
    data = commit.files[name]
    if not commit.has_lfs(name):
        return {"type": "file", "path": name, "size": len(data), "oid": blob_id(data)}
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
    lfs = {"oid": sha256, "size": len(data), "pointerSize": len(pointer)}
    return {"type": "file", "path": name, "size": len(data), "oid": blob_id(pointer), "lfs": lfs}


def folder_entry(commit: Commit, path: str) -> dict:
    """Return a folder as the Hub lists it in a tree."""
    content = "".join(f"{name} {blob_id(data)}\n" for name, data in sorted(_below(commit.files, path).items()))
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(content.encode()).hexdigest()}


def sibling_entry(commit: Commit, name: str, with_blobs: bool) -> dict:
    """Return a file as the Hub lists it among a model's; with its size and hashes or not."""
    if not with_blobs:
        return {"rfilename": name}
    entry = file_entry(commit, name)
    sibling = {"rfilename": name, "size": entry["size"], "blobId": entry["oid"]}
    if "lfs" in entry:
        lfs = entry["lfs"]
        sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return sibling


def _below(files: Mapping[str, bytes], path: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name == path or name.startswith(f"{path}/")}


def _check_path(path: str) -> None:
    parts = path.split("/")
    if any(part in ("", ".", "..", ".git") for part in parts):
        raise Refusal(400, f"Invalid path: {path!r}")
