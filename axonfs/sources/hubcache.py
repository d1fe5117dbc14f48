"""Read objects from Hugging Face's own cache on this machine: <cache>/models--*/blobs.

A blob's name is its sha256 or its git blob id, but the name proves nothing: a download may have
been cut, and other users may write there. So the whole blob is read and compared before it is used.
Each later read is compared with that first pass, chunk by chunk. An object with a chunk table needs
no first pass.

This program never writes there. Threading: any thread; calls block.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from axonfs.errors import UnavailableError
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry
from axonfs.http_client.bodies import Sink
from axonfs.http_client.faults import fault
from axonfs.ranges import Range, aligned
from axonfs.settings.homes import expanded
from axonfs.sources.huggingface import home

log = logging.getLogger(__name__)


class HubCache:
    """The cache in `directory`, which may not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"<HubCache {self._directory}>"

    @classmethod
    def configured(cls) -> HubCache | None:
        """The cache of Hugging Face's own client; None for a user without a home directory."""
        named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
        if named:
            return cls(expanded(named))
        own = home()
        return cls(own / "hub") if own else None

    def find(
        self,
        entry: FileEntry,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        cancelled: Callable[[], bool] = bool,
    ) -> Blob | None:
        """A blob with the bytes of `entry`. Without a chunk table it reads the whole blob.

        Args:
            chunk_size: of the table that it makes then.
            cancelled: polled for each chunk. Once it returns true, the result is None.
        """
        for path in self._directory.glob(f"models--*/blobs/{entry.git or entry.digest}"):
            try:
                if _size(path) == entry.size:
                    blob = _compared(path, entry, chunk_size, cancelled)
                    if blob:
                        return blob
            except OSError as exc:
                log.info("ignoring %s: %s", path, exc.strerror)
        return None


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
            what = f"the file in Hugging Face's cache can no longer be read: {exc.strerror or exc}"
            raise fault(UnavailableError, what, str(self.path), transient=True) from exc


def _compared(
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


def _size(path: Path) -> int | None:
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
