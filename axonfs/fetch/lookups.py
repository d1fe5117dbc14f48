"""What is looked up for an object beside its bytes: its chunk table, and a copy on this machine.

Below download, which keeps what was found. Each lookup runs once for all that ask meanwhile. Trio
thread; the disk work runs in threads.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from axonfs.catalog.flights import Flights
from axonfs.catalog.tree import Version
from axonfs.errors import OfflineError
from axonfs.formats.chunktable import ChunkTable, single_table
from axonfs.formats.manifest import FileEntry
from axonfs.sources import Blob, Copies, HubCache
from axonfs.steps import Cause, Step
from axonfs.store import Store, StoredObject


class Lookups:
    """Finds chunk tables and copies for all objects.

    Args:
        blobs: places on this machine that are searched before anything is sent.
        offline: send nothing.
    """

    def __init__(
        self, store: Store, flights: Flights, blobs: Copies | HubCache | None, *, offline: bool
    ) -> None:
        self._store = store
        self._flights = flights
        self._blobs = blobs
        self._offline = offline

    @property
    def searches_here(self) -> bool:
        """Whether a place on this machine may have copies."""
        return bool(self._blobs)

    async def own_table(self, stored: StoredObject) -> ChunkTable | None:
        """The object's own table, which it has once it was verified as a whole."""
        if not stored.proven:
            return None
        return await trio.to_thread.run_sync(stored.own_table)

    async def table(self, entry: FileEntry, version: Version | None) -> ChunkTable | None:
        """The chunk table that the manifest refers to; None if it refers to none.

        Args:
            version: says which source to ask if the store does not have the table.

        Raises:
            AxonError: the table cannot be had.
        """
        if entry.chunks is None:
            return None
        if entry.size <= entry.chunks.size:  # its one chunk is the object
            return single_table(entry.digest, entry.size, entry.chunks.size)
        key = "table", entry.digest, entry.size, entry.chunks
        return await self._flights.join(key, lambda: self._table(entry, version))

    async def _table(self, entry: FileEntry, version: Version | None) -> ChunkTable:
        table = await trio.to_thread.run_sync(self._store.table, entry)
        if table is not None:
            return table
        if self._offline or version is None or version.source is None:
            raise OfflineError("its chunk table is not in the cache, and nothing may be sent")
        table = await version.source.table(version.base, entry)
        assert table is not None  # the entry has a reference to it
        await trio.to_thread.run_sync(self._store.put_table, entry.digest, table)
        return table

    async def blob(
        self, entry: FileEntry, chunk_size: int, cancelled: Callable[[], bool]
    ) -> Blob | None:
        """A copy of the object on this machine; reads all of it if it has no chunk table.

        Args:
            chunk_size: of the table that is then made.
            cancelled: asked for each chunk; once it is true nothing is found.
        """
        blobs = self._blobs
        if blobs is None:
            return None

        async def find() -> Blob | None:
            with Step(Cause.CHECKING, "looking for a copy on this machine"):
                return await trio.to_thread.run_sync(blobs.find, entry, chunk_size, cancelled)

        key = "blob", entry.digest, entry.size, entry.chunks, entry.git
        return await self._flights.join(key, find)
