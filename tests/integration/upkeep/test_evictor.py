"""The limits of a cache: what it leaves free of its disk, quotas of namespaces, and ages."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
import trio

from axonfs import descriptors
from axonfs.fetch import Fetcher
from axonfs.formats.manifest import Manifest, parse_manifest, render_manifest
from axonfs.names import parse_spec
from axonfs.settings import limits as limits_module
from axonfs.settings.limits import Amount, CacheLimits
from axonfs.store import Pin, Store
from axonfs.upkeep import evictor
from axonfs.upkeep.evictor import Evictor
from tests.support.fetching import settled
from tests.support.stores import CHUNK, Sample, land, sample

BLOCK = 1 << 20


def disk(monkeypatch: pytest.MonkeyPatch, *, used: int, reserved: int, available: int) -> None:
    """Let every file system have this many blocks of 1 MiB."""
    blocks, free = used + reserved + available, reserved + available
    state = SimpleNamespace(f_frsize=BLOCK, f_blocks=blocks, f_bfree=free, f_bavail=available)
    monkeypatch.setattr(os, "statvfs", lambda _: state)
    monkeypatch.setattr(limits_module, "DEFAULT_FREE", 10)


async def test_the_default_leaves_a_tenth_of_what_users_can_have(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks that a file system reserves for root do not count, as in the Use% of df."""
    disk(monkeypatch, used=3000, reserved=100_000, available=7000)
    found = Evictor(store, tmp_path, CacheLimits())
    assert found.limit() == store.usage() + 6000 * BLOCK
    assert found.shortage() is None


async def test_a_small_default_has_a_reason_and_a_small_setting_has_none(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, used=9500, reserved=0, available=500)
    found = Evictor(store, tmp_path, CacheLimits())
    assert found.limit() == 0
    reason = found.shortage()
    assert reason
    assert f"only 0 B, since 10 % of the disk of {tmp_path} stays free" in reason
    assert Evictor(store, tmp_path, CacheLimits(1)).shortage() is None


async def test_what_keep_free_says_holds_beside_a_size(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, used=3000, reserved=0, available=7000)
    kept = Amount(percent=50)
    assert Evictor(store, tmp_path, CacheLimits(None, kept)).limit() == 2000 * BLOCK
    assert Evictor(store, tmp_path, CacheLimits(1999 * BLOCK, kept)).limit() == 1999 * BLOCK
    assert Evictor(store, tmp_path, CacheLimits(2001 * BLOCK, kept)).limit() == 2000 * BLOCK
    found = Evictor(store, tmp_path, CacheLimits(1 << 50, Amount(6900 * BLOCK)))
    assert found.limit() == 100 * BLOCK
    assert "only 100 MiB, since 6.7 GiB of the disk" in str(found.shortage())


def models(store: Store, *names: str) -> dict[str, Sample]:
    """Models of one file of four chunks; each was used an hour before the next one."""
    found = {name: sample(4 * CHUNK, seed=number) for number, name in enumerate(names)}
    for hours, (name, what) in enumerate(reversed(found.items())):
        put(store, name, what)
        with patch("axonfs.store.objects.time.time", return_value=time.time() - 3600 * hours):
            land(store, what)
    store.sync()
    return found


def put(store: Store, model: str, *files: Sample) -> None:
    """Have the store know a version of a model."""
    entries = tuple(each.entry for each in files)
    spec = parse_spec(f"{model}@1.0.0")
    store.put_manifest(parse_manifest(render_manifest(Manifest(spec, entries)), spec), "http://h/")


def left(store: Store, found: dict[str, Sample]) -> list[str]:
    """The models that have bytes."""
    present = {info.digest for info in store.infos() if info.present_bytes}
    return [name for name, what in found.items() if what.digest in present]


@asynccontextmanager
async def evicting(
    store: Store, tmp_path: Path, limits: CacheLimits, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Evictor]:
    """An evictor that looks at once; it may not shorten open files."""
    monkeypatch.setattr(evictor, "FIRST_LOOK", 0.0)
    monkeypatch.setattr(evictor, "QUOTA_PAUSE", 0.01)
    found = Evictor(store, tmp_path, limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run, cast(Fetcher, None), lambda digests: None)
        yield found
        nursery.cancel_scope.cancel()


