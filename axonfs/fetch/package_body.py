"""The bytes of a package as one file to read from, out of as many answers as it takes.

Between network and package. An answer that breaks off is followed by one of the next mirror, from
the byte where it broke off, so a fault that passes costs only what is still to come.

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
from axonfs.http_client import CancelledReadError, Location, Reading

log = logging.getLogger(__name__)


class PackageBody:
    """A package of `size` bytes.

    Args:
        mirrors: the one to ask next comes first; a fault rotates them.
        patience: seconds to wait, where that is less than the usual; asks once then.
    """

    def __init__(
        self,
        network: Network,
        mirrors: deque[Location],
        size: int,
        patience: float | None,
    ) -> None:
        self.answers = 0  # asked for
        self._network = network
        self._limits = network.limits
        self._mirrors = mirrors
        self._size = size
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
        while view and not self._filled(view):
            pass
        self._taken += len(view)
        if self._taken == self._size and self._reading:
            with contextlib.suppress(AxonError):  # what follows is not of the package
                self._reading.end()
            self._reading = None
        return len(view)

    def _filled(self, view: memoryview) -> bool:
        """Fill `view`; False where an answer broke off and another may be asked for."""
        try:
            self._reading = self._reading or self._ask()
            self._reading.fill(view, self._taken)
        except AxonError as exc:
            self._hang_up()
            if not trio.from_thread.run(self._again, exc):
                raise
            return False
        self._soon(self._network.received, len(view))
        return True

    def _ask(self) -> Reading:
        self.answers += 1
        self._soon(self._network.asked)
        return self._network.bodies.open(
            replace(self._mirrors[0], spread=False),
            self._taken,
            self._size,
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
