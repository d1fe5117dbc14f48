"""The prefetch of one load: fetches the files that a program will read before it reads them.

Sits above fetch, below prefetcher, which starts it. All readers have priority over it, and it
fetches only what fits into the cache beside open, pinned and prefetched files. It ends early if the
cache evicts what it fetched. No task waits for it, so its errors go to the log, and an error of one
file does not affect the others.

Trio thread only; plans are made and the index is scanned in worker threads. Memory holds the plan's
entries and counters, whatever the size of the files.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from axonfs.ahead.bulk import Bulk, turned
from axonfs.ahead.plan import CONFIG, Plan, plan, reads_back, starts_load
from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, fault_of
from axonfs.fetch import Feed, Fetcher
from axonfs.formats.manifest import FileEntry
from axonfs.store import Store
from axonfs.units import size

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trigger:
    """An open or a read that begins a stage.

    `most` is the most bytes to fetch; `back` means that the shards before it are read next.
    """

    path: str
    most: float = math.inf
    back: bool = False


@dataclass(slots=True, eq=False)
class _Stage:
    """The files of one trigger; `missing` are those that were not local when it began."""

    trigger: str
    entries: list[FileEntry]
    missing: list[FileEntry]
    bulk: Bulk
    most: float  # bytes to fetch
    running: bool = True

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def left(self) -> int:
        """Bytes that are still missing."""
        return self.size - self.bulk.local

    @property
    def to_come(self) -> float:
        """Bytes that it will fetch; infinite if it leaves none."""
        if not self.running:
            return 0
        more = max(self.most - self.bulk.fetched, 0)
        return math.inf if self.left <= more else more


class Load:
    """The prefetch of one version for a load that began by opening one of `triggers`.

    Each trigger is a stage. A stage begins when the last request of the one before it is in flight,
    so the line is not idle between them.

    Args:
        width: the number of parts that a stage has in flight.
        room: returns how many bytes may be fetched.
        before: an earlier load of the same version.
    """

    def __init__(
        self,
        version: Version,
        fetcher: Fetcher,
        *,
        everything: bool,
        width: int,
        room: Callable[[Load], Awaitable[int]],
        before: Load | None,
    ) -> None:
        self.version = version
        self.state = "waiting"
        self.ended = math.inf  # when, in trio's time
        self.triggers: list[Trigger] = []
        self._before = before.triggers if before else []
        self._fetcher = fetcher
        self._everything = everything
        self._width = width
        self._room = room
        self._scope = trio.CancelScope()
        self._changed = trio.Event()  # a new trigger, or a stage that ended
        self._begun = 0  # triggers that have a stage
        self._stages: list[_Stage] = []  # those that run, and the last one
        self._path = ""

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.ended == math.inf

    @property
    def digests(self) -> set[str]:
        """The objects that it fetches, or fetched last."""
        return {entry.digest for stage in self._stages for entry in stage.entries}

    @property
    def left(self) -> int:
        """Bytes that are still missing."""
        return sum(stage.left for stage in self._stages)

    @property
    def to_come(self) -> float:
        """Bytes that it will fetch; infinite if that is not known, or it leaves none to guess."""
        if self._begun < len(self.triggers):
            return math.inf
        return sum(stage.to_come for stage in self._stages)

    @property
    def paths(self) -> list[str]:
        """The files that programs opened or read, of an earlier load too."""
        return [one.path for one in (*self._before, *self.triggers)]

    def foresee(self, path: str, most: float = math.inf) -> None:
        """Add a trigger: the program also opened or reads the file at `path`.

        Every loader reads config.json, so it adds nothing to a trigger that tells the format. A
        trigger with `most` bytes may come again, when most of them were fetched.
        """
        folder, _, name = path.rpartition("/")
        if name == CONFIG:
            known = filter(starts_load, self.paths)
            path = next((one for one in known if one.rpartition("/")[0] == folder), path)
        if most < math.inf or all((path, most) != (one.path, one.most) for one in self.triggers):
            back = reads_back(self.version.manifest.files, path, self.paths)
            self.triggers.append(Trigger(path, most, back))
            self._changed.set()

    def stop(self) -> None:
        """End the prefetch, since the cache evicts what it fetched."""
        log.info("%s: prefetch stopped: the cache evicts what it fetched", self.version.spec)
        self.state = "no room"
        self._scope.cancel()

    def statistics(self) -> dict[str, Any]:
        """The progress of the last stage for `status`, in bytes."""
        stage = self._stages[-1] if self._stages else None
        return {
            "spec": str(self.version.spec),
            "trigger": stage.trigger if stage else self.triggers[0].path,
            "state": self.state,
            "files": len(stage.entries) if stage else 0,
            "size": stage.size if stage else 0,
            "local": stage.size - stage.left if stage else 0,
            "path": (stage and stage.bulk.reached) or self._path,
        }

    async def run(self) -> None:
        """Fetch the files for each trigger; raises only a cancellation from outside."""
        try:
            with self._scope:
                self.state = "running"
                async with trio.open_nursery() as nursery:
                    while await self._another():
                        await nursery.start(self._follow, self.triggers[self._begun])
                if self.state == "running":
                    self.state = "done"
        except Exception as exc:
            self.state = "failed"
            if (known := fault_of(exc)) is None:
                log.exception("a bug in prefetch; please report it")
            else:
                log.info("%s: prefetch stopped: %s", self.version.spec, known)
        finally:
            self.ended = trio.current_time()

    async def _another(self) -> bool:
        """Wait for a trigger that has no stage; False, and ended, once no stage runs."""
        while self._begun == len(self.triggers) and any(stage.running for stage in self._stages):
            self._changed = trio.Event()
            await self._changed.wait()
        if self._begun < len(self.triggers):
            return True
        self.ended = trio.current_time()  # no checkpoint since then: no trigger can be lost
        return False

    async def _follow(self, trigger: Trigger, *, task_status: trio.TaskStatus[None]) -> None:
        """Fetch the files of one trigger; started when the last request is in flight."""
        path, chosen = trigger.path, await self._plan(trigger, {})
        if chosen.guides:
            async with self._stage(trigger, chosen) as stage:
                first = set(chosen.small)
                await self._fetch(stage, [entry for entry in stage.missing if entry in first])
            chosen = await self._plan(trigger, await self._texts(chosen.guides))
        if starts_load(path):  # not one that streams a shard, behind which the next ones follow
            begin = self._fetcher.begin_at(self.version)
            chosen = replace(chosen, weights=tuple(turned(chosen.weights, begin)))
        else:
            begin = 0.0
        async with self._stage(trigger, chosen, begin) as stage:
            self._begun += 1
            if stage.missing and self.state != "no room":
                what = self.version.spec, path, size(int(min(stage.left, trigger.most)))
                log.info("%s: %s was opened, fetching %s", *what)
                await self._fetch(stage, stage.missing, trigger.most, task_status)
            else:
                task_status.started()

    async def _plan(self, trigger: Trigger, texts: dict[str, str]) -> Plan:
        make = partial(
            plan,
            self.version.manifest.files,
            trigger.path,
            everything=self._everything,
            texts=texts,
            back=trigger.back,
        )
        return await trio.to_thread.run_sync(make)

    @asynccontextmanager
    async def _stage(
        self, trigger: Trigger, chosen: Plan, begin: float = 0.0
    ) -> AsyncIterator[_Stage]:
        entries = list({entry.digest: entry for entry in chosen.small + chosen.weights}.values())
        local = await trio.to_thread.run_sync(_local, self._fetcher.store, entries)
        missing = [entry for entry in entries if local[entry.digest] < entry.size]
        stage = _Stage(trigger.path, entries, missing, self._bulk_of(local, begin), trigger.most)
        self._keep([*self._stages, stage])
        try:
            yield stage
        finally:
            stage.bulk.close()
            stage.running = False
            self._path = stage.bulk.reached or self._path
            self._keep(self._stages)
            self._changed.set()

    def _keep(self, stages: list[_Stage]) -> None:
        self._stages = [stage for stage in stages if stage.running or stage is stages[-1]]

    def _bulk_of(self, local: Mapping[str, int], begin: float) -> Bulk:
        return Bulk(
            self._fetcher,
            self.version,
            local,
            parts=Feed.absent_parts,
            failed=self._go_without,
            begin=begin,
        )

    async def _texts(self, guides: Iterable[FileEntry]) -> dict[str, str]:
        """The texts of the guides that are local."""
        texts = {}
        for entry in guides:
            with closing(await self._fetcher.open(self.version, entry)) as feed:
                if feed.whole:
                    raw = await trio.to_thread.run_sync(_content, feed)
                    texts[entry.path] = raw.decode(errors="replace")
        return texts

    async def _fetch(
        self,
        stage: _Stage,
        missing: Sequence[FileEntry],
        most: float = math.inf,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Fetch the entries in their order, at most `most` bytes, as far as they fit."""
        wanted = min(stage.bulk.missing(missing), most)
        room = await self._room(self)
        if room < wanted:
            self.state = "no room"
            log.info(
                "%s: prefetch fetches only the first %s of %s: more does not fit into the cache",
                self.version.spec,
                size(max(room, 0)),
                size(int(wanted)),
            )
        await stage.bulk.fetch(
            missing, width=self._width, room=min(room, most), task_status=task_status
        )

    def _go_without(self, entry: FileEntry, exc: AxonError | OSError) -> None:
        self.state = "incomplete"
        if isinstance(exc, AxonError):
            exc = exc.located(spec=str(self.version.spec), path=entry.path)
        log.info("prefetch skips a file: %s", exc)


def _local(store: Store, entries: Iterable[FileEntry]) -> dict[str, int]:
    """The number of local bytes of each object, by digest; blocks.

    A quarantined object counts as local, so that it is not fetched. Local bytes count as used now,
    so that they are not evicted before the load reads them.
    """
    found = {}
    for entry in entries:
        stored = store.object(entry)
        if stored.present_bytes:
            stored.touch()
        found[entry.digest] = entry.size if stored.quarantined is not None else stored.present_bytes
    return found


def _content(feed: Feed) -> bytes:
    return os.pread(feed.object.opened(), feed.entry.size, 0)
