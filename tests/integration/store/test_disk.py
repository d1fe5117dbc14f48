"""The fetch path and the store over disks that are full or fail, without FUSE."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from axonfs.engine import open_engine
from axonfs.errors import CorruptError, NoSpaceError, OfflineError
from axonfs.fetch.overflow import Overflow
from axonfs.fetch.verify import judge_passed
from axonfs.ranges import Range, chunk_span
from axonfs.service import Service
from axonfs.settings.settings import Settings
from axonfs.store import Store, StoredObject, file, in_memory
from tests.support.commands import ask
from tests.support.disks import MIB, Disk
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Rig, open_files, rig, settled
from tests.support.registry import SPEC, published
from tests.support.stores import BOOT, NEXT_BOOT, held, land, read, sample

CHUNK = 1 << 16
SIZES = {"a.bin": 40 * CHUNK + 77, "b.bin": 20 * CHUNK}


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, SIZES, chunk_size=CHUNK)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk.tmpfs(tmp_path / "disk", 8 * MIB)
    yield made
    made.close()


def test_a_cache_in_memory_is_known_as_one(tmp_path: Path, disk: Disk) -> None:
    made = Disk.ext4(tmp_path / "other", 8 * MIB)
    try:
        for where, expected in ((disk.path, True), (made.path, False)):
            assert in_memory(where) is expected
    finally:
        made.close()


def plain(tmp_path: Path, name: str) -> bytes:
    return (tmp_path / "models/nlp/tiny/1.0.0" / name).read_bytes()


async def pread(parts: Rig, name: str, start: int, stop: int, *, wait: bool = True) -> bytes:
    """The bytes as a reader of the mount gets them, and its file closed."""
    with closing(await parts.open(name)) as feed:
        size = feed.object.chunk_size
        passed = await feed.need(chunk_span(start, stop - start, size))
        found = b""
        for chunk in range(*chunk_span(start, stop - start, size)):
            bounds = feed.object.bytes_of(Range(chunk, chunk + 1))
            data = passed.get(chunk)
            if data is None:
                data = os.pread(feed.object.opened(), bounds.size, bounds.start)
            found += data
        first = start // size * size
    if wait:  # a feed lives on until its job has settled, with what is in memory
        await settled(parts.idle)
    return found[start - first : stop - first]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """A function that has every landing fail with an exception, or with None no more."""
    real, raised = StoredObject.land, list[Exception]()

    def land_or_fail(
        self: StoredObject, chunk: int, view: memoryview, *, proven: bool = False
    ) -> None:
        if raised:
            raise raised[0]
        real(self, chunk, view, proven=proven)

    monkeypatch.setattr(StoredObject, "land", land_or_fail)

    def fail(exc: Exception | None) -> None:
        raised[:] = [exc] if exc else []

    return fail


async def test_many_readers_and_little_memory(
    tmp_path: Path,
    origin: FaultyOrigin,
    failing: Callable[[Exception | None], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each reader has what it waits for, however soon the pool gives it up; one warning."""
    failing(OSError(errno.EIO, "the disk burns"))
    async with rig(tmp_path / "cache", origin.url) as parts:
        parts.fetcher.overflow = Overflow(2 * CHUNK)

        async def reader(number: int) -> None:
            for step in range(10):
                start = (number * 3 + step) * CHUNK // 2
                stop = min(start + 5 * CHUNK, SIZES["a.bin"])
                want = plain(tmp_path, "a.bin")[start:stop]
                assert await pread(parts, "a.bin", start, stop, wait=False) == want

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(reader, number)
        assert parts.fetcher.overflow.statistics()["bytes"] <= 2 * CHUNK
        assert parts.store.usage() == 0, "nothing half-written counts"
        assert parts.store.health.fault == "[Errno 5] the disk burns"
    warned = [item for item in caplog.records if item.levelno >= logging.WARNING]
    assert len(warned) == 1


async def test_chunks_on_both_sides(
    tmp_path: Path, origin: FaultyOrigin, failing: Callable[[Exception | None], None]
) -> None:
    """A read may be of chunks that are on the disk and chunks that it did not take."""
    async with rig(tmp_path / "cache", origin.url) as parts:
        await pread(parts, "a.bin", 3 * CHUNK, 5 * CHUNK)
        failing(NoSpaceError("full"))
        want = plain(tmp_path, "a.bin")
        assert await pread(parts, "a.bin", CHUNK + 5, 9 * CHUNK) == want[CHUNK + 5 : 9 * CHUNK]
        failing(None)
        assert await pread(parts, "a.bin", 0, len(want)) == want
        assert parts.store.usage() == len(want)


