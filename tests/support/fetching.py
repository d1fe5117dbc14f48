"""The fetch path by hand, for tests: store, tree and fetcher over real sources, little patience.

As engine.py puts them together, except for the limits, and without an evictor: tests say when
bytes are given up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import trio
import yaml

from axonfs.catalog.tree import Tree
from axonfs.fetch import Bandwidth, Feed, Fetcher
from axonfs.http_client import Bodies, Caches, Documents, Limits, Routes, SiteCaches, Trust
from axonfs.names import parse_spec
from axonfs.ranges import Range, chunk_span
from axonfs.sources import Hub, HubCache, RegistrySource
from axonfs.store import Store
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import SPEC

CHUNK = 1 << 16
FAST = Limits(
    connect=2, first_byte=0.3, stall=0.3, deadline=0.9, backoff_min=0.01, backoff_max=0.05
)
HEAD_START = 0.2


@dataclass
class Rig:
    """The parts, and how a test reads through them."""

    store: Store
    tree: Tree
    fetcher: Fetcher
    nursery: trio.Nursery

    async def open(self, path: str = "model.safetensors", spec: str = SPEC) -> Feed:
        """The feed of a file, as a handle has it; the caller closes it."""
        version = await self.tree.version(parse_spec(spec))
        entry = version.manifest.file(path)
        assert entry is not None
        return await self.fetcher.open(version, entry)

    async def read(self, feed: Feed, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes `[start, stop)` of a feed that gives up none meanwhile."""
        size = (feed.entry.size if stop is None else stop) - start
        await feed.need(chunk_span(start, size, feed.object.chunk_size))
        return os.pread(feed.object.opened(), size, start)

    async def content(self, path: str, spec: str = SPEC) -> bytes:
        """All bytes of a file, as a reader of the mount gets them."""
        feed = await self.open(path, spec)
        try:
            await feed.prepare()
            return await self.read(feed)
        finally:
            feed.close()

    def without_requests(self) -> bool:
        """Whether nothing is under way or waits."""
        figures = self.fetcher.statistics()
        return not (figures["in_flight"] or figures["queued"])

    def idle(self) -> bool:
        """Whether nothing is under way and nothing is held."""
        return self.without_requests() and not self.fetcher.feeds()


@asynccontextmanager
async def rig(
    cache: Path,
    *urls: str,
    limits: Limits = FAST,
    streams: int = 8,
    bandwidth: int = 0,
    trust: Trust | None = None,
    offline: bool = False,
    boot: str | None = None,
    hubs: Callable[[Documents, Store], dict[str, Hub]] = lambda documents, store: {},
    blobs: HubCache | None = None,
    allow_unverified: bool = False,
    sites: Iterable[SiteCaches] = (),
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Rig]:
    """The parts over the registries at `urls` and `hubs`, until the block is left.

    Args:
        boot: a boot id to believe in.
        allow_unverified: whether the registries may give files without a sha256.
        sites: the site caches of sources, which are asked for bytes and not for documents.
        environ: variables that name proxies.
    """
    routes = Routes(environ or {})
    async with Documents(limits, trust, routes=routes) as documents:
        with (
            closing(Store.open(cache, boot_id=boot)) as store,
            Bodies(limits, trust, routes=routes, caches=Caches(sites)) as bodies,
        ):
            async with trio.open_nursery() as nursery:
                sources = [
                    RegistrySource(url, documents, cache=store, allow_unverified=allow_unverified)
                    for url in urls
                ]
                known = hubs(documents, store)
                tree = Tree(
                    sources, store, nursery, offline=offline, hubs=known, head_start=HEAD_START
                )
                fetcher = Fetcher(
                    store,
                    bodies,
                    nursery,
                    streams=streams,
                    bandwidth=Bandwidth(bandwidth),
                    limits=limits,
                    offline=offline,
                    blobs=blobs,
                )
                yield Rig(store, tree, fetcher, nursery)
                fetcher.stop()
                nursery.cancel_scope.cancel()


async def settled(done: Callable[[], bool], seconds: float = 10) -> None:
    """Return once `done`, for what has no event."""
    with trio.fail_after(seconds):
        while not done():  # noqa: ASYNC110
            await trio.sleep(0.01)


def chunks_of(*numbers: int) -> Range:
    """One chunk, or the run between two."""
    return Range(numbers[0], numbers[-1] + 1)


def open_files(part: str = "") -> list[str]:
    """What this process has open whose name contains `part`: `objects/` are backing files."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the descriptor of the listing itself
            continue
        if part in name:
            found.append(name)
    return found


def without_tables(registry: Path, spec: str = SPEC) -> None:
    """Make a manifest one as an Axon registry has it: sha256 alone."""
    path = registry.joinpath("api/v1/models", *parse_spec(spec).segments, "manifest.yaml")
    document = yaml.safe_load(path.read_text())
    for file in document["spec"]["format"]["files"]:
        file.pop("chunks", None)
    path.write_text(yaml.safe_dump(document))


def objects_asked(origin: FaultyOrigin) -> int:
    """How many requests for objects' bytes came in."""
    return sum("/objects/" in seen.path for seen in origin.requests)


def on_objects(fault: Fault) -> Fault:
    """`fault` for objects' bytes alone."""
    return _on("/objects/", fault)


def on_tables(fault: Fault) -> Fault:
    """`fault` for chunk tables alone."""
    return _on("/chunks/", fault)


def on_packages(fault: Fault) -> Fault:
    """`fault` for packages alone."""
    return _on("/packages/", fault)


def _on(part: str, fault: Fault) -> Fault:
    def chosen(exchange: Exchange) -> None:
        if part in exchange.seen.path:
            fault(exchange)

    return chosen


@dataclass
class Gate:
    """A fault that holds a request until it is let through."""

    arrived: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    then: Fault | None = None
    seconds: float = 20

    def __call__(self, exchange: Exchange) -> None:
        self.arrived.set()
        self.open.wait(self.seconds)
        if self.then:
            self.then(exchange)

    async def reached(self) -> None:
        """Return when a request is held."""
        assert await trio.to_thread.run_sync(self.arrived.wait, 10)
