"""The fetch path over a registry that behaves: who shares what, what goes first, what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from axonfs.errors import OfflineError
from axonfs.fetch import Priority
from axonfs.fetch import feed as feed_module
from axonfs.ranges import Range
from axonfs.store import StoredObject
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import (
    CHUNK,
    Gate,
    chunks_of,
    on_objects,
    open_files,
    rig,
    settled,
)
from tests.support.registry import RegistryServer, published

SIZE = 40 * CHUNK + 123
FILE = "model.safetensors"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, {FILE: SIZE, "b.bin": 3 * CHUNK, "one.bin": 5}, chunk_size=CHUNK)


def asked(origin: FaultyOrigin | RegistryServer) -> list[Range]:
    """The runs of chunks of the model that were asked for, in order."""
    if isinstance(origin, RegistryServer):
        headers = [text or "" for _, path, text in origin.requests if "/objects/" in path]
    else:
        headers = [seen.headers["range"] for seen in origin.requests if "/objects/" in seen.path]
    found = []
    for text in headers:
        first, last = map(int, text.removeprefix("bytes=").split("-"))
        found.append(Range(first // CHUNK, last // CHUNK + 1))
    return found


async def test_readers_of_one_chunk_share_a_request(
    tmp_path: Path, server: RegistryServer, whole: bytes
) -> None:
    got = []
    async with rig(tmp_path / "cache", server.url) as parts:
        feed = await parts.open()

        async def read() -> None:
            got.append(await parts.read(feed, 3 * CHUNK, 4 * CHUNK))

        async with trio.open_nursery() as readers:
            for _ in range(20):
                readers.start_soon(read)
        feed.close()
        await settled(parts.idle)
    assert got == [whole[3 * CHUNK : 4 * CHUNK]] * 20
    assert asked(server) == [chunks_of(3)]


async def test_overlapping_reads_ask_for_each_chunk_once(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()

        async def read(start: int, stop: int) -> None:
            part = await parts.read(feed, start * CHUNK, stop * CHUNK)
            assert part == whole[start * CHUNK : stop * CHUNK]

        async with trio.open_nursery() as readers:
            readers.start_soon(read, 2, 6)
            await gate.reached()
            readers.start_soon(read, 4, 9)
            readers.start_soon(read, 0, 3)
            await settled(lambda: len(asked(origin)) == 3)
            gate.open.set()
        feed.close()
    assert asked(origin)[0] == Range(2, 6)
    assert sorted(asked(origin)[1:]) == [Range(0, 2), Range(6, 9)]


async def test_a_reader_that_leaves_cancels_nothing_for_the_others(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed, leaving, got = await parts.open(), trio.CancelScope(), []

        async def read() -> None:
            got.append(await parts.read(feed, 0, CHUNK))

        async def leave() -> None:
            with leaving:
                await read()

        async with trio.open_nursery() as readers:
            readers.start_soon(leave)
            await gate.reached()
            readers.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            leaving.cancel()
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        feed.close()
        await settled(parts.idle)
    assert leaving.cancelled_caught
    assert got == [whole[:CHUNK]]
    assert asked(origin) == [chunks_of(0)]


async def test_what_every_reader_left_lands_and_is_let_go(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        async with trio.open_nursery() as readers:
            readers.start_soon(parts.read, feed, 0, CHUNK)
            await gate.reached()
            readers.cancel_scope.cancel()
        feed.close()
        assert parts.fetcher.feeds() == [feed]
        gate.open.set()
        await settled(parts.idle)
        assert open_files("cache/objects/") == []
        feed = await parts.open()
        assert await parts.read(feed, 0, CHUNK) == whole[:CHUNK]
        feed.close()
    assert len(asked(origin)) == 1


async def test_demand_goes_before_readahead(tmp_path: Path, origin: FaultyOrigin) -> None:
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url, streams=1) as parts:
        feed = await parts.open()
        feed.want(chunks_of(0))
        await gate.reached()
        for number in (10, 12, 14):
            feed.want(chunks_of(number))
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, chunks_of(20))
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        feed.close()
        await settled(parts.idle)
    assert asked(origin) == [chunks_of(number) for number in (0, 20, 10, 12, 14)]


async def test_a_job_that_a_reader_comes_to_wait_for_is_promoted(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url, streams=1) as parts:
        feed = await parts.open()
        feed.want(chunks_of(0))
        await gate.reached()
        for number in (10, 12, 14):
            feed.want(chunks_of(number))
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, chunks_of(14))
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        feed.close()
        await settled(parts.idle)
    assert asked(origin) == [chunks_of(number) for number in (0, 14, 10, 12)]


async def test_a_reader_cuts_a_job_that_waits_before_its_chunk(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url, streams=1) as parts:
        feed = await parts.open()
        feed.want(chunks_of(0))
        await gate.reached()
        feed.want(chunks_of(10, 20), Priority.BACKGROUND)
        feed.want(chunks_of(5, 6))
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, chunks_of(18))
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        feed.close()
        await settled(parts.idle)
    assert asked(origin) == [chunks_of(0), chunks_of(18, 20), chunks_of(5, 6), chunks_of(10, 17)]


async def test_a_reader_far_ahead_of_a_running_job_has_its_chunk_fetched_apart(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FAR_BYTES", 8 * CHUNK)
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        feed.want(Range(0, 20), Priority.BACKGROUND)
        await gate.reached()
        assert await parts.read(feed, 12 * CHUNK, 13 * CHUNK) == whole[12 * CHUNK : 13 * CHUNK]
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, chunks_of(7))
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        assert await parts.read(feed, 0, 20 * CHUNK) == whole[: 20 * CHUNK]
        feed.close()
        await settled(parts.idle)
    assert asked(origin) == [Range(0, 20), chunks_of(12)]


async def test_a_reader_with_many_reads_in_flight_has_nothing_fetched_twice(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "FAR_BYTES", 4 * CHUNK)
    origin.plan(gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        feed.want(Range(0, 20), Priority.BACKGROUND)
        await gate.reached()
        async with trio.open_nursery() as readers:
            for number in range(20):
                readers.start_soon(feed.need, chunks_of(number))
                await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        feed.close()
        await settled(parts.idle)
    assert asked(origin) == [Range(0, 20)]


@pytest.mark.parametrize(
    ("priority", "largest", "sizes"),  # all of it arrives within a moment
    [
        (Priority.DEMAND, 4 * CHUNK, [4 * CHUNK, 2 * CHUNK]),
        (Priority.READAHEAD, 4 * CHUNK, [2 * CHUNK, 4 * CHUNK]),
        (Priority.BACKGROUND, 4 * CHUNK, [2 * CHUNK, 4 * CHUNK]),
        (Priority.BACKGROUND, 8 * CHUNK, [6 * CHUNK]),
    ],
)
async def test_chunks_that_arrive_together_land_together_and_aligned_unless_a_reader_waits(
    tmp_path: Path,
    server: RegistryServer,
    monkeypatch: pytest.MonkeyPatch,
    priority: Priority,
    largest: int,
    sizes: list[int],
) -> None:
    monkeypatch.setattr("axonfs.fetch.transfer.SMALLEST_PIECE", 4 * CHUNK)
    monkeypatch.setattr("axonfs.fetch.transfer.LARGEST_PIECE", largest)
    monkeypatch.setattr("axonfs.fetch.transfer.SHORT_MOMENT", 0.04)
    landed: list[int] = []
    land = StoredObject.land

    def noted(stored: StoredObject, chunk: int, view: memoryview, *, proven: bool = False) -> None:
        landed.append(len(view))
        land(stored, chunk, view, proven=proven)

    monkeypatch.setattr(StoredObject, "land", noted)
    async with rig(tmp_path / "cache", server.url) as parts:
        feed = await parts.open()
        await feed.need(Range(2, 8), priority)
        feed.close()
        await settled(parts.idle)
    assert landed == sizes


async def test_readahead_leaves_streams_to_demand(tmp_path: Path, origin: FaultyOrigin) -> None:
    async with rig(tmp_path / "cache", origin.url, streams=5) as parts:
        feed = await parts.open()
        await feed.need(chunks_of(39))
        origin.always(gate := Gate())
        for number in range(0, 20, 2):
            feed.want(chunks_of(number))
        await settled(lambda: len(asked(origin)) == 1 + 3)
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, chunks_of(30))
            await settled(lambda: len(asked(origin)) == 1 + 3 + 1)
            assert asked(origin)[-1] == chunks_of(30)
            gate.open.set()
        feed.close()
        await settled(parts.idle)


async def test_a_busy_object_does_not_hold_up_another(tmp_path: Path, origin: FaultyOrigin) -> None:
    async with rig(tmp_path / "cache", origin.url, streams=4) as parts:
        busy, quick = await parts.open(), await parts.open("b.bin")
        await busy.need(chunks_of(39))
        origin.always(gate := Gate())
        for number in range(0, 30, 2):
            busy.want(chunks_of(number))
        await gate.reached()
        origin.always(None)
        await quick.need(Range(0, 3))
        gate.open.set()
        busy.close()
        quick.close()
        await settled(parts.idle)


async def test_readahead_that_fails_is_not_repeated_until_a_reader_comes(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.always(on_objects(faulty.status(503)))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        feed.want(Range(0, 4))
        await settled(lambda: parts.fetcher.statistics()["in_flight"] == 0)
        assert asked(origin) == [Range(0, 4)]
        origin.always(None)
        assert await parts.read(feed, 0, CHUNK) == whole[:CHUNK]
        feed.close()
        await settled(parts.idle)


async def test_a_reader_that_joins_readahead_has_it_repeated(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(gate := Gate(then=faulty.status(503)), of="/objects/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        feed.want(Range(0, 4))
        await gate.reached()
        async with trio.open_nursery() as readers:
            readers.start_soon(feed.need, chunks_of(2))
            await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
        assert await parts.read(feed, 0, 4 * CHUNK) == whole[: 4 * CHUNK]
        feed.close()
        await settled(parts.idle)
    assert asked(origin) == [Range(0, 4)] * 2


async def test_a_second_engine_fetches_neither_chunks_nor_the_table_again(
    tmp_path: Path, server: RegistryServer, whole: bytes
) -> None:
    for stop in (SIZE // 2, SIZE):
        async with rig(tmp_path / "cache", server.url) as parts:
            feed = await parts.open()
            assert await parts.read(feed, 0, stop) == whole[:stop]
            feed.close()
    runs = asked(server)
    assert sum(run.size for run in runs) == 41
    assert len(server.paths("/chunks/")) == 1


async def test_offline_sends_nothing(tmp_path: Path, server: RegistryServer, whole: bytes) -> None:
    async with rig(tmp_path / "cache", server.url) as parts:
        feed = await parts.open()
        await parts.read(feed, 0, 4 * CHUNK)
        feed.close()
    sent = len(server.requests)
    async with rig(tmp_path / "cache", server.url, offline=True) as parts:
        feed = await parts.open()
        assert await parts.read(feed, 0, 4 * CHUNK) == whole[: 4 * CHUNK]
        feed.want(Range(4, 40))
        feed.want(Range(4, 40), Priority.DEMAND)
        with pytest.raises(OfflineError):
            await feed.need(Range(3, 5))
        feed.close()
        await settled(parts.idle)
    assert len(server.requests) == sent


async def test_local_bytes_need_no_source(
    tmp_path: Path, server: RegistryServer, whole: bytes
) -> None:
    """Readahead past them is given up in silence."""
    async with rig(tmp_path / "cache", server.url) as parts:
        feed = await parts.open()
        await parts.read(feed, 0, 4 * CHUNK)
        feed.close()
    async with rig(tmp_path / "cache") as parts:
        feed = await parts.open()
        feed.want(Range(2, 20))
        assert await parts.read(feed, 0, 4 * CHUNK) == whole[: 4 * CHUNK]
        feed.close()
        await settled(parts.idle)
