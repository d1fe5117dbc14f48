"""Hugging Face's own cache on this machine as a place that has the bytes: <cache>/models--*/blobs.

A blob there is named by its sha256, or by its git blob id. The name proves nothing: a download may
have been cut, and other users may write there. A blob is read once to its end and compared before
it is used at all; what is then read from it is compared chunk by chunk with what was read first.
An object with a chunk table needs no first pass.

Nothing is ever written there. Threading: any thread; calls block.
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
    """The cache in `directory`; it need not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"<HubCache {self._directory}>"

    @classmethod
    def configured(cls) -> HubCache | None:
        """Where Hugging Face's own client has it; None for a user without a home directory."""
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
        """A blob with the bytes of `entry`; reads all of it where there is no chunk table.

        Args:
            chunk_size: of the table that is then made.
            cancelled: asked for each chunk; once it is true nothing is found.
        """
        for path in self._directory.glob(f"models--*/blobs/{entry.git or entry.digest}"):
            try:
                if _size(path) == entry.size:
                    blob = _compared(path, entry, chunk_size, cancelled)
                    if blob:
                        return blob
            except OSError as exc:
                log.info("%s is not used: %s", path, exc.strerror)
        return None


class Blob:
    """A file with an object's bytes; `table` has the digests of the chunks as they were compared.

    Reads like `Bodies`.
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
        """Give the bytes `[start, stop)` to `sink`, in aligned pieces of `unit` bytes.

        Raises:
            UnavailableError: the file is gone, or shorter than it was.
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
            what = f"it cannot be read any more: {exc.strerror or exc}"
            raise fault(UnavailableError, what, str(self.path), transient=True) from exc


def _compared(
    path: Path, entry: FileEntry, chunk_size: int, cancelled: Callable[[], bool]
) -> Blob | None:
    """The blob, if it has the digest of `entry`, or a chunk table will tell."""
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
        log.info("%s is not used: its bytes are not what its name says", path)
        return None
    return Blob(path, ChunkTable(entry.size, chunk_size, bytes(chunks)))


def _size(path: Path) -> int | None:
    """The size of a plain file; opening anything else might wait for ever."""
    status = path.stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _pieces(path: Path, start: int, stop: int, unit: int) -> Iterator[memoryview]:
    """`[start, stop)` of a file in pieces of `unit`, each good until the next."""
    buffer = memoryview(bytearray(min(unit, stop - start)))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        for part in aligned(Range(start, stop), unit):
            piece = buffer[: part.size]
            filled = 0
            while filled < len(piece):
                count = file.readinto(piece[filled:])
                if not count:
                    raise OSError(f"it ends at byte {part.start + filled}")
                filled += count
            yield piece
