"""Keeps the cache within its size limit while chunks arrive.

Sits beside fetch. The store chooses the objects to evict: the least recently used, never pinned or
open ones. If that is not enough, open objects drop the chunks behind their readers. Trio thread;
the disk work runs in threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from pathlib import Path
from shutil import disk_usage
from typing import Any

import trio

from axonfs.errors import ShortageError, shortages
from axonfs.fetch import Fetcher
from axonfs.store import DISK_FAULTS, Store
from axonfs.units import size

log = logging.getLogger(__name__)

# Evict a little more than needed, so that not every chunk causes an eviction.
HEADROOM = 0.95
KEEP_FREE = 0.10
# A default limit below this is reported: most models would be evicted while they are read.
LITTLE_CACHE = 1 << 30
_LIMIT_AGE = 1.0
# Seconds to wait while the cache is over its limit and can evict nothing.
NOTHING_PAUSE = 0.05
FULL_PAUSE = 1.0


class Evictor:
    """Evicts when the cache exceeds its limit.

    Args:
        limit: bytes that the cache may take, None to leave 10 % of its disk free.
    """

    def __init__(self, store: Store, directory: Path, limit: int | None) -> None:
        self._store = store
        self._directory = directory
        self._fixed = limit
        self._over = trio.Event()
        self._limit, self._limit_time = 0, float("-inf")
        self._objects = self._bytes = 0  # that were evicted

    def limit(self) -> int:
        """Bytes that the cache may take now."""
        if self._fixed is not None:
            return self._fixed
        now = trio.current_time()
        if now - self._limit_time >= _LIMIT_AGE:
            self._limit, self._limit_time = self._measured(), now
        return self._limit

    def _measured(self) -> int:
        try:
            disk = disk_usage(self._directory)
        except OSError as exc:  # the directory was removed
            self._store.health.failed(exc)
            return self._store.usage()
        # Not of `total`, which counts blocks that are reserved for root.
        kept_free = KEEP_FREE * (disk.used + disk.free)
        return max(0, int(self._store.usage() + disk.free - kept_free))

    def shortage(self) -> str | None:
        """The reason why the default limit is small, for users; None if it is not."""
        limit = self.limit()
        if self._fixed is not None or limit >= LITTLE_CACHE or self._store.health.fault:
            return None
        return (
            f"the cache may take only {size(limit)}, since 10 % of the disk of {self._directory}"
            " stays free by default; free some space, or set cache_size"
        )

    async def room(self, keep: Set[str]) -> int:
        """Bytes that can be fetched without evicting pinned objects or those in `keep`.

        Negative if those alone exceed the limit; 0 if the disk fails.
        """
        try:
            free = disk_usage(self._directory).free
        except OSError as exc:
            self._store.health.failed(exc)
            return 0
        kept = await trio.to_thread.run_sync(self._kept, keep)
        return min(int(self.limit() * HEADROOM), free + self._store.usage()) - kept

    def _kept(self, keep: Set[str]) -> int:
        keep = keep | self._store.pinned_digests()
        infos = self._store.infos()
        return sum(info.present_bytes for info in infos if (info.private_of or info.digest) in keep)

    def landed(self) -> None:
        """Wake the evictor if the cache is over its limit or full; called after each chunk."""
        if self._store.usage() > self.limit() or self._store.health.full:
            self._over.set()

    async def run(self, fetcher: Fetcher, evicted: Callable[[list[str]], None]) -> None:
        """Evict whenever the cache is over its limit or its disk is full, until cancelled.

        Args:
            fetcher: gives up chunks of objects in use, if nothing else can go.
            evicted: called with the digests of objects that lost local bytes.
        """
        while True:
            await self._over.wait()
            self._over = trio.Event()
            try:
                with shortages():
                    digests = await self._evict(fetcher)
            except (ShortageError, *DISK_FAULTS) as exc:
                self._store.health.failed(exc)
                digests = []
            if digests:
                log.debug("evicted %d objects", len(digests))
                evicted(digests)
            else:  # nothing can be evicted, and on a full disk each chunk wakes us again
                await trio.sleep(FULL_PAUSE if self._store.health.fault else NOTHING_PAUSE)

    async def _evict(self, fetcher: Fetcher) -> list[str]:
        """Evict, and return the digests of the objects that lost bytes."""
        limit = self.limit()
        if self._store.health.full:  # perhaps of other data: the cache cannot grow
            limit = min(limit, self._store.usage())
            self._store.health.full = False
        done = await trio.to_thread.run_sync(self._store.evict, int(limit * HEADROOM))
        digests = list(done.digests)
        if done.short_by > 0:
            used = self._store.usage()
            digests += await fetcher.punch(done.short_by)
            self._bytes += max(used - self._store.usage(), 0)  # about: chunks land meanwhile
        self._objects += len(digests)
        self._bytes += done.freed
        return digests

    def statistics(self) -> dict[str, Any]:
        """How many objects lost bytes since the mount, and how many bytes, for `status`."""
        return {"objects": self._objects, "bytes": self._bytes}
