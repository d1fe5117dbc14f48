"""The bytes of a package as one file to read from, out of as many answers as it takes.

Between network and package. An answer that breaks off is followed by one of the next mirror, from
the byte where it broke off, so a fault that passes costs only what is still to come. Where the
source has site caches each slice is asked of the first one of its order that works.

Threading: the trio thread makes and runs a `PackageBody`, and the worker thread that it runs reads
it. After a fault that thread waits while the trio thread pauses, without a turn at an origin.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import trio

from axonfs.errors import AxonError
from axonfs.fetch.download import Priority
from axonfs.fetch.network import Network
from axonfs.formats.package import Package
from axonfs.http_client import (
    SLICE,
    Cache,
    CancelledReadError,
    Location,
    Reading,
    SiteCaches,
    blame,
    slice_key,
)
from axonfs.http_client.blame import ENOUGH

log = logging.getLogger(__name__)


class PackageBody:
    """The bytes of `package`.

    Args:
        mirrors: the one to ask next comes first; a fault rotates them.
        patience: seconds to wait, where that is less than the usual; asks once then.
        site: the site caches of its source.
        avoided: caches that may have wrong bytes of it.
    """

    def __init__(
        self,
        network: Network,
        mirrors: deque[Location],
        package: Package,
        patience: float | None,
        *,
        site: SiteCaches | None = None,
        avoided: frozenset[Cache] = frozenset(),
    ) -> None:
        self.answers = 0  # asked for
        self.caches: set[Cache] = set()  # that were asked
        self._network = network
        self._limits = network.limits
        self._mirrors = mirrors
        self._package = package
        self._size = package.size
        self._site = site
        self._avoided = avoided
        self._failed: set[Cache] = set()  # since the source was asked, or the slice began
        self._vain = 0  # of those, the ones that did not have the bytes
        self._passed: AxonError | None = None  # the last failure of one
        self._cache: Cache | None = None  # that was asked last
        self._stop = 0  # of the answer
        self._patience = patience
        self._taken = self._before = 0  # bytes that were read, and when the last answer broke off
        self._attempt, self._since = 1, trio.current_time()
        self._reading: Reading | None = None
        self._turn: trio.CapacityLimiter | None = None
        self._soon = trio.lowlevel.current_trio_token().run_sync_soon

    async def run(self, use: Callable[[PackageBody], object]) -> None:
        """Call `use` in a worker thread, where it reads this. It ends early if the mount ends.

        Raises:
            Exception: what `use` raises.
        """
        await self._take_turn()
        try:
            with contextlib.suppress(CancelledReadError):
                limiter = trio.CapacityLimiter(math.inf)  # the turns bound them
                await trio.to_thread.run_sync(use, self, limiter=limiter)
        finally:
            self._hang_up()
            self._end_turn()

    def readinto(self, view: memoryview) -> int:
        """Fill `view`, or as much of it as is left of the package; blocking, in the thread.

        Raises:
            AxonError: the last answer's; transient if there was no progress until the deadline.
            CancelledReadError: the mount is ending.
        """
        view = view[: self._size - self._taken]
        filled = 0
        while filled < len(view):
            filled += self._fill(view[filled:])
        return filled

    def _fill(self, view: memoryview) -> int:
        """Fill `view` as far as the answer goes; 0 where it broke off, and another may be asked
        for."""
        try:
            self._reading = self._reading or self._ask()
            view = view[: self._stop - self._taken]
            self._reading.fill(view, self._taken)
        except AxonError as exc:
            self._hang_up()
            if not self._passed_over(exc) and not trio.from_thread.run(self._again, exc):
                raise
            return 0
        self._soon(self._network.received, len(view))
        self._taken += len(view)
        if self._cache:
            self._cache.received(len(view))
        if self._taken == self._stop:
            self._end()
        return len(view)

    def _end(self) -> None:
        """End an answer that was read to its end."""
        if self._reading:
            with contextlib.suppress(AxonError):  # what follows is not of the package
                self._reading.end()
        self._reading = None
        self._begin_anew()
        if self._cache and self._cache.set_aside:
            self._cache.answered()

    def _passed_over(self, exc: AxonError) -> bool:
        """Whether to go on at once without the cache that was asked, which is to blame."""
        if self._cache is None or not blame.of_cache(exc):
            return False
        self._failed.add(self._cache)
        self._passed = exc
        if blame.of_object(exc):
            self._vain += 1
        else:
            blame.set_aside(self._cache, exc)
        return True

    def _way(self) -> Location:
        """Whom to ask for what comes next.

        Raises:
            AxonError: no cache is left, and the source may not be asked.
        """
        location, site = replace(self._mirrors[0], spread=False), self._site
        self._cache, self._stop = None, self._size
        if site is None or (site.fallback and not site.covers(location.url)):
            return location
        if not site.covers(location.url):
            raise site.elsewhere(location.url)
        number = self._taken // SLICE
        self._stop = min((number + 1) * SLICE, self._size)
        key = slice_key(self._package.digest or location.url, number)
        if self._vain < ENOUGH:
            self._cache = site.choose(key, self._failed | self._avoided)
        if self._cache is not None:
            self.caches.add(self._cache)
            return location.through(self._cache, self._package.digest, ranged=site.fallback)
        self._begin_anew()
        if site.fallback:
            return location
        if self._passed and blame.of_object(self._passed):
            raise self._passed.located()
        raise site.none_left(location.url) from self._passed

    def _begin_anew(self) -> None:
        self._failed.clear()
        self._vain = 0

    def _ask(self) -> Reading:
        location = self._way()
        self.answers += 1
        self._soon(self._network.asked)
        return self._network.bodies.open(
            location,
            self._taken,
            self._size,
            stop=self._stop,
            cancelled=lambda: self._network.closing,
            patience=self._patience,
            share=self._share,
        )

    def _share(self, most: int) -> int:
        """A share of the bandwidth. Readers may wait for the files of a package, and pins too."""
        bandwidth, closing = self._network.bandwidth, lambda: self._network.closing
        return bandwidth.share(most, lambda: Priority.READAHEAD, closing)

    async def _again(self, exc: AxonError) -> bool:
        """Whether to ask again after `exc`; returns when it is time."""
        now = trio.current_time()
        if self._taken > self._before:
            self._attempt, self._since, self._before = 1, now, self._taken
        if exc.overloaded:
            self._network.lane_at(self._mirrors[0]).overloaded(now, exc.retry_after)
        late = now - self._since >= self._limits.deadline
        if late or not exc.transient or self._patience is not None:
            return False
        log.info("%s; going on at byte %d (%d)", exc, self._taken, self._attempt)
        pause = self._limits.pause(self._attempt, exc.retry_after)
        self._attempt += 1
        self._mirrors.rotate(-1)
        self._end_turn()
        await trio.sleep(pause)
        await self._take_turn()
        return True

    async def _take_turn(self) -> None:
        turns = self._network.lane_at(self._mirrors[0]).passes
        await turns.acquire_on_behalf_of(self)
        self._turn = turns

    def _end_turn(self) -> None:
        if self._turn:
            self._turn.release_on_behalf_of(self)
            self._turn = None

    def _hang_up(self) -> None:
        if self._reading:
            self._reading.hang_up()
            self._reading = None
