"""A limit on bytes per second over real requests: no read fails because of it; demand is first."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from axonfs.fetch import Bandwidth, Priority
from axonfs.fetch.bandwidth import SMALLEST, UNUSED_SECONDS
from axonfs.http_client import Trust
from axonfs.ranges import Range
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK, FAST, objects_asked, rig, settled
from tests.support.packages import add_package
from tests.support.registry import RegistryServer, published
from tests.support.wiring import Authority

SIZE = 40 * CHUNK + 123
FILE = "model.safetensors"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, {FILE: SIZE, "b.bin": 3 * CHUNK}, chunk_size=CHUNK)


@pytest.fixture(params=["http", "https"])
def either(
    request: pytest.FixtureRequest, registry: Path, authority: Authority
) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(registry, authority if request.param == "https" else None) as origin:
        yield origin


async def test_no_more_than_the_limit_comes_in(
    tmp_path: Path, either: FaultyOrigin, authority: Authority, whole: bytes
) -> None:
    rate = 4 << 20
    async with rig(
        tmp_path / "cache", either.url, bandwidth=rate, trust=Trust(authority.bundle)
    ) as parts:
        began = time.monotonic()
        assert await parts.content(FILE) == whole
        took = time.monotonic() - began
    assert len(whole) <= rate * (took + UNUSED_SECONDS) + 8 * max(SMALLEST, rate // 20)


async def test_no_more_of_a_package_comes_in(
    tmp_path: Path, registry: Path, origin: FaultyOrigin
) -> None:
    rate, files = 2 << 20, {"noise.bin": random.Random(3).randbytes(1 << 20)}
    size = len(add_package(registry, "vision/resnet50@1.0.0", files))
    async with rig(tmp_path / "cache", origin.url, bandwidth=rate) as parts:
        began = time.monotonic()
        assert await parts.content("noise.bin", "vision/resnet50@1.0.0") == files["noise.bin"]
        took = time.monotonic() - began
    assert size <= rate * (took + UNUSED_SECONDS) + rate // 20


async def test_the_limit_itself_fails_no_read(tmp_path: Path) -> None:
    """A chunk takes longer than the deadline, and the source is not to blame."""
    chunk, rate = 4 * CHUNK, 128 << 10
    assert chunk / rate > FAST.deadline
    registry = published(tmp_path, {FILE: chunk}, chunk_size=chunk)
    with FaultyOrigin(registry) as origin:
        async with rig(tmp_path / "cache", origin.url, bandwidth=rate) as parts:
            with trio.fail_after(20):
                assert len(await parts.content(FILE)) == chunk
        assert objects_asked(origin) == 1


async def test_a_fault_after_a_long_wait_is_tried_again(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    """A connection that breaks when the limit held its bytes back for longer than the deadline."""
    origin.plan(faulty.short, of="/objects/")
    async with rig(tmp_path / "cache", origin.url, bandwidth=40 << 10) as parts:
        feed = await parts.open()
        assert await parts.read(feed, 0, CHUNK) == whole[:CHUNK]
        feed.close()


async def test_what_a_reader_waits_for_is_not_held_back_behind_a_pin(
    tmp_path: Path, server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, share = Counter[int](), Bandwidth.share

    def counted(self: Bandwidth, most: int, priority: Callable[[], int], *rest: Any) -> int:
        got = share(self, most, priority, *rest)
        taken[priority()] += got
        return got

    monkeypatch.setattr(Bandwidth, "share", counted)
    async with rig(tmp_path / "cache", server.url, bandwidth=512 << 10) as parts:
        pinned, feed = await parts.open(), await parts.open("b.bin")
        for part in pinned.parts(4 * CHUNK):
            pinned.want(part, Priority.BACKGROUND)
        await settled(lambda: parts.fetcher.statistics()["in_flight"] >= 4)
        taken.clear()
        await feed.need(Range(0, 3))
        # The pin goes on until the reader's answer begins. In turn it would have four times more.
        assert taken[Priority.DEMAND] == 3 * CHUNK >= taken[Priority.BACKGROUND]
        parts.fetcher.bandwidth.rate = 0  # applies to the pin, which is under way
        with trio.fail_after(10):
            await settled(lambda: pinned.complete)
        pinned.close()
        feed.close()


async def test_a_mount_that_ends_does_not_wait_for_its_share(
    tmp_path: Path, server: RegistryServer
) -> None:
    with trio.fail_after(10):
        async with rig(tmp_path / "cache", server.url, bandwidth=1 << 10) as parts:
            feed = await parts.open()
            feed.want(Range(0, 40), Priority.BACKGROUND)
            await settled(lambda: parts.fetcher.statistics()["in_flight"] > 0)
            feed.close()
