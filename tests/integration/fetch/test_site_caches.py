"""Bytes through site caches: which one is asked, and that the fault of one is its own alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.errors import AxonError, DeadlineError, UnavailableError
from axonfs.fetch import Priority, hedges, lane, pace, trials
from axonfs.http_client import caches
from axonfs.ranges import Range
from tests.integration.fetch.conftest import site
from tests.support import faulty
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import (
    CHUNK,
    FAST,
    objects_asked,
    on_objects,
    rig,
    settled,
    without_tables,
)

SLICE = CHUNK  # each cache has several, whatever its URL
MODEL = Path("models/nlp/tiny/1.0.0/model.safetensors")  # 20 chunks and a bit


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "SLICE", SLICE)


def name(cache: FaultyOrigin) -> str:
    return cache.url.rstrip("/")


def page(exchange: Exchange) -> None:
    """What a captive portal answers."""
    exchange.status, exchange.body = 200, b"<html>please log in</html>"
    exchange.headers = {"Content-Type": "text/html", "Content-Length": str(len(exchange.body))}


def shorter(exchange: Exchange) -> None:
    """Promise the body, send half of it, hang up."""
    exchange.head()
    exchange.write(exchange.body[: len(exchange.body) // 2])
    exchange.hang_up()


MISSING, GATEWAY = faulty.status(404), faulty.status(502)
FAULTS = [
    faulty.stall_before,
    faulty.stall_within,
    faulty.reset_before,
    faulty.reset_within,
    faulty.flip,
    shorter,
    faulty.ignore_range,
    faulty.unreadable_range,
    faulty.changed_size,
    faulty.garbage,
    MISSING,
    faulty.status(416),
    GATEWAY,
    faulty.status(500),
    faulty.status(503, Retry_After="30"),
    faulty.redirect("http://127.0.0.1:9/elsewhere"),
    page,
]


async def test_each_slice_has_a_cache_and_is_asked_of_no_other(
    registry: Path, tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin]
) -> None:
    """Every host asks the same cache for a slice, by one request that does not leave it."""
    whole, asked = (tmp_path / MODEL).read_bytes(), []
    for host in ("one", "another"):
        async with rig(tmp_path / host, origin.url, sites=[site(origin, *three)]) as parts:
            assert await parts.content("model.safetensors") == whole
        asked.append([sorted(seen.headers["range"] for seen in one.requests) for one in three])
        for one in three:
            assert all(seen.headers["axonfs-object"].startswith("sha256:") for seen in one.requests)
            one.requests.clear()
    assert objects_asked(origin) == 0
    assert asked[0] == asked[1]
    assert sorted(itertools.chain(*asked[0])) == sorted(
        f"bytes={start}-{min(start + SLICE, len(whole)) - 1}"
        for start in range(0, len(whole), SLICE)
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: getattr(fault, "__name__", "fault"))
async def test_a_fault_of_a_cache_is_its_own(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], fault: Fault
) -> None:
    """Readers get right bytes of another cache, though the origin may not be asked."""
    bad, *good = three
    bad.always(on_objects(fault))
    caches_ = site(origin, bad, *good, fallback=False)
    async with rig(tmp_path / "cache", origin.url, sites=[caches_]) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()
        assert objects_asked(origin) == 0
        assert objects_asked(bad) >= 1
        state = next(one for one in caches_ if one.name == name(bad))
        # What says nothing of other objects: no such object, no answer of the source, no ranges.
        assert state.set_aside is (fault not in (MISSING, GATEWAY, faulty.ignore_range))


async def test_the_origin_is_asked_where_no_cache_has_the_bytes(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin]
) -> None:
    """At once: not after the deadline, nor after a pause for each of them."""
    for one, fault in zip(three, (MISSING, faulty.reset_before, faulty.ignore_range), strict=True):
        one.always(on_objects(fault))
    async with rig(tmp_path / "cache", origin.url, sites=[site(origin, *three)]) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()
    assert objects_asked(origin) == 21  # chunks


@pytest.mark.parametrize("fault", [MISSING, GATEWAY], ids=["404", "502"])
async def test_what_no_cache_has_is_no_fault_of_the_caches(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], fault: Fault
) -> None:
    """The reader is told what they say, and what they do have is read all the same."""
    for one in three:
        one.always(on_objects(fault))
    caches_ = site(origin, *three, fallback=False)
    async with rig(tmp_path / "cache", origin.url, sites=[caches_]) as parts:
        feed = await parts.open()
        with pytest.raises(AxonError, match="404" if fault is MISSING else "502"):
            await feed.need(Range(0, 1))
        for one in three:
            one.always(None)
        await feed.need(Range(1, 2))
        feed.close()
    assert not any(cache.set_aside for cache in caches_)
    assert objects_asked(origin) == 0


@pytest.mark.complains
async def test_wrong_bytes_name_the_cache(
    tmp_path: Path,
    origin: FaultyOrigin,
    three: list[FaultyOrigin],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every cache but one has wrong bytes in every slice: more often than a source may."""
    for one in three:
        one.always(on_objects(faulty.flip))
    async with rig(tmp_path / "cache", origin.url, sites=[site(origin, *three)]) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()
    named = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for one in three:
        assert any(f"site cache {name(one)} is set aside" in text for text in named)
    assert origin.url not in "".join(named)


