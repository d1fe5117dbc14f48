"""One file of a package on its way into its object.

Below unpacking.py. How it is safe: of each object one chunk that was absent is held back until all
its bytes were seen to be right, so an object that is complete is right, whenever a kill comes. The
others are not served until then. What the kernel reads itself is not overwritten before that at
all: only the chunks that rot took from it are held back. An object that has a chunk table of its
own takes each absent chunk that the table proves, and no others. One pass at a time fills an
object (package.py).

For worker threads; one call at a time.
"""

from __future__ import annotations

import hashlib

from axonfs.errors import MalformedError
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import FileEntry
from axonfs.names import printable
from axonfs.ranges import Range
from axonfs.steps import Cause, Step
from axonfs.store import StoredObject


class Filling:
    """The object of `entry`, which is held until `close`."""

    def __init__(self, entry: FileEntry, stored: StoredObject) -> None:
        self.entry = entry
        self.unit = stored.chunk_size
        self._object = stored
        self._sum = hashlib.sha256()
        self._chunk = 0
        self._kept: dict[int, bytes] = {}
        self._back: set[int] = set()
        self._table: ChunkTable | None = None  # the object's own
        self._generation = stored.generation()
        stored.hold()
        stored.touch()  # what a package brings along is not the first to be evicted

    def begin(self) -> None:
        """Choose what is held back until the end.

        Raises:
            OSError: the disk failed.
        """
        stored = self._object
        self._table = stored.own_table()
        if self._table is not None:
            return
        # What lands from here on waits for the verdict, as `Feed.direct` says.
        stored.presence.watcher.cleared(Range(0, stored.count))
        if stored.complete:  # but not verified
            stored.discard()
        absent = [chunk for run in stored.missing(0, stored.count) for chunk in range(*run)]
        self._back = set(absent if stored.frozen else absent[-1:])
        self._generation = stored.generation()

    def write(self, piece: bytes) -> None:
        """Take the next chunk, of `unit` bytes or the last one.

        Raises:
            OSError: the disk failed.
        """
        self._sum.update(piece)
        if self._table is not None:
            self._land_proven(self._table, piece)
        elif self._chunk in self._back:
            self._kept[self._chunk] = piece
        elif not (self._object.frozen or self._object.verified):
            self._land(self._chunk, piece)
        self._chunk += 1

    def _land_proven(self, table: ChunkTable, piece: bytes) -> None:
        absent = self._object.missing(self._chunk, self._chunk + 1)
        if absent and table.right(self._chunk, memoryview(piece)):
            self._object.land(self._chunk, memoryview(piece), proven=True)

    def _land(self, chunk: int, piece: bytes, *, proven: bool = False) -> None:
        with Step(Cause.DISK, "writing to the cache's disk"):
            self._object.land(chunk, memoryview(piece), proven=proven)
        epoch, writes = self._generation
        self._generation = epoch, writes + 1  # ours; others' show when it is compared

    def check(self) -> None:
        """
        Raises:
            MalformedError: the bytes are not the ones that the manifest names; they are dropped.
        """
        if self._sum.hexdigest() != self.entry.digest:
            path = printable(self.entry.path)
            what = f"'{path}' in it has the sha256 {self._sum.hexdigest()}, not {self.entry.digest}"
            if self._table is None:
                self._object.discard()
            raise MalformedError(what)

    def settle(self) -> None:
        """Complete the object: its bytes are right.

        Raises:
            OSError: the disk failed.
        """
        for chunk, piece in self._kept.items():
            self._land(chunk, piece, proven=True)
        if self._kept and not self.entry.unverified:
            self._object.mark_verified(self._generation)
        if self._object.quarantined:  # by a package before this one
            self._object.quarantine(None)

    def close(self) -> None:
        """Release the object. One that is not complete is not served."""
        self._object.release()


def is_right(stored: StoredObject, entry: FileEntry) -> bool:
    """Whether the object has all bytes, and they were verified if that is possible."""
    return stored.complete and (stored.verified or (entry.unverified and is_whole(stored)))


def is_whole(stored: StoredObject) -> bool:
    """Whether a pass wrote all of it; bytes that were found in its file prove nothing."""
    return stored.complete and not stored.adopted(0, stored.count)
