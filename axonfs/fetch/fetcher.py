"""The feeds of all objects in use, and the parts that fill them.

The top of the package: it builds the parts, and sits between vfs and {sources, store}. It does not
know names, inodes or HTTP. One `Feed` per object in use; one job per ranged GET. Trio thread only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import trio

from axonfs.catalog.flights import Flights
from axonfs.catalog.tree import Version
from axonfs.fetch.bandwidth import Bandwidth
from axonfs.fetch.download import Download
from axonfs.fetch.feed import Feed
from axonfs.fetch.judge import Judge
from axonfs.fetch.local import held_object
from axonfs.fetch.lookups import Lookups
from axonfs.fetch.network import Network
from axonfs.fetch.overflow import Overflow
from axonfs.fetch.package import Packages
from axonfs.fetch.readahead import Ahead
from axonfs.fetch.runner import Runner
from axonfs.fetch.watcher import UNWATCHED, Watcher
from axonfs.formats.manifest import ChunkRef, FileEntry
from axonfs.http_client import Bodies, Limits
from axonfs.ranges import Range
from axonfs.sources import Copies, HubCache
from axonfs.steps import Cause, Step
from axonfs.store import Store, StoredObject

_Key = tuple[str, int, ChunkRef | None, str | None, bool]

# Where hosts behind site caches begin. In step all of them would ask the same few caches at a time;
# but what they ask for at each place shares the source's line with what readers wait for: with 16
# hosts and 4 places the first byte of a cold model came after 21 s, with one after 12, and with 64
# after 43.
PLACES = 4


class Fetcher:
    """The feeds of all objects in use, and the streams that fill them.

    Args:
        streams: ranged GETs at a time of one origin, at the most; fewer where they are enough.
        bandwidth: the limit on bytes per second from all sources together; by default none.
        limits: timeouts, and the deadline in seconds without progress.
        landed: called in the trio thread after each landed chunk, and when an object is no
            longer in use (the evictor listens).
        began: called in the trio thread with objects that are in use from now on, and not whole.
        blobs: places on this machine that are looked into before anything is sent.
    """

    def __init__(
        self,
        store: Store,
        bodies: Bodies,
        nursery: trio.Nursery,
        *,
        streams: int = 16,
        bandwidth: Bandwidth | None = None,
        limits: Limits | None = None,
        offline: bool = False,
        landed: Callable[[], None] = lambda: None,
        began: Callable[[list[str]], None] = lambda digests: None,
        blobs: Copies | HubCache | None = None,
    ) -> None:
        self.store = store
        self.offline = offline
        self.overflow = Overflow()
        self._withdrawn: set[str] = set()
        self._landed = landed
        self._began = began
        self._feeds: dict[_Key, Feed] = {}
        self._ahead = Ahead()  # of feeds that are closed
        self._flights = Flights(nursery)
        self._lookups = Lookups(store, self._flights, blobs, offline=offline)
        self.bandwidth = bandwidth or Bandwidth()
        self._network = Network(bodies, limits or Limits(), streams, self.bandwidth)
        self.packages = Packages(self._network, store, self._flights, self._unpacked)
        self._runner = Runner(self._network, self.packages, nursery, landed)

    @contextmanager
    def watched(self, watcher: Watcher) -> Iterator[None]:
        """Tell `watcher` of each job until the block is left. There can be one at a time."""
        self._network.watcher = watcher
        try:
            yield
        finally:
            self._network.watcher = UNWATCHED

    def stop(self) -> None:
        """Have worker threads end within a moment."""
        self._network.closing = True

    async def open(self, version: Version, entry: FileEntry) -> Feed:
        """The feed of `entry`'s object; close it when the handle is closed."""
        feed = self.feed(entry)
        if feed is None:
            with Step(Cause.DISK, "opening the file in the cache"):
                stored = await trio.to_thread.run_sync(held_object, self.store, entry)
            feed = self.feed(entry)  # another task may have opened it meanwhile
            if feed is None:
                feed = self._feeds[_key(entry)] = self._new_feed(entry, stored)
                if not feed.complete:
                    self._began([entry.digest])
            else:
                stored.release()
        feed.opened(version)
        return feed

    def _new_feed(self, entry: FileEntry, stored: StoredObject) -> Feed:
        deadline = self._network.limits.deadline
        download = Download(entry, stored, self._lookups, self.overflow, deadline, self._forget)
        judge = Judge(download, self._flights, self._withdrawn.add)
        return Feed(download, judge, self._runner, self.packages, offline=self.offline)

    def feed(self, entry: FileEntry) -> Feed | None:
        """The feed of an object in use."""
        return self._feeds.get(_key(entry))

    def feeds(self) -> list[Feed]:
        """Every feed in use."""
        return list(self._feeds.values())

    def _forget(self, download: Download) -> None:
        key = _key(download.entry)
        if key in self._feeds and self._feeds[key].download is download:
            feed = self._feeds.pop(key)
            self._ahead = self._ahead.with_closed(feed.readahead, whole=feed.complete)
            self._landed()

    def withdrew(self, digest: str) -> bool:
        """Whether bytes of an object proved wrong that readers may have had."""
        return digest in self._withdrawn

    def begin_at(self, version: Version) -> float:
        """Where in a plan of its files this host begins, as a part of it: at one of PLACES, so that
        hosts that start together do not all wait for the same slices of their site caches; without
        caches at its beginning."""
        return random.randrange(PLACES) / PLACES if self._network.site_of(version) else 0.0

    @property
    def busy(self) -> bool:
        """Whether jobs are under way or wait."""
        return self._network.busy

    def statistics(self) -> dict[str, Any]:
        """Figures for `status`."""
        ahead = self._ahead
        for feed in self.feeds():
            ahead = ahead.with_open(feed.readahead)
        return {**self._network.statistics(), "readahead": asdict(ahead)}

    def _unpacked(self, entry: FileEntry) -> None:
        """The object of `entry` is complete and right: wake its readers."""
        if feed := self.feed(entry):
            feed.download.arrived(Range(0, feed.object.count))
        self._landed()

    async def punch(self, goal: int) -> list[str]:
        """Have objects in use give up about `goal` bytes; returns the digests that did."""
        pinned = await trio.to_thread.run_sync(self.store.pinned_digests)
        shrunk = []
        for feed in self.feeds():
            if goal <= 0:
                break
            if self.feed(feed.entry) is not feed or feed.entry.digest in pinned:
                continue  # its last reader left while another feed gave up chunks, or it is pinned
            if freed := await feed.punch(goal):
                goal -= freed
                shrunk.append(feed.entry.digest)
        return shrunk


def _key(entry: FileEntry) -> _Key:
    """Entries that agree about everything but the path share a feed."""
    return entry.digest, entry.size, entry.chunks, entry.git, entry.named
