"""The fetch path over several origins, and over sources without chunk tables or ranges."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.errors import VanishedError
from axonfs.fetch import Feed
from axonfs.ranges import Range
from tests.support import faulty
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import (
    CHUNK,
    FAST,
    Gate,
    Rig,
    chunks_of,
    objects_asked,
    on_objects,
    on_tables,
    open_files,
    rig,
    settled,
    without_tables,
)
from tests.support.registry import NoRangeServer, RegistryServer, published

FILE = "model.safetensors"


@pytest.fixture
def other(registry: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(registry) as origin:
        yield origin


@pytest.mark.parametrize(
    "fault",
    [
        on_objects(faulty.status(404)),
        on_objects(faulty.status(403)),
        on_objects(faulty.changed_size),
        on_objects(faulty.flip),
        on_objects(faulty.reset_before),
        on_objects(faulty.status(503)),
        on_tables(faulty.status(404)),
        on_tables(faulty.flip),
    ],
    ids=["404", "403", "size", "flip", "reset", "503", "table-404", "table-flip"],
)
async def test_another_origin_of_the_object_is_tried(
    tmp_path: Path, origin: FaultyOrigin, other: FaultyOrigin, whole: bytes, fault: Fault
) -> None:
    async with (
        rig(tmp_path / "cache", origin.url) as parts,
        rig(tmp_path / "elsewhere", other.url) as second,
    ):
        feed = await parts.open()
        held = await second.open()
        feed.opened(held.versions[0])
        origin.always(fault)
        assert await parts.read(feed, 0, 5 * CHUNK) == whole[: 5 * CHUNK]
        assert objects_asked(other) == 1
        for _ in range(2):
            feed.close()
        held.close()
        await settled(parts.idle)


async def test_the_last_origin_s_fault_is_told_when_all_fail(
    tmp_path: Path, origin: FaultyOrigin, other: FaultyOrigin
) -> None:
    async with (
        rig(tmp_path / "cache", origin.url) as parts,
        rig(tmp_path / "elsewhere", other.url) as second,
    ):
        held = await second.open()
        feed = await parts.open()
        feed.opened(held.versions[0])
        origin.always(on_objects(faulty.status(403)))
        other.always(on_objects(faulty.status(404)))
        with pytest.raises(VanishedError):
            await feed.need(chunks_of(0))
        assert (objects_asked(origin), objects_asked(other)) == (1, 1)
        for _ in range(2):
            feed.close()
        held.close()
        await settled(parts.idle)


@asynccontextmanager
async def judged(tmp_path: Path) -> AsyncIterator[tuple[Rig, Feed]]:
    """A large object without a table, complete and about to be judged, which takes a moment."""
    registry = published(tmp_path / "large", {FILE: 48 << 20}, chunk_size=CHUNK << 4)
    without_tables(registry)
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            feed = await parts.open()
            feed.want(Range(0, feed.object.count))
            await settled(lambda: feed.object.complete)
            yield parts, feed


async def test_a_reader_that_leaves_while_the_whole_is_judged(tmp_path: Path) -> None:
    """The judge must not lose its file: what is opened next may get the same descriptor."""
    async with judged(tmp_path) as (parts, feed):
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, Range(0, 1))
            await trio.sleep(0.005)
            readers.cancel_scope.cancel()
        feed.close()
        zeros = [os.open("/dev/zero", os.O_RDONLY) for _ in range(3)]
        again = await parts.open()
        await again.need(Range(0, again.object.count))
        assert again.object.verified
        again.close()
        for number in zeros:
            os.close(number)
        await settled(lambda: not open_files("cache/objects/"))  # the first judge ends by itself


async def test_chunks_given_up_while_the_whole_is_judged_condemn_nothing(tmp_path: Path) -> None:
    async with judged(tmp_path) as (_, feed):
        async with trio.open_nursery() as tasks:
            tasks.start_soon(feed.need, Range(0, 1))
            await trio.sleep(0.005)
            tasks.start_soon(feed.punch, 48 << 20)
        await feed.need(Range(0, feed.object.count))
        assert feed.object.verified
        feed.close()


@pytest.mark.parametrize("first", [0, 7])
async def test_one_pass_over_a_source_without_ranges_serves_everyone(
    tmp_path: Path, registry: Path, whole: bytes, first: int
) -> None:
    with NoRangeServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            feed = await parts.open()

            async def read(chunk: int) -> None:
                start, stop = chunk * CHUNK, min(len(whole), (chunk + 1) * CHUNK)
                assert await parts.read(feed, start, stop) == whole[start:stop]

            await read(first)
            # With the first chunk that was not asked for.
            await settled(lambda: feed.download.unranged)
            async with trio.open_nursery() as readers:
                for chunk in range(20, -1, -1):
                    readers.start_soon(read, chunk)
            feed.close()
            await settled(parts.idle)
        assert len(server.paths("/objects/")) == 1


async def test_readers_who_come_before_ranges_are_known_to_be_missing(tmp_path: Path) -> None:
    """Several passes begin, and one is gone through with."""
    size = 32 << 20
    registry = published(tmp_path / "large", {FILE: size}, chunk_size=CHUNK << 4)
    with NoRangeServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            feed = await parts.open()
            async with trio.open_nursery() as readers:
                for chunk in range(31, 0, -5):
                    readers.start_soon(feed.need, chunks_of(chunk))
            await feed.need(Range(0, 32))
            feed.close()
            await settled(parts.idle)
        assert server.bytes_sent < 3 * size  # 7 passes began; what sockets held of 6 was lost


async def test_a_pass_that_breaks_off_is_taken_up_by_another(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    def half(exchange: Exchange) -> None:
        faulty.ignore_range(exchange)
        faulty.reset_within(exchange)

    origin.plan(*[half] * 3, of="/objects/")
    origin.always(on_objects(faulty.ignore_range))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        async with trio.open_nursery() as readers:
            for chunk in (3, 9, 18, 20):
                readers.start_soon(feed.need, chunks_of(chunk))
        assert await parts.read(feed) == whole
        feed.close()
        await settled(parts.idle)


async def test_a_pass_at_another_host_leaves_nobody_who_waits(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    """It runs where the origin redirected it, and who comes meanwhile waits at the origin."""
    gate = Gate()

    def in_halves(exchange: Exchange) -> None:
        faulty.ignore_range(exchange)
        exchange.head()
        exchange.write(exchange.body[: 8 * CHUNK])
        gate(exchange)
        exchange.write(exchange.body[8 * CHUNK :])
        exchange.hang_up()

    with FaultyOrigin(registry) as host:
        host.always(on_objects(in_halves))

        def elsewhere(exchange: Exchange) -> None:
            faulty.redirect(host.url + exchange.seen.path.lstrip("/"))(exchange)

        origin.always(on_objects(elsewhere))
        patient = replace(FAST, first_byte=20, stall=20, deadline=60)
        async with rig(tmp_path / "cache", origin.url, limits=patient) as parts:
            feed = await parts.open()
            await feed.need(Range(6, 7))
            await settled(lambda: feed.download.unranged)
            async with trio.open_nursery() as readers:
                readers.start_soon(feed.need, Range(18, 19))
                await settled(lambda: parts.fetcher.statistics()["queued"] == 1)
                gate.open.set()
            assert await parts.read(feed) == whole
            feed.close()
            await settled(parts.idle)
        assert objects_asked(host) == 1
