"""The files of a manifest: by path, size and digest, or by what stands for a digest.

Pure; below manifest.py, which has the rest of the document. What comes from outside is checked
here, and raises MalformedError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from axonfs.errors import MalformedError
from axonfs.formats.package import Package, packed_digest, unverified_digest
from axonfs.formats.safe_yaml import Node
from axonfs.names import check_digest, check_git, check_path, printable, vouching_digest

MANIFEST_NAME = "manifest.yaml"  # in the registry and in the version's directory
DEFAULT_CHUNK_SIZE = 1 << 20
MIN_CHUNK_SIZE = 64 << 10
MAX_CHUNK_SIZE = 64 << 20
# 4 TiB at the default chunk size, 256 TiB at the largest; a table is then 128 MiB.
MAX_CHUNKS = 1 << 22
MAX_FILES = 100_000
# In memory for files that wait for the end of their package, each of which keeps one chunk there.
MAX_PACKED = 256 * DEFAULT_CHUNK_SIZE
MAX_SIZE = 1 << 53
_NOTHING = hashlib.sha256().hexdigest()  # of a file with bytes it is a placeholder


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A file's chunks: their size in bytes, and the sha256 of the chunk table."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file; `digest` is its sha256 in hex, `chunks` None where there is no chunk table.

    Where a hub knows only the git blob id, `git` has it, and `digest` is a name made from it, with
    which no bytes are compared. A file without a sha256 in the manifest has such a name as well:
    `packed` is the sha256 of the package that vouches for it. Where the package has no sha256
    either, the file is `unverified`.
    """

    path: str
    size: int
    digest: str
    chunks: ChunkRef | None = None
    git: str | None = None
    packed: str | None = None
    unverified: bool = False

    @property
    def named(self) -> bool:
        """Whether `digest` is a name only, and the bytes come in a package or not at all."""
        return self.unverified or self.packed is not None

    @property
    def proof(self) -> dict[str, str]:
        """What its bytes are compared with, by the name of its kind."""
        if self.unverified:
            return {"unverified": "no sha256"}
        if self.packed:
            return {"package": self.packed}
        return {"git": self.git} if self.git else {"sha256": self.digest}


def chunk_count(size: int, chunk_size: int) -> int:
    """How many chunks an object of `size` bytes has."""
    return -(-size // chunk_size)


def git_digest(git: str) -> str:
    """The name of the object with this git blob id, beside those named by their sha256."""
    return hashlib.sha256(f"git blob {git}".encode()).hexdigest()


def mapping(node: Node, what: str) -> dict[str, Node]:
    if isinstance(node, dict):
        return node
    raise MalformedError(f"{what} is not a mapping")


@dataclass(frozen=True, slots=True)
class ManifestContext:
    """The parts of a manifest that decide how the entries of its files are read."""

    digest: str  # of the whole document
    base: str
    snapshot: bool
    package: Package | None

    def without_digest(self, path: str, size: int) -> FileEntry:
        """A file of which the manifest gives no sha256: its package vouches for it, or nothing."""
        if self.package and self.package.digest:
            name = packed_digest(self.package.digest, path)
            return FileEntry(path, size, name, packed=self.package.digest)
        name = unverified_digest(self.base, self.digest, path)
        return FileEntry(path, size, name, unverified=True)


def parse_files(node: Node, context: ManifestContext) -> tuple[FileEntry, ...]:
    if not isinstance(node, list) or not (node or context.snapshot):
        raise MalformedError("spec.format.files is not a list of files")
    if len(node) > MAX_FILES:
        raise MalformedError(f"it has {len(node)} files, more than {MAX_FILES}")
    files = sorted((_file(item, context) for item in node), key=attrgetter("path"))
    _refuse_collisions(files, context.snapshot)
    waiting = sum(min(entry.size, DEFAULT_CHUNK_SIZE) for entry in files if entry.named)
    if context.package and waiting > MAX_PACKED:
        raise MalformedError("too many files have no sha256: 256 may, and more if they are small")
    if sum(entry.size for entry in files) > MAX_SIZE:
        raise MalformedError("the sum of the sizes is out of bounds")
    return tuple(files)


def _refuse_collisions(files: Iterable[FileEntry], snapshot: bool) -> None:
    directories: set[str] = set()
    paths: set[str] = set()
    for entry in files:
        if entry.path in paths:
            raise MalformedError(f"the path '{printable(entry.path)}' is there twice")
        paths.add(entry.path)
        # A parent that is known has had its own parents added.
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    if not snapshot and MANIFEST_NAME in paths | directories:
        raise MalformedError(f"the path {MANIFEST_NAME!r} is the manifest's own")
    if both := paths & directories:
        raise MalformedError(f"'{printable(min(both))}' is a file and a directory at once")


def _file(node: Node, context: ManifestContext) -> FileEntry:
    item = mapping(node, "an entry of spec.format.files")
    path = item.get("path")
    if not isinstance(path, str | int):
        raise MalformedError("a file has no path")
    path = check_path(str(path))
    try:
        return _entry(path, item, context)
    except MalformedError as exc:
        raise MalformedError(f"{exc.what}, in the file '{printable(path)}'") from exc


def _entry(path: str, item: dict[str, Node], context: ManifestContext) -> FileEntry:
    size = _size(item.get("size"), "size")
    if "git" in item:
        if not context.snapshot:
            raise MalformedError("a git blob id is for snapshots")
        git = check_git(item["git"])
        _bound_chunks(size, None)
        return FileEntry(path, size, git_digest(git), git=git)
    chunks = _chunks(item.get("chunks")) if size else None
    _bound_chunks(size, chunks)
    if context.snapshot or chunks:  # made by a program, which knew the bytes
        return FileEntry(path, size, _digest(item.get("sha256")), chunks)
    digest = vouching_digest(item.get("sha256"))
    if size == 0:
        return FileEntry(path, size, digest or _NOTHING)
    if digest is None or digest == _NOTHING:
        return context.without_digest(path, size)
    return FileEntry(path, size, digest)


def _size(node: Node, what: str) -> int:
    # A bool is text here, so no `true` passes for 1.
    if isinstance(node, int) and 0 <= node <= MAX_SIZE:
        return node
    raise MalformedError(f"{what} is not a whole number between 0 and {MAX_SIZE}")


def _digest(node: Node) -> str:
    # Axon lets a digest be written in capitals.
    return check_digest(node.lower() if isinstance(node, str) else node)


def _chunks(node: Node) -> ChunkRef | None:
    if node is None:
        return None
    item = mapping(node, "chunks")
    size = _size(item.get("size"), "the chunk size")
    check_chunk_size(size)
    return ChunkRef(size, _digest(item.get("sha256")))


def _bound_chunks(size: int, chunks: ChunkRef | None) -> None:
    """Whoever holds a flag per chunk can afford it, whatever a manifest says."""
    if chunk_count(size, chunks.size if chunks else DEFAULT_CHUNK_SIZE) > MAX_CHUNKS:
        raise MalformedError(f"its {size} bytes are more than {MAX_CHUNKS} chunks")


def check_chunk_size(size: int) -> None:
    """
    Raises:
        MalformedError: `size` is not a power of two between 64 KiB and 64 MiB.
    """
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        raise MalformedError("the chunk size is not a power of two between 64 KiB and 64 MiB")
