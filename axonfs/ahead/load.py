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
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import trio

from axonfs.ahead.bulk import Bulk
from axonfs.ahead.plan import CONFIG, Plan, plan, starts_load
from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, fault_of
from axonfs.fetch import Feed, Fetcher
from axonfs.formats.manifest import FileEntry
from axonfs.store import Store
from axonfs.units import size

log = logging.getLogger(__name__)


class Load:
    """The prefetch of one version for a load that began by opening one of `triggers`.

    Args:
        width: the number of parts in flight.
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
        self.digests: set[str] = set()
        self.triggers: list[str] = []
        self._before = before.triggers if before else []
        self._fetcher = fetcher
        self._everything = everything
        self._width = width
        self._room = room
        self._scope = trio.CancelScope()
        self._missing: list[FileEntry] = []
        self._size = 0
        self._trigger = self._path = ""
        self._bulk = self._bulk_of({})

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.ended == math.inf

    @property
    def left(self) -> int:
        """Bytes that are still missing."""
        return self._size - self._bulk.local

    def foresee(self, path: str) -> None:
        """Add a trigger: the program also opened the file at `path`.

        Every loader reads config.json, so it adds nothing to a trigger that tells the format.
        """
        folder, _, name = path.rpartition("/")
        if name == CONFIG:
            known = filter(starts_load, [*self._before, *self.triggers])
            path = next((one for one in known if one.rpartition("/")[0] == folder), path)
        if path not in self.triggers:
            self.triggers.append(path)

    def stop(self) -> None:
        """End the prefetch, since the cache evicts what it fetched."""
        log.info("%s: prefetch stopped: the cache evicts what it fetched", self.version.spec)
        self.state = "no room"
        self._scope.cancel()

    def statistics(self) -> dict[str, Any]:
        """The progress for `status`, in bytes."""
        return {
            "spec": str(self.version.spec),
            "trigger": self._trigger or self.triggers[0],
            "state": self.state,
            "files": len(self.digests),
            "size": self._size,
            "local": self._size - self.left,
            "path": self._bulk.reached or self._path,
        }

    async def run(self) -> None:
        """Fetch the files for each trigger; raises only a cancellation from outside."""
        try:
            with self._scope:
                self.state = "running"
                for trigger in self.triggers:  # more may be added meanwhile
                    self._trigger = trigger
                    await self._follow(trigger)
                if self.state == "running":
                    self.state = "done"
        except Exception as exc:
            self.state = "failed"
            if (known := fault_of(exc)) is None:
                log.exception("a bug in prefetch; please report it")
            else:
                log.info("%s: prefetch stopped: %s", self.version.spec, known)
        finally:
            self._bulk.close()
            self.ended = trio.current_time()

    async def _follow(self, trigger: str) -> None:
        chosen = await self._plan(trigger, {})
        await self._survey(chosen)
        if chosen.guides and self._missing:
            first = set(chosen.small)
            await self._fetch([entry for entry in self._missing if entry in first])
            await self._survey(await self._plan(trigger, await self._texts(chosen.guides)))
        if self._missing and self.state != "no room":
            log.info("%s: %s was opened, fetching %s", self.version.spec, trigger, size(self.left))
            await self._fetch(self._missing)

    async def _plan(self, trigger: str, texts: dict[str, str]) -> Plan:
        files = self.version.manifest.files
        make = partial(plan, files, trigger, everything=self._everything, texts=texts)
        return await trio.to_thread.run_sync(make)

    async def _survey(self, chosen: Plan) -> None:
        entries = list({entry.digest: entry for entry in chosen.small + chosen.weights}.values())
        local = await trio.to_thread.run_sync(_local, self._fetcher.store, entries)
        self._missing = [entry for entry in entries if local[entry.digest] < entry.size]
        self._size = sum(entry.size for entry in entries)
        self.digests = set(local)
        self._path = self._bulk.reached or self._path
        self._bulk = self._bulk_of(local)

    def _bulk_of(self, local: Mapping[str, int]) -> Bulk:
        return Bulk(
            self._fetcher, self.version, local, parts=Feed.absent_parts, failed=self._go_without
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

    async def _fetch(self, missing: Sequence[FileEntry]) -> None:
        """Fetch the entries in their order, as far as they fit."""
        wanted = self._bulk.missing(missing)
        room = await self._room(self)
        if room < wanted:
            self.state = "no room"
            log.info(
                "%s: prefetch fetches only the first %s of %s: more does not fit into the cache",
                self.version.spec,
                size(max(room, 0)),
                size(wanted),
            )
        await self._bulk.fetch(missing, width=self._width, room=room)

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
