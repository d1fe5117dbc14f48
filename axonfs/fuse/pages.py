"""Drops the pages that the kernel has of whole and closed files: their next open would wait for it.

Beside the adapter. That open is passed through, and the kernel drops what it has cached of the file
first: 0.2 s per GiB (Linux 6.18). Dropping waits for pages that a read holds locked, and no signal
ends that wait: a worker that was killed in it would stay, and only the next one could answer the
read. So nothing is dropped of a file that is open, and an open waits until nothing is.

Trio thread only; the kernel is asked in a thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

log = logging.getLogger(__name__)


class Pages:
    """The pages of one mount's files, dropped one file at a time.

    Args:
        is_open: whether anybody has an inode open, as the kernel sees it.
        drop: has the kernel drop the pages of an inode; called in a thread.
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
            log.debug("pages of inode %d stay: %s", inode, exc)
        finally:
            self._inode = 0
            self._dropped.set()

    async def settled(self, inode: int) -> None:
        """Return once no pages of `inode` are being dropped; without a checkpoint if none are."""
        while self._inode == inode:
            await self._dropped.wait()
