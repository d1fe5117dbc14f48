"""Opening a cache: who may, and what a process beside the owner sees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from axonfs.errors import (
    BusyError,
    CorruptError,
    NoSpaceError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
)
from axonfs.names import Spec
from axonfs.store import Document, Store
from axonfs.store.index import Table, open_owner
from axonfs.store.records import FORMAT
from tests.support.stores import CHUNK, held, land, read, sample

REPOSITORY = Path(__file__).parents[3]

OWNER = """
import sys
from pathlib import Path
from axonfs.store import Document, Store
from tests.support.stores import held, land, sample

store = Store.open(Path(sys.argv[1]))
land(store, sample(10 << 16), 0, 1, 2)
print("ready", flush=True)
for line in sys.stdin:
    turn = int(line)
    store.put_document("http://h/", Document(b"x" * 5000 * turn, None, float(turn), "http://h/"))
    land(store, sample(10 << 16), turn)
    print("done", flush=True)
store.close()
"""


class Owner:
    """Another process that owns the cache and writes when told to."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(directory)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self._told, self._tells = self.process.stdin, self.process.stdout
        assert self._tells.readline() == "ready\n"

    def write(self, turn: int) -> None:
        self._told.write(f"{turn}\n")
        self._told.flush()
        assert self._tells.readline() == "done\n"

    def end(self) -> None:
        self._told.close()
        assert self.process.wait(20) == 0
        self._tells.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    other = Owner(tmp_path)
    yield other
    if other.process.poll() is None:
        other.end()


