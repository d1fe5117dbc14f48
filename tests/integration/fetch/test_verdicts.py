"""A verdict on a whole object counts for the bytes that were compared, and for no others.

Chunks are given up, lost and written while the digest is computed: `digest_of` is wrapped so that
this happens at one moment of it. The files, the index and the origin are real.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import axonfs.fetch.verify
from axonfs.errors import CorruptError
from axonfs.fetch.verify import digest_of, verify_whole
from axonfs.ranges import Range
from axonfs.store import Store, StoredObject
from tests.support.faulty import FaultyOrigin, behave, flip
from tests.support.fetching import rig, without_tables
from tests.support.registry import published
from tests.support.stores import Sample, held, land, sample

PIECE = 1 << 20
SIZES = {"model.safetensors": 3 * PIECE + 5}


Meddle = Callable[[StoredObject], object]


def while_hashed(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], object]) -> None:
    """Have `meddle` called once, when all bytes were read and the digest is not yet compared."""
    pending = [meddle]

    def wrapped(fd: int, size: int, algorithm: str = "sha256", before: bytes = b"") -> str:
        found = digest_of(fd, size, algorithm, before)
        if pending:
            pending.pop()()
        return found

    monkeypatch.setattr(axonfs.fetch.verify, "digest_of", wrapped)


def unwhole() -> Sample:
    return sample(2 * PIECE + 9, chunk_size=PIECE, table=False)


def wrong(stored: StoredObject) -> memoryview:
    return memoryview(bytes(stored.bytes_of(Range(1, 2)).size))


def punched_and_landed(stored: StoredObject) -> None:
    stored.punch(1, 2)
    stored.land(1, wrong(stored))


def lost_and_landed(stored: StoredObject) -> None:
    """A chunk rots, is found by a check, and comes again from a source that lies."""
    os.pwrite(stored.opened(), b"rot", PIECE)
    assert stored.check(1, memoryview(bytearray(PIECE))) is False
    stored.land(1, wrong(stored))


MEDDLING: dict[str, Meddle] = {
    "punched": lambda stored: stored.punch(1, 2),
    "punched and landed": punched_and_landed,
    "landed twice": lambda stored: stored.land(1, wrong(stored)),
    "lost and landed": lost_and_landed,
}


@pytest.mark.parametrize("meddling", MEDDLING)
def test_a_verdict_is_about_the_bytes_that_were_compared(
    store: Store, monkeypatch: pytest.MonkeyPatch, meddling: str
) -> None:
    what = unwhole()
    with held(store, what.entry) as stored:
        land(store, what)
        while_hashed(monkeypatch, lambda: MEDDLING[meddling](stored))
        verify_whole(stored, what.entry)
        assert not stored.verified
        if stored.complete:
            with pytest.raises(CorruptError):
                verify_whole(stored, what.entry)


def test_a_verified_object_is_not_written_over(store: Store) -> None:
    """By a second job for one of its chunks that comes late, say."""
    what = unwhole()
    with held(store, what.entry) as stored:
        land(store, what)
        verify_whole(stored, what.entry)
        assert stored.verified
        stored.land(1, wrong(stored))
        assert digest_of(stored.opened(), stored.size) == what.digest


def test_an_object_that_was_dropped_meanwhile_is_not_verified(store: Store) -> None:
    """Else the chunks that come next would be taken for compared."""
    what = unwhole()
    land(store, what)
    stored = store.object(what.entry)
    generation = stored.generation()
    store.drop(what.digest)
    assert not stored.mark_verified(generation)
    assert not stored.mark_verified(stored.generation())
    del stored
    gc.collect()
    land(store, what)
    assert not store.object(what.entry).verified


@pytest.mark.complains
async def test_what_comes_again_after_the_digest_was_computed_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk is punched while the object is hashed; the source then sends another one."""
    registry = published(tmp_path, SIZES, chunk_size=PIECE)
    without_tables(registry)
    with FaultyOrigin(registry) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            feed = await parts.open()
            while_hashed(monkeypatch, lambda: feed.object.punch(1, 2))
            await feed.need(Range(0, feed.object.count))
            assert feed.object.verified
            assert sum("/objects/" in seen.path for seen in origin.requests) > 1
            feed.close()
        async with rig(tmp_path / "other", origin.url) as parts:
            feed = await parts.open()
            origin.plan(behave, flip, of="/objects/")
            while_hashed(monkeypatch, lambda: feed.object.punch(1, 2))
            with pytest.raises(CorruptError):
                await feed.need(Range(0, feed.object.count))
            assert not feed.object.verified
            feed.close()
