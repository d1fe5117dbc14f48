"""Recognises loads from opens and reads, and runs their prefetches.

Sits above load and evictor, below vfs. A loader opens `config.json` long before the first weight
(vLLM: 20 s). A walk through the versions opens it too, but reads no weights; walks.py distinguishes
the two. A program that streams a shard is loading in any case. One that opens weights after another
file of the version probably is, and so is one that reads weights here and there: for these, only
some bytes are fetched at a time. plan.py says what to fetch, and load.py fetches it. Trio thread
only.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import trio

from axonfs.ahead.load import Load
from axonfs.ahead.pairs import Pairs
from axonfs.ahead.plan import AHEAD, following, is_weights, reads_back, starts_load
from axonfs.ahead.walks import Opens
from axonfs.catalog.tree import Version
from axonfs.fetch import Fetcher
from axonfs.names import Spec
from axonfs.sources import Source
from axonfs.upkeep.evictor import Evictor

log = logging.getLogger(__name__)

# Per source, so that a silent source does not delay the loads of others.
RUNNING_LOADS = 4
SHOWN_LOADS = 8
# Seconds for which other prefetches do not evict the files of a finished prefetch: the program may
# not have read them yet.
SETTLED_SECONDS = 600.0
# Seconds after a prefetch that did not fit into the cache until reads at several places begin one.
NO_ROOM_SECONDS = 10.0


class Prefetcher:
    """Recognises loads among opens, and runs them.

    Args:
        mode: `auto` fetches the files that the load will read, `all` the whole version, `off` none.
        width: the number of parts that one load has in flight.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        evictor: Evictor,
        nursery: trio.Nursery,
        *,
        mode: str,
        width: int = 8,
    ) -> None:
        self._fetcher = fetcher
        self._evictor = evictor
        self._nursery = nursery
        self._mode = mode
        self._width = width
        self._slots: dict[Source | None, trio.CapacityLimiter] = {}
        self._opens = Opens()
        self._pairs = Pairs()
        self._loads: dict[Spec, Load] = {}
        self._ended = Counter[str]()  # loads, by how they ended

    def opened(self, version: Version, path: str, program: int = 0, *, whole: bool = False) -> None:
        """Note that a program opened a file in the way of a loader. No checkpoint; raises nothing.

        Args:
            program: the id of its thread, 0 if it is not known.
            whole: the file is local, so that its reads may not be seen.
        """
        if not self._may_fetch(version):
            return
        first = self._pairs.opened(version.spec, path, program, trio.current_time())
        if starts_load(path):
            if not self._opens:
                self._nursery.start_soon(self._judge)
            self._opens.add(version, path, program, trio.current_time())
        elif whole:
            self._go_on(version, path)
        elif first:
            self.scattered(version, first)

    def _may_fetch(self, version: Version) -> bool:
        online = not self._fetcher.offline and version.source is not None
        return self._mode != "off" and online

    def _go_on(self, version: Version, path: str) -> None:
        """If the open file is one of the shards that were prefetched last, prefetch the next."""
        load = self._loads.get(version.spec)
        if load and not starts_load(load.paths[-1]) and self._digest(version, path) in load.digests:
            self.streamed(version, path)

    def streamed(self, version: Version, path: str) -> None:
        """Note that a reader streams a file to its end, and prefetch the next shards, if any.

        No checkpoint; raises nothing.
        """
        if not self._may_fetch(version):
            return
        load, files = self._loads.get(version.spec), version.manifest.files
        back = reads_back(files, path, load.paths if load else ())
        digests = {shard.digest for shard in following(files, path, back=back)}
        if not (load and load.active and digests <= load.digests) and digests:
            self._begin(version, [path])

    def scattered(self, version: Version, path: str) -> None:
        """Note that programs read weights in an order of their own, and prefetch some of the file.

        To be called again as they go on. No checkpoint; raises nothing.
        """
        load = self._loads.get(version.spec)
        if not self._may_fetch(version) or not is_weights(path):
            return
        known = load and load.active and self._digest(version, path) in load.digests
        going_on = known and load and load.to_come > AHEAD // 2
        until = load.ended + NO_ROOM_SECONDS if load and load.state == "no room" else 0.0
        if not going_on and trio.current_time() >= until:
            self._begin(version, [path], AHEAD)

    @staticmethod
    def _digest(version: Version, path: str) -> str | None:
        entry = version.manifest.file(path)
        return entry.digest if entry else None

    def evicted(self, digests: Iterable[str]) -> None:
        """Note that objects lost local bytes, and stop the loads that fetched them."""
        for load in self._loads.values():
            if load.active and not load.digests.isdisjoint(digests):
                load.stop()

    def statistics(self) -> dict[str, Any]:
        """The mode, the running and recent loads, and how many ended in which way, for `status`."""
        loads = [load.statistics() for load in self._loads.values()]
        return {"mode": self._mode, "loads": loads, "ended": dict(self._ended)}

    async def _judge(self) -> None:
        """Start the loads among the opened versions, until all of them are judged."""
        while self._opens:
            if (due := self._opens.due()) > trio.current_time():
                await trio.sleep_until(due)
                continue  # new opens may have postponed it
            for opened in self._opens.judge(trio.current_time()):
                self._begin(opened.version, opened.paths)

    def _begin(self, version: Version, paths: list[str], most: float = math.inf) -> None:
        load = self._loads.get(version.spec)
        if load is None or not load.active:
            self._loads.pop(version.spec, None)  # keep the order by start
            load = self._loads[version.spec] = Load(
                version,
                self._fetcher,
                everything=self._mode == "all",
                width=self._width,
                room=self._room,
                before=load,
            )
            self._nursery.start_soon(self._run, load, version.source)
        for path in paths:
            load.foresee(path, most)
        self._forget()

    def _forget(self) -> None:
        ended = [spec for spec, load in self._loads.items() if not load.active]
        for spec in ended[: max(len(self._loads) - SHOWN_LOADS, 0)]:
            del self._loads[spec]

    async def _run(self, load: Load, source: Source | None) -> None:
        async with self._slots.setdefault(source, trio.CapacityLimiter(RUNNING_LOADS)):
            await load.run()
        self._ended[load.state] += 1

    async def _room(self, load: Load) -> int:
        """Bytes that `load` may fetch without evicting open, pinned or prefetched files."""
        since = trio.current_time() - SETTLED_SECONDS
        recent = [other for other in self._loads.values() if other.ended > since]
        keep = {feed.entry.digest for feed in self._fetcher.feeds()}
        keep = keep.union(load.digests, *(other.digests for other in recent))
        promised = sum(other.left for other in recent if other.active and other is not load)
        return await self._evictor.room(keep) - promised
