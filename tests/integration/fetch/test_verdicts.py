"""A verdict on a whole object counts for the bytes that were compared, and for no others.

Chunks are given up, lost and written while the digest is computed: `Hashing.finish` is wrapped so
that this happens at one moment of it. The files, the index and the origin are real.
"""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from axonfs.errors import CorruptError, MalformedError
from axonfs.fetch import hashing
from axonfs.fetch.filling import Filling
from axonfs.fetch.hashing import Hashing
from axonfs.fetch.verify import verify_whole
from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.ranges import Range
from axonfs.store import Store, StoredObject
from axonfs.store.index import Table
from tests.support.faulty import behave, flip
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects, rig, settled, without_tables
from tests.support.registry import published
from tests.support.stores import Sample, held, land, sample

PIECE = 1 << 20
SIZES = {"model.safetensors": 3 * PIECE + 5}


Meddle = Callable[[StoredObject], object]


def while_hashed(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], object]) -> None:
    """Have `meddle` called once, when all bytes were read and the digest is not yet compared."""
    pending, finish = [meddle], Hashing.finish

    def wrapped(hashing: Hashing, proceed: Callable[[], object]) -> tuple[str, ChunkTable]:
        found = finish(hashing, proceed)
        if pending:
            pending.pop()()
        return found

    monkeypatch.setattr(Hashing, "finish", wrapped)


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


def tableless(place: Path) -> Path:
    """A registry whose manifest names no chunk table."""
    registry = published(place, SIZES, chunk_size=PIECE)
    without_tables(registry)
    return registry


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


@pytest.mark.parametrize("meddling", MEDDLING)
@pytest.mark.parametrize("chunks", [2, 3])
def test_what_was_hashed_and_changed_is_hashed_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, meddling: str, chunks: int
) -> None:
    """The digest is made while the chunks come; then one of them comes again, and it is wrong."""
    monkeypatch.setattr(hashing, "SMALLEST", 0)
    what = unwhole()
    with held(store, what.entry) as stored:
        made = Hashing(stored, None)
        for chunk in range(chunks):
            land(store, what, chunk)
            made._advance(bool)
            assert made._next == chunk + 1
        MEDDLING[meddling](stored)
        for chunk in (chunk for run in stored.missing(0, 3) for chunk in range(*run)):
            stored.land(chunk, what.chunk(chunk))
        right = os.pread(stored.opened(), PIECE, PIECE) == what.chunk(1)
        with nullcontext() if right else pytest.raises(CorruptError):
            verify_whole(stored, what.entry, hashing=made)
        assert stored.verified == right


def test_nothing_more_is_hashed_once_what_was_hashed_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is smaller than the object: its digest would cost a processor, for nothing."""
    monkeypatch.setattr(hashing, "SMALLEST", 0)
    what = unwhole()
    with held(store, what.entry) as stored:
        made = Hashing(stored, None)
        for chunk, hashed in ((0, 1), (1, 1), (0, 2)):
            land(store, what, chunk)
            made._advance(bool)
            assert made._next == hashed
            if hashed == 1:
                stored.punch(0, 1)


async def test_the_digest_is_made_while_the_chunks_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the last read does not wait until all of it was read once more."""
    monkeypatch.setattr(hashing, "SMALLEST", 0)
    with FaultyOrigin(tableless(tmp_path)) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            with closing(await parts.open()) as feed:
                made = feed.download.hashing
                assert made
                for count in range(1, feed.object.count):
                    await feed.need(Range(0, count))
                    await settled(lambda: made._next == count)  # noqa: B023
                hash_next, seen = made._hash, list[int]()

                def noted(buffer: memoryview) -> None:
                    seen.append(made._next)
                    hash_next(buffer)

                monkeypatch.setattr(made, "_hash", noted)
                await feed.need(Range(0, feed.object.count))
                assert feed.object.verified
                assert seen == [3]


def hashed_until(monkeypatch: pytest.MonkeyPatch, left: trio.Event) -> list[int]:
    """The chunks that are hashed; none is before `left` is set."""
    hash_next, hashed = Hashing._hash, list[int]()

    def one(made: Hashing, buffer: memoryview) -> None:
        hashed.append(made._next)
        trio.from_thread.run(left.wait)
        hash_next(made, buffer)

    monkeypatch.setattr(Hashing, "_hash", one)
    return hashed


async def test_nothing_is_hashed_after_the_last_reader_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be much, the object is held meanwhile, and nobody will ask for the digest."""
    monkeypatch.setattr(hashing, "SMALLEST", 0)
    hashed = hashed_until(monkeypatch, left := trio.Event())
    with FaultyOrigin(tableless(tmp_path)) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            with closing(await parts.open()) as feed:
                await feed.need(Range(0, 3))
                await settled(lambda: bool(hashed))
            await settled(parts.idle)
            left.set()
            await settled(lambda: not feed.object.held)
            assert hashed == [0]


async def test_the_worker_ends_though_a_whole_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of 100 GB takes a minute; the next worker begins again."""
    hashed = hashed_until(monkeypatch, left := trio.Event())
    with FaultyOrigin(tableless(tmp_path)) as origin:
        async with rig(tmp_path / "cache", origin.url) as parts:
            with closing(await parts.open()) as feed:
                parts.nursery.start_soon(feed.need, Range(0, 4))
                await settled(lambda: bool(hashed))
                left.set()
                parts.nursery.cancel_scope.cancel()
        assert hashed == [0]
        assert not feed.object.verified


def test_a_verified_object_is_not_written_over(store: Store) -> None:
    """By a second job for one of its chunks that comes late, say."""
    what = unwhole()
    with held(store, what.entry) as stored:
        land(store, what)
        verify_whole(stored, what.entry)
        assert stored.verified
        stored.land(1, wrong(stored))
        assert Hashing(stored, None).finish() == (what.digest, what.table)


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
    with FaultyOrigin(tableless(tmp_path)) as origin:
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


