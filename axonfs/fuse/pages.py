"""Has the kernel drop its cached pages of complete files once they are closed.

Beside the adapter. The next open of such a file is passed through, and would first wait until the
kernel has dropped those pages: 0.2 s per GiB (Linux 6.18). Dropping waits for pages that a read has
locked, and no signal ends that wait: a killed worker would stay in it, while only the next worker
could answer the read. So the pages of an open file are never dropped, and an open waits while the
file's pages are being dropped.

Trio thread only; the pages are dropped in a worker thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from axonfs.steps import Cause, Step

log = logging.getLogger(__name__)


class Pages:
    """The pages of one mount's files, dropped one file at a time.

    Args:
        is_open: whether the kernel has a handle on an inode.
        drop: has the kernel drop the pages of an inode; called in a worker thread.
    """

    def __init__(self, is_open: Callable[[int], bool], drop: Callable[[int], None]) -> None:
        self._is_open = is_open
        self._drop = drop
        self._closed, self._to_drop = trio.open_memory_channel[int](math.inf)
        self._inode = 0
        self._dropped = trio.Event()

    def drop_soon(self, inode: int) -> None:
        """Have `run` drop the pages of `inode`, unless it is open when its turn comes."""
        self._closed.send_nowait(inode)

    async def run(self) -> None:
        """Drop pages until cancelled."""
        async for inode in self._to_drop:
            if not self._is_open(inode):
                await self._drop_now(inode)

    async def _drop_now(self, inode: int) -> None:
        self._inode, self._dropped = inode, trio.Event()
        try:
            await trio.to_thread.run_sync(self._drop, inode)
        except OSError as exc:
            log.debug("cannot drop the pages of inode %d: %s", inode, exc)
        finally:
            self._inode = 0
            self._dropped.set()

    async def settled(self, inode: int) -> None:
        """Return when no pages of `inode` are being dropped; has no checkpoint if none are."""
        while self._inode == inode:
            with Step(Cause.OTHER, "waiting until the kernel has dropped its pages of the file"):
                await self._dropped.wait()
