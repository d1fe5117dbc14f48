"""Objects of the store on a real disk: landing, checking, losing, adopting, evicting."""

from __future__ import annotations

import gc
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from axonfs.errors import BusyError
from axonfs.manifest import FileEntry
from axonfs.names import Spec
from axonfs.ranges import Range
from axonfs.store import Pin, Store, StoredObject
from tests.support.stores import BOOT, CHUNK, NEXT_BOOT, Sample, held, land, read, sample


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "cache", boot_id=BOOT)
    yield opened
    opened.close()


def backing(store: Store, digest: str) -> Path:
    return store.directory / "objects" / digest[:2] / digest


def lose_index(directory: Path) -> None:
    for path in directory.glob("index.lmdb*"):
        path.unlink()


def whole(what: Sample) -> bytearray:
    return bytearray(what.table.chunk_size)


class TestLanding:
    def test_a_landed_chunk_is_present_and_reads_as_it_was(self, store: Store) -> None:
        what = sample(3 * CHUNK + 5)
        with held(store, what.entry) as stored:
            assert stored.missing(0, 4) == [(0, 4)]
            stored.land(3, what.chunk(3))
            stored.land(1, what.chunk(1))
            assert stored.missing(0, 4) == [(0, 1), (2, 3)]
            assert not stored.present(0, 2)
            assert read(stored, what, 1)
            assert read(stored, what, 3)
            assert (stored.present_bytes, stored.complete) == (CHUNK + 5, False)
            stored.land(0, what.chunk(0))
            stored.land(2, what.chunk(2))
            assert stored.complete
        assert backing(store, what.digest).read_bytes() == what.data

    def test_chunks_that_land_together_are_there_together(self, store: Store) -> None:
        what = sample(300 * CHUNK + 5)
        with held(store, what.entry) as stored:
            stored.land(126, what.chunk(126))
            together = memoryview(what.data)[125 * CHUNK : 129 * CHUNK]  # 128 begins a new group
            stored.land(125, together)
            assert stored.missing(124, 130) == [(124, 125), (129, 130)]
            stored.land(299, memoryview(what.data)[299 * CHUNK :])
            assert stored.present_bytes == 5 * CHUNK + 5
        with backing(store, what.digest).open("rb") as file:
            file.seek(125 * CHUNK)
            assert file.read(4 * CHUNK) == together
        assert store.usage() == 5 * CHUNK + 5

    def test_landing_twice_counts_once(self, store: Store) -> None:
        what = sample(2 * CHUNK)
        land(store, what, 0, 0)
        assert store.usage() == CHUNK

    def test_a_chunk_of_the_wrong_length_is_refused(self, store: Store) -> None:
        what = sample(CHUNK + 5)
        with held(store, what.entry) as stored:
            with pytest.raises(ValueError, match="has 5 bytes"):
                stored.land(1, what.chunk(0))
            with pytest.raises(IndexError):
                stored.land(2, what.chunk(1))
            assert stored.missing(0, 2) == [(0, 2)]

    def test_an_empty_object_is_complete(self, store: Store) -> None:
        with held(store, sample(0).entry) as stored:
            assert stored.complete
            assert stored.present(0, 0)
            assert stored.missing(0, 0) == []

    def test_one_object_per_digest_while_in_use(self, store: Store) -> None:
        what = sample(CHUNK)
        first = store.object(what.entry)
        assert store.object(what.entry) is first
        first.hold()
        first.hold()
        descriptor = first.fd
        first.release()
        assert first.fd == descriptor
        first.release()
        assert first.fd == -1
        with pytest.raises(RuntimeError, match="not held"):
            first.release()

    def test_threads_that_land_at_once_lose_nothing(self, store: Store) -> None:
        what = sample(300 * CHUNK)
        with held(store, what.entry) as stored:

            def work(first: int) -> None:
                for chunk in range(first, stored.count, 4):
                    stored.land(chunk, what.chunk(chunk))

            threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert stored.complete
            assert stored.present(0, stored.count)
        info = store.peek(what.digest)
        assert info is not None
        assert info.present_bytes == len(what.data) == store.usage()
        assert backing(store, what.digest).read_bytes() == what.data

    def test_landings_that_share_a_transaction_all_count(self, store: Store) -> None:
        what = sample(4 * CHUNK)
        with held(store, what.entry) as stored:
            threads = [
                threading.Thread(target=stored.land, args=(chunk, what.chunk(chunk)))
                for chunk in range(4)
            ]
            with store._index._writer:
                for thread in threads:
                    thread.start()
                while len(store._index._queue) < 4:
                    time.sleep(0.001)
                assert stored.missing(0, 4) == [(0, 4)], "nothing counts before it is committed"
            for thread in threads:
                thread.join()
            info = store.peek(what.digest)
            assert info is not None
            assert (info.present_bytes, stored.present_bytes) == (4 * CHUNK, 4 * CHUNK)

    def test_files_are_the_owners_alone(self, store: Store) -> None:
        what = sample(CHUNK)
        land(store, what)
        for path in (store.directory, *store.directory.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path


class TestReopening:
    def test_everything_landed_is_there_again(self, tmp_path: Path) -> None:
        what = sample(140 * CHUNK + 1)  # two groups of chunks and a short one
        store = Store.open(tmp_path, boot_id=BOOT)
        land(store, what, 0, 127, 128, 140)
        store.close()
        store = Store.open(tmp_path, boot_id=BOOT)
        assert store.usage() == 3 * CHUNK + 1
        with held(store, what.entry) as stored:
            assert stored.missing(0, 141) == [(1, 127), (129, 140)]
            assert all(read(stored, what, chunk) for chunk in (0, 127, 128, 140))
            assert stored.unchecked(0, 141) == []
        store.close()

    def test_a_boot_asks_for_a_check(self, tmp_path: Path) -> None:
        what = sample(4 * CHUNK)
        store = Store.open(tmp_path, boot_id=BOOT)
        land(store, what, 0, 1, 3)
        store.close()
        store = Store.open(tmp_path, boot_id=NEXT_BOOT)
        with held(store, what.entry) as stored:
            assert not stored.present(0, 1)
            assert stored.missing(0, 4) == [(2, 3)]
            assert stored.unchecked(0, 4) == [(0, 2), (3, 4)]
            buffer = memoryview(whole(what))
            assert stored.check(0, buffer)
            assert buffer == what.chunk(0)
            assert stored.present(0, 1)
            assert stored.unchecked(0, 4) == [(1, 2), (3, 4)]
            stored.land(2, what.chunk(2))
            assert stored.present(2, 3)
            assert stored.unchecked(0, 4) == [(1, 2), (3, 4)]
        store.close()
        store = Store.open(tmp_path, boot_id=NEXT_BOOT)
        assert store.object(what.entry).unchecked(0, 4) == [(1, 2), (3, 4)]
        store.close()

    def test_a_chunk_that_the_crash_lost_is_no_longer_local(self, tmp_path: Path) -> None:
        what = sample(2 * CHUNK)
        store = Store.open(tmp_path, boot_id=BOOT)
        land(store, what)
        with backing(store, what.digest).open("r+b") as file:
            file.seek(CHUNK + 77)
            file.write(b"\0" * 4096)
        store.close()
        store = Store.open(tmp_path, boot_id=NEXT_BOOT)
        with held(store, what.entry) as stored:
            assert not stored.check(1, memoryview(whole(what)))
            assert stored.missing(0, 2) == [(1, 2)]
            assert stored.check(0, memoryview(whole(what)))
            assert store.usage() == CHUNK
            assert not stored.check(1, memoryview(whole(what)))
        store.close()
        store = Store.open(tmp_path, boot_id=NEXT_BOOT)
        assert store.usage() == CHUNK
        assert store.object(what.entry).missing(0, 2) == [(1, 2)]
        store.close()

    def test_a_file_that_is_gone_is_fetched_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        what = sample(2 * CHUNK + 9)
        store = Store.open(tmp_path, boot_id=BOOT)
        land(store, what)
        backing(store, what.digest).unlink()
        with held(store, what.entry) as stored:
            assert stored.missing(0, 3) == [(0, 3)], "zeros would be served"
            assert store.usage() == 0
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        store.close()

    @pytest.mark.usefixtures("caplog")
    def test_a_file_that_was_cut_keeps_what_is_left(self, store: Store) -> None:
        what = sample(3 * CHUNK)
        land(store, what)
        os.truncate(backing(store, what.digest), CHUNK + 5)
        with held(store, what.entry) as stored:
            assert stored.missing(0, 3) == [(1, 3)]
            assert read(stored, what, 0)

    def test_access_times_survive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        what, now = sample(CHUNK), 1000.0
        monkeypatch.setattr(time, "time", lambda: now)
        store = Store.open(tmp_path, boot_id=BOOT)
        land(store, what)
        gc.collect()
        now = 1030.0
        store.object(what.entry).touch()
        info = store.peek(what.digest)
        assert info is not None
        now = 1100.0
        store.object(what.entry).touch()
        store.close()
        store = Store.open(tmp_path, boot_id=BOOT)
        info = store.peek(what.digest)
        assert info is not None
        assert info.accessed == 1100.0
        store.close()


class TestLosing:
    def test_discard_leaves_nothing(self, store: Store) -> None:
        what = sample(3 * CHUNK)
        with held(store, what.entry) as stored:
            land(store, what)
            stored.mark_verified()
            stored.discard()
            assert stored.missing(0, 3) == [(0, 3)]
            assert not stored.verified
            assert os.fstat(stored.fd).st_blocks == 0
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
            assert os.fstat(stored.fd).st_blocks * 512 < 20 * CHUNK
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
            os.pwrite(stored.fd, b"wrong", 10)
            looked = memoryview(whole(what))
            group = stored.presence.group(0)
            assert stored._judge(0, looked, None, group) is None
            stored.land(0, what.chunk(0))  # another thread, between the look and the clearing
            kept = stored.presence.lose(
                0, lambda found: stored._judge(0, looked, None, found) is not None
            )
            assert kept
            assert stored.present(0, 1)

    def test_a_chunk_that_is_given_up_during_its_check_is_not_wrong(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        what, judge = sample(CHUNK), StoredObject._judge

        def late(stored: StoredObject, chunk: int, *rest: Any) -> int | None:
            stored.punch(chunk, chunk + 1)  # another thread, between the index and the bytes
            return judge(stored, chunk, *rest)

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
        assert not backing(store, what.digest).exists()
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
                    assert os.fstat(stored.fd).st_nlink == 1
                    assert read(stored, what, 0)
        finally:
            done.set()
            thread.join()

    def test_quarantine_is_remembered(self, tmp_path: Path) -> None:
        what = sample(CHUNK)
        store = Store.open(tmp_path)
        stored = store.object(what.entry)
        store.quarantine(what.digest, "wrong sha256")
        assert stored.quarantined == "wrong sha256"
        store.close()
        store = Store.open(tmp_path)
        assert store.object(what.entry).quarantined == "wrong sha256"
        assert [info.quarantined for info in store.infos()] == ["wrong sha256"]
        store.release_quarantine(what.digest)
        assert store.object(what.entry).quarantined is None
        store.close()


class TestEviction:
    def test_least_recently_used_first_but_what_is_kept(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        samples = [sample(2 * CHUNK, seed=seed) for seed in range(5)]
        now = 0.0
        monkeypatch.setattr(time, "time", lambda: now)
        for turn, what in enumerate(samples):
            now = 1000.0 * (turn + 1)
            land(store, what)
        now = 9000.0
        with held(store, samples[1].entry):
            pass
        spec = Spec("nlp", "model", "1")
        store.put_pin(Pin(spec, "0" * 64, (samples[2].digest,), 0.0, True))
        with held(store, samples[0].entry):
            done = store.evict(5 * CHUNK)
            assert done.digests == [samples[3].digest, samples[4].digest, samples[1].digest]
            assert (done.freed, done.short_by) == (6 * CHUNK, 0)
            short = store.evict(0)
            assert (short.freed, short.digests, short.short_by) == (0, [], 4 * CHUNK)
        store.drop_pin(spec)
        assert store.evict(0).freed == 4 * CHUNK
        assert store.usage() == 0
        # Space that is kept free for the index lies in the trash.
        files = [path for path in (store.directory / "objects").rglob("*") if path.is_file()]
        assert [path.parent.name for path in files] in ([], ["trash"])


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
            assert stored.needs_table_check
            buffer = memoryview(whole(what))
            for chunk in (0, 1, 4, 6):
                assert stored.check(chunk, buffer, what.table.right)
                assert read(stored, what, chunk)
            assert [stored.needs_table_check, stored.adopted(0, 7)] == [False, []]
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
        with backing(store, what.digest).open("r+b") as file:
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
                assert store.usage() == os.fstat(stored.fd).st_blocks == 0
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
        store.object(what.entry).mark_verified()
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
