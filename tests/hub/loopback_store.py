"""Repositories of a Hub in memory: commits that hold whole trees, branches, tags, pull requests."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
MAIN = "main"
_LFS_SUFFIXES = (".bin", ".png", ".safetensors")
_LARGE = 10_000_000


class Refusal(Exception):
    """Raised for a request that the Hub refuses.

    Args:
        status: Of HTTP.
        message: The text for people.
        code: The Hub's name of the error.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Commit:
    """A state of a repository: its files, and the commit before."""

    sha: str
    parent: str | None
    message: str
    files: Mapping[str, bytes]


@dataclass
class Repository:
    """Commits by name, and the names that move: branches, tags and pull requests by `refs/pr/N`."""

    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.branches[MAIN] = self.add(None, "initial commit", FIRST_FILES).sha

    def add(self, parent: str | None, message: str, files: Mapping[str, bytes]) -> Commit:
        """Make a commit, which no branch points to yet."""
        content = "".join(f"{name} {hashlib.sha1(data).hexdigest()}\n" for name, data in sorted(files.items()))
        sha = hashlib.sha1(f"{parent} {message} {len(self.commits)}\n{content}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, message, dict(files))
        return self.commits[sha]

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag, a pull request or a hash names."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def commit(
        self, revision: str, message: str, changes: Mapping[str, bytes | None], parent: str | None, as_pr: bool
    ) -> tuple[Commit, str | None]:
        """Change files and move a branch, or a new pull request; return the commit and the request's number.

        Args:
            revision: The branch.
            message: One line.
            changes: Contents by path; None removes a file.
            parent: The commit that the branch must be at, if given.
            as_pr: Whether to leave the branch, and open a pull request.
        """
        if revision not in self.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = self.resolve(revision)
        if parent is not None and not head.sha.startswith(parent):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        missing = [name for name, data in changes.items() if data is None and name not in head.files]
        if missing:
            raise Refusal(400, f"A file with this name doesn't exist: {missing[0]}")
        files = {**head.files, **{name: data for name, data in changes.items() if data is not None}}
        files = {name: data for name, data in files.items() if changes.get(name, b"") is not None}
        made = self.add(head.sha, message, files)
        number = None
        if as_pr:
            number = str(1 + sum(name.startswith("refs/pr/") for name in self.branches))
            revision = f"refs/pr/{number}"
        self.branches[revision] = made.sha
        return made, number

    def history(self, revision: str) -> list[Commit]:
        """Return a branch's commits, the newest first."""
        commits, sha = [], self.resolve(revision).sha
        while sha is not None:
            commits.append(self.commits[sha])
            sha = commits[-1].parent
        return commits


def is_lfs(name: str, size: int) -> bool:
    """Return whether a file is kept by git LFS."""
    return name.endswith(_LFS_SUFFIXES) or size > _LARGE


def blob_id(data: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def file_entry(name: str, data: bytes) -> dict:
    """Return a file as the Hub lists it, in a tree and as a sibling."""
    entry = {"type": "file", "path": name, "rfilename": name, "size": len(data), "oid": blob_id(data)}
    entry["blobId"] = entry["oid"]
    if is_lfs(name, len(data)):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(data), "pointerSize": 130}
    return entry
