"""Readers that get a signal while the origin is silent."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, MODEL, NAME, MountFactory, patched, settled, source_bytes
from tests.mount.test_takeover import index_lost
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, on_objects
from tests.support.stuck import HANDLED, stuck, until_asleep

pytestmark = pytest.mark.mount
READS = ["read", "page", "direct", "mmap", "mmap-page"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """Holds what the origin would answer until the test opens it."""
    gate = Gate(seconds=60)
    yield gate
    gate.open.set()


@pytest.fixture
def origin(registry_dir: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(registry_dir) as origin:
        yield origin


def ended(process: subprocess.Popen[bytes], gate: Gate) -> int:
    """The exit code of a reader that ends while the origin is silent."""
    code = process.wait(10)
    assert not gate.open.is_set()
    return code


@pytest.mark.parametrize("how", READS)
def test_a_reader_that_is_killed(
    how: str, start_mount: MountFactory, origin: FaultyOrigin, gate: Gate, tmp_path: Path
) -> None:
    """A signal at once ends a program that waits for bytes; other programs keep waiting for the
    same bytes."""
    mount = start_mount(origin.url)
    os.listdir((mount.path / MODEL).parent)
    origin.always(on_objects(gate))
    with stuck(how, mount.path / MODEL) as other, ThreadPoolExecutor() as pool:
        for number in SIGNALS:
            with stuck(how, mount.path / MODEL) as reader:
                reader.send_signal(number)
                assert ended(reader, gate) == -number
        reading = pool.submit((mount.path / MODEL).read_bytes)
        gate.open.set()
        assert other.wait(20) == 0
        assert reading.result(20) == source_bytes(tmp_path, 0, NAME)
    settled(lambda: mount.status()["open"] == [])
    ranges = [seen.headers["range"] for seen in origin.requests if "/objects/" in seen.path]
    assert len(ranges) == len(set(ranges)), "a chunk was asked for twice"


@pytest.mark.parametrize("how", ["read", "page", "direct"])
def test_a_reader_that_handles_signals(
    how: str, start_mount: MountFactory, origin: FaultyOrigin, gate: Gate
) -> None:
    """A signal with a handler ends a read, a lookup or a listing with EINTR, at once or after a
    moment."""
    mount = start_mount(origin.url)
    os.listdir((mount.path / MODEL).parent)
    origin.always(on_objects(gate))
    for number in (signal.SIGINT, signal.SIGUSR1):
        with stuck(how, mount.path / MODEL, handled=True) as reader:
            reader.send_signal(number)
            assert ended(reader, gate) == HANDLED
    settled(lambda: mount.status()["open"] == [])


@pytest.mark.parametrize("how", ["mmap", "mmap-page", "send"])
def test_a_handler_runs_during_a_page_fault(
    how: str, start_mount: MountFactory, origin: FaultyOrigin, gate: Gate
) -> None:
    """During a page fault of its program a handler runs, and then the fault is retried; a page
    fault within a system call is not interrupted."""
    mount = start_mount(origin.url)
    os.listdir((mount.path / MODEL).parent)
    origin.always(on_objects(gate))
    with stuck(how, mount.path / MODEL, handled=True) as reader:
        assert reader.stderr
        for number in (signal.SIGUSR1, signal.SIGUSR1):
            reader.send_signal(number)
            if how != "send":
                assert os.read(reader.stderr.fileno(), 1) == bytes([number])
        assert not select.select([reader.stderr], [], [], 0.5)[0]
        assert reader.poll() is None
        gate.open.set()
        assert reader.wait(20) == 0


def test_a_fault_that_goes_on_is_killed(
    start_mount: MountFactory, origin: FaultyOrigin, gate: Gate
) -> None:
    """SIGKILL ends it although the kernel tells of the first signal only."""
    mount = start_mount(origin.url)
    os.listdir((mount.path / MODEL).parent)
    origin.always(on_objects(gate))
    with stuck("send", mount.path / MODEL, handled=True) as reader:
        assert reader.stderr
        reader.send_signal(signal.SIGUSR1)
        assert not select.select([reader.stderr], [], [], 0.5)[0]
        reader.kill()
        assert ended(reader, gate) == -signal.SIGKILL


@pytest.mark.parametrize("how", ["stat", "readdir"])
@pytest.mark.parametrize("handled", [False, True])
def test_names_that_are_waited_for(
    how: str, handled: bool, start_mount: MountFactory, origin: FaultyOrigin, gate: Gate
) -> None:
    """A signal with a handler ends a read, a lookup or a listing with EINTR, at once or after a
    moment."""
    mount = start_mount(origin.url)
    folder = mount.path / "nlp/tiny/1.0.0"
    os.stat(folder)
    origin.always(gate)
    with ThreadPoolExecutor() as pool:
        for number in SIGNALS if not handled else SIGNALS[:2]:
            path = folder if how == "readdir" else folder / NAME
            with stuck(how, path, handled=handled) as reader:
                reader.send_signal(number)
                assert ended(reader, gate) == (HANDLED if handled else -number)
        looking = pool.submit(os.listdir, folder)
        gate.open.set()
        assert set(FILES) & set(looking.result(20)) == {NAME, "vocab.txt"}
    assert len([seen for seen in origin.requests if "manifest" in seen.path]) == 1


@pytest.mark.complains
def test_what_a_new_worker_asks_for(
    start_mount: MountFactory, origin: FaultyOrigin, gate: Gate
) -> None:
    """A worker that takes over may have to ask what the kernel knows, and be interrupted then."""
    mount = start_mount(origin.url)
    link = mount.path / "nlp/tiny/latest"
    os.stat(mount.path / MODEL)
    os.readlink(link)
    with index_lost(mount):
        origin.always(gate)
    for how in ("open", "getxattr", "readlink"):
        path = link if how == "readlink" else mount.path / MODEL
        for handled in (False, True):
            with stuck(how, path, handled=handled) as reader:
                reader.send_signal(signal.SIGINT)
                assert ended(reader, gate) == (HANDLED if handled else -signal.SIGINT)
    gate.open.set()
    assert os.getxattr(mount.path / MODEL, "user.axonfs.spec") == b"nlp/tiny@1.0.0"
    settled(lambda: mount.status()["open"] == [], 10)


@pytest.mark.parametrize("program", ["sha256sum", "stat", "cmp"])
def test_a_reader_that_is_stopped(
    program: str, start_mount: MountFactory, origin: FaultyOrigin, gate: Gate, tmp_path: Path
) -> None:
    """A reader that is stopped and goes on sees no error: it may not try again."""
    mount = start_mount(origin.url)
    os.stat((mount.path / MODEL).parent)
    origin.always(gate)
    files = [mount.path / MODEL, *([tmp_path / "source0" / NAME] if program == "cmp" else [])]
    with subprocess.Popen([program, *files], stdout=subprocess.PIPE) as reader:
        until_asleep(reader)
        for _ in range(3):
            reader.send_signal(signal.SIGSTOP)
            time.sleep(0.3)  # longer than the mount takes to notice
            reader.send_signal(signal.SIGCONT)
        assert reader.poll() is None
        gate.open.set()
        assert reader.wait(20) == 0


@pytest.mark.parametrize("how", ["read", "page", "direct", "stat"])
def test_a_reader_that_is_traced(
    how: str, start_mount: MountFactory, origin: FaultyOrigin, gate: Gate
) -> None:
    """A signal that it ignores stays pending until its debugger has seen it, and is no error."""
    mount = start_mount(origin.url)
    os.listdir((mount.path / MODEL).parent)
    origin.always(gate)
    path = mount.path / "nlp/tiny/absent" if how == "stat" else mount.path / MODEL
    with stuck(how, path) as reader:
        ptrace_seize = 0x4206
        assert ctypes.CDLL(None).ptrace(ptrace_seize, reader.pid, 0, 0) == 0
        for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGCONT):
            reader.send_signal(number)
        time.sleep(0.5)  # longer than the mount takes to notice
        state = Path(f"/proc/{reader.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "D", "its call was answered"


SLOW = """
import os, time, trio