async def test_a_namespace_over_its_quota_gives_up_its_own_oldest(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others keep older files, and pinned and open ones stay though they are the oldest."""
    found = models(store, "hf/a", "nlp/pinned", "nlp/open", "nlp/old", "nlp/new")
    pinned = found["nlp/pinned"]
    store.put_pin(Pin(parse_spec("nlp/pinned@1.0.0"), "0" * 64, (pinned.digest,), 0.0, True))
    opened = store.object(found["nlp/open"].entry)
    opened.hold()
    quotas = {"nlp": Amount(15 * CHUNK), "hf/*": Amount(percent=50)}
    limits = CacheLimits(100 * CHUNK, quotas=quotas)
    async with evicting(store, tmp_path, limits, monkeypatch) as running:
        assert running.quotas()[0] == {"scope": "nlp", "used": None, "limit": 15 * CHUNK}
        await settled(lambda: "nlp/old" not in left(store, found))
        await settled(lambda: running.statistics() == {"objects": 1, "bytes": 4 * CHUNK})
        assert left(store, found) == ["hf/a", "nlp/pinned", "nlp/open", "nlp/new"]
        assert running.quotas() == [
            {"scope": "nlp", "used": 12 * CHUNK, "limit": 15 * CHUNK},
            {"scope": "hf/*", "used": 4 * CHUNK, "limit": 50 * CHUNK},
        ]
        again = sample(4 * CHUNK, seed=99)
        put(store, "nlp/another", again)  # a model that the quota did not know yet
        land(store, again)
        running.landed()
        await settled(lambda: running.statistics()["objects"] == 2)
    assert left(store, found) == ["hf/a", "nlp/pinned", "nlp/open"]
    opened.release()


async def test_what_nothing_used_for_the_ttl_goes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, though nothing lands; a changed limit holds at once."""
    found = models(store, "a/oldest", "a/older", "a/new")
    async with evicting(store, tmp_path, CacheLimits(ttl=5400.0), monkeypatch) as running:
        await settled(lambda: left(store, found) == ["a/older", "a/new"])
        running.apply(CacheLimits(ttl=1800.0))
        await settled(lambda: left(store, found) == ["a/new"])
        running.apply(CacheLimits(0))
        await settled(lambda: left(store, found) == [])


async def test_a_disk_that_other_programs_fill(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = models(store, "a/old", "a/new")
    used = store.usage()
    monkeypatch.setattr(evictor, "LIMIT_AGE", 0.0)
    state = lambda _: SimpleNamespace(used=BLOCK, free=BLOCK - store.usage())  # noqa: E731
    monkeypatch.setattr(evictor, "disk_usage", state)
    limits = CacheLimits(None, Amount(BLOCK - 3 * used // 4))
    async with evicting(store, tmp_path, limits, monkeypatch):
        await settled(lambda: left(store, found) == ["a/new"])


async def test_prefetch_gets_no_more_room_than_the_quota_of_its_model(
    store: Store, tmp_path: Path
) -> None:
    found = models(store, "nlp/a", "vision/b")
    limits = CacheLimits(1 << 40, quotas={"nlp": Amount(100 * CHUNK)})
    running = Evictor(store, tmp_path, limits)
    assert await running.room({found["nlp/a"].digest}) == 91 * CHUNK
    assert await running.room({found["vision/b"].digest}) > 1000 * CHUNK


async def test_it_goes_on_when_a_thread_could_not_be_started(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it ended, the worker would."""
    what = sample(CHUNK)
    land(store, what)
    run_sync, refusals = trio.to_thread.run_sync, [RuntimeError(descriptors.NO_THREAD)]

    async def short(call: Any, *args: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await run_sync(call, *args)

    monkeypatch.setattr(trio.to_thread, "run_sync", short)
    found, fetcher = Evictor(store, tmp_path, CacheLimits(0)), cast(Fetcher, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run, fetcher, lambda digests: nursery.cancel_scope.cancel())
        found.landed()
        await settled(lambda: not refusals)
        found.landed()
    assert store.usage() == 0
    assert store.health.fault is None
