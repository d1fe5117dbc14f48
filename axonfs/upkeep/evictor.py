"""Keeps the cache within its limits while chunks arrive.

Sits beside fetch. The store chooses the objects to evict: the least recently used, never pinned or
open ones. If that is not enough for the limit of the whole, open objects drop the chunks behind
their readers. Trio thread; the disk work runs in threads.
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
from axonfs.settings.limits import CacheLimits
from axonfs.store import DISK_FAULTS, HEADROOM, Rules, Store
from axonfs.units import size

log = logging.getLogger(__name__)

# A default limit below this is reported: most models would be evicted while they are read.
LITTLE_CACHE = 1 << 30
LIMIT_AGE = 1.0  # seconds for which a limit that was measured is used
# Seconds to wait while the cache is over its limit and can evict nothing.
NOTHING_PAUSE = 0.05
FULL_PAUSE = 1.0
# Seconds from the start until quotas and ages are looked at first, and from then until the next
# look: with landings, which quotas count, and without. A look that takes long pauses longer.
FIRST_LOOK = 5.0
QUOTA_PAUSE, AGE_PAUSE = 1.0, 60.0
_SHARE_OF_LOOKS = 0.05


class Evictor:
    """Evicts when the cache exceeds its limits."""

    def __init__(self, store: Store, directory: Path, limits: CacheLimits) -> None:
        self._store = store
        self._directory = directory
        self._limits = limits
        self._over = trio.Event()
        self._grown = trio.Event()
        self._limit, self._limit_time = 0, float("-inf")
        self._taken: dict[str, int] = {}  # by each quota, when it was looked at last
        self._took = 0.0  # seconds, by the last eviction
        self._objects = self._bytes = 0  # that were evicted

    def apply(self, limits: CacheLimits) -> None:
        """Keep these limits from now on."""
        if limits != self._limits:
            self._limits, self._limit_time, self._taken = limits, float("-inf"), {}
            self._over.set()

    def limit(self) -> int:
        """Bytes that the cache may take now."""
        if self._limits.free is None:
            assert self._limits.size is not None
            return self._limits.size
        now = trio.current_time()
        if now - self._limit_time >= LIMIT_AGE:
            self._limit, self._limit_time = self._measured(), now
        return self._limit

    def _measured(self) -> int:
        try:
            disk = disk_usage(self._directory)
        except OSError as exc:  # the directory was removed
            self._store.health.failed(exc)
            return self._store.usage()
        assert self._limits.free is not None
        # Not of `total`, which counts blocks that are reserved for root.
        kept_free = self._limits.free.of(disk.used + disk.free)
        room = max(0, self._store.usage() + disk.free - kept_free)
        return room if self._limits.size is None else min(room, self._limits.size)

    def shortage(self) -> str | None:
        """The reason why the limit is small, for users; None if it is not, or is as they said."""
        limit = self.limit()
        if limit == self._limits.size or limit >= LITTLE_CACHE or self._store.health.fault:
            return None
        free, said = self._limits.free, self._limits.keep_free
        assert free is not None
        kept = f"{free.percent:g} %" if free.percent else size(free.size)
        why = "(keep_free)" if said else "by default; free some space, or set cache_size"
        return (
            f"the cache may take only {size(limit)}, since {kept} of the disk of {self._directory}"
            f" stays free {why}"
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
        most = min(int(self.limit() * HEADROOM), free + self._store.usage())
        return await trio.to_thread.run_sync(self._room, keep, most, self._rules())

    def _room(self, keep: Set[str], most: int, rules: Rules) -> int:
        kept = keep | self._store.pinned_digests()
        sizes = [(info.content, info.present_bytes) for info in self._store.infos()]
        rooms = [most - sum(count for digest, count in sizes if digest in kept)]
        for scope, digests in self._store.namespaces.objects(rules.quotas).items():
            if not digests.isdisjoint(keep):
                taken = sum(count for digest, count in sizes if digest in kept & digests)
                rooms.append(int(rules.quotas[scope] * HEADROOM) - taken)
        return min(rooms)

    def landed(self) -> None:
        """Wake the evictor if the cache is over its limit or full; called after each chunk."""
        if self._store.usage() > self.limit() or self._store.health.full:
            self._over.set()
        self._grown.set()

    async def run(self, fetcher: Fetcher, evicted: Callable[[list[str]], None]) -> None:
        """Evict whenever a limit is exceeded or the cache's disk is full, until cancelled.

        Args:
            fetcher: gives up chunks of objects in use, if nothing else can go.
            evicted: called with the digests of objects that lost local bytes.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_regularly)
            await self._run(fetcher, evicted)

    async def _run(self, fetcher: Fetcher, evicted: Callable[[list[str]], None]) -> None:
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

    async def _look_regularly(self) -> None:
        """Wake the evictor for the limits that no landing shows to be exceeded."""
        await trio.sleep(FIRST_LOOK)
        while True:
            # Other programs may have filled the disk, of which the limit leaves some free.
            if self._limits.ttl or self._limits.quotas or self._store.usage() > self.limit():
                self._over.set()
            await trio.sleep(max(QUOTA_PAUSE, self._took / _SHARE_OF_LOOKS))
            with trio.move_on_after(AGE_PAUSE):
                await self._grown.wait()
            self._grown = trio.Event()

    def _rules(self) -> Rules:
        quotas = self._limits.quotas
        whole = self.limit() if quotas else 0
        return Rules(self._limits.ttl, {scope: one.of(whole) for scope, one in quotas.items()})

    async def _evict(self, fetcher: Fetcher) -> list[str]:
        """Evict, and return the digests of the objects that lost bytes."""
        limit, used, full = self.limit(), self._store.usage(), self._store.health.full
        if full:  # perhaps of other data: the cache cannot grow
            limit = min(limit, used)
            self._store.health.full = False
        over = full or used > limit
        goal = int(limit * HEADROOM) if over else limit
        began = trio.current_time()
        done = await trio.to_thread.run_sync(self._store.evict, goal, self._rules())
        self._took, self._taken = trio.current_time() - began, dict(done.taken)
        digests = list(done.digests)
        if over and done.short_by > 0:
            used = self._store.usage()
            digests += await fetcher.punch(done.short_by)
            self._bytes += max(used - self._store.usage(), 0)  # about: chunks land meanwhile
        self._objects += len(digests)
        self._bytes += done.freed
        return digests

    def statistics(self) -> dict[str, Any]:
        """How many objects lost bytes since the mount, and how many bytes, for `status`."""
        return {"objects": self._objects, "bytes": self._bytes}

    def quotas(self) -> list[dict[str, Any]]:
        """Each quota, in bytes, and what its models take; None before that was looked at."""
        limits = self._rules().quotas
        return [
            {"scope": scope, "used": self._taken.get(scope), "limit": limit}
            for scope, limit in limits.items()
        ]
