"""A silent source beside others: what its readers get, and that no other reader waits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.catalog.catalog import Catalog
from axonfs.errors import AxonError, DeadlineError, UnavailableError
from axonfs.fetch import Feed
from axonfs.formats.listing import Listing
from axonfs.http_client import Documents, Limits, Routes
from axonfs.http_client.shares import CONCURRENT
from axonfs.names import Spec, parse_spec
from tests.support import faulty, silence
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import (
    CHUNK,
    FAST,
    HEAD_START,
    Rig,
    objects_asked,
    on_objects,
    rig,
    settled,
)
from tests.support.registry import published

SILENT, GOOD = "nlp/silent@1.0.0", "nlp/good@1.0.0"
MANY = 40
LIMITS = replace(FAST, deadline=1.2, first_byte=0.6, stall=0.6)
NAMES = [f"part{number}.bin" for number in range(MANY)]


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[FaultyOrigin]:
    """A registry of many files."""
    folder = tmp_path / "silent"
    folder.mkdir()
    registry = published(folder, dict.fromkeys(NAMES, CHUNK), spec=SILENT, chunk_size=CHUNK)
    with FaultyOrigin(registry) as origin:
        yield origin


@pytest.fixture
def good(tmp_path: Path) -> Iterator[FaultyOrigin]:
    folder = tmp_path / "good"
    folder.mkdir()
    with FaultyOrigin(
        published(folder, {"w.bin": 20 * CHUNK}, spec=GOOD, chunk_size=CHUNK)
    ) as origin:
        yield origin


class Readers:
    """Readers of a file each, and how they ended."""

    def __init__(self, rig: Rig, stack: AsyncExitStack) -> None:
        self.ends: list[tuple[float, AxonError | None]] = []
        self._rig = rig
        self._stack = stack

    async def open(self, name: str, spec: str = SILENT) -> Feed:
        feed = await self._rig.open(name, spec)
        self._stack.callback(feed.close)
        return feed

    async def read(self, feed: Feed) -> None:
        began, error = trio.current_time(), None
        try:
            await self._rig.read(feed)
        except AxonError as exc:
            error = exc
        self.ends.append((trio.current_time() - began, error))


@asynccontextmanager
async def reading(tmp_path: Path, *urls: str) -> AsyncIterator[tuple[Rig, Readers]]:
    """The parts over these registries, with readers whose files are closed at the end."""
    async with rig(tmp_path / "cache", *urls, limits=LIMITS) as parts, AsyncExitStack() as stack:
        yield parts, Readers(parts, stack)


async def test_readers_of_a_silent_source_take_no_stream_from_another(
    tmp_path: Path, silent: FaultyOrigin, good: FaultyOrigin
) -> None:
    async with reading(tmp_path, silent.url, good.url) as (parts, readers):
        feeds = [await readers.open(name) for name in NAMES]
        silent.always(on_objects(faulty.stall_before))
        async with trio.open_nursery() as nursery:
            for feed in feeds:
                nursery.start_soon(readers.read, feed)
            await settled(lambda: parts.fetcher.statistics()["queued"] > 0)
            feed = await readers.open("w.bin", GOOD)
            await parts.read(feed)
            assert not readers.ends, "the reader of the other source waited for them"
        assert {type(error) for _, error in readers.ends} == {DeadlineError}
        assert max(seconds for seconds, _ in readers.ends) < 2 * LIMITS.deadline


@pytest.mark.parametrize(
    "fault",
    [
        faulty.stall_before,
        faulty.stall_within,
        faulty.drip_headers(0.05),
        faulty.hang_up_before,
        faulty.reset_before,
    ],
)
async def test_a_stall_is_paid_once_and_is_over_at_once(
    tmp_path: Path, silent: FaultyOrigin, fault: faulty.Fault
) -> None:
    """Readers during it fail soon, and the first reader after it gets the bytes."""
    async with reading(tmp_path, silent.url) as (parts, readers):
        feeds = [await readers.open(name) for name in NAMES[:6]]
        silent.always(on_objects(fault))
        for feed in (*feeds[:5], feeds[0]):
            await readers.read(feed)
        (first, error), *later = readers.ends
        assert first >= LIMITS.deadline
        assert error is not None
        assert {(type(found), found and found.what) for _, found in later} == {
            (type(error), error.what)
        }
        assert sum(seconds for seconds, _ in later) < LIMITS.deadline
        silent.always(None)
        for feed in (feeds[5], feeds[0], feeds[1]):
            await parts.read(feed)


async def test_what_one_object_lacks_is_no_stall_of_its_origin(
    tmp_path: Path, silent: FaultyOrigin
) -> None:
    """The reader that comes next to that object fails soon, as the kernel's second request does."""
    async with reading(tmp_path, silent.url) as (parts, readers):
        bad, *rest = [await readers.open(name) for name in NAMES[:30]]

        def fault(exchange: Exchange) -> None:
            if exchange.seen.path.endswith(bad.entry.digest):
                faulty.stall_before(exchange)

        silent.always(fault)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(readers.read, bad)
            for feed in rest:
                await trio.sleep(0.05)
                await parts.read(feed)
        await readers.read(bad)
        (first, error), (second, same) = readers.ends
        assert first >= LIMITS.deadline
        assert second < LIMITS.deadline / 2
        assert error is not None
        assert same is not None
        assert error.what == same.what
        silent.always(None)
        await parts.read(bad)


