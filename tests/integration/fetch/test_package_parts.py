"""Parts of a package's files that a pass left behind: no reader is served from them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from axonfs.errors import CorruptError, MalformedError, OfflineError
from axonfs.fetch import Feed
from axonfs.names import parse_spec
from axonfs.ranges import Range
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import FAST, Rig, objects_asked, rig, settled
from tests.support.packages import PATH, Pause, add_package, stored
from tests.support.registry import SPEC
from tests.support.stores import backing_file

PIECE = 1 << 20
FIRST, LAST = (random.Random(size).randbytes(size) for size in (PIECE + 5, 3 * PIECE + 5))
FILES = {"first.bin": FIRST, "last.bin": LAST}
PATIENT = replace(FAST, first_byte=10, stall=10, deadline=20)


async def frozen_and_rotten(parts: Rig, feed: Feed, backing: Path) -> None:
    """The kernel reads `last.bin`, and its first chunk is found to be damaged."""
    assert await parts.read(feed) == LAST
    assert feed.freeze()
    with backing.open("r+b") as file:
        file.write(b"rot")
    assert await feed.check(Range(0, feed.object.count)) == [0]


async def taken(parts: Rig, size: int) -> None:
    """Return when the pass has read `size` bytes."""
    await settled(lambda: parts.fetcher.statistics()["bytes"] >= size)


@pytest.mark.parametrize("sums", [True, False])
async def test_what_a_broken_pass_left_is_not_served(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, sums: bool
) -> None:
    """Not in the next process either, which knows only the index."""
    size = len(add_package(registry, SPEC, FILES, sums=sums))
    origin.plan(pause := Pause(), of="/packages/")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        feed = await parts.open("last.bin", SPEC)
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed.need, Range(0, 1))
                await taken(parts, size // 2)
                await settled(lambda: feed.object.present_bytes > 0)
                nursery.cancel_scope.cancel()
        assert not feed.present(0, 1)
        pause.open.set()
        parts.fetcher.stop()
    async with rig(tmp_path / "cache", origin.url, offline=True) as parts:
        feed = await parts.open("last.bin", SPEC)
        assert feed.object.present_bytes
        assert not feed.present(0, 1)
        with pytest.raises(OfflineError):
            await feed.need(Range(0, 1))
        feed.close()
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open("last.bin", SPEC)
        assert await parts.read(feed) == LAST
        feed.close()
    assert objects_asked(origin) <= 1


def lost(feed: Feed) -> None:
    """The disk lost the first chunk."""
    feed.object.punch(0, 1)


@pytest.mark.parametrize("sums", [True, False])
async def test_a_lost_chunk_is_not_filled_by_a_package_that_is_wrong(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, sums: bool
) -> None:
    """No reader is served before the package is seen to be right, although one chunk alone is
    absent and all others are those of a package that was."""
    good = stored(FILES)
    add_package(registry, SPEC, FILES, good, sums=sums)
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        feed = await parts.open("last.bin", SPEC)
        assert await parts.read(feed) == LAST
        lost(feed)
        (registry / PATH).write_bytes(stored({**FILES, "last.bin": LAST[::-1]}))
        origin.plan(pause := Pause(), of="/packages/")
        with pytest.RaisesGroup(MalformedError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed.need, Range(0, 1))
                await taken(parts, len(good) + 3 * PIECE)
                await feed.prepare()
                assert not feed.present(0, 1)
                assert not feed.object.verified
                pause.open.set()
        with pytest.raises(CorruptError):
            await parts.read(feed)
        feed.close()


async def test_what_the_kernel_reads_is_not_written_over_by_a_package_that_is_wrong(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES, stored(FILES))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open("last.bin", SPEC)
        backing = backing_file(tmp_path / "cache", feed.entry.digest)
        await frozen_and_rotten(parts, feed, backing)
        (registry / PATH).write_bytes(stored({**FILES, "last.bin": LAST[::-1]}))
        with pytest.raises(MalformedError):
            await feed.need(Range(0, 1))
        assert backing.read_bytes() == b"rot" + LAST[3:]
        feed.object.thaw()
        feed.close()


async def test_what_rot_took_of_what_the_kernel_reads_is_put_back(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES)
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open("last.bin", SPEC)
        backing = backing_file(tmp_path / "cache", feed.entry.digest)
        await frozen_and_rotten(parts, feed, backing)
        await feed.need(Range(0, 1))
        assert backing.read_bytes() == LAST
        feed.object.thaw()
        feed.close()


async def test_packages_that_hold_one_file_are_unpacked_one_after_the_other(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    """The second one has something else in its place, and breaks off: the first is not spoilt."""
    add_package(registry, SPEC, FILES, stored(FILES))
    other, files = "vision/other@1.0.0", {"new.bin": b"new", "last.bin": LAST}
    broken = stored({**files, "last.bin": LAST[::-1]})[: 2 * PIECE]
    add_package(registry, other, files, broken, path="other.axon")
    origin.plan(pause := Pause(), of="/packages/")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        feed = await parts.open("last.bin", SPEC)
        second = await parts.open("new.bin", other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.need, Range(0, feed.object.count))
            await taken(parts, 3 * PIECE)
            nursery.start_soon(second.need, Range(0, 1))
            await trio.testing.wait_all_tasks_blocked(0.05)
            pause.open.set()
        assert await parts.read(feed) == LAST
        assert await parts.read(second) == b"new"
        version = await parts.tree.version(parse_spec(other))
        with pytest.raises(MalformedError):
            await parts.fetcher.packages.unpack(version)
        assert await parts.read(feed) == LAST
        assert sum("/packages/" in seen.path for seen in origin.requests) == 1
        feed.close()
        second.close()


async def test_a_pass_that_ended_before_it_was_noted_counts(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    """The last chunk of a file landed, and a kill came: another pass writes nothing over it."""
    good = stored(FILES)
    add_package(registry, SPEC, FILES, good, sums=False)
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open("last.bin", SPEC)
        assert await parts.read(feed) == LAST
        lost(feed)
        feed.object.land(0, memoryview(LAST[:PIECE]))
        assert feed.object.complete
        assert not feed.object.verified
        other = await parts.open("first.bin", SPEC)
        lost(other)
        (registry / PATH).write_bytes(stored({**FILES, "last.bin": LAST[::-1]}))
        with pytest.raises(MalformedError):
            await other.need(Range(0, 1))
        await feed.prepare()
        assert await parts.read(feed) == LAST
        other.close()
        feed.close()


async def test_a_package_of_two_answers_that_differ_is_taken_anew(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    """A server that has another one hangs up half-way, and another server goes on."""
    add_package(registry, SPEC, FILES, stored(FILES))
    other = stored({**FILES, "last.bin": LAST[::-1]})

    def half_of_another(exchange: Exchange) -> None:
        exchange.body = other[: len(other) * 2 // 3]
        exchange.send()
        exchange.hang_up()

    origin.plan(half_of_another, of="/packages/")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        feed = await parts.open("last.bin", SPEC)
        assert await parts.read(feed) == LAST
        assert feed.object.verified
        feed.close()
    assert sum("/packages/" in seen.path for seen in origin.requests) == 3
