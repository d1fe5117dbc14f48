"""Copy one file into a registry: one read gives the copy, its sha256 and its chunk digests.

Blocking. Several threads may copy files at once, each with a `Copier` of its own. Reads, writes and
digests of a megabyte release the GIL.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass

from axonfs.errors import AxonError
from axonfs.formats.chunktable import ChunkTable, Hash
from axonfs.formats.manifest import ChunkRef, FileEntry
from axonfs.names import printable
from axonfs.publish.registry import Registry
from axonfs.publish.scan import SourceFile

# Small enough that the bytes are still in the processor's L2 cache for the digests and the write.
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A file's entry for the manifest, and the number of bytes added to the registry."""

    entry: FileEntry
    new_bytes: int


class Copier:
    """Copies files, in one thread at a time.

    Args:
        moved: called after each piece with the file's path and the piece's length in bytes. An
            exception from it ends the copy.
    """

    def __init__(
        self, registry: Registry, chunk_size: int, moved: Callable[[str, int], None]
    ) -> None:
        self._registry = registry
        self._chunk_size = chunk_size
        self._moved = moved
        self._buffer = memoryview(bytearray(min(BUFFER_BYTES, chunk_size)))

    def store(self, file: SourceFile, expected: FileEntry | None) -> Stored:
        """Store `file` in the registry.

        If the registry already has the object of `expected`, the file is compared with it and
        nothing is written.

        Raises:
            AxonError: the file cannot be read, or it changed during the copy.
        """
        with contextlib.ExitStack() as stack:
            fd = opened(file)
            stack.callback(os.close, fd)
            if expected and self._registry.has_object(expected.digest, expected.size):
                digest, table = self._read(file, fd, self._compared(file), expected.chunks)
                if digest == expected.digest:
                    return Stored(self._entry(file, digest, table), 0)
                return Stored(FileEntry(file.path, table.size, digest, table.ref), 0)
            sent = Sent(file.path, self._moved)
            new = stack.enter_context(self._registry.storage.upload(fd, sent))
            digest, table = self._read(file, fd, new.write, expected.chunks if expected else None)
            new_bytes = self._registry.settle_object(new, digest, table)
            sent(table.size - sent.count)  # what the registry had already
            return Stored(self._entry(file, digest, table), new_bytes)

    def _compared(self, file: SourceFile) -> Callable[[memoryview], None]:
        return lambda piece: self._moved(file.path, len(piece))

    def _entry(self, file: SourceFile, digest: str, table: ChunkTable) -> FileEntry:
        chunks = self._registry.settle_table(digest, table) if table.size else None
        return FileEntry(file.path, table.size, digest, chunks)

    def _read(
        self,
        file: SourceFile,
        fd: int,
        write: Callable[[memoryview], None],
        chunks: ChunkRef | None,
    ) -> tuple[str, ChunkTable]:
        """The digest and chunk table of the file `fd`, whose pieces `write` gets."""
        before = os.fstat(fd)
        digests = Digests(chunks.size if chunks else self._chunk_size)
        while count := os.readv(fd, [self._buffer[: digests.room]]):
            piece = self._buffer[:count]
            digests.add(piece)
            write(piece)
        after = os.fstat(fd)
        if digests.size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise AxonError(
                f"'{printable(file.path)}' changed while it was read",
                hint="publish again once nothing writes to it",
            )
        return digests.finish()


class Sent:
    """Counts the bytes of one file that are in the registry, and passes them on; any thread."""

    def __init__(self, path: str, moved: Callable[[str, int], None]) -> None:
        self.count = 0
        self._path = path
        self._moved = moved
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self.count += count
        self._moved(self._path, count)


class Digests:
    """The sha256 of a file and the digest of each chunk. A piece must not cross a chunk's end."""

    def __init__(self, chunk_size: int) -> None:
        self.size = 0
        self._chunk_size = chunk_size
        self._whole = hashlib.sha256()
        self._chunk = Hash.BLAKE3.hasher()
        self._table = bytearray()

    @property
    def room(self) -> int:
        """Bytes up to the end of the current chunk."""
        return self._chunk_size - self.size % self._chunk_size

    def add(self, piece: memoryview) -> None:
        self._whole.update(piece)
        self._chunk.update(piece)
        self.size += len(piece)
        if self.size % self._chunk_size == 0:
            self._end_chunk()

    def finish(self) -> tuple[str, ChunkTable]:
        if self.size % self._chunk_size:
            self._end_chunk()
        return self._whole.hexdigest(), ChunkTable(self.size, self._chunk_size, bytes(self._table))

    def _end_chunk(self) -> None:
        self._table += self._chunk.digest()
        self._chunk = Hash.BLAKE3.hasher()


def opened(file: SourceFile) -> int:
    """The descriptor of a regular file, which the caller closes."""
    try:
        # O_NONBLOCK: a pipe may have replaced the file since the scan, and its open would wait.
        fd = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise AxonError(f"cannot read '{printable(file.path)}': {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AxonError(f"'{printable(file.path)}' is no longer a regular file")
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return fd
