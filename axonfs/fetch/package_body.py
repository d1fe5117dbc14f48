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

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError
from axonfs.fetch.download import Priority
from axonfs.fetch.network import Network
from axonfs.fetch.tallies import Tally
from axonfs.formats.package import Package
from axonfs.http_client import (
    SLICE,
    Asking,
    Cache,
    CancelledReadError,
    Location,
    Reading,
    SiteCaches,
    pausing,
    retrying,
    shown,
)
from axonfs.steps import Cause, Step
from axonfs.units import size

log = logging.getLogger(__name__)


class PackageBody:
    """The bytes of `package`.

    Args:
        mirrors: the one to ask next comes first; a fault rotates them.
        patience: seconds to wait, where that is less than the usual; asks once then.
        version: has the package.
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
        version: Version,
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
        self._version = version
        self._site = site
        self._asking = (
            Asking(site, package.digest, fallback=site.fallback, avoided=avoided) if site else None
        )
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
        with Step(Cause.PACKAGE, "unpacking", about=self._said, source=self._source):
            await self._run(use)

    def _said(self) -> str:
        return f"in a pass over {self._source}, at {size(self._taken)} of {size(self._size)}"

    @property
    def _source(self) -> str:
        return shown(self._mirrors[0].url)

    async def _run(self, use: Callable[[PackageBody], object]) -> None:
        if self._site is None:  # else caches are asked, which the source's pause is not about
            lane = self._network.lane_at(self._mirrors[0])
            pause = min(lane.pause, self._limits.deadline)
            with pausing(lane.name, pause):
                await trio.sleep(pause)
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
            with Step(Cause.RECEIVING, self._reading.said):
                self._reading.fill(view, self._taken)
        except AxonError as exc:
            self._hang_up()
            self._soon(self._tally().failed, exc)
            passed = self._asking is not None and self._asking.pass_over(exc)
            if not passed and not trio.from_thread.run(self._again, exc):
                raise
            return 0
        self._soon(self._network.received, self._tally(), len(view), "package")
        self._taken += len(view)
        if self._asking:
            self._asking.received(len(view))
        if self._taken == self._stop:
            self._end()
        return len(view)

    def _end(self) -> None:
        """End an answer that was read to its end."""
        if self._reading:
            with contextlib.suppress(AxonError):  # what follows is not of the package
                self._reading.end()
        self._reading = None
        if self._asking:
            self._asking.went_well()

    def _way(self) -> Location:
        """Whom to ask for what comes next.

        Raises:
            AxonError: no cache is left, and the source may not be asked.
        """
        location, self._stop = replace(self._mirrors[0], spread=False), self._size
        if self._site is None or self._asking is None:
            return location
        number = self._taken // SLICE
        if self._site.covers(location.url):
            self._stop = min((number + 1) * SLICE, self._size)
        where = self._asking.choose(location, number, ranged=self._site.fallback)
        if self._asking.cache is not None:
            self.caches.add(self._asking.cache)
        return where

    def _ask(self) -> Reading:
        location = self._way()
        self.answers += 1
        self._soon(self._tally().asked)
        return self._network.bodies.open(
            location,
            self._taken,
            self._size,
            stop=self._stop,
            cancelled=lambda: self._network.closing,
            patience=self._patience,
            share=self._share,
        )

    def _tally(self) -> Tally:
        """What counts for whom is asked."""
        return self._network.tally(self._version, self._asking.cache if self._asking else None)

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
            itself = self._asking is None or self._asking.cache is None
            lane = self._network.lane_at(self._mirrors[0])
            lane.overloaded(now, exc.retry_after, itself=itself)
        late = now - self._since >= self._limits.deadline
        if late:
            self._tally().late(exc, now - self._limits.deadline)
        if late or not exc.transient or self._patience is not None:
            return False
        log.info("%s; going on at byte %d (%d)", exc, self._taken, self._attempt)
        pause = self._limits.pause(self._attempt, exc.retry_after)
        self._attempt += 1
        self._mirrors.rotate(-1)
        self._end_turn()
        with retrying(exc, f"attempt {self._attempt}", pause):
            await trio.sleep(pause)
        await self._take_turn()
        return True

    async def _take_turn(self) -> None:
        lane = self._network.lane_at(self._mirrors[0])
        turns = lane.passes
        with Step(Cause.QUEUED, f"waiting behind other passes over packages of {lane.name}"):
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
