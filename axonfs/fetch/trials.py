"""Asks site caches that are set aside whether they are back: by one request for a chunk each.

Between network and ways. No reader waits for such a request, however long the cache takes. What it
brings is compared where a chunk table is known, and then dropped. A cache that had wrong bytes is
asked for them again, and told to fetch them anew.

Trio thread; the request runs in a worker thread.
"""

from __future__ import annotations

import logging
import math
from functools import partial

import trio

from axonfs.errors import AxonError, CorruptError, shortages
from axonfs.fetch import blame
from axonfs.fetch.download import Download
from axonfs.fetch.network import Network
from axonfs.http_client import Cache, Location
from axonfs.ranges import chunk_range

log = logging.getLogger(__name__)


class Trials:
    """The requests to caches that are set aside, one at a time for each."""

    def __init__(self, network: Network, nursery: trio.Nursery) -> None:
        self._network = network
        self._nursery = nursery
        self._threads = trio.CapacityLimiter(math.inf)  # there are as many as caches, at the most
        self._tried: set[Cache] = set()
        self._ended = trio.Event()  # the next one
        self._spoilt: dict[Cache, partial[None]] = {}  # what a cache is asked for anew

    def spoilt(self, cache: Cache, download: Download, chunk: int, location: Location) -> None:
        """Note that a cache had wrong bytes in a chunk."""
        self._spoilt[cache] = partial(self._ask, download, chunk, location.renewed())

    def begin(self, cache: Cache, download: Download, chunk: int, location: Location) -> None:
        """Ask for a chunk at `location`, if it is time for that."""
        if cache in self._tried or not cache.admits():
            return
        self._tried.add(cache)
        ask = self._spoilt.pop(cache, None) or partial(self._ask, download, chunk, location)
        self._nursery.start_soon(self._try, cache, ask)

    async def one_is_back(self, caches: set[Cache]) -> bool:
        """Wait while any of the caches is tried, until one is back; whether one is."""
        while all(cache.set_aside for cache in caches) and not self._tried.isdisjoint(caches):
            await self._ended.wait()
        return any(not cache.set_aside for cache in caches)

    async def _try(self, cache: Cache, ask: partial[None]) -> None:
        try:
            with shortages():
                await trio.to_thread.run_sync(ask, limiter=self._threads)
        except AxonError as exc:
            if exc.status is not None and (blame.of_object(exc) or not blame.of_cache(exc)):
                self._is_back(cache)  # it answers, about this object or in its source's name
            elif blame.of_cache(exc):
                cache.failed(exc)
        else:
            self._is_back(cache)
        finally:
            self._tried.discard(cache)
            self._ended.set()
            self._ended = trio.Event()

    def _is_back(self, cache: Cache) -> None:
        if not self._network.closing:
            cache.answered()
            log.info("site cache %s is back", cache.name)

    def _ask(self, download: Download, chunk: int, location: Location) -> None:
        size, unit = download.entry.size, download.object.chunk_size
        start, stop = chunk_range(chunk, unit, size)

        def compare(offset: int, view: memoryview) -> None:
            table = download.table
            if table is not None and not table.right(offset // unit, view):
                raise CorruptError("a chunk has the wrong digest", source=location.asked)

        self._network.bodies.read(
            location,
            start,
            stop,
            size,
            compare,
            unit=unit,
            cancelled=lambda: self._network.closing,
        )
