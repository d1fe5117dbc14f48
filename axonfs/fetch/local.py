"""What of an object the disk really gives: its bits, less what could not be read when it was tried.

Below feed, above the store. The index may say that a chunk is here, and the disk refuse it.
`usable`, `missing` and `distrusts` may be asked from any thread, `held_object` from a worker;
the rest is the trio thread's.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from axonfs.descriptors import is_shortage
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range, runs
from axonfs.steps import Cause, Step
from axonfs.store import DISK_FAULTS, Store, StoredObject


def held_object(store: Store, entry: FileEntry) -> StoredObject:
    """The object of `entry`, held, and its file opened where some of it is there; blocks."""
    stored = store.object(entry)
    stored.hold()
    if stored.present_bytes:
        with suppress(*DISK_FAULTS):  # a reader gets it past the disk
            stored.opened()
    return stored


class Local:
    """The local chunks of a held object."""

    def __init__(self, stored: StoredObject) -> None:
        self._stored = stored
        self._distrusted: set[int] = set()

    def usable(self, start: int, stop: int) -> bool:
        """Whether the chunks are on the disk, checked, and the disk gives them."""
        return (
            self._stored.present(start, stop)
            and self._stored.readable
            and (not self._distrusted or self._distrusted.isdisjoint(range(start, stop)))
        )

    def missing(self, start: int, stop: int) -> list[Range]:
        """The runs of chunks in `[start, stop)` that have to be fetched."""
        if not self._stored.readable:
            return [Range(start, stop)] if start < stop else []
        missing = self._stored.missing(start, stop)
        if not self._distrusted:
            return missing
        absent = {chunk for run in missing for chunk in range(*run)}
        return runs(absent | self._distrusted.intersection(range(start, stop)))

    @property
    def complete(self) -> bool:
        """Whether nothing has to be fetched."""
        return self._stored.complete and self._stored.readable and not self._distrusted

    async def tried_again(self) -> None:
        """Try to open the file if it could not be opened: the cause may have passed."""
        if not self._stored.readable:
            with suppress(*DISK_FAULTS), Step(Cause.DISK, "opening the file in the cache"):
                await trio.to_thread.run_sync(self._stored.opened)

    def distrust(self, chunks: Range, exc: Exception) -> None:
        """The disk failed to give the chunks back: readers get them past it from here on.

        Where no descriptor was left, the disk is not to blame: `readable` says so meanwhile.
        """
        self._stored.health.failed(exc)
        if is_shortage(exc) and not self._stored.readable:
            return
        self._distrusted.update(range(*chunks))
        self._stored.presence.watcher.cleared(chunks)

    def distrusts(self, chunks: Range) -> bool:
        """Whether chunks are not worth writing, since the disk would not give them all back."""
        return not self._distrusted.isdisjoint(range(*chunks))
