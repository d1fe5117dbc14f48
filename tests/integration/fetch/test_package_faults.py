"""Packages from servers that stall, drip and hang up; and mounts that end meanwhile."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.errors import AxonError
from axonfs.fetch.unpacking import PIECE
from axonfs.http_client.urls import target_of
from axonfs.ranges import Range
from tests.support import faulty
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import FAST, Gate, Rig, on_packages, open_files, rig, settled
from tests.support.packages import Pause, add_package
from tests.support.registry import SPEC

LAST = random.Random(5).randbytes(5 * PIECE + 5)
FILES = {"config.json": b"{}", "last.bin": LAST}
PATIENT = replace(FAST, first_byte=20, stall=20, deadline=60)


async def failure(parts: Rig) -> AxonError:
    feed = await parts.open("last.bin", SPEC)
    try:
        with pytest.raises(AxonError) as caught:
            await parts.read(feed)
    finally:
        feed.close()
    return caught.value


@pytest.mark.complains
@pytest.mark.parametrize(
    ("fault", "numbers"),
    [
        (faulty.status(503), {errno.EIO}),
        (faulty.stall_before, {errno.ETIMEDOUT}),
        (faulty.drip(0.02), {errno.ETIMEDOUT}),
    ],
    ids=["503", "stall", "drip"],
)
async def test_a_fault_that_stays_ends_at_the_deadline(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, fault: Fault, numbers: set[int]
) -> None:
    """And the next pass is none the worse for it."""
    add_package(registry, SPEC, FILES)
    origin.always(on_packages(fault))
    async with rig(tmp_path / "cache", origin.url) as parts:
        began = trio.current_time()
        error = await failure(parts)
        assert error.errno in numbers, error
        assert trio.current_time() - began > 0.9 * FAST.deadline
        assert origin.url in str(error)
        await settled(parts.idle)
        assert not open_files("/objects/")
        origin.always(None)
        feed = await parts.open("last.bin", SPEC)
        assert await parts.read(feed) == LAST
        feed.close()


async def test_a_pass_waits_while_its_source_wants_a_pause(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    add_package(registry, SPEC, FILES)
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open("last.bin", SPEC)
        parts.fetcher._network.bodies.pauses.asked(target_of(origin.url).origin, 0.5)
        began = trio.current_time()
        assert await parts.read(feed) == LAST
        assert trio.current_time() - began >= 0.5
        feed.close()


async def test_each_answer_brings_some_and_then_stalls(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    """Progress starts the deadline anew, however often a package breaks off."""
    size = len(add_package(registry, SPEC, FILES))

    def a_piece(exchange: Exchange) -> None:
        exchange.answered = True
        exchange.head()
        exchange.write(exchange.body[: PIECE + 100])
        exchange.hang(20)

    origin.always(on_packages(a_piece))
    async with rig(tmp_path / "cache", origin.url) as parts:
        feed = await parts.open("last.bin", SPEC)
        assert await parts.read(feed) == LAST
        feed.close()
    ranges = [seen.headers["range"] for seen in origin.requests if "/packages/" in seen.path]
    assert ranges == [f"bytes={at}-{size - 1}" for at in range(0, size, PIECE)]


async def test_a_pass_that_pauses_takes_no_turn(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    """One whose package broke off half-way waits in its thread while the only turn is another's."""
    other = "vision/other@1.0.0"
    add_package(registry, SPEC, FILES)
    add_package(registry, other, {"a": b"abc"}, path="packages/other.axon")
    origin.plan(faulty.short, of="/packages/model")
    origin.plan(faulty.status(503, Retry_After="60"), of="/packages/model")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT, streams=1) as parts:
        feed = await parts.open("last.bin", SPEC)
        quick = await parts.open("a", other)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.need, Range(0, 1))
            await settled(lambda: sum("/model" in seen.path for seen in origin.requests) == 3)
            with trio.fail_after(5):
                assert await parts.read(quick) == b"abc"
            nursery.cancel_scope.cancel()
        feed.close()
        quick.close()


@pytest.mark.parametrize("when", ["answer", "body", "pause", "turn"])
async def test_a_mount_that_ends_waits_for_no_package(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, when: str
) -> None:
    """Wherever its pass is; and no descriptor of it stays."""
    add_package(registry, SPEC, FILES)
    gate, pause = Gate(), Pause()
    first: dict[str, Fault] = {"answer": gate, "pause": faulty.short}
    origin.plan(first.get(when, pause), of="/packages/")
    origin.plan(faulty.status(503, Retry_After="60"), of="/packages/")
    other = "vision/other@1.0.0"
    add_package(registry, other, {"a": b"abc"}, path="packages/other.axon")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT, streams=1) as parts:
        feed = await parts.open("last.bin", SPEC)
        parts.nursery.start_soon(feed.need, Range(0, 1))
        asked = 2 if when == "pause" else 1
        await settled(lambda: sum("/packages/" in s.path for s in origin.requests) == asked)
        if when == "turn":
            second = await parts.open("a", other)
            parts.nursery.start_soon(second.need, Range(0, 1))
        await trio.sleep(0.2)
        began = trio.current_time()
    assert trio.current_time() - began < 3
    gate.open.set()
    pause.open.set()
    assert not open_files("/objects/")
