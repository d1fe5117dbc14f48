"""Asks site caches whether they work, by requests that no reader waits for, however long they take.

Between network and ways. A cache that is set aside is asked for a chunk, to see whether it is back.
What it brings is compared where a chunk table is known, and then dropped. One that had wrong bytes
is asked for them again, and told to fetch them anew.

A cache that sends nothing may be dead, or wait for its source. It is asked for what it sent before,
which it has; before it sent anything, for the URL of the source, to which any answer will do.

Trio thread; the requests run in worker threads.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import trio

from axonfs.errors import AxonError, CorruptError, DeadlineError, shortages
from axonfs.fetch.download import Download
from axonfs.fetch.network import Network
from axonfs.http_client import Cache, Location, SiteCaches, blame
from axonfs.ranges import chunk_range

log = logging.getLogger(__name__)

# Seconds for which a cache that sends nothing, and has proved to work, is not asked again.
PROVEN = 5.0
# The size of something whose size is not known.
_UNKNOWN = 1 << 40


class Had(NamedTuple):
    """What a cache sent: bytes from `start` on of an object of `size` bytes."""

    location: Location
    start: int
    size: int


class Trials:
    """The requests to caches that may not work, one at a time for each."""

    def __init__(self, network: Network, nursery: trio.Nursery) -> None:
        self._network = network
        self._nursery = nursery
        self._threads = trio.CapacityLimiter(math.inf)  # there are as many as caches, at the most
        self._asked: set[Cache] = set()
        self._ended = trio.Event()  # the next one
        self._spoilt: dict[Cache, Callable[[], None]] = {}  # what a cache is asked for anew
        self._had: dict[Cache, Had] = {}  # what each cache sent last
        self._proven: dict[Cache, float] = {}  # until when

    def note(self, cache: Cache, had: Had) -> None:
        """Note what a cache sent."""
        self._had[cache] = had

    def spoilt(self, cache: Cache, download: Download, chunk: int, location: Location) -> None:
        """Note that a cache had wrong bytes in a chunk."""
        self._spoilt[cache] = partial(self._compare, download, chunk, location.renewed())

    def begin(self, cache: Cache, download: Download, chunk: int, location: Location) -> None:
        """Ask a cache that is set aside for a chunk at `location`, if it is time for that."""
        if cache in self._asked or not cache.admits():
            return
        ask = self._spoilt.pop(cache, None) or partial(self._compare, download, chunk, location)
        self._asked.add(cache)
        self._nursery.start_soon(self._try, cache, ask)

    def doubt(self, cache: Cache, site: SiteCaches, count: int, seconds: float) -> None:
        """Ask a cache for `count` bytes that it has, and set it aside if that takes longer than
        `seconds` twice; not if it proved to work a moment ago."""
        if cache in self._asked or trio.current_time() < self._proven.get(cache, -math.inf):
            return
        had = self._had.get(cache)
        if had is None:
            if not site.source.startswith("http"):
                return  # to sign that may need the source itself
            url = site.source.rstrip("/") + "/"
            count, had = 1, Had(Location(url, cache=cache), 0, _UNKNOWN)
        self._asked.add(cache)
        self._nursery.start_soon(self._prove, cache, partial(self._take, had, count, seconds))

    def waits(self, cache: Cache) -> bool:
        """Whether a cache that sends nothing lately proved to work: it waits for its source."""
        return trio.current_time() < self._proven.get(cache, -math.inf) + PROVEN

    async def one_is_back(self, caches: set[Cache]) -> bool:
        """Wait while any of the caches is tried, until one is back; whether one is."""
        while all(cache.set_aside for cache in caches) and not self._asked.isdisjoint(caches):
            await self._ended.wait()
        return any(not cache.set_aside for cache in caches)

    async def _try(self, cache: Cache, ask: Callable[[], None]) -> None:
        fault = await self._fault_of(cache, ask)
        if fault is not None and blame.of_cache(fault) and not _answers(fault):
            cache.failed(fault)
        elif not self._network.closing and (fault is None or _answers(fault)):
            cache.answered()
            log.info("site cache %s is back", cache.name)

    async def _prove(self, cache: Cache, ask: Callable[[], None]) -> None:
        fault = await self._fault_of(cache, ask)
        if blame.silent(fault):  # this host may have been busy, or lost a packet
            self._asked.add(cache)
            fault = await self._fault_of(cache, ask)
        if fault is None or fault.status is not None:
            self._proven[cache] = trio.current_time() + PROVEN
        elif blame.of_cache(fault):
            blame.set_aside(cache, fault)

    async def _fault_of(self, cache: Cache, ask: Callable[[], None]) -> AxonError | None:
        try:
            with shortages():
                await trio.to_thread.run_sync(ask, limiter=self._threads)
        except AxonError as exc:
            return exc
        finally:
            self._asked.discard(cache)
            # The caller decides before those who wait run.
            self._ended.set()
            self._ended = trio.Event()
        return None

    def _compare(self, download: Download, chunk: int, location: Location) -> None:
        size, unit = download.entry.size, download.object.chunk_size
        start, stop = chunk_range(chunk, unit, size)

        def compare(offset: int, view: memoryview) -> None:
            table = download.table
            if table is not None and not table.right(offset // unit, view):
                raise CorruptError("a chunk has the wrong digest", source=location.asked)

        network = self._network
        network.bodies.read(
            location, start, stop, size, compare, unit=unit, cancelled=lambda: network.closing
        )

    def _take(self, had: Had, count: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        start, stop = had.start, min(had.start + count, had.size)
        self._network.bodies.read(
            had.location,
            start,
            stop,
            had.size,
            _drop,
            unit=stop - start,
            cancelled=lambda: self._network.closing or time.monotonic() > until,
            patience=seconds,
        )
        if time.monotonic() > until and not self._network.closing:
            what = f"it takes more than {seconds:.0f} s for what it has"
            raise DeadlineError(what, source=had.location.asked)


def _answers(fault: AxonError) -> bool:
    """Whether a cache that is asked for an object works: its answer is about the object, or in its
    source's name."""
    about = blame.of_object(fault) or not blame.of_cache(fault)
    return fault.status is not None and about


def _drop(offset: int, view: memoryview) -> None:
    pass
