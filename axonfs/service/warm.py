"""warm: each slice of a version is asked once of the site cache that has it, so that it has it.

What comes is compared and dropped: it fills the caches, and not this host. A file with a chunk
table is asked for slice by slice, several at a time; one without, or a package, is compared as a
whole, so its slices come one after another. Trio thread; the bytes move in worker threads.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from axonfs.errors import (
    AxonError,
    CorruptError,
    UnavailableError,
    UsageError,
    VanishedError,
    naming,
)
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry
from axonfs.http_client import (
    Cache,
    Location,
    SiteCaches,
    slice_chunks,
)
from axonfs.names import printable
from axonfs.service.context import Context, Event, resolve, texts_of, wanted_of
from axonfs.service.selection import Selection, select
from axonfs.sources import Source
from axonfs.sources.near import read_near

PROGRESS_PAUSE = 0.1


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

    def slices(self) -> list[_Slice]:
        """All of it."""
        size, stop = slice_chunks(self.chunk_size) * self.chunk_size, self.entry.size
        return [_Slice(self, at, min(at + size, stop)) for at in range(0, stop, size)]


@dataclass(frozen=True, slots=True)
class _Slice:
    """The bytes `[start, stop)` of a file, which one cache is asked for."""

    file: _File
    start: int
    stop: int


class _Warming:
    """The work for one version."""

    def __init__(self, context: Context, selection: Selection) -> None:
        self._context = context
        self._selection = selection
        self._version = selection.version
        self._site = _site(context, selection)
        self._before = {cache: cache.state.bytes for cache in self._site}
        self._bodies = context.engine.bodies
        self._left = False
        self._absent: FileEntry | None = None  # a file that is in the package alone

    async def run(self) -> Event:
        """Ask for every slice; what was done."""
        try:
            async with trio.open_nursery() as ticking:
                ticking.start_soon(self._tick)
                await self._ask_all()
                ticking.cancel_scope.cancel()
        finally:
            self._left = True
        await self._context.events.send(self._progress())
        states = {cache: cache.state for cache in self._site}
        return {
            "spec": str(self._version.spec),
            "files": len(self._selection.entries),
            "bytes": self._selection.size,
            "caches": {cache.name: self._came(cache) for cache in states},
            "set_aside": {
                cache.name: state.fault for cache, state in states.items() if state.fault
            },
        }

    def _came(self, cache: Cache) -> int:
        return cache.state.bytes - self._before.get(cache, 0)

    async def _ask_all(self) -> None:
        limiter = trio.CapacityLimiter(self._context.settings.streams)
        async with trio.open_nursery() as nursery:
            asked = set[str]()
            for entry in (one for one in self._selection.objects if one.size):
                file = await self._file(entry)
                if file.entry.digest in asked:  # a package that has several files
                    continue
                asked.add(file.entry.digest)
                for work in self._works(file):
                    await limiter.acquire_on_behalf_of(work)
                    nursery.start_soon(self._run, work, limiter)
        if self._absent is not None:
            assert self._version.source is not None
            work = partial(self._whole, self._package(self._version.source, self._absent))
            await trio.to_thread.run_sync(work)

    async def _file(self, entry: FileEntry) -> _File:
        source, base = self._version.source, self._version.base
        assert source is not None  # it has site caches
        with naming(spec=str(self._version.spec), path=entry.path):
            if entry.named:
                return self._package(source, entry)
            location = source.locate(base, self._version.holding(entry))
            if not self._site.covers(location.url):
                raise self._site.elsewhere(location.url)
            return _File(entry, location, await source.table(base, entry))

    def _package(self, source: Source, entry: FileEntry) -> _File:
        """The package that a file is nowhere but in, as a file."""
        part = self._version.part(entry)
        package = part.manifest.package if part else None
        located = source.locate_package(self._version.base, package) if package else []
        if package is None or not located or not self._site.covers(located[0].url):
            what = "it is in a package on another server, which no site cache has"
            raise UsageError(what, hint="leave it out: --exclude")
        name = package.digest or located[0].url
        whole = FileEntry(entry.path, package.size, name, unverified=package.digest is None)
        return _File(whole, located[0], None)

    def _works(self, file: _File) -> Iterator[Callable[[], None]]:
        """The parts of a file that may be asked for at the same time."""
        if file.table is None:
            yield partial(self._whole, file)
            return
        for part in file.slices():
            yield partial(self._slice, part, partial(_compare, file.table, file.entry.path))

    async def _run(self, work: Callable[[], None], limiter: trio.CapacityLimiter) -> None:
        try:
            await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))
        except VanishedError:
            if self._version.manifest.package is None:
                raise
            self._absent = self._selection.objects[0]
        finally:
            limiter.release_on_behalf_of(work)

    def _whole(self, file: _File) -> None:
        """All slices of a file without a chunk table, one after another."""
        whole = hashlib.sha256()
        for part in file.slices():
            self._slice(part, lambda offset, piece: whole.update(piece))
        expected = file.entry.proof.get("sha256")
        if expected and whole.hexdigest() != expected and not self._left:
            what = "what its site caches sent does not match its sha256"
            raise CorruptError(what, spec=str(self._version.spec), path=file.entry.path)

    def _slice(self, part: _Slice, compare: Callable[[int, memoryview], object]) -> None:
        """Read one slice through the first of its caches that has it. In a worker thread."""
        file, done, attempt = part.file, part.start, 0

        def take(offset: int, piece: memoryview) -> None:
            nonlocal done
            compare(offset, piece)
            done = offset + len(piece)

        with naming(spec=str(self._version.spec), path=file.entry.path):
            while done < part.stop and not self._left:
                try:
                    read_near(
                        self._bodies,
                        file.location,
                        file.entry.proof.get("sha256"),
                        done,
                        part.stop,
                        file.entry.size,
                        take,
                        unit=file.chunk_size,
                        cancelled=lambda: self._left,
                        itself=False,
                        name=file.entry.digest,
                    )
                except AxonError as exc:
                    attempt += 1
                    if not exc.transient or attempt >= self._bodies.limits.attempts:
                        if isinstance(exc, UnavailableError):
                            exc.hint = "check the caches"  # the source is not asked in any case
                        raise
                    time.sleep(self._bodies.limits.pause(attempt, exc.retry_after))

    async def _tick(self) -> None:
        while True:
            await self._context.events.send(self._progress())
            await trio.sleep(PROGRESS_PAUSE)

    def _progress(self) -> dict[str, Any]:
        came, size = sum(map(self._came, self._site)), self._selection.size
        return {
            "event": "progress",
            "spec": str(self._version.spec),
            "path": "",
            "done": min(came, size),
            "total": size,
        }


def _site(context: Context, selection: Selection) -> SiteCaches:
    """
    Raises:
        UsageError: the version's source has no caches.
    """
    source = selection.version.source
    found = context.engine.bodies.caches.of(source.url) if source else None
    if found is None:
        what, spec = "its source has no site caches", str(selection.version.spec)
        hint = "name them: --via CACHE_URL, or axonfs registry add URL --via CACHE_URL"
        raise UsageError(what, spec=spec, source=source.name if source else None, hint=hint)
    return found


def _compare(table: ChunkTable, path: str, offset: int, piece: memoryview) -> None:
    unit = table.chunk_size
    for start in range(0, len(piece), unit):
        chunk = (offset + start) // unit
        if not table.right(chunk, piece[start : start + unit]):
            raise CorruptError(f"chunk {chunk} of '{printable(path)}' has the wrong digest")
