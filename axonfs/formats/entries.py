"""The files of a manifest: path, size, and digest or its substitute.

Pure; below manifest.py, which has the rest of the document. Invalid input raises MalformedError.
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
from axonfs.units import size

MANIFEST_NAME = "manifest.yaml"  # in the registry and in the version's directory
DEFAULT_CHUNK_SIZE = 1 << 20
MIN_CHUNK_SIZE = 64 << 10
MAX_CHUNK_SIZE = 64 << 20
# 4 TiB at the default chunk size, 256 TiB at the largest; a table is then 128 MiB.
MAX_CHUNKS = 1 << 22
MAX_FILES = 100_000
# Bytes of memory for files that wait for the end of their package; each keeps one chunk there.
MAX_PACKED = 256 * DEFAULT_CHUNK_SIZE
MAX_SIZE = 1 << 53
_EMPTY = hashlib.sha256().hexdigest()  # a file that is not empty has it only as a placeholder


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A file's chunks: their size in bytes, and the sha256 of the chunk table."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version.

    A file without a sha256 has in `digest` a name that is made from what the source has instead:
    the git blob id, the sha256 of the package, or nothing.

    Args:
        digest: the file's sha256 in hex, or a name that no bytes are compared with.
        chunks: None without a chunk table.
        git: the git blob id, if the hub has no sha256.
        packed: the sha256 of the package that verifies the file, if the manifest has no sha256.
        unverified: whether not even the package has a sha256.
        executable: whether those who may read the file may also execute it.
    """

    path: str
    size: int
    digest: str
    chunks: ChunkRef | None = None
    git: str | None = None
    packed: str | None = None
    unverified: bool = False
    executable: bool = False

    @property
    def named(self) -> bool:
        """Whether `digest` is only a name, and the bytes come from a package, if it has one."""
        return self.unverified or self.packed is not None

    @property
    def proof(self) -> dict[str, str]:
        """The digest that verifies its bytes, by the kind of digest."""
        if self.unverified:
            return {"unverified": "no sha256"}
        if self.packed:
            return {"package": self.packed}
        return {"git": self.git} if self.git else {"sha256": self.digest}


def chunk_count(size: int, chunk_size: int) -> int:
    """The number of chunks of an object of `size` bytes."""
    return -(-size // chunk_size)


def git_digest(git: str) -> str:
    """The name of the object with this git blob id, among objects named by their sha256."""
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
    layers: tuple[Package, ...] = ()

    def without_digest(self, path: str, size: int) -> FileEntry:
        """The entry of a file without a sha256: verified by its package, or unverified."""
        if self.package and self.package.digest:
            name = packed_digest(self.package.digest, path)
            return FileEntry(path, size, name, packed=self.package.digest)
        name = unverified_digest(self.base, self.digest, path)
        return FileEntry(path, size, name, unverified=True)


def parse_files(node: Node, context: ManifestContext) -> tuple[FileEntry, ...]:
    if not isinstance(node, list) or not (node or context.snapshot):
        raise MalformedError("spec.format.files is not a list of files")
    if len(node) > MAX_FILES:
        raise MalformedError(f"it has {len(node):,} files, more than {MAX_FILES:,}")
    files = sorted((_file(item, context) for item in node), key=attrgetter("path"))
    _refuse_collisions(files, context.snapshot)
    waiting = sum(min(entry.size, DEFAULT_CHUNK_SIZE) for entry in files if entry.named)
    if (context.package or context.layers) and waiting > MAX_PACKED:
        raise MalformedError("too many files have no sha256: the limit is 256, or more small files")
    if sum(entry.size for entry in files) > MAX_SIZE:
        raise MalformedError(f"the files have more than {size(MAX_SIZE)} in total")
    return tuple(files)


def _refuse_collisions(files: Iterable[FileEntry], snapshot: bool) -> None:
    directories: set[str] = set()
    paths: set[str] = set()
    for entry in files:
        if entry.path in paths:
            raise MalformedError(f"the path '{printable(entry.path)}' is listed twice")
        paths.add(entry.path)
        # If a parent is in the set, its own parents are, too.
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    if not snapshot and MANIFEST_NAME in paths | directories:
        raise MalformedError(f"the path '{MANIFEST_NAME}' is the manifest's own")
    if both := paths & directories:
        raise MalformedError(f"'{printable(min(both))}' is both a file and a directory")


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
    count = _size(item.get("size"), "size")
    if "git" in item:
        if not context.snapshot:
            raise MalformedError("only a snapshot may have git blob ids")
        git = check_git(item["git"])
        _bound_chunks(count, None)
        return FileEntry(path, count, git_digest(git), git=git)
    if context.layers and "packed" in item:
        return _packed(path, count, check_digest(item["packed"]), context.layers)
    chunks = _chunks(item.get("chunks")) if count else None
    _bound_chunks(count, chunks)
    if context.snapshot or chunks:  # made by a program from the bytes, so it has a digest
        executable = item.get("executable") == "true"
        return FileEntry(path, count, _digest(item.get("sha256")), chunks, executable=executable)
    digest = vouching_digest(item.get("sha256"))
    if count == 0:
        return FileEntry(path, count, digest or _EMPTY)
    if digest is None or digest == _EMPTY:
        return context.without_digest(path, count)
    return FileEntry(path, count, digest)


def _packed(path: str, count: int, layer: str, layers: tuple[Package, ...]) -> FileEntry:
    """The entry of a file in a layer with other files, which the layer's digest verifies."""
    if layer not in {item.digest for item in layers}:
        raise MalformedError("no such layer")
    _bound_chunks(count, None)
    return packed_entry(path, count, layer)


def packed_entry(path: str, count: int, layer: str) -> FileEntry:
    """The entry of a file of `count` bytes in the layer with the sha256 `layer`."""
    name = packed_digest(layer, path) if count else _EMPTY
    return FileEntry(path, count, name, packed=layer)


def _size(node: Node, what: str) -> int:
    # safe_yaml reads booleans as text, so `true` is not taken for 1.
    if isinstance(node, int) and 0 <= node <= MAX_SIZE:
        return node
    raise MalformedError(f"{what} is not a whole number between 0 and {MAX_SIZE}")


def _digest(node: Node) -> str:
    # Axon allows digests in upper case.
    return check_digest(node.lower() if isinstance(node, str) else node)


def _chunks(node: Node) -> ChunkRef | None:
    if node is None:
        return None
    item = mapping(node, "chunks")
    size = _size(item.get("size"), "the chunk size")
    check_chunk_size(size)
    return ChunkRef(size, _digest(item.get("sha256")))


def _bound_chunks(count: int, chunks: ChunkRef | None) -> None:
    """Limit the number of chunks, because the program keeps data in memory for each chunk."""
    if chunk_count(count, chunks.size if chunks else DEFAULT_CHUNK_SIZE) > MAX_CHUNKS:
        raise MalformedError(f"its {size(count)} make more than {MAX_CHUNKS:,} chunks")


def check_chunk_size(size: int) -> None:
    """
    Raises:
        MalformedError: `size` is not a power of two between 64 KiB and 64 MiB.
    """
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        raise MalformedError("the chunk size is not a power of two between 64 KiB and 64 MiB")