class TestOwnTable:
    """A verified object has a chunk table of its own from then on."""

    def test_it_outlives_the_chunks_that_were_given_up_and_the_process(
        self, store: Store, tmp_path: Path
    ) -> None:
        what = unwhole()
        with held(store, what.entry) as stored:
            land(store, what)
            verify_whole(stored, what.entry)
            assert stored.own_table() == what.table
            stored.punch(1, 2)
            assert stored.verified
        store.close()
        again = Store.open(tmp_path / "cache")
        with closing(again), held(again, what.entry) as stored:
            assert (stored.verified, stored.complete) == (True, False)
            assert stored.own_table() == what.table
            stored.land(1, wrong(stored))
            assert stored.missing(0, 3) == [(1, 2)], "it was not compared"
            stored.land(1, what.chunk(1), proven=True)
            assert stored.missing(0, 3) == []
            assert Hashing(stored, None).finish() == (what.digest, what.table)

    def test_it_is_dropped_with_the_object(self, store: Store) -> None:
        what = unwhole()
        land(store, what)
        stored = store.object(what.entry)
        with held(store, what.entry):
            verify_whole(stored, what.entry)
        store.drop(what.digest)
        assert (stored.verified, stored.proven) == (False, False)
        with held(store, what.entry):
            stored.land(1, wrong(stored))
            assert (stored.missing(0, 3), stored.verified) == ([(0, 1), (2, 3)], False)

    def test_one_that_was_lost_has_the_whole_verified_anew(self, store: Store) -> None:
        what = unwhole()
        with held(store, what.entry) as stored:
            land(store, what)
            verify_whole(stored, what.entry)
            store._index.write(
                lambda transaction: transaction.delete_all(Table.TABLES, bytes.fromhex(what.digest))
            )
            stored.punch(1, 2)
            assert stored.own_table() is None
            assert not stored.verified
            land(store, what, 1)
            verify_whole(stored, what.entry)
            assert stored.own_table() == what.table

    def test_a_package_s_chunks_are_compared_one_by_one(self, store: Store) -> None:
        """None is kept in memory until the file's end, and a wrong one costs no other."""
        what = unwhole()
        with held(store, what.entry) as stored:
            land(store, what)
            verify_whole(stored, what.entry)
            stored.discard()
            with closing(Filling(what.entry, stored)) as filling:
                filling.begin()
                for chunk, piece in enumerate([what.chunk(0), wrong(stored), what.chunk(2)]):
                    filling.write(bytes(piece))
                    assert stored.present(chunk, chunk + 1) == (chunk != 1)
                with pytest.raises(MalformedError):
                    filling.check()
            assert stored.missing(0, 3) == [(1, 2)]
            with closing(Filling(what.entry, stored)) as filling:
                filling.begin()
                for chunk in range(3):
                    filling.write(bytes(what.chunk(chunk)))
                filling.check()
                filling.settle()
            assert (stored.complete, stored.verified) == (True, True)
            assert Hashing(stored, None).finish() == (what.digest, what.table)

    def test_a_verdict_that_the_disk_does_not_take_makes_none(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        what = unwhole()
        with held(store, what.entry) as stored:
            land(store, what)

            def refuse(*args: object) -> None:
                raise OSError(errno.EROFS, "the disk is read-only")

            with monkeypatch.context() as patch:
                patch.setattr(store._index, "write", refuse)
                verify_whole(stored, what.entry)
            assert (stored.verified, stored.proven) == (True, False)
            stored.punch(1, 2)
            assert not stored.verified

    @pytest.mark.complains
    async def test_a_chunk_that_comes_again_is_compared_before_it_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the next process too, and the whole is not read again."""
        with FaultyOrigin(tableless(tmp_path)) as origin:
            async with rig(tmp_path / "cache", origin.url) as parts:
                with closing(await parts.open()) as feed:
                    whole = await parts.read(feed)
                    assert feed.compared
            while_hashed(monkeypatch, lambda: pytest.fail("the whole was read again"))
            async with rig(tmp_path / "cache", origin.url) as parts:
                with closing(await parts.open()) as feed:
                    feed.object.punch(1, 2)
                    asked = len(origin.requests)
                    origin.plan(flip, of="/objects/")
                    assert await parts.read(feed, PIECE, 2 * PIECE) == whole[PIECE : 2 * PIECE]
                    assert len(origin.requests) == asked + 2, "the first answer was refused"
                    assert feed.whole
                    feed.object.punch(0, 2)
                    origin.always(on_objects(flip))
                    with pytest.raises(CorruptError):
                        await feed.need(Range(0, 1))
                    assert not feed.object.quarantined

    async def test_no_other_registry_s_table_stands_in_for_it(self, tmp_path: Path) -> None:
        """Another manifest names the digest with the table of other bytes."""
        with FaultyOrigin(tableless(tmp_path)) as origin:
            async with rig(tmp_path / "cache", origin.url) as parts:
                with closing(await parts.open()) as feed:
                    whole = await parts.read(feed)
                    pieces = [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]
                    pieces[1] = bytes(PIECE)
                    table = ChunkTable(len(whole), PIECE, b"".join(map(chunk_digest, pieces)))
                    entry = replace(feed.entry, chunks=table.ref)
                    parts.store.put_table(entry.digest, table)
                    with closing(await parts.fetcher.open(feed.versions[0], entry)) as other:
                        assert other.object is feed.object
                        feed.object.punch(1, 2)
                        assert await parts.read(other, PIECE, 2 * PIECE) == whole[PIECE : 2 * PIECE]
                        assert other.download.table == feed.object.own_table() != table
