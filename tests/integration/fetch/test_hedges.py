"""One connection of several is slow: the rest of its range comes over another one."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.fetch import Priority, lane, ways
from axonfs.fetch.hedges import IN_A_ROW
from axonfs.http_client import Trust
from tests.support import faulty
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK, FAST, Gate, Rig, objects_asked, rig, settled
from tests.support.registry import RegistryServer, published
from tests.support.relay import Relay
from tests.support.wiring import Authority

JOB = 2 << 20
SIZE = 12 * JOB + 123
JOBS = 13
FILE = "model.safetensors"
TRICKLE = 20 << 10  # bytes per second: half a job takes a minute
PATIENT = replace(FAST, first_byte=60, stall=60, deadline=120)
SECONDS = 30  # a tenth is usual


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, {FILE: SIZE}, chunk_size=CHUNK)


@pytest.fixture(autouse=True)
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "JOB_BYTES", JOB)


class OneBad:
    """The first connection that carried half a job trickles from then on."""

    def __init__(self) -> None:
        self.bad: int | None = None

    def __call__(self, number: int, carried: int) -> float | None:
        if self.bad is None and carried >= JOB // 2:
            self.bad = number
        return TRICKLE if number == self.bad else None


def hedged(parts: Rig) -> int:
    return int(parts.fetcher.statistics()["hedged"])


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_slow_connection_does_not_hold_a_reader_up(
    tmp_path: Path, registry: Path, authority: Authority, whole: bytes, scheme: str
) -> None:
    secure = authority if scheme == "https" else None
    with (
        FaultyOrigin(registry, secure) as origin,
        Relay(origin.url, slow := OneBad()) as relay,
        trio.fail_after(SECONDS),
    ):
        trust = Trust(authority.bundle)
        async with rig(tmp_path / "cache", relay.url, limits=PATIENT, trust=trust) as parts:
            assert await parts.content(FILE) == whole
            await settled(parts.idle)
            assert hedged(parts) == 1
    assert slow.bad is not None
    assert relay.carried < SIZE * 1.05


async def test_equally_slow_connections_are_asked_once(
    tmp_path: Path, server: RegistryServer, whole: bytes
) -> None:
    with Relay(server.url, lambda _number, _carried: 1 << 20) as relay:
        async with rig(tmp_path / "cache", relay.url, limits=PATIENT) as parts:
            assert await parts.content(FILE) == whole
            assert hedged(parts) == 0
    assert len(server.paths("/objects/")) == JOBS


async def test_a_pin_waits_for_a_slow_connection_until_a_reader_does(
    tmp_path: Path, server: RegistryServer, whole: bytes
) -> None:
    with Relay(server.url, OneBad()) as relay, trio.fail_after(SECONDS):
        async with rig(tmp_path / "cache", relay.url, limits=PATIENT) as parts:
            feed = await parts.open()
            for part in feed.parts():
                feed.want(part, Priority.BACKGROUND)
            await settled(lambda: feed.local_bytes >= SIZE - JOB)
            await trio.sleep(1.5)  # as long as it takes where a reader waits
            assert hedged(parts) == 0
            assert await parts.read(feed) == whole
            assert hedged(parts) == 1
            feed.close()


class Crawl:
    """An answer that stops at its middle until it is let go on."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.answered = True
        middle = len(exchange.body) // 2
        exchange.head()
        exchange.write(exchange.body[:middle])
        self.open.wait(SECONDS)
        exchange.write(exchange.body[middle:])


async def read_beside_a_hedge(parts: Rig, crawl: Crawl, origin: FaultyOrigin) -> bytes:
    """Read all. The slow answer goes on once its rest was asked for anew."""
    got = []

    async def read() -> None:
        got.append(await parts.content(FILE))

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as reader:
            reader.start_soon(read)
            await settled(lambda: objects_asked(origin) > JOBS)
            crawl.open.set()
        await settled(parts.idle)
    return got[0]


async def test_the_slow_connection_goes_on_if_it_is_first(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    origin.plan(crawl := Crawl(), *[faulty.behave] * 12, gate := Gate(), of="/objects/")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        assert await read_beside_a_hedge(parts, crawl, origin) == whole
        assert hedged(parts) == 1
        gate.open.set()


async def test_a_hedge_that_fails_is_no_fault(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    refused = [faulty.status(503)] * IN_A_ROW
    origin.plan(crawl := Crawl(), *[faulty.behave] * 12, *refused, of="/objects/")
    async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
        assert await read_beside_a_hedge(parts, crawl, origin) == whole
        assert 1 <= hedged(parts) <= IN_A_ROW


class Hub:
    """Redirects to `elsewhere`, but answers 429 to the first request once that has had all jobs."""

    def __init__(self, elsewhere: FaultyOrigin, retry_after: str) -> None:
        self._elsewhere, self._retry_after = elsewhere, retry_after
        self.refused: float | None = None
        self.redirected = 0.0  # when it did last

    def __call__(self, exchange: Exchange) -> None:
        if exchange.seen.path.startswith("/objects/"):
            if self.refused is None and objects_asked(self._elsewhere) == JOBS:
                self.refused = time.monotonic()
                faulty.status(429, Retry_After=self._retry_after)(exchange)
            else:
                self.redirected = time.monotonic()
                path = exchange.seen.path.lstrip("/")
                faulty.redirect(self._elsewhere.url + path)(exchange)


@pytest.mark.parametrize(("usual", "retry_after"), [(0.0, "2"), (2.0, "0")])
async def test_no_hedge_goes_to_an_overloaded_origin_for_a_while(
    tmp_path: Path,
    registry: Path,
    origin: FaultyOrigin,
    whole: bytes,
    monkeypatch: pytest.MonkeyPatch,
    usual: float,
    retry_after: str,
) -> None:
    monkeypatch.setattr(lane, "OVERLOADED_SECONDS", usual)
    with FaultyOrigin(registry) as elsewhere:
        elsewhere.plan(crawl := Crawl(), of="/objects/")
        origin.always(hub := Hub(elsewhere, retry_after))
        async with rig(tmp_path / "cache", origin.url, limits=PATIENT) as parts:
            assert await read_beside_a_hedge(parts, crawl, elsewhere) == whole
            assert hedged(parts) == 2
    assert hub.refused is not None
    assert hub.redirected - hub.refused >= 2
