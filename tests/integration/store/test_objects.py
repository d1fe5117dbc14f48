"""Objects of the store on a real disk: landing, opening again, evicting."""

from __future__ import annotations

import gc
import logging
import os
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from axonfs.names import Spec
from axonfs.store import Pin, Store
from tests.support.stores import (
    BOOT,
    CHUNK,
    NEXT_BOOT,
    backing_file,
    held,
    land,
    read,
    sample,
    whole,
)


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
        assert backing_file(store.directory, what.digest).read_bytes() == what.data

    def test_chunks_that_land_together_are_there_together(self, store: Store) -> None:
        what = sample(300 * CHUNK + 5)
        with held(store, what.entry) as stored:
            stored.land(126, what.chunk(126))
            together = memoryview(what.data)[125 * CHUNK : 129 * CHUNK]  # 128 begins a new group
            stored.land(125, together)
            assert stored.missing(124, 130) == [(124, 125), (129, 130)]
            stored.land(299, memoryview(what.data)[299 * CHUNK :])
            assert stored.present_bytes == 5 * CHUNK + 5
        with backing_file(store.directory, what.digest).open("rb") as file:
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
        land(store, what, 0)
        descriptor = first.opened()
        first.release()
        assert first.fd == descriptor
        first.release()
        assert not first.held
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
        assert backing_file(store.directory, what.digest).read_bytes() == what.data

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
        with backing_file(store.directory, what.digest).open("r+b") as file:
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
        backing_file(store.directory, what.digest).unlink()
        with held(store, what.entry) as stored:
            stored.opened()
            assert stored.missing(0, 3) == [(0, 3)], "zeros would be served"
            assert store.usage() == 0
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        store.close()

    @pytest.mark.usefixtures("caplog")
    def test_a_file_that_was_cut_keeps_what_is_left(self, store: Store) -> None:
        what = sample(3 * CHUNK)
        land(store, what)
        os.truncate(backing_file(store.directory, what.digest), CHUNK + 5)
        with held(store, what.entry) as stored:
            stored.opened()
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

    def test_a_clock_that_was_ahead(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was used then counts as used when it is used next, and so grows old again."""
        what, now = sample(CHUNK), 9000.0
        monkeypatch.setattr(time, "time", lambda: now)
        store = Store.open(tmp_path, boot_id=BOOT)
        land(store, what)
        store.object(what.entry).touch()
        store.close()
        now = 1000.0
        store = Store.open(tmp_path, boot_id=BOOT)
        store.object(what.entry).touch()
        for _ in range(2):  # before the index has it, and after
            info = store.peek(what.digest)
            assert info is not None
            assert info.accessed == 1000.0
            store.close()
            store = Store.open(tmp_path, boot_id=BOOT)
        store.close()


class TestFiles:
    def test_no_file_is_cut_to_nothing_before_it_is_filled(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else ext4 and XFS write all of it to the disk before its close returns."""
        cuts: list[int] = []
        cut = os.ftruncate

        def noted(descriptor: int, length: int) -> None:
            cuts.append(length)
            cut(descriptor, length)

        monkeypatch.setattr(os, "ftruncate", noted)
        what = sample(3 * CHUNK)
        for chunk in range(3):
            land(store, what, chunk)
        with held(store, what.entry) as stored:
            stored.discard()
            assert os.fstat(stored.opened()).st_blocks == 0
            stored.land(0, what.chunk(0))
        assert cuts == [3 * CHUNK]

    def test_a_file_that_cannot_have_holes_gives_up_all_of_itself(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refuses = SimpleNamespace(fallocate=lambda *_: -1)
        monkeypatch.setattr("axonfs.store.backing._libc", refuses)
        what = sample(3 * CHUNK)
        with held(store, what.entry) as stored:
            stored.land(0, what.chunk(0))
            stored.discard()
            found = os.fstat(stored.opened())
            assert (found.st_blocks, found.st_size) == (0, 3 * CHUNK)

    @pytest.mark.parametrize("left", [CHUNK, 3 * CHUNK, 5 * CHUNK])
    def test_what_a_kill_left_between_bits_and_bytes_goes(self, store: Store, left: int) -> None:
        what = sample(3 * CHUNK)
        with held(store, what.entry) as stored:
            stored.land(0, what.chunk(0))
            stored.discard()
        backing_file(store.directory, what.digest).write_bytes(b"x" * left)
        with held(store, what.entry) as stored:
            assert os.fstat(stored.opened()).st_blocks == 0
            assert os.fstat(stored.opened()).st_size == 3 * CHUNK
            assert stored.missing(0, 3) == [(0, 3)]


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
