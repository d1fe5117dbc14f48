"""Which opens begin a load, and the loads that were foreseen.

Sits above load and evictor, below vfs and mount. A loader opens `config.json` long before the first
weight (vLLM: 20 s), and so does a walk through the versions, which reads no weight at all; walks.py
tells them apart. A program that streams a shard is loading, config.json or not. What a load fetches
is plan.py's, how it does is load.py's.
Trio thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import trio

from axonfs.ahead.load import Load
from axonfs.ahead.plan import following, starts_load
from axonfs.ahead.walks import Opens
from axonfs.catalog.tree import Version
from axonfs.fetch import Fetcher
from axonfs.names import Spec
from axonfs.sources import Source
from axonfs.upkeep.evictor import Evictor

log = logging.getLogger(__name__)

# Of each source, so that loads of a silent one delay no other.
RUNNING_LOADS = 4
SHOWN_LOADS = 8
# How long what was fetched ahead is kept from other prefetches: its reader may yet come.
SETTLED_SECONDS = 600.0


class Prefetcher:
    """Takes opens, tells loads from walks, and runs the loads.

    Args:
        mode: `auto` fetches what the load reads, `all` the whole version, `off` nothing.
        width: parts that one load has asked for at a time.
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
        self._loads: dict[Spec, Load] = {}

    def opened(self, version: Version, path: str, program: int = 0) -> None:
        """A program opened a file the way loaders do; no checkpoint, and errors stay here.

        Args:
            program: the id of its thread, 0 where it is not known.
        """
        if self._mode == "off" or self._fetcher.offline or version.source is None:
            return
        if not starts_load(path):
            self._go_on(version, path)
            return
        if not self._opens:
            self._nursery.start_soon(self._judge)
        self._opens.add(version, path, program, trio.current_time())

    def _go_on(self, version: Version, path: str) -> None:
        """If this is the shard that was fetched since the one before it was streamed: the next."""
        load, files = self._loads.get(version.spec), version.manifest.files
        before = load.triggers[-1] if load else path
        shard = following(files, before)
        if shard and shard.path == path and not starts_load(before):
            self.streamed(version, path)

    def streamed(self, version: Version, path: str) -> None:
        """A reader streams a file to its end: it will go on with the next shard, if there is one.

        No checkpoint, and errors stay here.
        """
        if self._mode == "off" or self._fetcher.offline or version.source is None:
            return
        shard, load = following(version.manifest.files, path), self._loads.get(version.spec)
        if shard and not (load and load.active and shard.digest in load.digests):
            self._begin(version, [path])

    def evicted(self, digests: Iterable[str]) -> None:
        """Objects lost local bytes: a load that loses its own has nothing to gain."""
        for load in self._loads.values():
            if load.active and not load.digests.isdisjoint(digests):
                load.stop()

    def statistics(self) -> dict[str, Any]:
        """The mode, and the loads under way and lately ended, for `status`."""
        loads = [load.statistics() for load in self._loads.values()]
        return {"mode": self._mode, "loads": loads}

    async def _judge(self) -> None:
        """Begin the loads among what was opened, until all of it is judged."""
        while self._opens:
            if (due := self._opens.due()) > trio.current_time():
                await trio.sleep_until(due)
                continue  # by now it may be due later
            for opened in self._opens.judge(trio.current_time()):
                self._begin(opened.version, opened.paths)

    def _begin(self, version: Version, paths: list[str]) -> None:
        load = self._loads.get(version.spec)
        if load is None or not load.active:
            self._loads.pop(version.spec, None)  # the newest is the last
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
            load.foresee(path)
        self._forget()

    def _forget(self) -> None:
        ended = [spec for spec, load in self._loads.items() if not load.active]
        for spec in ended[: max(len(self._loads) - SHOWN_LOADS, 0)]:
            del self._loads[spec]

    async def _run(self, load: Load, source: Source | None) -> None:
        async with self._slots.setdefault(source, trio.CapacityLimiter(RUNNING_LOADS)):
            await load.run()

    async def _room(self, load: Load) -> int:
        """Bytes that `load` may fetch and evict nothing that is open, pinned or fetched ahead."""
        since = trio.current_time() - SETTLED_SECONDS
        recent = [other for other in self._loads.values() if other.ended > since]
        keep = {feed.entry.digest for feed in self._fetcher.feeds()}
        keep = keep.union(load.digests, *(other.digests for other in recent))
        promised = sum(other.left for other in recent if other.active and other is not load)
        return await self._evictor.room(keep) - promised
