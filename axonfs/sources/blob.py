"""A copy of an object in a file on this machine, outside the cache: read and compared.

This program never writes there. Threading: any thread; calls block.
"""

from __future__ import annotations

import hashlib
import logging
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from axonfs.errors import UnavailableError
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.manifest import FileEntry
from axonfs.http_client.bodies import Sink
from axonfs.http_client.faults import fault
from axonfs.ranges import Range, aligned

log = logging.getLogger(__name__)


class Blob:
    """A file with an object's bytes. `table` has the chunk digests from the first pass, if any.

    `read` works like that of `Bodies`.
    """

    def __init__(self, path: Path, table: ChunkTable | None = None) -> None:
        self.path = path
        self.table = table

    def read(
        self,
        start: int,
        stop: int,
        sink: Sink,
        *,
        unit: int,
        cancelled: Callable[[], bool] = bool,
    ) -> None:
        """Pass the bytes `[start, stop)` to `sink`, in aligned pieces of `unit` bytes.

        Raises:
            UnavailableError: the file was removed, or is shorter now.
        """
        offset = start
        for piece in self._pieces(start, stop, unit):
            if cancelled():
                return
            sink(offset, piece)
            offset += len(piece)

    def _pieces(self, start: int, stop: int, unit: int) -> Iterator[memoryview]:
        try:
            yield from _pieces(self.path, start, stop, unit)
        except OSError as exc:
            what = f"the file can no longer be read: {exc.strerror or exc}"
            raise fault(UnavailableError, what, str(self.path), transient=True) from exc


def compared(
    path: Path, entry: FileEntry, chunk_size: int, cancelled: Callable[[], bool]
) -> Blob | None:
    """The blob, if it has the digest of `entry`, or if `entry` has a chunk table."""
    if entry.chunks:
        return Blob(path)
    whole, chunks = hashlib.sha256(), bytearray()
    if entry.git:
        whole = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False)
    for piece in _pieces(path, 0, entry.size, chunk_size):
        if cancelled():
            return None
        whole.update(piece)
        chunks += chunk_digest(piece)
    if whole.hexdigest() != (entry.git or entry.digest):
        log.info("ignoring %s: its bytes do not match the digest in its name", path)
        return None
    return Blob(path, ChunkTable(entry.size, chunk_size, bytes(chunks)))


def size_of(path: Path) -> int | None:
    """The size of a regular file; None for others, since opening a pipe could block for ever."""
    status = path.stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _pieces(path: Path, start: int, stop: int, unit: int) -> Iterator[memoryview]:
    """`[start, stop)` of a file in pieces of `unit` bytes. A piece is valid until the next one."""
    buffer = memoryview(bytearray(min(unit, stop - start)))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        for part in aligned(Range(start, stop), unit):
            piece = buffer[: part.size]
            filled = 0
            while filled < len(piece):
                count = file.readinto(piece[filled:])
                if not count:
                    raise OSError(f"the file ends at byte {part.start + filled:,}")
                filled += count
            yield piece