class TestOwner:
    def test_the_second_is_told_the_pid_of_the_first(self, tmp_path: Path, owner: Owner) -> None:
        with pytest.raises(BusyError, match=f"process {owner.process.pid}"):
            Store.open(tmp_path)

    @pytest.mark.parametrize("removed", ["run", "run/lock"])
    def test_an_owner_whose_lock_was_removed(
        self, tmp_path: Path, owner: Owner, removed: str
    ) -> None:
        """It has a second lock, so no other process becomes the owner beside it."""
        subprocess.run(["rm", "-r", tmp_path / removed], check=True)
        for _ in range(2):
            with pytest.raises(BusyError, match=r"another process, whose run/lock was removed"):
                Store.open(tmp_path)
        owner.write(5)
        beside = Store.open(tmp_path, owner=False)
        assert beside.usage() == 4 * CHUNK
        beside.close()
        owner.kill()
        Store.open(tmp_path).close()

    def test_twice_in_one_process_is_refused_too(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        with pytest.raises(BusyError, match=str(os.getpid())):
            Store.open(tmp_path)
        with pytest.raises(BusyError, match="already has the cache open"):
            Store.open(tmp_path, owner=False)
        store.close()
        Store.open(tmp_path).close()

    def test_a_lock_that_a_dead_owner_left_is_free(self, tmp_path: Path) -> None:
        other = Owner(tmp_path)
        other.kill()
        store = Store.open(tmp_path)
        assert store.usage() == 3 * CHUNK
        store.close()

    def test_a_directory_that_is_none_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("")
        with pytest.raises(UnsupportedError, match=r"cannot be used.*--cache"):
            Store.open(path)

    def test_a_directory_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        script = (
            "import os, sys; from pathlib import Path; from axonfs.store import Store;"
            "os.geteuid() or os.setuid(65534);"
            "Store.open(Path(sys.argv[1]))"
        )
        cache = tmp_path / "cache"
        cache.mkdir(mode=0o555)
        for path in tmp_path.parents:
            if not path.stat().st_mode & 0o001:
                path.chmod(0o755)
        ended = subprocess.run(
            [sys.executable, "-c", script, str(cache)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "UnsupportedError: the cache directory cannot be used: Permission" in ended.stderr

    def test_a_newer_format_is_left_alone(self, tmp_path: Path) -> None:
        Store.open(tmp_path).close()
        with (
            lmdb.open(str(tmp_path / "index.lmdb"), subdir=False, max_dbs=16) as env,
            env.begin(db=env.open_db(b"meta"), write=True) as raw,
        ):
            raw.put(b"format", b"%d" % (FORMAT + 1))
        before = (tmp_path / "index.lmdb").read_bytes()
        for owner in (True, False):
            with pytest.raises(
                UnsupportedError, match=rf"newer axonfs.*format {FORMAT + 1}.*upgrade"
            ):
                Store.open(tmp_path, owner=owner)
        assert (tmp_path / "index.lmdb").read_bytes() == before

    def test_trash_of_a_kill_is_emptied(self, tmp_path: Path) -> None:
        Store.open(tmp_path).close()
        left = tmp_path / "objects" / "trash" / "left"
        left.write_bytes(b"x")
        Store.open(tmp_path).close()
        assert not left.exists()

    def test_a_full_index_says_so_and_goes_on(self, tmp_path: Path) -> None:
        index = open_owner(tmp_path / "index.lmdb", b"b" * 16, 1, map_size=1 << 20)
        with pytest.raises(NoSpaceError, match="index is full"):
            index.write(lambda txn: txn.put(Table.BODIES, b"big", bytes(2 << 20)))
        index.write(lambda txn: txn.put(Table.BODIES, b"small", b"x"))
        assert index.get(Table.BODIES, b"small") == b"x"
        assert index.get(Table.BODIES, b"big") is None
        index.close()


class TestBeside:
    def test_a_reader_sees_what_the_owner_commits(self, tmp_path: Path, owner: Owner) -> None:
        what = sample(10 * CHUNK)
        store = Store.open(tmp_path, owner=False)
        assert store.usage() == 3 * CHUNK
        for turn in (3, 4, 5):
            owner.write(turn)
            document = store.document("http://h/")
            assert document is not None
            assert len(document.body) == 5000 * turn
            info = store.peek(what.digest)
            assert info is not None
            assert info.present_bytes == (turn + 1) * CHUNK
        with held(store, what.entry) as stored:
            assert stored.missing(0, 10) == [(6, 10)]
            assert stored.unchecked(0, 10) == [(0, 6)], "the owner may drop them at any time"
            buffer = memoryview(bytearray(CHUNK))
            assert stored.check(3, buffer)
            assert buffer == what.chunk(3)
        store.close()

    def test_a_reader_writes_nothing(self, tmp_path: Path, owner: Owner) -> None:
        what, other = sample(10 * CHUNK), sample(CHUNK, seed=5)
        store = Store.open(tmp_path, owner=False)
        before = sorted(tmp_path.rglob("*"))
        with held(store, what.entry) as stored:
            for attempt in (
                lambda: stored.land(5, what.chunk(5)),
                lambda: stored.discard(),
                lambda: store.drop(other.digest),
                lambda: store.put_document("u", Document(b"", None, 0.0, "u")),
                lambda: store.drop_pin(Spec("a", "b", "1")),
                lambda: stored.quarantine("x"),
            ):
                with pytest.raises((ReadOnlyError, OSError)):
                    attempt()
        assert store.object(other.entry).missing(0, 1) == [(0, 1)]
        assert store.evict(10 * CHUNK).digests == []
        store.close()
        assert sorted(tmp_path.rglob("*")) == before
        owner.write(5)

    def test_without_a_cache_a_reader_creates_none(self, tmp_path: Path) -> None:
        for directory in (tmp_path, tmp_path / "absent"):
            with pytest.raises(NotFoundError, match="no cache"):
                Store.open(directory, owner=False)
        assert list(tmp_path.iterdir()) == []

    def test_a_reader_needs_no_owner(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path)
        land(store, sample(CHUNK))
        store.close()
        (tmp_path / "index.lmdb-lock").unlink()
        reader = Store.open(tmp_path, owner=False)
        assert reader.usage() == CHUNK
        reader.close()
        assert not (tmp_path / "index.lmdb-lock").exists()

    def test_an_unreadable_index_is_reported_and_kept(self, tmp_path: Path) -> None:
        Store.open(tmp_path).close()
        (tmp_path / "index.lmdb").write_bytes(b"garbage" * 4096)
        with pytest.raises(CorruptError, match=r"unreadable.*rebuilds"):
            Store.open(tmp_path, owner=False)
        assert (tmp_path / "index.lmdb").read_bytes() == b"garbage" * 4096


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which needs root")
class TestFileSystems:
    """Caches on file systems that lack what the store likes to use."""

    @pytest.fixture
    def mounted(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
        kind, options = request.param
        point = tmp_path / "mounted"
        point.mkdir()
        command = ["mount", "-t", kind, *(["-o", options] if options else []), kind, str(point)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"no {kind} here")
        yield point
        subprocess.run(["umount", str(point)], check=True)

    @pytest.mark.parametrize("mounted", [("ramfs", "")], indirect=True)
    def test_without_holes(self, mounted: Path) -> None:
        what = sample(4 * CHUNK)
        store = Store.open(mounted)
        land(store, what, 1, 3)
        with held(store, what.entry) as stored:
            assert stored.punch(3, 4) == CHUNK
            assert stored.missing(0, 4) == [(0, 1), (2, 4)]
        store.close()
        for path in mounted.glob("index.lmdb*"):
            path.unlink()
        store = Store.open(mounted)
        with held(store, what.entry) as stored:
            buffer = memoryview(bytearray(CHUNK))
            for chunk in (0, 1, 2):
                stored.check(chunk, buffer, what.table.right)
            assert stored.present(1, 2)
            assert not stored.present(0, 1)
            assert read(stored, what, 1)
        assert store.drop(what.digest) > 0
        store.close()

    @pytest.mark.parametrize("mounted", [("tmpfs", "size=2m")], indirect=True)
    def test_a_full_disk_leaves_what_landed(self, mounted: Path) -> None:
        what = sample(64 * CHUNK)
        store = Store.open(mounted)
        with held(store, what.entry) as stored:

            def fill() -> None:
                for chunk in range(64):
                    stored.land(chunk, what.chunk(chunk))

            with pytest.raises(NoSpaceError, match="full"):
                fill()
            landed = stored.present_bytes // CHUNK
            assert landed > 4
            assert stored.missing(0, 64) == [(landed, 64)]
            assert all(read(stored, what, chunk) for chunk in range(landed))
            stored.punch(0, 4)
            stored.land(landed, what.chunk(landed))
            assert read(stored, what, landed)
        store.close()
