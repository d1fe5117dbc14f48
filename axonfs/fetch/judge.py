"""Compares what is local of an object in use: its chunks, and the whole where no table has them.

Above download, below feed, which asks it what may be served. Trio thread only; reading and hashing
in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from axonfs.catalog.flights import Flights
from axonfs.errors import CorruptError
from axonfs.fetch.download import Download
from axonfs.fetch.verify import verify_whole, wrong_chunks
from axonfs.ranges import Range
from axonfs.steps import Cause, Step
from axonfs.store import DISK_FAULTS

# For what reads a whole object: the worker waits for its threads before it ends.
_proceed = trio.from_thread.check_cancelled


class Judge:
    """The verdicts about the object of `download`.

    Args:
        wrong: called with the object's digest if the whole proves wrong.
    """

    def __init__(
        self, download: Download, flights: Flights, wrong: Callable[[str], object]
    ) -> None:
        self._download = download
        self._flights = flights
        self._wrong = wrong
        self._entry = download.entry
        self._object = download.object
        self._local = download.local

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
            self._object.hold()  # the task that asked may leave, and the feed with it
            try:
                # What the disk did is told by the sums, chunk by chunk; the digest is for sources.
                if not self._object.adopted(0, self._object.count):
                    await self.settle(Range(0, self._object.count))
                with Step(Cause.CHECKING, "comparing the whole file with its digest"):
                    await self._compare()
            except DISK_FAULTS as exc:
                self._local.distrust(Range(0, self._object.count), exc)
            finally:
                self._object.release()

        await self._flights.join(("whole", self._download), judge)

    async def _compare(self) -> None:
        """Compare the whole; where its bytes are wrong, none that readers have of it are kept."""
        versions, answers = self._download.versions, self._download.answers
        source = versions[0].base if versions else None
        verify = partial(
            verify_whole, hashing=self._download.hashing, proceed=_proceed, final=answers.final
        )
        try:
            right = await trio.to_thread.run_sync(verify, self._object, self._entry, source)
        except CorruptError:
            self._wrong(self._entry.digest)
            raise
        if not right:
            self._wrong(self._entry.digest)
            answers.begin_again()

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
        if self._object.adopted(*run):  # else the index has their sums, and nothing is sent
            await self._download.find_table()
        with Step(Cause.CHECKING, "comparing local chunks with their digests"):
            return await trio.to_thread.run_sync(
                wrong_chunks, self._object, run, self._download.table, self._entry, _proceed
            )
