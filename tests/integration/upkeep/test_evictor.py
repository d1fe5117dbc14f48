"""The default limit of the cache: what it leaves free of the space that users can have."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from axonfs import descriptors
from axonfs.fetch import Fetcher
from axonfs.store import Store
from axonfs.upkeep import evictor
from axonfs.upkeep.evictor import Evictor
from tests.support.fetching import settled
from tests.support.stores import CHUNK, land, sample

BLOCK = 1 << 20


def disk(monkeypatch: pytest.MonkeyPatch, *, used: int, reserved: int, available: int) -> None:
    """Let every file system have this many blocks of 1 MiB."""
    blocks, free = used + reserved + available, reserved + available
    state = SimpleNamespace(f_frsize=BLOCK, f_blocks=blocks, f_bfree=free, f_bavail=available)
    monkeypatch.setattr(os, "statvfs", lambda _: state)
    monkeypatch.setattr(evictor, "KEEP_FREE", 0.1)


async def test_the_default_leaves_a_tenth_of_what_users_can_have(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks that a file system reserves for root do not count, as in the Use% of df."""
    disk(monkeypatch, used=3000, reserved=100_000, available=7000)
    found = Evictor(store, tmp_path, None)
    assert found.limit() == store.usage() + 6000 * BLOCK
    assert found.shortage() is None


async def test_a_small_default_has_a_reason_and_a_small_setting_has_none(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, used=9500, reserved=0, available=500)
    found = Evictor(store, tmp_path, None)
    assert found.limit() == 0
    reason = found.shortage()
    assert reason
    assert f"only 0 B, since 10 % of the disk of {tmp_path} stays free" in reason
    assert Evictor(store, tmp_path, 1).shortage() is None


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
    found, fetcher = Evictor(store, tmp_path, 0), cast(Fetcher, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run, fetcher, lambda digests: nursery.cancel_scope.cancel())
        found.landed()
        await settled(lambda: not refusals)
        found.landed()
    assert store.usage() == 0
    assert store.health.fault is None
