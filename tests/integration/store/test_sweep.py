"""Backing files that the index does not count: what becomes of them when the cache is opened."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from axonfs.store import Store
from axonfs.store.index import Table, Transaction
from axonfs.store.recheck import Recheck
from axonfs.store.sweep import Swept
from tests.support.stores import (
    BOOT,
    CHUNK,
    NEXT_BOOT,
    Sample,
    backing_file,
    held,
    land,
    read,
    sample,
)


@contextmanager
def reopened(store: Store, boot: str = BOOT) -> Iterator[Store]:
    """The cache as the next owner finds it, swept."""
    with closing(Store.open(store.directory, boot_id=boot)) as opened:
        yield opened


def orphaned(store: Store, what: Sample) -> Path:
    """As a kill between the commit and the rename of a drop leaves an object."""
    key = bytes.fromhex(what.digest)
    with held(store, what.entry) as stored:
        stored.land(0, what.chunk(0))

    def forget(transaction: Transaction) -> None:
        transaction.delete(Table.OBJECTS, key)
        transaction.delete_all(Table.GROUPS, key)

    store._index.write(forget)
    return backing_file(store.directory, what.digest)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A cache that is not new, with no object."""
    with closing(Store.open(tmp_path / "cache", boot_id=BOOT)) as opened:
        opened.sweep()
    with closing(Store.open(tmp_path / "cache", boot_id=BOOT)) as opened:
        yield opened


def test_a_file_without_a_record_is_removed(store: Store) -> None:
    kept = sample(2 * CHUNK, seed=1)
    land(store, kept)
    orphan = orphaned(store, sample(CHUNK))
    assert store.sweep() == Swept(removed=1)
    assert not orphan.exists()
    assert list((store.directory / "objects/trash").iterdir()) == [
        store.directory / "objects/trash/reserve"
    ]
    assert backing_file(store.directory, kept.digest).exists()
    assert store.sweep() == Swept()


def test_a_file_of_which_no_chunk_counts_is_removed(store: Store) -> None:
    """A kill came between the write of its first chunk and the commit, or before the cut."""
    what = sample(3 * CHUNK)
    land(store, what)
    with held(store, what.entry) as stored:
        stored.presence.forget(stored.local()[0], lambda bounds: None)
    assert backing_file(store.directory, what.digest).stat().st_blocks
    assert store.sweep() == Swept(removed=1)
    assert not backing_file(store.directory, what.digest).exists()
    land(store, what)
    with held(store, what.entry) as stored:
        assert all(read(stored, what, chunk) for chunk in range(3))


def test_after_a_boot_a_file_that_the_index_forgot_is_found_again(store: Store) -> None:
    what = sample(CHUNK + 5)
    orphan = orphaned(store, what)
    land(store, sample(CHUNK, seed=9))
    store.close()
    with reopened(store, NEXT_BOOT) as after:
        used = after.usage()
        assert after.sweep() == Swept(strays=1)
        assert after.usage() > used
        assert orphan.exists()
        with held(after, what.entry) as stored:
            assert not stored.missing(0, 1)
            assert stored.adopted(0, 1) == [(0, 1)]
        assert after.evict(0).freed
        assert not orphan.exists()


def test_so_it_is_where_the_first_owner_after_the_boot_ended_before_its_sweep(store: Store) -> None:
    orphan = orphaned(store, sample(CHUNK + 5))
    land(store, sample(CHUNK, seed=9))
    store.close()
    with reopened(store, NEXT_BOOT):
        pass
    with reopened(store, NEXT_BOOT) as after:
        assert after.sweep() == Swept(strays=1)
    later = orphaned_again(store)
    with reopened(store, NEXT_BOOT) as after:
        assert after.sweep() == Swept(removed=1)
    assert orphan.exists()
    assert not later.exists()


def orphaned_again(store: Store) -> Path:
    """An orphan of the boot in which the index caught up."""
    with reopened(store, NEXT_BOOT) as again:
        return orphaned(again, sample(CHUNK, seed=5))


def test_a_rebuilt_index_keeps_every_file(store: Store) -> None:
    what = sample(2 * CHUNK)
    land(store, what)
    store.close()
    (store.directory / "index.lmdb").write_bytes(b"torn" * 4096)
    with reopened(store) as after:
        assert after.sweep() == Swept()
        assert after.usage() == 2 * CHUNK
        assert backing_file(after.directory, what.digest).exists()


def test_objects_that_are_being_made_are_left_alone(store: Store) -> None:
    samples = [sample(2 * CHUNK, seed=seed) for seed in range(60)]

    def make() -> None:
        for what in samples:
            land(store, what)

    maker = threading.Thread(target=make)
    maker.start()
    while maker.is_alive():
        assert store.sweep() == Swept()
    maker.join()
    assert store.usage() == 60 * 2 * CHUNK
    for what in samples:
        with held(store, what.entry) as stored:
            assert read(stored, what, 1)


def test_what_is_not_of_the_cache_is_left_alone_and_named(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    objects = store.directory / "objects"
    (objects / "notes.txt").write_text("mine")
    (objects / "ab").mkdir()
    (objects / "ab" / ("cd" * 32)).write_text("in the wrong folder")
    (objects / "ab" / ("ab" * 32)).symlink_to("/etc/passwd")
    with caplog.at_level(logging.WARNING):
        assert store.sweep() == Swept()
    (said,) = caplog.messages
    assert said.startswith(f"3 files below {objects} do not belong to this cache")
    assert len(os.listdir(objects / "ab")) == 2
    assert (objects / "notes.txt").exists()


def test_an_object_that_is_never_read_leaves_no_file(store: Store) -> None:
    what = sample(CHUNK)
    with held(store, what.entry):
        assert not backing_file(store.directory, what.digest).exists()


def test_a_recheck_of_an_object_that_was_dropped_leaves_no_file(store: Store) -> None:
    what = sample(CHUNK)
    land(store, what)
    stored = store.known(what.digest)
    assert stored is not None
    store.drop(what.digest)
    assert store.recheck(stored, 0, CHUNK) == Recheck(0, (), None)
    assert not backing_file(store.directory, what.digest).exists()
