"""Objects of the store on a real disk: what is lost of their bytes, and of the index."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import BusyError
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range
from axonfs.store import Store, StoredObject
from tests.support.stores import CHUNK, backing_file, held, land, read, sample, whole


def lose_index(directory: Path) -> None:
    for path in directory.glob("index.lmdb*"):
        path.unlink()


class TestLosing:
    def test_discard_leaves_nothing(self, store: Store) -> None:
        what = sample(3 * CHUNK)
        with held(store, what.entry) as stored:
            land(store, what)
            assert stored.mark_verified(stored.generation())
            stored.discard()
            assert stored.missing(0, 3) == [(0, 3)]
            assert not stored.verified
            assert os.fstat(stored.opened()).st_blocks == 0
            assert (store.usage(), stored.present_bytes) == (0, 0)
            land(store, what, 1)
            assert read(stored, what, 1)

    def test_punch_frees_blocks_and_keeps_the_rest(self, store: Store) -> None:
        what = sample(200 * CHUNK)
        with held(store, what.entry) as stored:
            land(store, what)
            assert stored.punch(5, 190) == 185 * CHUNK
            assert stored.missing(0, 200) == [(5, 190)]
            assert read(stored, what, 4)
            assert read(stored, what, 190)
            assert store.usage() == 15 * CHUNK
            assert os.fstat(stored.opened()).st_blocks * 512 < 20 * CHUNK
            assert stored.punch(5, 190) == 0

    def test_a_landing_that_a_discard_overtakes_lands_after_it(self, store: Store) -> None:
        """Hammered: a present chunk never reads as a hole."""
        what = sample(4 * CHUNK)
        with held(store, what.entry) as stored:
            done = threading.Event()

            def work(chunk: int) -> None:
                while not done.is_set():
                    stored.land(chunk, what.chunk(chunk))

            threads = [threading.Thread(target=work, args=(chunk,)) for chunk in range(3)]
            for thread in threads:
                thread.start()
            for turn in range(300):
                if turn % 2:
                    stored.discard()
                else:
                    stored.punch(0, 2)
            done.set()
            for thread in threads:
                thread.join()
            for extent in stored.presence.present.extents(0, 4):
                assert all(read(stored, what, chunk) for chunk in range(*extent))
            assert stored.present_bytes == CHUNK * stored.presence.present.count == store.usage()

    def test_bits_go_before_bytes_and_the_epoch_after(self, store: Store) -> None:
        """A landing that sees the new epoch writes after the cut; a reader never sees a hole."""
        what = sample(2 * CHUNK)
        with held(store, what.entry) as stored:
            land(store, what)
            before, seen = stored.presence.epoch, []
            stored.presence.forget(
                Range(0, 2), lambda _: seen.append((stored.presence.epoch, stored.missing(0, 2)))
            )
            assert seen == [(before, [(0, 2)])]
            assert stored.presence.epoch == before + 1

    def test_a_wrong_chunk_that_landed_again_is_kept(self, store: Store) -> None:
        what = sample(CHUNK)
        with held(store, what.entry) as stored:
            land(store, what)
            os.pwrite(stored.opened(), b"wrong", 10)
            looked = memoryview(whole(what))
            group = stored.presence.group(0)
            file = stored.opened()
            assert stored._judge(file, 0, looked, None, group) is None
            stored.land(0, what.chunk(0))  # another thread, between the look and the clearing
            kept = stored.presence.lose(
                0, lambda found: stored._judge(file, 0, looked, None, found) is not None
            )
            assert kept
            assert stored.present(0, 1)

    def test_a_chunk_that_is_given_up_during_its_check_is_not_wrong(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        what, judge = sample(CHUNK), StoredObject._judge

        def late(stored: StoredObject, file: int, chunk: int, *rest: Any) -> int | None:
            stored.punch(chunk, chunk + 1)  # another thread, between the index and the bytes
            return judge(stored, file, chunk, *rest)

        with held(store, what.entry) as stored:
            land(store, what)
            monkeypatch.setattr(StoredObject, "_judge", late)
            assert stored.check(0, memoryview(whole(what))) is None

    def test_drop_refuses_what_is_held(self, store: Store) -> None:
        what = sample(2 * CHUNK)
        with held(store, what.entry):
            land(store, what)
            with pytest.raises(BusyError):
                store.drop(what.digest)
        assert store.drop(what.digest) == 2 * CHUNK
        assert store.usage() == 0
        assert store.peek(what.digest) is None
        assert not backing_file(store.directory, what.digest).exists()
        assert store.drop(what.digest) == 0

    def test_an_object_kept_over_a_drop_starts_anew(self, store: Store) -> None:
        what = sample(2 * CHUNK)
        land(store, what)
        stored = store.object(what.entry)
        store.drop(what.digest)
        assert stored.missing(0, 2) == [(0, 2)]
        stored.hold()
        stored.land(0, what.chunk(0))
        stored.release()
        assert store.usage() == CHUNK
        info = store.peek(what.digest)
        assert info is not None
        assert info.present_bytes == CHUNK

    def test_a_fresh_hold_never_meets_an_unlinked_file(self, store: Store) -> None:
        what = sample(CHUNK)
        done = threading.Event()

        def drop() -> None:
            while not done.is_set():
                try:
                    store.drop(what.digest)
                except BusyError:
                    continue

        thread = threading.Thread(target=drop)
        thread.start()
        try:
            for _ in range(300):
                with held(store, what.entry) as stored:
                    if not stored.present(0, 1):
                        stored.land(0, what.chunk(0))
                    assert os.fstat(stored.opened()).st_nlink == 1
                    assert read(stored, what, 0)
        finally:
            done.set()
            thread.join()

    def test_quarantine_is_remembered(self, tmp_path: Path) -> None:
        what = sample(CHUNK)
        store = Store.open(tmp_path)
        stored = store.object(what.entry)
        stored.quarantine("wrong sha256")
        assert stored.quarantined == "wrong sha256"
        store.close()
        store = Store.open(tmp_path)
        assert store.object(what.entry).quarantined == "wrong sha256"
        assert [info.quarantined for info in store.infos()] == ["wrong sha256"]
        store.release_quarantine(what.digest)
        assert store.object(what.entry).quarantined is None
        store.close()


class TestLostIndex:
    def test_nothing_verified_is_fetched_twice(self, tmp_path: Path) -> None:
        what = sample(6 * CHUNK + 9)
        store = Store.open(tmp_path)
        land(store, what, 0, 1, 4, 6)
        store.close()
        lose_index(tmp_path)
        store = Store.open(tmp_path)
        assert store.usage() >= 3 * CHUNK + 9, "strays take room too"
        with held(store, what.entry) as stored:
            assert stored.missing(0, 7) == [(2, 4), (5, 6)]
            assert stored.unchecked(0, 7) == [(0, 2), (4, 5), (6, 7)] == stored.adopted(0, 7)
            buffer = memoryview(whole(what))
            for chunk in (0, 1, 4, 6):
                assert stored.check(chunk, buffer, what.table.right)
                assert read(stored, what, chunk)
            assert stored.adopted(0, 7) == []
            assert store.usage() == 3 * CHUNK + 9
        store.close()
        store = Store.open(tmp_path)
        with held(store, what.entry) as stored:
            assert stored.unchecked(0, 7) == []
            assert stored.check(0, memoryview(whole(what))), "its sum is known now"
        store.close()

    def test_a_torn_chunk_is_found_by_the_table(self, tmp_path: Path) -> None:
        what = sample(2 * CHUNK)
        store = Store.open(tmp_path)
        land(store, what)
        with backing_file(store.directory, what.digest).open("r+b") as file:
            file.seek(100)
            file.write(b"torn")
        store.close()
        lose_index(tmp_path)
        store = Store.open(tmp_path)
        with held(store, what.entry) as stored:
            buffer = memoryview(whole(what))
            assert not stored.check(0, buffer, what.table.right)
            assert stored.check(1, buffer, what.table.right)
            assert stored.missing(0, 2) == [(0, 1)]
        store.close()

    def test_an_adopted_chunk_is_refused_without_its_table(self, tmp_path: Path) -> None:
        what = sample(CHUNK)
        store = Store.open(tmp_path)
        land(store, what)
        store.close()
        lose_index(tmp_path)
        store = Store.open(tmp_path)
        with held(store, what.entry) as stored:
            assert not stored.check(0, memoryview(whole(what)))
            assert stored.missing(0, 1) == [(0, 1)]
        store.close()

    @pytest.mark.parametrize("complete", [True, False])
    def test_without_a_table_only_a_whole_object_is_adopted(
        self, tmp_path: Path, complete: bool
    ) -> None:
        what = sample((1 << 20) + 5, table=False, chunk_size=1 << 20)
        store = Store.open(tmp_path)
        land(store, what, *([0, 1] if complete else [0]))
        store.close()
        lose_index(tmp_path)
        store = Store.open(tmp_path)
        with held(store, what.entry) as stored:
            assert not stored.verified
            assert stored.complete is complete
            if complete:
                buffer = memoryview(bytearray(1 << 20))
                assert stored.check(0, buffer)
                assert stored.check(1, buffer)
                assert stored.present(0, 2)
            else:
                assert stored.missing(0, 2) == [(0, 2)]
                assert store.usage() == os.fstat(stored.opened()).st_blocks == 0
        store.close()

    def test_what_is_adopted_is_as_old_as_its_file(self, tmp_path: Path) -> None:
        """So what nothing used for long goes first, and nothing else."""
        store, what = Store.open(tmp_path), sample(2 * CHUNK)
        land(store, what)
        store.close()
        lose_index(tmp_path)
        os.utime(backing_file(tmp_path, what.digest), (5e8, 5e8))
        store = Store.open(tmp_path)
        assert store.object(what.entry).complete
        assert [info.accessed for info in store.infos()] == [5e8]
        store.close()

    def test_strays_are_evicted(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        land(store, sample(2 * CHUNK))
        store.close()
        lose_index(tmp_path)
        store = Store.open(tmp_path)
        assert store.usage() == 2 * CHUNK
        assert store.evict(0).freed == 2 * CHUNK
        assert store.usage() == 0
        store.close()


class TestEntriesThatDisagree:
    """A registry may say anything about a digest that another one uses."""

    def test_chunks_of_one_table_are_not_served_under_another(self, store: Store) -> None:
        what = sample(2 * CHUNK)
        chunks = what.entry.chunks
        assert chunks is not None
        land(store, what)
        liars = [
            sample(2 * CHUNK, seed=9).entry.chunks,  # another table
            sample(2 * CHUNK, chunk_size=2 * CHUNK).entry.chunks,
            None,
        ]
        for lie in liars:
            entry = FileEntry("lie", what.entry.size, what.digest, lie)
            with held(store, entry) as other:
                assert other.digest == what.digest
                assert other.key != what.digest
                assert other.missing(0, other.count) == [(0, other.count)]
                other.land(other.count - 1, memoryview(bytes(other.size // other.count)))
                other.discard()
        entry = FileEntry("lie", 5, what.digest, None)
        assert store.object(entry).size == 5
        with held(store, what.entry) as stored:
            assert read(stored, what, 0)
            assert read(stored, what, 1)

    def test_what_was_verified_as_a_whole_is_shared(self, store: Store) -> None:
        what = sample(2 * CHUNK)
        land(store, what)
        plain = FileEntry("plain", what.entry.size, what.digest, None)
        assert store.object(plain).key != what.digest
        stored = store.object(what.entry)
        assert stored.mark_verified(stored.generation())
        gc.collect()
        stored = store.object(plain)
        assert stored.key == what.digest
        assert stored.present(0, 2)

    def test_an_object_with_no_bytes_takes_what_the_next_entry_says(self, store: Store) -> None:
        what = sample(2 * CHUNK)
        with held(store, FileEntry("lie", 5, what.digest, None)) as wrong:
            wrong.land(0, memoryview(b"12345"))
            wrong.discard()
        del wrong
        gc.collect()
        land(store, what)
        assert store.usage() == 2 * CHUNK
        info = store.peek(what.digest)
        assert info is not None
        assert (info.size, info.complete) == (2 * CHUNK, True)