async def test_a_source_that_is_slow_is_waited_for(tmp_path: Path, silent: FaultyOrigin) -> None:
    """Forty readers of one that answers one of them at a time, for more than a deadline."""
    turn = threading.Lock()

    def slowly(exchange: Exchange) -> None:
        with turn:
            exchange.hang(0.06)

    async with reading(tmp_path, silent.url) as (_, readers):
        feeds = [await readers.open(name) for name in NAMES]
        silent.always(on_objects(slowly))
        async with trio.open_nursery() as nursery:
            for feed in feeds:
                nursery.start_soon(readers.read, feed)
        assert [error for _, error in readers.ends] == MANY * [None]
        assert max(seconds for seconds, _ in readers.ends) > LIMITS.deadline


async def test_the_share_belongs_to_who_is_asked(
    tmp_path: Path, silent: FaultyOrigin, good: FaultyOrigin
) -> None:
    """A registry that redirects most objects to a host that is silent serves the others."""
    async with reading(tmp_path, silent.url) as (parts, readers):
        own, *elsewhere = [await readers.open(name) for name in NAMES]
        good.always(faulty.stall_before)

        def fault(exchange: Exchange) -> None:
            if not exchange.seen.path.endswith(own.entry.digest):
                faulty.redirect(good.url + exchange.seen.path.lstrip("/"))(exchange)

        silent.always(on_objects(fault))
        async with trio.open_nursery() as nursery:
            for feed in elsewhere:
                nursery.start_soon(readers.read, feed)
            await settled(lambda: bool(good.requests))
            await parts.read(own)
            assert not readers.ends
        assert {type(error) for _, error in readers.ends} == {DeadlineError}
        assert all(good.url in str(error) for _, error in readers.ends)


