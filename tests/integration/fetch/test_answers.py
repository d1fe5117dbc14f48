"""Objects without a chunk table whose source answers from several nodes, with ETags of their own.

The digest decides: what two answers differ about reaches no reader before it was compared.
"""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
import trio

import axonfs.fetch.punching
import axonfs.fetch.ways
from axonfs.errors import ChangedError, CorruptError
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.vfs import Vfs
from tests.support import faulty
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK, chunks_of, objects_asked, on_objects, rig, without_tables
from tests.support.registry import SPEC, published

PIECE = CHUNK << 4  # what an object without a table is fetched in
FILE = "model.safetensors"
SIZE = 10 * PIECE + 17
JOBS = 3  # ranged GETs for all of it


@pytest.fixture(autouse=True)
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small object takes several."""
    monkeypatch.setattr(axonfs.fetch.ways, "JOB_BYTES", 4 * PIECE)
    monkeypatch.setattr(axonfs.fetch.punching, "KEEP_BEHIND", PIECE)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    registry = published(tmp_path_factory.mktemp("www"), {FILE: SIZE}, chunk_size=PIECE)
    without_tables(registry)
    return registry


def node(etag: str | None, *, wrong: bool = False, ranges: bool = True) -> Fault:
    """A node that knows its own ETag: another one in If-Range gets the whole object.

    Args:
        wrong: all its bytes are others.
        ranges: whether it heeds If-Range; else it has the range of what it has.
    """

    def fault(exchange: Exchange) -> None:
        asked = exchange.seen.headers.get("if-range")
        if wrong:
            exchange.whole = exchange.whole[::-1]
        start, stop = _asked(exchange)
        exchange.body = exchange.whole[start:stop]
        exchange.status = 206
        exchange.headers = {"Content-Range": f"bytes {start}-{stop - 1}/{SIZE}"}
        if asked not in (None, etag) and ranges:
            faulty.ignore_range(exchange)
        exchange.headers["Content-Length"] = str(len(exchange.body))
        if etag:
            exchange.headers["ETag"] = etag

    return on_objects(fault)


def _asked(exchange: Exchange) -> tuple[int, int]:
    first, last = exchange.seen.headers["range"].removeprefix("bytes=").split("-")
    return int(first), int(last) + 1


def in_turn(*nodes: Fault) -> Fault:
    """A load balancer: requests for objects go to one node after the other."""
    turn = itertools.cycle(nodes)
    return on_objects(lambda exchange: next(turn)(exchange))


ALIKE: dict[str, tuple[Fault, ...]] = {
    "strong": (node('"a"'), node('"b"')),
    "weak": (node('W/"a"'), node('W/"b"')),
    "If-Range is not heeded": (node('"a"', ranges=False), node('"b"', ranges=False)),
    "one has none": (node('"a"'), node(None)),
    "one has none, and sends ranges": (node('"a"', ranges=False), node(None, ranges=False)),
    "three": (node('"a"'), node('"b"'), node('"c"')),
}


@pytest.mark.parametrize("nodes", ALIKE)
async def test_nodes_with_the_same_bytes_and_other_etags(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes, nodes: str
) -> None:
    """No byte is fetched twice, unless an answer brings more than was asked for."""
    origin.always(in_turn(*ALIKE[nodes]))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        assert await parts.read(feed, 0, 1000) == whole[:1000]
        assert await parts.read(feed) == whole
        assert feed.object.verified
        assert feed.restarts == 0
        assert parts.fetcher.statistics()["bytes"] == SIZE
        feed.close()


async def test_nothing_more_is_served_of_two_answers_before_the_digest_matched(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(node('"a"'), node('"b"'), of="/objects/")
    origin.always(node('"a"'))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        assert await parts.read(feed, 0, 1000) == whole[:1000]
        assert feed.present(0, 1)
        assert await parts.read(feed, 5 * PIECE, 5 * PIECE + 9) == whole[5 * PIECE :][:9]
        assert feed.object.verified
        feed.close()


async def test_an_eviction_that_finds_nothing_to_give_up_leaves_the_digest_to_decide(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(node('"a"'), of="/objects/")
    origin.always(node('"b"'))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        assert await feed.punch(PIECE) == 0
        assert await parts.read(feed, 0, 1000) == whole[:1000]
        assert await parts.read(feed) == whole
        feed.close()


async def test_where_a_node_has_other_bytes_it_begins_again_from_one_answer(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(node('"a"', wrong=True), node('"b"'), node('"a"', wrong=True), of="/objects/")
    origin.always(node('"b"'))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        await feed.need(chunks_of(0))  # from the wrong node, and the only answer so far
        assert await parts.read(feed) == whole
        assert (feed.object.verified, feed.restarts) == (True, 1)
        feed.close()


async def test_answers_that_no_etag_ties_are_not_taken_for_one(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    """One node of a source that sends no ETags has other bytes."""
    origin.plan(node(None), node(None, wrong=True), of="/objects/")
    origin.always(node(None))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        await feed.need(chunks_of(0))
        assert await parts.read(feed) == whole
        assert (feed.object.verified, feed.restarts) == (True, 1)
        feed.close()


async def test_the_first_answers_are_tied_though_they_come_at_once(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    """Neither request could name the ETag of the other's answer."""
    both = threading.Barrier(2)

    def at_once(etag: str) -> Fault:
        def fault(exchange: Exchange) -> None:
            node(etag)(exchange)
            both.wait(5)

        return fault

    origin.plan(at_once('"a"'), at_once('"b"'), of="/objects/")
    origin.always(node('"a"'))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        async with trio.open_nursery() as nursery:
            for number in (0, 9):
                nursery.start_soon(feed.need, chunks_of(number))
        assert feed.download.answers.differ is not None
        assert await parts.read(feed) == whole
        feed.close()


