"""Opening a cache that a crash, a full disk or a stranger left: what is whole is kept."""

from __future__ import annotations

import logging
import os
import random
import shutil
from pathlib import Path

import pytest

from axonfs.errors import UnsupportedError
from axonfs.names import Spec
from axonfs.store import Document, Pin, Store, walk
from tests.support.stores import BOOT, CHUNK, NEXT_BOOT, held, land, read, sample


class TestTorn:
    def filled(self, directory: Path) -> None:
        store = Store.open(directory, boot_id=BOOT)
        for seed in range(40):
            what = sample(3 * CHUNK, seed=seed)
            land(store, what, 0, 2)
            store.put_document(f"http://h/{seed}", Document(bytes(9000), None, 1.0, "http://h"))
        store.put_pin(Pin(Spec("a", "b", "1"), "0" * 64, (), 0.0, True))
        store.close()

    @pytest.mark.parametrize(
        "tear",
        [
            lambda path: path.write_bytes(b"garbage" * 10000),
            lambda path: os.truncate(path, 3 * 4096),
            lambda path: path.write_bytes(path.read_bytes()[: 5 * 4096] + bytes(50 * 4096)),
        ],
        ids=["garbage", "cut", "zeros"],
    )
    def test_an_unreadable_index_is_rebuilt(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, tear: object
    ) -> None:
        self.filled(tmp_path)
        assert callable(tear)
        tear(tmp_path / "index.lmdb")
        store = Store.open(tmp_path, boot_id=NEXT_BOOT)
        assert [(record.levelno, "unreadable" in record.message) for record in caplog.records] == [
            (logging.WARNING, True)
        ]
        assert (tmp_path / "index.lmdb.unreadable").exists()
        assert store.usage() == 80 * CHUNK
        what = sample(3 * CHUNK, seed=7)
        with held(store, what.entry) as stored:
            assert stored.missing(0, 3) == [(1, 2)]
            assert stored.check(2, memoryview(bytearray(CHUNK)), what.table.right)
        store.close()

    def test_whatever_a_crash_did_to_pages_the_store_opens_and_serves_no_wrong_byte(
        self, tmp_path: Path
    ) -> None:
        """Pages of the index lost at random, as when a machine dies between writes."""
        good = tmp_path / "good"
        self.filled(good)
        pages = (good / "index.lmdb").read_bytes()
        for seed in range(25):
            chance = random.Random(seed)
            cache = tmp_path / "torn"
            shutil.copytree(good, cache)
            torn = bytearray(pages)
            for _ in range(chance.randint(1, 6)):
                at = chance.randrange(2, len(pages) // 4096) * 4096
                other = chance.randrange(len(pages) // 4096) * 4096
                lost = bytes(4096) if chance.random() < 0.5 else pages[other : other + 4096]
                torn[at : at + 4096] = lost
            (cache / "index.lmdb").write_bytes(torn)
            self.read_back(cache)
            shutil.rmtree(cache)

    def read_back(self, cache: Path) -> None:
        store = Store.open(cache, boot_id=NEXT_BOOT)
        for seed in range(0, 40, 3):
            what = sample(3 * CHUNK, seed=seed)
            with held(store, what.entry) as stored:
                buffer = memoryview(bytearray(CHUNK))
                for extent in stored.unchecked(0, 3):
                    for chunk in range(*extent):
                        if stored.check(chunk, buffer, what.table.right):
                            assert read(stored, what, chunk)
                for extent in stored.missing(0, 3):
                    for chunk in range(*extent):
                        stored.land(chunk, what.chunk(chunk))
                assert all(read(stored, what, chunk) for chunk in range(3))
            store.document(f"http://h/{seed}")
        store.pins()
        store.evict(0)
        store.close()

    def test_a_boot_leaves_the_index_compact(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path, boot_id=BOOT)
        store.put_document("u", Document(bytes(4 << 20), None, 0.0, "u"))
        store.put_document("u", Document(b"small", None, 0.0, "u"))
        store.close()
        index = tmp_path / "index.lmdb"
        inode = index.stat().st_ino
        Store.open(tmp_path, boot_id=BOOT).close()
        assert index.stat().st_ino == inode
        store = Store.open(tmp_path, boot_id=NEXT_BOOT)
        assert index.stat().st_ino != inode
        assert index.stat().st_size < 1 << 20
        assert not (tmp_path / "index.lmdb.new").exists()
        assert index.stat().st_mode & 0o777 == 0o600
        document = store.document("u")
        assert document is not None
        assert document.body == b"small"
        store.close()

    def test_an_index_that_cannot_be_checked_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Store.open(tmp_path).close()
        monkeypatch.setattr(walk, "__file__", str(tmp_path / "absent.py"))
        with pytest.raises(UnsupportedError, match="could not be checked"):
            Store.open(tmp_path)
        monkeypatch.undo()
        assert not (tmp_path / "index.lmdb.unreadable").exists()
        Store.open(tmp_path).close()
