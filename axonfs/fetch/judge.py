"""Compares what is local of an object in use: its chunks, and the whole where no table has them.

Beside feed, which asks it what may be served. Trio thread only; reading and hashing in threads.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from axonfs.errors import CorruptError
from axonfs.fetch.verify import verify_whole, wrong_chunks
from axonfs.ranges import Range
from axonfs.store import DISK_FAULTS

if TYPE_CHECKING:
    from axonfs.fetch.feed import Feed
    from axonfs.fetch.fetcher import Fetcher


class Judge:
    """The verdicts about the object of `feed`."""

    def __init__(self, feed: Feed, fetcher: Fetcher) -> None:
        self._feed = feed
        self._fetcher = fetcher
        self._entry = feed.entry
        self._object = feed.object
        self._local = feed.local

    @property
    def compared(self) -> bool:
        """Whether what is served was compared with a digest before."""
        return self._entry.chunks is not None or self._object.verified

    @property
    def uncompared(self) -> bool:
        """Whether a digest can tell whether the whole is right, and was not compared with it."""
        return not (self.compared or self._entry.unverified)

    @property
    def due(self) -> bool:
        """Whether the whole is here and was not compared yet."""
        return self._local.complete and self.uncompared

    async def whole(self) -> None:
        """Have the whole compared, once for all who ask.

        Raises:
            CorruptError: it is wrong, for good.
        """

        async def judge() -> None:
            self._object.hold()  # whoever asked may leave, and the feed with them
            try:
                # What the disk did is told by the sums, chunk by chunk; the digest is for sources.
                if not self._object.adopted(0, self._object.count):
                    await self.settle(Range(0, self._object.count))
                await self._compare()
            except DISK_FAULTS as exc:
                self._local.distrust(Range(0, self._object.count), exc)
            finally:
                self._object.release()

        await self._fetcher.flights.join(("whole", self._feed), judge)

    async def _compare(self) -> None:
        """Compare the whole; where its bytes are wrong, none that readers have of it are kept."""
        source = self._feed.origins[0].base if self._feed.origins else None
        verify = partial(verify_whole, final=self._feed.answers.final)
        try:
            right = await trio.to_thread.run_sync(verify, self._object, self._entry, source)
        except CorruptError:
            self._fetcher.withdrawn.add(self._entry.digest)
            raise
        if not right:
            self._fetcher.withdrawn.add(self._entry.digest)
            self._feed.answers.begin_again()

    async def settle(self, chunks: Range) -> None:
        """Check local chunks that nothing vouches for since the machine was started."""
        if not self._object.readable:
            return
        for run in self._object.unchecked(*chunks):
            try:
                await self._check(run)
            except DISK_FAULTS as exc:
                self._local.distrust(run, exc)

    async def check(self, chunks: Range) -> list[int]:
        """Read local chunks again and compare; the wrong ones are dropped and returned."""
        wrong: list[int] = []
        if self.due:
            await self.whole()
        for chunk in range(*chunks):
            if not self._object.missing(chunk, chunk + 1):
                wrong += await self._check(Range(chunk, chunk + 1))
        return wrong

    async def _check(self, run: Range) -> list[int]:
        await self._fetcher.ensure_table(self._feed, adopted=bool(self._object.adopted(*run)))
        return await trio.to_thread.run_sync(
            wrong_chunks, self._object, run, self._feed.table, self._entry
        )
