"""Workers that take over open files which the cache's index no longer has."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from axonfs.call import call
from tests.mount.conftest import (
    FILES,
    MODEL,
    NAME,
    Mount,
    MountFactory,
    end,
    passed_through,
    read_and_closed,
    settled,
    source_bytes,
)
from tests.support.faulty import status
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate

pytestmark = [pytest.mark.mount, pytest.mark.complains]
HANDLES = 8


@contextlib.contextmanager
def index_lost(mount: Mount) -> Iterator[None]:
    """The worker dies, and the next one finds an empty index; it starts when the block is left."""
    worker = mount.worker()
    mount.process.send_signal(signal.SIGSTOP)
    end(worker)
    for file in mount.cache.glob("index.lmdb*"):
        file.unlink()
    yield
    mount.process.send_signal(signal.SIGCONT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate(seconds=60)
    yield gate
    gate.open.set()


def impatient(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.yaml").write_text("deadline: 1\n")
    return {"AXONFS_CONFIG": str(tmp_path / "config.yaml")}


def test_open_files_whose_source_is_silent(
    start_mount: MountFactory, registry_dir: Path, gate: Gate, tmp_path: Path
) -> None:
    """A worker that takes over answers at once; for an open file that it does not know it asks a
    source when the file is read."""
    with FaultyOrigin(registry_dir) as origin, contextlib.ExitStack() as stack:
        mount = start_mount(origin.url)
        files = [stack.enter_context((mount.path / MODEL).open("rb")) for _ in range(HANDLES)]
        with index_lost(mount):
            origin.always(gate)
        with ThreadPoolExecutor() as pool:
            assert pool.submit(mount.status).result(10)["open"] == []
            reads = [pool.submit(file.read) for file in files[1:]]
            assert gate.arrived.wait(10)
            files.pop(0).close()  # never read
            gate.open.set()
            for read in reads:
                assert read.result(20) == source_bytes(tmp_path, 0, NAME)
        (row,) = mount.status()["open"]
        assert row["handles"] == HANDLES - 1
        stack.close()
        settled(lambda: mount.status()["open"] == [])


def test_an_open_file_is_asked_for_again(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    """A read fails while the registry is down; one after that gets the bytes."""
    with FaultyOrigin(registry_dir) as origin:
        mount = start_mount(origin.url, env=impatient(tmp_path))
        with (mount.path / MODEL).open("rb", buffering=0) as file:
            with index_lost(mount):
                origin.always(status(503))
            for _ in range(2):
                with pytest.raises(OSError, match="Errno"):
                    file.read(10)
            origin.always(None)
            settled(lambda: readable(file.fileno()), 20)
            assert os.pread(file.fileno(), FILES[NAME], 0) == source_bytes(tmp_path, 0, NAME)


def readable(descriptor: int) -> bool:
    """Whether a read works by now: a failure may be kept for a moment."""
    with contextlib.suppress(OSError):
        return len(os.pread(descriptor, 10, 0)) == 10
    return False


def test_a_passed_through_file_without_an_index(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    """The kernel reads on from the backing file, whatever the next worker knows of it."""
    with FaultyOrigin(registry_dir) as origin:
        mount = start_mount(origin.url)
        read_and_closed(mount)
        with (mount.path / MODEL).open("rb") as file:
            assert passed_through(mount)[MODEL]
            with index_lost(mount):
                origin.always(status(503))
            mount.status()
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == source_bytes(tmp_path, 0, NAME)


def test_many_files_at_once(mount: Mount, tmp_path: Path) -> None:
    """Every open file of three versions is the next worker's from its start on."""
    folders = ("nlp/tiny/1.0.0", "nlp/tiny/1.1.0", "nlp/org/deep/0.1.0")
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context((mount.path / folder / name).open("rb"))
            for folder in folders
            for name in FILES
            for _ in range(20)
        ]
        end(mount.worker())
        assert sum(row["handles"] for row in mount.status()["open"]) == len(opened)
        for number, file in enumerate(opened):
            name = list(FILES)[number // 20 % len(FILES)]
            assert file.read() == source_bytes(tmp_path, number // 20 // len(FILES), name)
    settled(lambda: mount.status()["open"] == [])


def test_an_open_file_keeps_its_manifest(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    """`unpin --drop` leaves the manifest of a file that is open, also if nothing of it is local."""
    with FaultyOrigin(registry_dir) as origin:
        mount = start_mount(origin.url)
        (mount.path / MODEL).with_name("vocab.txt").read_bytes()
        with (mount.path / MODEL).open("rb") as file:
            *_, last = call(mount.cache, {"op": "unpin", "specs": ["nlp/tiny@1.0.0"], "drop": True})
            assert last["event"] == "result", last
            end(mount.worker())
            assert [row["path"] for row in mount.status()["open"]] == [MODEL]
            assert file.read() == source_bytes(tmp_path, 0, NAME)
    assert len([seen for seen in origin.requests if "1.0.0/manifest" in seen.path]) == 1


def test_a_start_asks_no_source(
    start_mount: MountFactory, registry_dir: Path, gate: Gate, tmp_path: Path
) -> None:
    """Neither a mount nor the worker of a restart waits for a registry before it answers."""
    with FaultyOrigin(registry_dir) as origin:
        origin.always(gate)
        mount = start_mount(origin.url)
        worker = mount.worker()
        mount.process.send_signal(signal.SIGHUP)
        settled(lambda: mount.worker() != worker)
        assert not gate.open.is_set()
        assert mount.status()["registries"][0]["error"] is None