async def test_a_worse_disk_while_offline_says_why(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path / "cache", origin.url) as parts:
        await pread(parts, "b.bin", 0, 100)
    async with rig(tmp_path / "cache", origin.url, offline=True) as parts:
        with closing(await parts.open("b.bin")) as feed:
            chunks = chunk_span(0, 100, CHUNK)
            assert await feed.need(chunks) == {}
            feed.distrust(chunks, OSError(errno.EIO, "the disk burns"))
            with pytest.raises(OfflineError, match="the disk burns"):
                await feed.need(chunks)


async def test_distrusted_chunks_come_past_the_disk_until_the_file_is_closed(
    tmp_path: Path, origin: FaultyOrigin
) -> None:
    async with rig(tmp_path / "cache", origin.url) as parts:
        want = plain(tmp_path, "b.bin")
        assert await pread(parts, "b.bin", 0, len(want)) == want
        with closing(await parts.open("b.bin")) as feed:
            chunks = chunk_span(CHUNK, 2 * CHUNK, CHUNK)
            feed.distrust(chunks, OSError(errno.EIO, "the disk burns"))
            assert not feed.freeze(), "the kernel must not read it either"
            passed = await feed.need(chunks)
            assert passed == {1: want[CHUNK : 2 * CHUNK], 2: want[2 * CHUNK : 3 * CHUNK]}
        await settled(parts.idle)
        with closing(await parts.open("b.bin")) as feed:
            assert await feed.need(chunks) == {}


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_file_that_cannot_be_opened_is_streamed(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(file, "PAUSES", ())
    async with rig(tmp_path / "cache", origin.url) as parts:
        want = plain(tmp_path, "b.bin")
        assert await pread(parts, "b.bin", 0, len(want)) == want
        with monkeypatch.context() as patch:

            def refuse(*args: Any, **options: Any) -> int:
                raise OSError(number, os.strerror(number))

            patch.setattr(parts.store._files, "open_backing", refuse)
            assert await pread(parts, "b.bin", 0, len(want)) == want
            assert parts.fetcher.overflow.statistics()["passed"] == len(want)
            assert (parts.store.health.fault is None) == (number != errno.EIO)
        asked = len(origin.requests)
        assert await pread(parts, "b.bin", 0, len(want)) == want
        assert len(origin.requests) == asked, "nothing that was local is lost by it"
        assert open_files("objects/") in ([], [str(tmp_path / "cache/objects")])


async def test_chunks_that_could_not_be_checked_for_a_shortage_are_checked_after_it(
    tmp_path: Path, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile, and no longer, an open file's bytes come past the disk."""
    monkeypatch.setattr(file, "PAUSES", ())
    want, chunks = plain(tmp_path, "b.bin")[:CHUNK], Range(0, 1)
    async with rig(tmp_path / "cache", origin.url, boot=BOOT) as parts:
        assert await pread(parts, "b.bin", 0, CHUNK) == want
    async with rig(tmp_path / "cache", origin.url, boot=NEXT_BOOT) as parts:
        with closing(await parts.open("b.bin")) as feed:
            parts.store._ledger.files.make_room()  # as where others are used more
            with monkeypatch.context() as patch:

                def refuse(*args: Any, **options: Any) -> int:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

                patch.setattr(parts.store._files, "open_backing", refuse)
                assert await feed.need(chunks) == {0: want}
            asked = len(origin.requests)
            await settled(lambda: not feed.download.jobs)
            parts.fetcher.overflow.forget(feed.download)
            assert await feed.need(chunks) == {}
            assert len(origin.requests) == asked


async def test_a_pin_that_runs_full_on_the_way_says_so(
    tmp_path: Path, origin: FaultyOrigin, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs fill the disk meanwhile, which no check before could foresee."""
    published(tmp_path, {"w.bin": 9 * MIB}, spec="nlp/large@1.0.0", chunk_size=CHUNK)
    settings = Settings((origin.url,), disk.path / "cache", cache_size=1 << 30, deadline=5)
    async with open_engine(settings) as engine:
        boast = SimpleNamespace(f_blocks=1 << 40, f_bfree=1 << 40, f_bavail=1 << 40, f_frsize=4096)
        monkeypatch.setattr(os, "statvfs", lambda path: boast)
        answering = Service(engine)
        refused = await ask(answering, "pin", specs=["nlp/large@1.0.0"])
        assert refused["event"] == "error"
        assert "nlp/large@1.0.0 w.bin: the cache's disk is full; free some" in refused["message"]
        (item,) = (await ask(answering, "list"))["models"]
        assert item["pinned"] == "incomplete"
        assert (await ask(answering, "unpin", specs=["nlp/large"], drop=True))["event"] == "result"
        monkeypatch.undo()
        small = await ask(answering, "pin", specs=[SPEC])
        assert small["event"] == "result", small


async def test_a_pin_waits_for_a_descriptor(
    tmp_path: Path, origin: FaultyOrigin, failing: Callable[[Exception | None], None]
) -> None:
    settings = Settings((origin.url,), tmp_path / "cache", deadline=20)
    async with open_engine(settings) as engine, trio.open_nursery() as nursery:
        failing(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

        async def have_some_again() -> None:
            await trio.sleep(0.5)
            failing(None)

        nursery.start_soon(have_some_again)
        done = await ask(Service(engine), "pin", specs=[SPEC])
        assert done["event"] == "result", done
        assert engine.store.health.fault is None


def test_what_is_cached_can_be_dropped_on_a_full_disk(disk: Disk) -> None:
    with closing(Store.open(disk.path / "cache")) as store:
        samples = [sample(MIB, seed=seed) for seed in range(4)]
        for what in samples:
            land(store, what)
        disk.fill()
        assert sum(store.drop(what.digest) for what in samples) == 4 * MIB
        assert store.usage() == 0


def test_a_check_after_a_boot_holds_where_it_cannot_be_written_down(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = sample(4 * CHUNK)
    with closing(Store.open(disk.path / "cache", boot_id=BOOT)) as store:
        land(store, what)
    with (
        closing(Store.open(disk.path / "cache", boot_id=NEXT_BOOT)) as store,
        held(store, what.entry) as stored,
    ):

        def refuse(change: Any) -> None:
            raise NoSpaceError("full")

        with monkeypatch.context() as patch:
            patch.setattr(store._index, "commit", refuse)
            assert stored.check(1, memoryview(bytearray(CHUNK)))
            assert read(stored, what, 1)
            assert not stored.present(0, 2)


def test_an_index_is_not_given_up_for_want_of_room_after_a_boot(disk: Disk) -> None:
    what = sample(4 * CHUNK)
    cache = disk.path / "cache"
    with closing(Store.open(cache, boot_id=BOOT)) as store:
        land(store, what)
    filler = disk.fill()
    with pytest.raises(NoSpaceError, match=r"after a boot its index must be copied.*free some"):
        Store.open(cache, boot_id=NEXT_BOOT)
    with closing(Store.open(cache, boot_id=BOOT)) as store:  # a worker that takes over: no boot
        assert store.usage() == len(what.data)
    filler.unlink()
    with closing(Store.open(cache, boot_id=NEXT_BOOT)) as store:
        assert store.usage() == len(what.data)


def test_a_directory_made_anew_is_another_cache(tmp_path: Path) -> None:
    """Backing files are not shared with the owner of the new one."""
    what = sample(2 * CHUNK)
    cache = tmp_path / "cache"
    with closing(Store.open(cache)) as store:
        cache.rename(tmp_path / "aside")
        with closing(Store.open(cache)):
            land(store, what)
        assert (tmp_path / "aside/objects" / what.digest[:2] / what.digest).exists()
        assert not (cache / "objects" / what.digest[:2]).exists()


async def test_small_objects_of_a_hub_are_judged_in_memory_too(tmp_path: Path) -> None:
    data = os.urandom(CHUNK)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = replace(sample(CHUNK, table=False).entry, size=len(data))
    with closing(Store.open(tmp_path)) as store, held(store, entry) as stored:
        judge_passed(stored, {0: data}, blob)
        with pytest.raises(CorruptError, match="wrong git blob id"):
            judge_passed(stored, {0: data[:-1] + b"!"}, blob)
