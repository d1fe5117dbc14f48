"""Chunks given up under readers: never zeros, never wrong bytes, never a reader that starves."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import axonfs.vfs.files
from axonfs.engine import Engine, open_engine
from axonfs.fetch import Feed
from axonfs.fetch.punching import KEEP_BEHIND
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.settings.settings import Settings
from axonfs.store import StoredObject
from axonfs.vfs import Vfs
from axonfs.vfs.files import read_cached
from tests.support.fetching import CHUNK, Rig, open_files, rig, settled, without_tables
from tests.support.registry import SPEC, NoRangeServer, RegistryServer, published

PIECE = 4 * CHUNK
# Larger than what is kept behind a reader, so that there is something to give up.
SIZES = {"a.bin": 2 * KEEP_BEHIND + 3 * PIECE + 17, "b.bin": KEEP_BEHIND + 1}
CACHE_SIZE = 40 * PIECE


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("www"), SIZES, chunk_size=PIECE)


class Reading:
    """The files of a model through a Vfs, compared with what was published."""

    def __init__(self, engine: Engine, registry: Path) -> None:
        self.engine = engine
        self.vfs = Vfs(engine.tree, engine.fetcher, dict)
        self._plain = registry.parent / "models/nlp/tiny/1.0.0"
        self._bytes = {name: (self._plain / name).read_bytes() for name in SIZES}

    async def open(self, name: str) -> int:
        inode = 1
        for part in (*parse_spec(SPEC).segments, name):
            inode = (await self.vfs.lookup(inode, part)).inode
        number = (await self.vfs.open(inode)).number
        self.vfs.files.opened(number, inode, 0)
        return number

    async def check(self, handle: int, name: str, offset: int, size: int) -> None:
        view = await self.vfs.files.read(handle, offset, size)
        # No checkpoint until the view was compared: its buffer is used again.
        assert view == self._bytes[name][offset : offset + size], (name, offset, size)

    async def through(self, name: str) -> None:
        """From the first byte to the last, as a sequential reader."""
        handle = await self.open(name)
        for offset in range(0, SIZES[name], 2 * CHUNK):
            await self.check(handle, name, offset, 2 * CHUNK)
        self.vfs.files.release(handle)

    async def about(self, name: str, chance: random.Random, times: int) -> None:
        """Here and there, over the borders of chunks too."""
        handle = await self.open(name)
        for _ in range(times):
            offset = chance.randrange(SIZES[name])
            await self.check(handle, name, offset, chance.choice((1, 4096, 3 * CHUNK, PIECE)))
        self.vfs.files.release(handle)

    async def disturbed(
        self, chance: random.Random, *readers: Callable[[], Awaitable[None]]
    ) -> None:
        """Run the readers while chunks are taken away."""
        async with trio.open_nursery() as disturbance:
            disturbance.start_soon(self._take_away, chance)
            async with trio.open_nursery() as nursery:
                for reader in readers:
                    nursery.start_soon(reader)
            disturbance.cancel_scope.cancel()

    async def _take_away(self, chance: random.Random) -> None:
        """Punch any chunks of any object in use, also where readers are, until cancelled."""
        while True:
            for feed in self.engine.fetcher.feeds():
                if self.engine.fetcher.feed(feed.entry) is not feed:
                    continue  # its readers left while another one was punched
                start = chance.randrange(feed.object.count)
                stop = min(feed.object.count, start + chance.randrange(1, 40))
                with feed.in_use():
                    await trio.to_thread.run_sync(feed.object.punch, start, stop)
            await trio.sleep(0.004 * chance.random())


@asynccontextmanager
async def reading(
    tmp_path: Path, registry: Path, url: str, cache_size: int = CACHE_SIZE
) -> AsyncIterator[Reading]:
    settings = Settings((url,), tmp_path / "cache", cache_size=cache_size, deadline=20)
    async with open_engine(settings) as engine:
        yield Reading(engine, registry)
        await settled(lambda: not engine.fetcher.feeds())
        await settled(lambda: not open_files("cache/objects/"))  # after the chunk that is hashed


@pytest.mark.parametrize("seed", range(3))
async def test_readers_in_a_cache_that_is_too_small(
    tmp_path: Path, registry: Path, server: RegistryServer, seed: int
) -> None:
    async with reading(tmp_path, registry, server.url) as files:
        async with trio.open_nursery() as readers:
            readers.start_soon(files.through, "a.bin")
            readers.start_soon(files.through, "b.bin")
            for number in range(4):
                chance = random.Random(f"{seed}/{number}")
                readers.start_soon(files.about, chance.choice(list(SIZES)), chance, 30)
        await files.through("a.bin")
        # What cannot be given up is what readers are at; the rest obeys the limit.
        await settled(lambda: files.engine.store.usage() <= CACHE_SIZE + 2 * KEEP_BEHIND)


@pytest.mark.parametrize("seed", range(3))
async def test_chunks_taken_away_at_random(
    tmp_path: Path, registry: Path, server: RegistryServer, seed: int
) -> None:
    async with reading(tmp_path, registry, server.url, 1 << 30) as files:
        readers = [partial(files.through, "a.bin")] * 2
        for number in range(4):
            chance = random.Random(f"{seed}/{number}")
            readers.append(partial(files.about, chance.choice(list(SIZES)), chance, 30))
        await files.disturbed(random.Random(f"{seed}/taker"), *readers)
        await files.through("b.bin")


async def test_a_chunk_given_up_between_the_look_and_the_read(
    tmp_path: Path, registry: Path, server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(tmp_path, registry, server.url, 1 << 30) as files:
        handle = await files.open("b.bin")
        await files.check(handle, "b.bin", 0, PIECE)
        (feed,) = files.engine.fetcher.feeds()
        punched: list[int] = []

        def late(fd: int, view: memoryview, offset: int) -> int:
            if not punched:
                punched.append(feed.object.punch(0, 1))
            return read_cached(fd, view, offset)

        monkeypatch.setattr(axonfs.vfs.files, "read_cached", late)
        await files.check(handle, "b.bin", 100, 4096)
        assert punched == [PIECE]
        files.vfs.files.release(handle)


async def test_an_object_that_no_table_vouches_for(tmp_path: Path) -> None:
    registry = published(tmp_path, SIZES, chunk_size=PIECE)
    without_tables(registry)
    with RegistryServer(registry) as server:
        async with reading(tmp_path, registry, server.url, 1 << 30) as files:
            await files.disturbed(random.Random(0), partial(files.through, "b.bin"))
            await files.through("b.bin")
            await files.through("a.bin")


async def test_a_source_without_ranges(tmp_path: Path, registry: Path) -> None:
    with NoRangeServer(registry) as server:
        async with reading(tmp_path, registry, server.url, 1 << 30) as files:
            await files.disturbed(
                random.Random(0),
                partial(files.through, "b.bin"),
                partial(files.about, "b.bin", random.Random(1), 10),
            )


@asynccontextmanager
async def whole_without_ranges(tmp_path: Path, registry: Path) -> AsyncIterator[tuple[Rig, Feed]]:
    """An object that came in one answer, and then gave up its first chunk."""
    with NoRangeServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            feed = await parts.open("a.bin")
            await feed.need(Range(0, feed.object.count))
            await settled(parts.without_requests)
            assert feed.download.unranged
            assert await feed.punch(1) == PIECE
            yield parts, feed
            feed.close()


async def test_a_request_without_ranges_ends_while_its_object_gives_up_chunks(
    tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with whole_without_ranges(tmp_path, registry) as (parts, feed):
        land, punch, begun = StoredObject.land, StoredObject.punch, threading.Event()

        def landing(stored: StoredObject, *args: Any, **more: Any) -> None:
            assert begun.wait(10)
            land(stored, *args, **more)

        def punching(stored: StoredObject, start: int, stop: int) -> int:
            begun.set()
            trio.from_thread.run(settled, parts.without_requests)
            return punch(stored, start, stop)

        monkeypatch.setattr(StoredObject, "land", landing)
        monkeypatch.setattr(StoredObject, "punch", punching)
        feed.want(Range(0, 1))
        assert await feed.punch(1) == PIECE
        assert feed.present(0, 1)


async def test_a_reader_that_asks_while_an_object_without_ranges_gives_up_chunks(
    tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way out asks no source, so the reader's request does not wait for it."""
    async with whole_without_ranges(tmp_path, registry) as (_, feed):
        punch = StoredObject.punch

        def punching(stored: StoredObject, start: int, stop: int) -> int:
            trio.from_thread.run(feed.need, Range(0, 1))
            return punch(stored, start, stop)

        monkeypatch.setattr(StoredObject, "punch", punching)
        with trio.fail_after(10):
            assert await feed.punch(1) == PIECE
        assert feed.present(0, 1)


async def test_more_readers_than_places_that_readahead_remembers(
    tmp_path: Path, registry: Path, server: RegistryServer
) -> None:
    async with (
        reading(tmp_path, registry, server.url, 8 * PIECE) as files,
        trio.open_nursery() as readers,
    ):
        for number in range(24):
            readers.start_soon(files.about, "a.bin", random.Random(number), 6)


async def test_a_file_is_closed_while_another_gives_up(
    server: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is closed is left alone: its descriptor may be another file's by then."""
    async with rig(tmp_path / "cache", server.url) as parts:
        feeds = [await parts.open(name) for name in SIZES]
        for feed in feeds:
            await parts.read(feed)
        await settled(parts.without_requests)
        punch = StoredObject.punch

        def closing(stored: StoredObject, start: int, stop: int) -> int:
            while feeds:
                trio.from_thread.run_sync(feeds.pop().close)
            return punch(stored, start, stop)

        monkeypatch.setattr(StoredObject, "punch", closing)
        assert len(await parts.fetcher.punch(1 << 40)) == 1
        assert parts.idle()
        assert parts.store.usage() > 0
