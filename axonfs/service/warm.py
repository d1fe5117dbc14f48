"""warm: each slice of a version is asked once of the site cache that has it, so that it has it.

What comes is compared and dropped: it fills the caches, and not this host. A file with a chunk
table is asked for slice by slice, several at a time; one without is compared as a whole, so its
slices come one after another. Trio thread; the bytes move in worker threads.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from axonfs.errors import AccessDeniedError, AxonError, CorruptError, UsageError, VanishedError, naming
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry
from axonfs.http_client import (
    Bodies,
    Cache,
    Location,
    SiteCaches,
    object_headers,
    slice_chunks,
    slice_key,
)
from axonfs.ranges import Range
from axonfs.service.context import Context, Event, resolve, texts_of, wanted_of
from axonfs.service.selection import Selection, select

PROGRESS_PAUSE = 0.1
TOO_MANY = 429


async def warm(context: Context, request: Event) -> Event:
    """Have the site caches of `specs` fetch the files that `include` and `exclude` leave.

    Raises:
        UsageError: a version's source has no site caches.
        AxonError: a slice cannot be had; the error names the file.
    """
    include, exclude = texts_of(request, "include"), texts_of(request, "exclude")
    done = []
    for wanted in wanted_of(request):
        version = await context.tree.version(await resolve(context, wanted))
        selection = select(version, include, exclude)
        done.append(await _Warming(context, selection).run())
    return {"versions": done}


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the version, and where its source has it."""

    entry: FileEntry
    location: Location
    table: ChunkTable | None

    @property
    def chunk_size(self) -> int:
        return self.table.chunk_size if self.table else DEFAULT_CHUNK_SIZE

    def slices(self) -> Iterator[Range]:
        """The slices, in bytes."""
        size = slice_chunks(self.chunk_size) * self.chunk_size
        for start in range(0, self.entry.size, size):
            yield Range(start, min(start + size, self.entry.size))


class _Warming:
    """The work for one version."""

    def __init__(self, context: Context, selection: Selection) -> None:
        self._context = context
        self._selection = selection
        self._bodies = context.engine.bodies
        self._version = selection.version
        self._site = _site(context, selection)
        self._bytes: Counter[str] = Counter()  # by the name of a cache
        self._left = False

    async def run(self) -> Event:
        """Ask for every slice; what it has done."""
        entries = [entry for entry in self._selection.objects if entry.size]
        try:
            async with trio.open_nursery() as ticking:
                ticking.start_soon(self._tick)
                await self._ask_all(entries)
                ticking.cancel_scope.cancel()
        finally:
            self._left = True
        await self._context.events.send(self._progress())
        return self._result(entries)

    def _result(self, entries: Sequence[FileEntry]) -> Event:
        states = [cache.state for cache in self._site]
        return {
            "spec": str(self._version.spec),
            "files": len(self._selection.entries),
            "bytes": sum(entry.size for entry in entries),
            "caches": {cache.name: self._bytes[cache.name] for cache in self._site},
            "set_aside": {
                cache.name: state.fault
                for cache, state in zip(self._site, states, strict=True)
                if state.fault
            },
        }

    async def _ask_all(self, entries: Sequence[FileEntry]) -> None:
        limiter = trio.CapacityLimiter(self._context.settings.streams)
        async with trio.open_nursery() as nursery:
            for entry in entries:
                file = await self._file(entry)
                for work in self._works(file):
                    await limiter.acquire_on_behalf_of(work)
                    nursery.start_soon(self._run, work, limiter)

    async def _file(self, entry: FileEntry) -> _File:
        source, base = self._version.source, self._version.base
        assert source is not None  # it has site caches
        with naming(spec=str(self._version.spec), path=entry.path):
            if entry.named or entry.packed:
                what = "it is in a package on another server, which no site cache has"
                raise UsageError(what, hint="leave it out: --exclude")
            location = source.locate(base, self._version.holding(entry))
            if not self._site.covers(location.url):
                raise self._site.elsewhere(location.url)
            proof = entry.proof.get("sha256")
            headers = {**location.headers, **(object_headers(proof) if proof else {})}
            located = replace(location, headers=headers, signed=False, ranged=True)
            return _File(entry, located, await source.table(base, entry))

    def _works(self, file: _File) -> Iterator[Callable[[], None]]:
        """The parts of a file that may be asked for at the same time."""
        if file.table is None:
            yield partial(self._whole, file)
            return
        for part in file.slices():
            yield partial(self._slice, file, part, partial(_compare, file.table))

    async def _run(self, work: Callable[[], None], limiter: trio.CapacityLimiter) -> None:
        try:
            await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))
        finally:
            limiter.release_on_behalf_of(work)

    def _whole(self, file: _File) -> None:
        """All slices of a file without a chunk table, one after another."""
        whole = hashlib.sha256()
        for part in file.slices():
            self._slice(file, part, lambda offset, piece: whole.update(piece))
        expected = file.entry.proof.get("sha256")
        if expected and whole.hexdigest() != expected and not self._left:
            what = "what the site caches sent does not match its sha256"
            raise CorruptError(what, spec=str(self._version.spec), path=file.entry.path)

    def _slice(
        self, file: _File, part: Range, compare: Callable[[int, memoryview], object]
    ) -> None:
        """Read one slice through the first of its caches that has it. In a worker thread."""
        done, number = part.start, part.start // (slice_chunks(file.chunk_size) * file.chunk_size)

        def take(cache: Cache, offset: int, piece: memoryview) -> None:
            nonlocal done
            compare(offset, piece)
            done = offset + len(piece)
            self._bytes[cache.name] += len(piece)

        asking = _Asking(self._site, slice_key(file.entry.digest, number), self._bodies)
        with naming(spec=str(self._version.spec), path=file.entry.path):
            while done < part.stop and not self._left:
                asking.once(
                    lambda cache: self._read(file, Range(done, part.stop), cache, take)
                )

    def _read(
        self,
        file: _File,
        part: Range,
        cache: Cache,
        take: Callable[[Cache, int, memoryview], None],
    ) -> None:
        self._bodies.read(
            replace(file.location, cache=cache),
            part.start,
            part.stop,
            file.entry.size,
            partial(take, cache),
            unit=file.chunk_size,
            cancelled=lambda: self._left,
        )

    async def _tick(self) -> None:
        while True:
            await self._context.events.send(self._progress())
            await trio.sleep(PROGRESS_PAUSE)

    def _progress(self) -> dict[str, Any]:
        done = sum(self._bytes.values())
        return {
            "event": "progress",
            "spec": str(self._version.spec),
            "path": "",
            "done": min(done, self._selection.size),
            "total": self._selection.size,
            "fetched": done,
        }


