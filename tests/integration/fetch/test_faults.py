"""The fetch path over an origin that lies, stalls or is dead: what readers get."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.engine import open_engine
from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    ChangedError,
    CorruptError,
    MalformedError,
    UnavailableError,
    VanishedError,
)
from axonfs.fetch import Feed, Priority
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.settings.settings import Settings
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
)
from tests.support.registry import SPEC, published

THREE = Range(0, 3)
PASSING = [
    faulty.stall_before,
    faulty.stall_within,
    faulty.reset_before,
    faulty.reset_within,
    faulty.hang_up_before,
    faulty.short,
    faulty.long,
    faulty.long_length,
    faulty.garbage,
    faulty.wrong_range,
    faulty.unreadable_range,
    faulty.flip,
    faulty.status(500),
    faulty.status(502),
    faulty.status(204),
    faulty.status(429, Retry_After="0"),
]
NAMES = [getattr(fault, "__name__", "status") for fault in PASSING]


@pytest.fixture
async def parts(tmp_path: Path, origin: FaultyOrigin) -> AsyncIterator[Rig]:
    """A rig that must be idle, and its backing files closed, when the test is over."""
    async with rig(tmp_path / "cache", origin.url) as parts:
        yield parts
        await settled(parts.idle)
        assert open_files("cache/objects/") == []


async def failure(parts: Rig, chunks: Range = THREE) -> AxonError:
    """What a reader of `chunks` gets, and how long it waited is within bounds."""
    feed = await parts.open()
    began = trio.current_time()
    try:
        with pytest.raises(AxonError) as caught:
            await feed.need(chunks)
    finally:
        feed.close()
    # Attempts begin within the deadline, and none lasts longer than `first_byte` or `stall`.
    assert trio.current_time() - began < 2 * FAST.deadline
    assert feed.object.present_bytes == 0
    return caught.value


@pytest.mark.parametrize("fault", PASSING, ids=NAMES)
async def test_a_fault_that_passes_is_not_noticed(
    parts: Rig, origin: FaultyOrigin, whole: bytes, fault: Fault
) -> None:
    feed = await parts.open()
    origin.plan(fault, of="/objects/")
    assert await parts.read(feed, 0, 3 * CHUNK) == whole[: 3 * CHUNK]
    feed.close()
    # Surplus shows when everything has landed; a fault of a kept connection goes unmarked.
    assert objects_asked(origin) in ((1,) if fault is faulty.long else (2, 3))


async def test_what_landed_before_a_fault_is_not_asked_for_again(
    parts: Rig, origin: FaultyOrigin, whole: bytes
) -> None:
    feed = await parts.open()
    origin.plan(faulty.reset_within, faulty.flip, of="/objects/")
    assert await parts.read(feed) == whole
    feed.close()
    starts = [
        int(seen.headers["range"].removeprefix("bytes=").partition("-")[0]) // CHUNK
        for seen in origin.requests
        if "/objects/" in seen.path
    ]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert len(set(starts)) == 3


async def test_a_chunk_that_a_reader_waits_for_lands_while_the_next_one_is_on_its_way(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    came = threading.Event()

    def halting(exchange: Exchange) -> None:
        exchange.answered = True
        exchange.head()
        exchange.write(exchange.body[: CHUNK + 10])
        assert came.wait(5)
        exchange.write(exchange.body[CHUNK + 10 :])

    origin.plan(halting, of="/objects/")
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        feed.want(Range(0, 6), Priority.DEMAND)
        await feed.need(chunks_of(0))
        came.set()
        await feed.need(Range(0, 6))
        feed.close()
        await settled(parts.idle)


async def test_a_source_that_cuts_every_answer_off_is_pinned_from(
    parts: Rig, origin: FaultyOrigin
) -> None:
    """Large pieces are stored at a time, but what came of one before a fault is not lost."""

    def five_chunks(exchange: Exchange) -> None:
        exchange.answered = True
        exchange.head()
        exchange.write(exchange.body[: 5 * CHUNK + 10])
        exchange.hang_up()

    feed = await parts.open()
    origin.always(on_objects(five_chunks))
    everything = Range(0, feed.object.count)
    await feed.need(everything, Priority.BACKGROUND)
    assert feed.complete
    assert objects_asked(origin) == -(-feed.object.count // 5)
    feed.close()


async def test_progress_starts_the_deadline_anew(
    parts: Rig, origin: FaultyOrigin, whole: bytes
) -> None:
    """A source that needs longer than the deadline over all, and never fails to get on."""

    def one_chunk(exchange: Exchange) -> None:
        exchange.head()
        exchange.write(exchange.body[: CHUNK + 10])
        exchange.hang(0.15)
        exchange.hang_up()

    feed = await parts.open()
    origin.always(on_objects(one_chunk))
    began = trio.current_time()
    assert await parts.read(feed, 0, 16 * CHUNK) == whole[: 16 * CHUNK]
    assert trio.current_time() - began > FAST.deadline
    feed.close()


async def _refused(feed: Feed) -> None:
    with pytest.raises(UnavailableError):
        await feed.need(chunks_of(0))
    feed.close()


@pytest.mark.parametrize(
    ("fault", "kind", "number", "requests"),
    [
        (faulty.status(404), VanishedError, errno.EIO, 1),
        (faulty.status(410), VanishedError, errno.EIO, 1),
        (faulty.status(401), AccessDeniedError, errno.EACCES, 1),
        (faulty.status(403), AccessDeniedError, errno.EACCES, 1),
        (faulty.status(416), ChangedError, errno.ESTALE, 1),
        (faulty.changed_size, ChangedError, errno.ESTALE, 1),
        (faulty.coded("br"), UnavailableError, errno.EIO, 1),
        (faulty.redirect("/objects/elsewhere"), UnavailableError, errno.EIO, None),
        (faulty.flip, CorruptError, errno.EIO, 3),
    ],
)
async def test_a_fault_that_no_retry_mends_is_told_at_once(
    parts: Rig,
    origin: FaultyOrigin,
    fault: Fault,
    kind: type[AxonError],
    number: int,
    requests: int | None,
) -> None:
    origin.always(on_objects(fault))
    error = await failure(parts, chunks_of(0))
    assert type(error) is kind
    assert error.errno == number
    assert error.source is not None
    assert error.source.startswith(origin.url)
    assert requests is None or objects_asked(origin) == requests


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (faulty.status(503), errno.EIO),
        (faulty.reset_before, errno.EIO),
        (faulty.short, errno.EIO),
        (faulty.stall_before, errno.ETIMEDOUT),
        (faulty.stall_within, errno.ETIMEDOUT),
        (faulty.drip(0.05), errno.ETIMEDOUT),
        (faulty.drip_headers(0.05), errno.ETIMEDOUT),
        (faulty.status(429, Retry_After="30"), errno.EIO),
    ],
    ids=["503", "reset", "short", "stall", "stall_within", "drip", "drip_headers", "429"],
)
async def test_a_fault_that_stays_is_told_when_the_deadline_is_over(
    parts: Rig, origin: FaultyOrigin, fault: Fault, number: int
) -> None:
    origin.always(on_objects(fault))
    began = trio.current_time()
    error = await failure(parts, chunks_of(0))
    assert error.errno == number, error
    assert trio.current_time() - began > 0.9 * FAST.deadline
    assert "no progress" in str(error)
    assert origin.url in str(error)


async def test_a_job_that_is_tried_again_and_again_holds_up_no_other(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    published(tmp_path, {"other.bin": 3 * CHUNK}, spec="nlp/other@1.0.0", chunk_size=CHUNK)
    async with rig(tmp_path / "cache", origin.url, streams=1) as parts:
        feed = await parts.open()
        quick = await parts.open("other.bin", "nlp/other@1.0.0")
        ailing = feed.entry.digest

        def fault(exchange: Exchange) -> None:
            if exchange.seen.path.endswith(f"objects/sha256/{ailing[:2]}/{ailing}"):
                faulty.status(503)(exchange)

        origin.always(fault)
        async with trio.open_nursery() as readers:
            readers.start_soon(_refused, feed)
            await settled(lambda: objects_asked(origin) > 0)
            await quick.need(Range(0, 3))
            assert feed.download.users == 1, "it is still being tried"
        quick.close()
        await settled(parts.idle)


async def test_a_dead_origin_is_told_when_the_deadline_is_over(
    tmp_path: Path, registry: Path
) -> None:
    with FaultyOrigin(registry) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            (await parts.open()).close()
    async with rig(tmp_path / "cache", origin.url) as parts:
        error = await failure(parts)
        assert isinstance(error, UnavailableError)
        assert "refused" in str(error)
        await settled(parts.idle)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faulty.status(404), VanishedError),
        (faulty.status(403), AccessDeniedError),
        (faulty.flip, CorruptError),
        (faulty.short, UnavailableError),
        (faulty.endless, MalformedError),
    ],
)
async def test_a_chunk_table_that_cannot_be_had(
    parts: Rig, origin: FaultyOrigin, fault: Fault, kind: type[AxonError]
) -> None:
    origin.always(on_tables(fault))
    assert isinstance(await failure(parts), kind)


async def test_bytes_that_come_before_their_table_wait_for_it(
    parts: Rig, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(gate := Gate(), of="/chunks/")
    feed = await parts.open()
    async with trio.open_nursery() as readers:
        readers.start_soon(feed.need, chunks_of(0))
        await settled(lambda: objects_asked(origin) == 1)
        await gate.reached()
        assert feed.object.present_bytes == 0
        gate.open.set()
    assert await parts.read(feed, 0, CHUNK) == whole[:CHUNK]
    feed.close()
    assert objects_asked(origin) == 1


async def test_every_reader_is_told_and_a_later_one_asks_again(
    parts: Rig, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.always(on_objects(faulty.status(404)))
    feed, errors = await parts.open(), []

    async def read() -> None:
        with pytest.raises(VanishedError) as caught:
            await feed.need(Range(2, 4))
        errors.append(caught.value)

    async with trio.open_nursery() as readers:
        for _ in range(5):
            readers.start_soon(read)
    assert len(errors) == 5
    assert objects_asked(origin) == 1
    origin.always(None)
    assert await parts.read(feed) == whole
    feed.close()


async def test_a_source_s_wish_for_a_pause_ends_with_the_deadline(
    parts: Rig, origin: FaultyOrigin, whole: bytes
) -> None:
    """It is asked once more before a reader is told, which may save the reader."""
    feed = await parts.open()
    origin.plan(faulty.status(429, Retry_After="30"), of="/objects/")
    began = trio.current_time()
    assert await parts.read(feed, 0, CHUNK) == whole[:CHUNK]
    assert trio.current_time() - began < FAST.deadline + 0.3
    feed.close()


async def test_a_source_s_wish_for_a_pause_is_one_of_all_jobs(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    """None of them asks before the pause is over."""
    times = list[float]()

    def once(exchange: Exchange) -> None:
        if exchange.seen.path.startswith("/objects/"):
            times.append(time.monotonic())
            if len(times) == 1:
                faulty.status(429, Retry_After="1")(exchange)

    async with rig(
        tmp_path / "cache", origin.url, limits=replace(FAST, deadline=60), streams=1
    ) as parts:
        feed = await parts.open()
        origin.always(once)
        async with trio.open_nursery() as readers:
            for chunk in range(4):
                readers.start_soon(feed.need, chunks_of(chunk))
        feed.close()
    assert len(times) >= 3
    assert min(times[1:]) - times[0] >= 1


async def test_the_engine_ends_at_once_while_a_source_is_silent(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    settings = Settings((origin.url,), tmp_path / "cache", cache_size=1 << 30, deadline=60)
    with trio.fail_after(5):
        async with open_engine(settings) as engine:
            version = await engine.tree.version(parse_spec(SPEC))
            feed = await engine.fetcher.open(version, version.manifest.files[1])
            origin.plan(gate := Gate(then=faulty.stall_within), of="/objects/")
            engine.nursery.start_soon(feed.need, chunks_of(0))
            await gate.reached()
            gate.open.set()