async def test_short_answers_to_one_request_are_tied_too(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node sends less than it is asked for, and another one goes on."""
    monkeypatch.setattr(axonfs.fetch.ways, "JOB_BYTES", 2 * SIZE)

    def short(exchange: Exchange) -> None:
        node('"a"', wrong=True)(exchange)
        exchange.body = exchange.body[:PIECE]
        exchange.headers |= {
            "Content-Range": f"bytes 0-{PIECE - 1}/{SIZE}",
            "Content-Length": str(PIECE),
        }

    origin.plan(short, of="/objects/")
    origin.always(node('"b"'))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        assert await parts.read(feed) == whole
        assert (feed.object.verified, feed.restarts) == (True, 1)
        feed.close()


@pytest.mark.complains
async def test_begins_are_bounded(tmp_path: Path, origin: FaultyOrigin) -> None:
    """Where no answer has the right bytes, that is what readers hear."""
    origin.always(in_turn(node('"a"', wrong=True), node('"b"', wrong=True)))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        with pytest.raises(CorruptError, match="wrong sha256"):
            await feed.need(Range(0, feed.object.count))
        asked = objects_asked(origin)
        assert asked <= 2 * JOBS + 2
        with pytest.raises(CorruptError):
            await feed.need(chunks_of(0))
        assert objects_asked(origin) == asked
        feed.close()


async def test_what_an_earlier_process_left_is_not_taken_for_one_answer(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.always(node('"a"', wrong=True))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        await feed.need(chunks_of(3))
        feed.close()
    origin.always(node('"b"'))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        assert await parts.read(feed) == whole
        feed.close()


async def test_a_reader_that_had_wrong_bytes_is_told(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    """Its file is not put together of two answers; another reader gets the right one."""
    origin.plan(node('"a"', wrong=True), of="/objects/")
    origin.always(node('"b"'))
    async with rig(tmp_path / "cache", origin.url) as parts:
        vfs = Vfs(parts.tree, parts.fetcher, dict)
        inode = 1
        for part in (*parse_spec(SPEC).segments, FILE):
            inode = (await vfs.lookup(inode, part)).inode
        first, second = [await opened(vfs, inode) for _ in range(2)]
        assert bytes(await vfs.files.read(first, 0, 100)) != whole[:100]
        at = 9 * PIECE
        with pytest.raises(CorruptError, match="got wrong ones"):
            await vfs.files.read(first, at, 100)
        assert bytes(await vfs.files.read(second, 0, 100)) == whole[:100]
        third = await vfs.open(inode)
        assert not third.keeps_pages, "the kernel still has the wrong ones"
        vfs.files.opened(third.number, inode, 0)
        for number in (first, second, third.number):
            vfs.files.release(number)


async def opened(vfs: Vfs, inode: int) -> int:
    number = (await vfs.open(inode)).number
    vfs.files.opened(number, inode, 0)
    return number


async def test_after_chunks_were_given_up_the_node_of_the_first_answer_is_looked_for(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    """No digest could tell any more whether what was read was of the same bytes."""
    origin.always(in_turn(node('"a"'), node('"b"')))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open()
        await feed.need(chunks_of(0))
        assert await feed.punch(PIECE)
        for at in (0, 5 * PIECE, 9 * PIECE):
            assert await parts.read(feed, at, at + 9) == whole[at : at + 9]
        feed.close()
    origin.plan(node('"a"'), of="/objects/")
    origin.always(node('"b"'))
    async with rig(tmp_path / "other", origin.url) as parts:
        feed = await parts.open()
        await feed.need(chunks_of(0))
        assert await feed.punch(PIECE)
        with pytest.raises(ChangedError, match="its servers differ"):
            await feed.need(chunks_of(9))
        feed.close()