def _site(context: Context, selection: Selection) -> SiteCaches:
    """
    Raises:
        UsageError: the version's source has no caches.
    """
    source = selection.version.source
    found = context.engine.bodies.caches.of(source.url) if source else None
    if found is None:
        what = "its source has no site caches"
        hint = "name them: --via CACHE_URL, or axonfs registry add URL --via CACHE_URL"
        raise UsageError(
            what, spec=str(selection.version.spec), source=source.name if source else None, hint=hint
        )
    return found


def _compare(table: ChunkTable, offset: int, piece: memoryview) -> None:
    unit = table.chunk_size
    for start in range(0, len(piece), unit):
        chunk = (offset + start) // unit
        if not table.right(chunk, piece[start : start + unit]):
            raise CorruptError(f"chunk {chunk} has the wrong digest")


class _Asking:
    """The attempts at one slice: the caches of its order in turn, and again after a pause."""

    def __init__(self, site: SiteCaches, key: str, bodies: Bodies) -> None:
        self._site = site
        self._key = key
        self._limits = bodies.limits
        self._tried: set[Cache] = set()
        self._rounds = 0
        self._last: AxonError | None = None

    def once(self, read: Callable[[Cache], None]) -> None:
        """
        Raises:
            AxonError: the caches have been asked often enough, or what they say is final.
        """
        cache = self._site.choose(self._key, self._tried)
        if cache is None:
            self._again(None)
            return
        try:
            read(cache)
            cache.answered()
        except AccessDeniedError:
            raise  # the source's answer, which the cache passes on
        except AxonError as exc:
            named = exc.located(source=cache.name)
            self._last = named
            if exc.status == TOO_MANY:
                self._again(exc.retry_after)
                return
            self._tried.add(cache)
            if not isinstance(exc, VanishedError):
                cache.failed(exc)

    def _again(self, retry_after: float | None) -> None:
        self._rounds += 1
        if self._rounds >= self._limits.attempts:
            raise self._last or self._site.none_left(self._site.source)
        self._tried.clear()
        time.sleep(self._limits.pause(self._rounds, retry_after))
