"""The objects of one pin on their way: parts to fetch, feeds in use, and how far it is.

Trio thread only, but for making a `Work`, which blocks. Many tasks may share one: only `send_parts`
has checkpoints.
"""

from __future__ import annotations

from typing import Any

import trio

from axonfs.fetch import Feed, Fetcher
from axonfs.ranges import Range
from axonfs.service.selection import Selection, missing_bytes
from axonfs.store import Store


class Work:
    """The chunks of one selection; `close` it."""

    def __init__(self, fetcher: Fetcher, store: Store, selection: Selection) -> None:
        self.spec = str(selection.version.spec)
        self._fetcher = fetcher
        self._selection = selection
        self._total = selection.size
        self._local = {
            entry.digest: entry.size - missing_bytes(entry, store.peek(entry.digest))
            for entry in selection.objects
        }
        self._begun = dict(self._local)
        self._before = sum(self._local.values())
        self.copied = 0  # bytes of `fetched` that came from Hugging Face's cache
        self._open: dict[Feed, int] = {}  # parts that are not done yet, in the files' order
        self._paths = {entry.digest: entry.path for entry in selection.objects}

    @property
    def missing(self) -> int:
        """Bytes that were not local when the work began."""
        return self._total - self._before

    @property
    def fetched(self) -> int:
        """Bytes that became local since, whoever asked for them."""
        return max(self._done() - self._before, 0)

    async def send_parts(self, parts: trio.MemorySendChannel[tuple[Feed, Range]]) -> None:
        """Send what to fetch, in the files' order; feeds are opened as they are reached.

        Say `ended` after each part.
        """
        async with parts:
            for entry in self._selection.objects:
                feed = await self._fetcher.open(self._selection.version, entry)
                if feed.object.present(0, feed.object.count) and feed.allowed:
                    feed.close()
                    continue
                pieces = feed.parts()
                self._open[feed] = len(pieces)
                for piece in pieces:
                    await parts.send((feed, piece))

    def ended(self, feed: Feed) -> None:
        """One part of `feed` is local."""
        self._open[feed] -= 1
        if self._open[feed] == 0:
            self._let_go(feed)

    def close(self) -> None:
        """Let go of what is still open, and have what was asked for of it stopped."""
        for feed in list(self._open):
            feed.withdraw()
            self._let_go(feed)

    def _let_go(self, feed: Feed) -> None:
        digest = feed.entry.digest
        self._local[digest] = feed.object.present_bytes
        if feed.copied:
            self.copied += self._local[digest] - self._begun[digest]
        del self._open[feed]
        feed.close()

    def _done(self) -> int:
        for feed in self._open:
            self._local[feed.entry.digest] = feed.object.present_bytes
        return sum(self._local.values())

    def _path(self) -> str:
        """The first file that is on its way; empty between two."""
        feed = next(iter(self._open), None)
        return self._paths.get(feed.entry.digest, "") if feed else ""

    def event(self) -> dict[str, Any]:
        """Progress as commands show it, in bytes."""
        done = self._done()
        return {
            "event": "progress",
            "spec": self.spec,
            "path": self._path(),
            "done": done,
            "total": self._total,
            "fetched": max(done - self._before, 0),
        }