async def wait_readable(descriptor, wait=trio.lowlevel.wait_readable):
    await wait(descriptor)
    while os.path.exists({flag!r}):
        time.sleep(0.01)

trio.lowlevel.wait_readable = wait_readable

from axonfs.fuse import reads  # native threads would read the request at once
reads.NativeReads.start = lambda self, device: None
"""


def test_a_request_that_is_taken_back(
    start_mount: MountFactory, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The reader was killed before the mount read its request: the mount serves on."""
    flag = tmp_path / "slow"
    mount = start_mount(origin.url, env=patched(tmp_path, SLOW.format(flag=str(flag))))
    worker = mount.worker()
    flag.touch()
    with stuck("stat", mount.path / "nlp/tiny/1.0.0/absent") as reader:
        reader.kill()
        assert reader.wait(10) == -signal.SIGKILL
    flag.unlink()
    settled(lambda: "poll" in Path(f"/proc/{worker}/wchan").read_text())  # nothing under way
    assert mount.worker() == worker


def test_a_read_ahead_whose_reader_is_gone(
    start_mount: MountFactory, origin: FaultyOrigin, gate: Gate
) -> None:
    """The handle of a reader that was killed is closed while what it asked for is still awaited."""
    mount = start_mount(origin.url)
    os.listdir((mount.path / MODEL).parent)
    origin.always(on_objects(gate))
    with stuck("read", mount.path / MODEL) as reader:
        reader.kill()
        assert ended(reader, gate) == -signal.SIGKILL
    settled(lambda: mount.status()["open"] == [], 10)
    assert not gate.open.is_set()