async def test_an_object_of_two_sources_comes_from_the_one_that_answers(
    tmp_path: Path, silent: FaultyOrigin
) -> None:
    """Once the other is known to be silent, it is not asked first."""
    with FaultyOrigin(silent.directory) as mirror:
        async with reading(tmp_path, silent.url, mirror.url) as (parts, readers):
            feeds = [await readers.open(name) for name in NAMES[:5]]
            silent.always(on_objects(faulty.stall_before))
            await readers.read(feeds[0])
            second = replace(feeds[0].versions[0], base=mirror.url, source=parts.tree.registries[1])
            for feed in feeds[1:]:
                feed.versions.append(second)
                with trio.fail_after(LIMITS.first_byte):
                    await parts.read(feed)
            assert objects_asked(mirror) >= 4


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """Where connections are not accepted any more: further ones get no answer at all."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        kept = [socket.socket() for _ in range(4)]
        for sock in kept:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        for sock in kept:
            sock.close()


@pytest.fixture
def unanswered() -> Iterator[str]:
    with silence.unanswered() as url:
        yield f"{url}/"


async def failing(documents: Documents, url: str) -> tuple[float, AxonError]:
    began = trio.current_time()
    with pytest.raises((DeadlineError, UnavailableError)) as caught:
        await documents.get(url, limit=1 << 20)
    return trio.current_time() - began, caught.value


def patient(limits: Limits = LIMITS) -> Documents:
    return Documents(limits, routes=Routes({}))


@pytest.mark.parametrize("place", ["unanswered", "full_backlog"])
async def test_documents_of_another_source_do_not_wait(
    good: FaultyOrigin, place: str, request: pytest.FixtureRequest
) -> None:
    url, ends = request.getfixturevalue(place), list[tuple[float, AxonError]]()

    async def ask(number: int) -> None:
        ends.append(await failing(documents, f"{url}{number}"))

    async with patient() as documents, trio.open_nursery() as nursery:
        for number in range(CONCURRENT + 8):
            nursery.start_soon(ask, number)
        await trio.sleep(0.1)
        assert await documents.get(f"{good.url}api/v1/index.json", limit=1 << 20)
        assert not ends
    assert max(seconds for seconds, _ in ends) < 2 * LIMITS.deadline


@pytest.mark.parametrize("fault", [faulty.stall_before, faulty.stall_within])
async def test_a_stall_of_documents_is_paid_once_and_is_over_at_once(
    good: FaultyOrigin, fault: faulty.Fault
) -> None:
    url = f"{good.url}api/v1/index.json"
    good.always(fault)
    async with patient() as documents:
        first, error = await failing(documents, url)
        assert first >= 0.9 * LIMITS.deadline
        later = [await failing(documents, f"{url}?{number}") for number in range(4)]
        assert sum(seconds for seconds, _ in later) < LIMITS.deadline
        assert {found.what for _, found in later} == {error.what}
        good.always(None)
        assert await documents.get(url, limit=1 << 20)


async def test_a_source_that_refuses_one_document_does_not_stall(good: FaultyOrigin) -> None:
    """Others of its documents, which take their time, are waited for."""
    limits = replace(LIMITS, attempts=2)

    def fault(exchange: Exchange) -> None:
        if "search" in exchange.seen.path:
            faulty.status(500)(exchange)
        else:
            exchange.hang(0.4)

    good.always(fault)
    async with patient(limits) as documents:
        await failing(documents, f"{good.url}api/v1/search?q=x")
        assert await documents.get(f"{good.url}api/v1/index.json", limit=1 << 20)


def slow(seconds: float) -> faulty.Fault:
    """Answer as ever, and late."""

    def fault(exchange: Exchange) -> None:
        exchange.hang(seconds)

    return fault


@pytest.fixture
def both(tmp_path: Path, silent: FaultyOrigin) -> Iterator[FaultyOrigin]:
    """A registry with the same names as the silent one, and a version that only it has."""
    folder = tmp_path / "both"
    folder.mkdir()
    published(folder, {"w.bin": 10}, spec=SILENT, seed=7)
    with FaultyOrigin(published(folder, {"w.bin": 10}, spec="nlp/own@1.0.0")) as origin:
        yield origin


async def test_a_silent_registry_keeps_the_next_ones_answer_for_a_moment(
    tmp_path: Path, silent: FaultyOrigin, both: FaultyOrigin
) -> None:
    """To a lookup, to what versions there are, and to a listing."""
    silent.always(faulty.stall_before)
    async with rig(tmp_path / "cache", silent.url, both.url, limits=LIMITS) as parts:
        with trio.fail_after(LIMITS.deadline / 2):
            assert parse_spec("nlp/own@1.0.0") in (await parts.tree.catalog()).by_spec
        with trio.fail_after(LIMITS.deadline / 2):
            version = await parts.tree.version(parse_spec("nlp/own@1.0.0"))
        assert version.base == both.url
        with trio.fail_after(LIMITS.deadline / 2):
            assert (await parts.tree.versions("nlp/own")).latest == "1.0.0"


async def test_the_first_registry_is_waited_for_as_long_as_no_other_has_it(
    tmp_path: Path, silent: FaultyOrigin, both: FaultyOrigin
) -> None:
    async with rig(tmp_path / "cache", both.url, silent.url, limits=LIMITS) as parts:
        both.always(slow(2 * HEAD_START))
        assert (await parts.tree.version(parse_spec("nlp/own@1.0.0"))).base == both.url
        assert (await parts.tree.versions("nlp/own")).latest == "1.0.0"


async def test_the_first_registry_that_has_a_version_serves_it_though_it_is_slow(
    tmp_path: Path, silent: FaultyOrigin, both: FaultyOrigin
) -> None:
    async with rig(tmp_path / "cache", silent.url, both.url, limits=LIMITS) as parts:
        silent.always(slow(HEAD_START / 4))
        assert (await parts.tree.version(parse_spec(SILENT))).base == silent.url


async def test_what_a_registry_lists_late_is_listed_then(
    tmp_path: Path, silent: FaultyOrigin, good: FaultyOrigin
) -> None:
    async with rig(tmp_path / "cache", silent.url, good.url, limits=LIMITS) as parts:
        silent.always(slow(2 * HEAD_START))
        assert parse_spec(SILENT) not in (await parts.tree.catalog()).by_spec
        await settled(lambda: not parts.tree.has_catalog())
        assert parse_spec(SILENT) in (await parts.tree.catalog()).by_spec


async def test_what_is_listed_while_the_catalog_is_made_is_not_missed(
    tmp_path: Path, silent: FaultyOrigin, good: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path / "cache", silent.url, good.url, limits=LIMITS) as parts:
        state = parts.tree.outages.of(parts.tree.registries[0])

        def make(listings: Iterable[Listing], local: Iterable[Spec]) -> Catalog:
            while state.listing:  # in a thread
                time.sleep(0.01)
            return Catalog(listings, local)

        monkeypatch.setattr("axonfs.catalog.tree.Catalog", make)
        silent.always(slow(2 * HEAD_START))
        assert parse_spec(SILENT) in (await parts.tree.catalog()).by_spec
