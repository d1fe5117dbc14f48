"""The scrub, over a real store and a real origin: what it finds, what it mends, when it waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from axonfs.names import parse_spec
from axonfs.store import Pin, ScrubState, Store
from axonfs.upkeep.scrub import Scrub
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, Rig, objects_asked, rig, settled
from tests.support.registry import CONFIG, SPEC, published
from tests.support.stores import BOOT, NEXT_BOOT, backing_file

CHUNK = 1 << 16
SIZES = {"a.bin": 30 * CHUNK + 77, "b.bin": 5 * CHUNK, "c.bin": 100}
TOTAL = sum(SIZES.values()) + len(CONFIG)
FAST = 1 << 40  # bytes per second


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, SIZES, chunk_size=CHUNK)


async def fill(parts: Rig, *names: str) -> None:
    for name in names or SIZES:
        with closing(await parts.open(name)) as feed:
            await parts.read(feed)


Files: TypeAlias = dict[str, Path]


@pytest.fixture
async def files(tmp_path: Path, origin: FaultyOrigin) -> Files:
    """The backing files of a full cache by name, left by an earlier process."""
    return await filled(tmp_path, origin)


@pytest.fixture
async def pinned(tmp_path: Path, origin: FaultyOrigin) -> Files:
    """The same, with the version pinned."""
    return await filled(tmp_path, origin, pin=True)


async def filled(tmp_path: Path, origin: FaultyOrigin, *, pin: bool = False) -> Files:
    async with rig(tmp_path / "cache", origin.url, boot=BOOT) as parts:
        await fill(parts, *SIZES, "config.json")
        version = await parts.tree.version(parse_spec(SPEC))
        files = version.manifest.files
        if pin:
            digests = tuple(entry.digest for entry in files)
            manifest = version.manifest.digest
            parts.store.put_pin(Pin(version.spec, manifest, digests, 1.0, True))
    origin.requests.clear()
    return {entry.path: backing_file(tmp_path / "cache", entry.digest) for entry in files}


def flip(path: Path, chunk: int) -> None:
    with path.open("r+b") as file:
        file.seek(chunk * CHUNK)
        byte = file.read(1)[0]
        file.seek(chunk * CHUNK)
        file.write(bytes([byte ^ 1]))


@asynccontextmanager
async def scrubbing(parts: Rig, rate: int = FAST, quiet: float = 0.0) -> AsyncIterator[Scrub]:
    reads = 0
    scrub = Scrub(parts.store, parts.tree, parts.fetcher, rate, quiet=quiet)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrub.run, lambda: reads)
        yield scrub
        nursery.cancel_scope.cancel()


async def one_round(parts: Rig) -> dict[str, Any]:
    async with scrubbing(parts) as scrub:
        before = parts.store.scrub_state().ended
        await settled(lambda: scrub.statistics()["ended"] > before)
        return scrub.statistics()


async def usable(parts: Rig, name: str) -> bool:
    with closing(await parts.open(name)) as feed:
        frozen = feed.freeze()
        if frozen:
            feed.object.thaw()
        return frozen


async def test_a_round_after_a_boot_makes_everything_fit_for_passthrough(
    tmp_path: Path, origin: FaultyOrigin, files: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=NEXT_BOOT) as parts:
        assert not await usable(parts, "a.bin")
        seen = await one_round(parts)
        assert (seen["last_bytes"], seen["last_bad"], seen["began"]) == (TOTAL, 0, 0)
        for name in SIZES:
            assert await usable(parts, name)
    assert objects_asked(origin) == 0


async def test_it_is_no_use_of_an_object(
    tmp_path: Path, origin: FaultyOrigin, files: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=NEXT_BOOT) as parts:
        before = {info.digest: info.accessed for info in parts.store.infos()}
        await one_round(parts)
        parts.store.sync()
        assert before == {info.digest: info.accessed for info in parts.store.infos()}


async def test_a_flipped_bit_is_found_and_dropped(
    tmp_path: Path, origin: FaultyOrigin, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=BOOT) as parts:
        flip(files["a.bin"], 7)
        flip(files["a.bin"], 30)
        seen = await one_round(parts)
        assert seen["last_bad"] == 2
        assert "2 chunks of object" in caplog.text
        assert objects_asked(origin) == 0, "it is not pinned"
        with closing(await parts.open("a.bin")) as feed:
            assert feed.object.missing(0, 31) == [(7, 8), (30, 31)]
            plain = (tmp_path / "models/nlp/tiny/1.0.0/a.bin").read_bytes()
            assert await parts.read(feed) == plain
        assert objects_asked(origin) == 2


async def test_what_is_pinned_is_fetched_again(
    tmp_path: Path, origin: FaultyOrigin, pinned: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=BOOT) as parts:
        flip(pinned["b.bin"], 2)
        async with scrubbing(parts) as scrub:
            await settled(lambda: scrub.statistics()["ended"] > 0)
            assert scrub.statistics()["owed"] == 0
        assert await usable(parts, "b.bin")
        plain = (tmp_path / "models/nlp/tiny/1.0.0/b.bin").read_bytes()
        assert pinned["b.bin"].read_bytes() == plain
    assert objects_asked(origin) == 1


async def test_offline_it_is_only_said(tmp_path: Path, origin: FaultyOrigin, pinned: Files) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=BOOT, offline=True) as parts:
        flip(pinned["b.bin"], 2)
        seen = await one_round(parts)
        assert (seen["last_bad"], seen["owed"]) == (1, 1)
        assert not parts.store.pins()[0].complete
    assert origin.requests == []


async def test_the_file_that_the_kernel_reads_is_written_over_and_never_cut(
    tmp_path: Path, origin: FaultyOrigin, files: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=BOOT) as parts:
        with closing(await parts.open("a.bin")) as feed:
            assert feed.freeze()
            flip(files["a.bin"], 3)
            gate = Gate()
            origin.plan(gate, of="/objects/")
            async with scrubbing(parts) as scrub:
                await gate.reached()
                blocks = files["a.bin"].stat().st_blocks
                assert blocks * 512 >= SIZES["a.bin"], "the chunk was cut from below a reader"
                gate.open.set()
                await settled(lambda: scrub.statistics()["ended"] > 0)
            plain = (tmp_path / "models/nlp/tiny/1.0.0/a.bin").read_bytes()
            assert files["a.bin"].read_bytes() == plain
            assert feed.object.present(0, feed.object.count)
            feed.object.thaw()
    assert objects_asked(origin) == 1


async def test_it_goes_on_where_it_was_and_begins_anew_after_a_boot(
    tmp_path: Path, origin: FaultyOrigin, files: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=BOOT) as parts:
        keys = sorted(info.digest for info in parts.store.infos())
        largest = max(parts.store.infos(), key=lambda info: info.size).digest
        boot = parts.store.boot
        parts.store.put_scrub_state(ScrubState(boot, largest, 10, 5.0, 100, 3))
        seen = await one_round(parts)
        rest = [info.size for info in parts.store.infos() if info.digest > largest]
        assert seen["last_bytes"] == 100 + SIZES["a.bin"] - 10 * CHUNK + sum(rest)
        assert seen["last_bad"] == 3
        parts.store.put_scrub_state(ScrubState(boot, keys[-1], 0, 5.0, 100, 3))
    async with rig(tmp_path / "cache", origin.url, boot=NEXT_BOOT) as parts:
        seen = await one_round(parts)
        assert (seen["last_bytes"], seen["last_bad"]) == (TOTAL, 0)


async def test_the_next_round_is_a_day_later(
    tmp_path: Path, origin: FaultyOrigin, files: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=BOOT) as parts:
        await one_round(parts)
        async with scrubbing(parts) as scrub:
            await settled(lambda: scrub.statistics()["ended"] > 0)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert (scrub.statistics()["state"], scrub.statistics()["bytes"]) == ("resting", 0)


async def test_it_waits_while_somebody_fetches_or_reads(
    tmp_path: Path, origin: FaultyOrigin, files: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=NEXT_BOOT) as parts:
        with closing(await parts.open("b.bin")) as feed:
            feed.object.punch(0, 1)
            gate = Gate()
            origin.plan(gate, of="/objects/")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(parts.read, feed, 0, 10)
                await gate.reached()
                async with scrubbing(parts, quiet=0.001) as scrub:
                    await settled(lambda: scrub.statistics()["state"] == "waiting")
                    await trio.sleep(0.02)
                    assert scrub.statistics()["bytes"] == 0
                    gate.open.set()
                    await settled(lambda: scrub.statistics()["ended"] > 0)


def test_its_budget_holds(tmp_path: Path, origin: FaultyOrigin) -> None:
    """By trio's clock: the bytes take as long as the rate says."""
    trio.run(filled, tmp_path, origin)

    async def measured() -> float:
        async with rig(tmp_path / "cache", origin.url, boot=NEXT_BOOT) as parts:
            began = trio.current_time()
            async with scrubbing(parts, rate=TOTAL // 100) as scrub:
                while not scrub.statistics()["ended"]:  # noqa: ASYNC110
                    await trio.sleep(5)
            return trio.current_time() - began

    # Threads move no clock: it jumps once they have been idle for so long.
    assert 95 <= trio.run(measured, clock=trio.testing.MockClock(autojump_threshold=0.2)) <= 110


async def test_what_is_dropped_meanwhile_ends_it_for_that_object(
    tmp_path: Path, origin: FaultyOrigin, files: Files
) -> None:
    async with rig(tmp_path / "cache", origin.url, boot=NEXT_BOOT) as parts:
        infos = {info.size: info.digest for info in parts.store.infos()}
        stored = parts.store.known(infos[SIZES["a.bin"]])
        assert stored is not None
        assert parts.store.recheck(stored, 0, CHUNK).next == 1
        assert parts.store.drop(stored.key) == SIZES["a.bin"]
        assert parts.store.recheck(stored, 1, CHUNK).read == 0
        assert parts.store.usage() == TOTAL - SIZES["a.bin"]


def test_off_is_off(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        scrub = Scrub(store, None, None, 0)  # type: ignore[arg-type]
        trio.run(scrub.run, lambda: 0)
        assert scrub.statistics()["state"] == "off"