WAITING = on_objects(faulty.stall_before)


@pytest.mark.parametrize(
    "fault", [faulty.reset_before, faulty.stall_before, WAITING], ids=["refuse", "stall", "wait"]
)
async def test_without_a_cache_and_without_the_origin_a_read_ends_at_the_deadline(
    tmp_path: Path,
    origin: FaultyOrigin,
    three: list[FaultyOrigin],
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the caches work, and wait for their source for ever."""
    monkeypatch.setattr(hedges, "QUIET", 0.1)
    for one in three:
        one.always(fault)
    sites = [site(origin, *three, fallback=False)]
    async with rig(tmp_path / "cache", origin.url, sites=sites) as parts:
        feed = await parts.open()
        began = trio.current_time()
        with pytest.raises(AxonError, match="no site cache of") as caught:
            await feed.need(Range(0, 1))
        assert trio.current_time() - began < 3 * FAST.deadline
        silent = fault is not faulty.reset_before
        assert type(caught.value) is (DeadlineError if silent else UnavailableError)
        assert any(name(one) in str(caught.value) for one in three)
        assert "check the caches" in str(caught.value)
        feed.close()
    assert objects_asked(origin) == 0


async def test_a_cache_that_is_back_is_used_again(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reader waits for the request that tries it, and none gets an error that is over."""
    monkeypatch.setattr(caches, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(caches, "LAST_PAUSE", 0.4)
    only = three[0]
    only.always(faulty.reset_before)
    caches_ = site(origin, only, fallback=False)
    (cache,) = caches_
    async with rig(tmp_path / "cache", origin.url, sites=[caches_]) as parts:
        feed = await parts.open()
        with pytest.raises(AxonError):
            await feed.need(Range(0, 1))
        only.always(None)
        await trio.sleep(0.5)
        await feed.need(Range(0, 1))
        await settled(lambda: not cache.set_aside)
        assert (cache.state.requests, cache.state.bytes) >= (3, CHUNK)
        feed.close()


async def test_what_waits_for_a_cache_that_died_goes_on_with_the_others(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that takes requests and says nothing holds a reader up once, and for less than a
    source that is silent."""
    monkeypatch.setattr(hedges, "QUIET", 0.5)
    monkeypatch.setattr(hedges, "ANSWERED", 0.5)
    three[0].always(faulty.stall_before)
    slow = replace(FAST, first_byte=20, stall=20, deadline=60)
    caches_ = site(origin, *three)
    async with rig(tmp_path / "cache", origin.url, sites=[caches_], limits=slow) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()
    assert [cache.name for cache in caches_ if cache.set_aside] == [name(three[0])]
    assert objects_asked(origin) == 0


async def test_a_cache_that_died_keeps_no_streams_from_the_others(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefetch, for which no reader waits, goes on as soon as the cache is set aside."""
    monkeypatch.setattr(hedges, "QUIET", 0.3)
    monkeypatch.setattr(hedges, "ANSWERED", 0.3)
    three[0].always(faulty.stall_before)
    patient = replace(FAST, first_byte=20, stall=20, deadline=60)
    caches_ = site(origin, *three)
    async with rig(tmp_path / "cache", origin.url, sites=[caches_], limits=patient) as parts:
        feed = await parts.open()
        feed.want(Range(0, 21), Priority.BACKGROUND)
        await settled(lambda: feed.complete)
        feed.close()
    assert objects_asked(origin) == 0


@pytest.mark.parametrize("stall", [20, 1], ids=["", "longer than a request"])
async def test_a_cache_that_waits_for_its_source_is_no_dead_one(
    tmp_path: Path,
    origin: FaultyOrigin,
    three: list[FaultyOrigin],
    monkeypatch: pytest.MonkeyPatch,
    stall: float,
) -> None:
    """It is asked for what it has, twice if the answer is lost, and no other cache for what it does
    not have yet."""
    monkeypatch.setattr(hedges, "QUIET", 0.3)
    monkeypatch.setattr(hedges, "ANSWERED", 0.5)
    seen: set[str] = set()

    lost: list[Exchange] = []

    def cold(exchange: Exchange) -> None:
        if exchange.seen.path == "/" and not lost:
            lost.append(exchange)
            exchange.hang(1.0)
        if "/objects/" not in exchange.seen.path:
            return
        new = exchange.seen.headers["range"] not in seen
        seen.add(exchange.seen.headers["range"])
        if new and len(exchange.body) > 1:
            exchange.hang(1.5)

    three[0].always(cold)
    caches_, patient = (
        site(origin, *three),
        replace(FAST, first_byte=stall, stall=stall, deadline=60),
    )
    async with rig(tmp_path / "cache", origin.url, sites=[caches_], limits=patient) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()
    assert not any(cache.set_aside for cache in caches_)
    asked = [{seen.headers.get("range") for seen in one.requests} - {None} for one in three]
    assert asked[0].isdisjoint(asked[1] | asked[2])


@pytest.mark.parametrize("fallback", [True, False], ids=["origin", "never"])
async def test_an_object_without_ranges_comes_whole(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], fallback: bool
) -> None:
    for one in (origin, *three):
        one.always(on_objects(faulty.ignore_range))
    sites = [site(origin, *three, fallback=fallback)]
    async with rig(tmp_path / "cache", origin.url, sites=sites) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()
    assert (objects_asked(origin) > 0) is fallback


def numbered(number: int) -> Fault:
    def fault(exchange: Exchange) -> None:
        exchange.headers["ETag"] = f'"{number}"'

    return fault


def untagged(exchange: Exchange) -> None:
    exchange.headers.pop("ETag", None)


@pytest.mark.parametrize("last", [numbered(2), untagged], ids=["another", "none"])
async def test_without_a_table_caches_may_have_etags_of_their_own(
    registry: Path, tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], last: Fault
) -> None:
    """Then the digest of the whole decides, and nothing is refused."""
    without_tables(registry)
    for one, fault in zip(three, (numbered(0), numbered(1), last), strict=True):
        one.always(on_objects(fault))
    sites = [site(origin, *three, fallback=False)]
    async with rig(tmp_path / "cache", origin.url, sites=sites) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()


@pytest.mark.complains
@pytest.mark.parametrize("fallback", [True, False], ids=["origin", "never"])
async def test_without_a_table_wrong_bytes_of_a_cache_are_no_fault_of_the_object(
    registry: Path,
    tmp_path: Path,
    origin: FaultyOrigin,
    three: list[FaultyOrigin],
    fallback: bool,
) -> None:
    """With the same ETag nothing but the digest of the whole tells."""
    without_tables(registry)
    for one in three:
        one.always(on_objects(numbered(0)))

    def wrong(exchange: Exchange) -> None:
        numbered(0)(exchange)
        faulty.flip(exchange)

    for one in three if fallback else three[:2]:
        one.always(on_objects(wrong))
    sites = [site(origin, *three, fallback=fallback)]
    async with rig(tmp_path / "cache", origin.url, sites=sites) as parts:
        assert await parts.content("model.safetensors") == (tmp_path / MODEL).read_bytes()
    assert (objects_asked(origin) > 0) is fallback


async def test_a_token_goes_to_the_caches_and_a_refusal_is_the_sources(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin]
) -> None:
    for one in three:
        one.always(on_objects(faulty.status(403)))
    sites = [site(origin, *three)]
    async with rig(tmp_path / "cache", origin.url, sites=sites) as parts:
        feed = await parts.open()
        with pytest.raises(AxonError, match="403"):
            await feed.need(Range(0, 1))
        feed.close()
    assert sum(map(objects_asked, three)) == 1
    assert objects_asked(origin) == 0


async def test_a_cache_that_sends_single_bytes_is_passed_over(
    tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers at once, so one byte of what it has says nothing."""
    for module, name_ in ((hedges, "QUIET"), (hedges, "ANSWERED"), (trials, "PROVEN")):
        monkeypatch.setattr(module, name_, 0.5)
    for module in (pace, lane):
        monkeypatch.setattr(module, "SAMPLE_BYTES", CHUNK)
    caches_, patient = site(origin, *three), replace(FAST, first_byte=20, stall=20, deadline=40)
    async with rig(tmp_path / "cache", origin.url, sites=[caches_], limits=patient) as parts:
        feed = await parts.open()
        await feed.need(Range(0, 10))
        three[0].always(on_objects(faulty.drip(0.1)))
        with trio.fail_after(15):
            await feed.need(Range(0, feed.object.count))
        feed.close()
    assert [cache.name for cache in caches_ if cache.set_aside] == [name(three[0])]
