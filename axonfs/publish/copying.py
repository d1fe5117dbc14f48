"""One file into a registry: read once, digested whole and by chunk while it is copied.

Blocking; several files may be copied at once in threads, each with a buffer of its own. Reads,
writes and digests of a megabyte all release the interpreter lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from axonfs.errors import AxonError
from axonfs.formats.chunktable import ChunkTable, Hash
from axonfs.formats.manifest import ChunkRef, FileEntry
from axonfs.names import printable
from axonfs.publish.files import draft, write_all
from axonfs.publish.registry import Registry
from axonfs.publish.scan import SourceFile

# Still in the second-level cache when the digests and the write come to it.
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A file's entry in the manifest, and how many bytes the registry grew by."""

    entry: FileEntry
    new_bytes: int


class Copier:
    """Copies files; not for use by two threads at once.

    `moved` is called with every piece's length in bytes; what it raises ends the copy.
    """

    def __init__(
        self, registry: Registry, chunk_size: int, moved: Callable[[str, int], None]
    ) -> None:
        self._registry = registry
        self._chunk_size = chunk_size
        self._moved = moved
        self._buffer = memoryview(bytearray(min(BUFFER_BYTES, chunk_size)))

    def store(self, file: SourceFile, expected: FileEntry | None) -> Stored:
        """Puts `file` into the registry.

        Where `expected` is given and stored, nothing is written: the file is only compared.

        Raises:
            AxonError: the file cannot be read, or changed meanwhile.
        """
        with contextlib.ExitStack() as stack:
            fd = _open(file)
            stack.callback(os.close, fd)
            if expected and self._registry.has_object(expected.digest, expected.size):
                digest, table = self._read(file, fd, None, expected.chunks)
                if digest == expected.digest:
                    return Stored(self._entry(file, digest, table), 0)
                return Stored(FileEntry(file.path, table.size, digest, table.ref), 0)
            new = stack.enter_context(draft(self._registry.drafts))
            digest, table = self._read(file, fd, new.fd, expected.chunks if expected else None)
            new_bytes = 0
            if not self._registry.has_object(digest, table.size):
                new.move_to(self._registry.object(digest))
                new_bytes = table.size
            return Stored(self._entry(file, digest, table), new_bytes)

    def _entry(self, file: SourceFile, digest: str, table: ChunkTable) -> FileEntry:
        chunks = self._registry.settle_table(digest, table) if table.size else None
        return FileEntry(file.path, table.size, digest, chunks)

    def _read(
        self, file: SourceFile, fd: int, out: int | None, chunks: ChunkRef | None
    ) -> tuple[str, ChunkTable]:
        """The digest and chunk table of what `fd` holds, which is copied to `out`, if given."""
        before = os.fstat(fd)
        digests = _Digests(chunks.size if chunks else self._chunk_size)
        while count := os.readv(fd, [self._buffer[: digests.room]]):
            piece = self._buffer[:count]
            digests.add(piece)
            if out is not None:
                write_all(out, piece)
            self._moved(file.path, count)
        after = os.fstat(fd)
        if digests.size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise AxonError(
                f"'{printable(file.path)}' changed while it was read",
                hint="publish again once nothing writes to it",
            )
        return digests.finish()


class _Digests:
    """The sha256 of the whole and a digest of each chunk, over pieces that cross no chunk's end."""

    def __init__(self, chunk_size: int) -> None:
        self.size = 0
        self._chunk_size = chunk_size
        self._whole = hashlib.sha256()
        self._chunk = Hash.BLAKE3.hasher()
        self._table = bytearray()

    @property
    def room(self) -> int:
        """Bytes to the end of the chunk."""
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


def _open(file: SourceFile) -> int:
    try:
        # A pipe put in the file's place since it was listed must not make us wait.
        fd = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise AxonError(f"'{printable(file.path)}' cannot be read: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AxonError(f"'{printable(file.path)}' is no longer a regular file")
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return fd
