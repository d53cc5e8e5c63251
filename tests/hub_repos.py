"""What the stand-in for the Hub of `hub_stand_in.py` keeps in memory: repositories, their commits and files."""

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

LARGE = 5_000_000  # bytes from which on a text is a large file
LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".npz", ".gz", ".zip", ".model", ".task", ".png")
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE_SUFFIXES).encode()


class Answer(Exception):
    """What a request is answered with, when it is not the usual."""

    def __init__(self, status: int, message: str = "", code: str | None = None, **body):
        self.status, self.message, self.code = status, message, code
        self.body = {"error": message, **body}


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    size: int


@dataclass
class File:
    content: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The git id: of the content, or of the pointer that stands for a large file."""
        data = self.content
        if self.is_large:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.oid

    def entry(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.is_large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass
class Commit:
    sha: str
    message: str
    files: dict[str, File]
    parent: "Commit | None"


@dataclass
class Repo:
    id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, Commit] = field(default_factory=dict)
    history: dict[str, Commit] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256, committed or not

    def commit(self, branch: str, message: str, files: dict[str, File]) -> Commit:
        parent = self.branches.get(branch)
        names = "".join(f"{path}{file.oid}" for path, file in sorted(files.items()))
        sha = hashlib.sha1(f"{parent and parent.sha}{message}{len(self.history)}{names}".encode()).hexdigest()
        self.branches[branch] = self.history[sha] = commit = Commit(sha, message, files, parent)
        self.large.update({file.sha256: file.content for file in files.values() if file.is_large})
        return commit

    def at(self, revision: str) -> Commit:
        found = self.branches.get(revision) or self.history.get(revision)
        if found is None:
            raise Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found


def is_large(path: str, content: bytes, size: int | None = None) -> bool:
    """Whether the Hub keeps a file as a large one: by its name, its size, or for it is no text."""
    return path.endswith(LARGE_SUFFIXES) or (len(content) if size is None else size) >= LARGE or b"\0" in content
