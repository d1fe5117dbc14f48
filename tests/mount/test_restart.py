"""Hot restart on real mounts: the worker dies or is replaced, and no reader notices."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.daemon.possessions import Possessions
from tests.mount.conftest import (
    FILES,
    MODEL,
    NAME,
    Mount,
    MountFactory,
    passed_through,
    patched,
    read_and_closed,
    run_axonfs,
    settled,
    source_bytes,
)
from tests.support import scraping
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, on_objects
from tests.support.registry import RegistryServer

pytestmark = [pytest.mark.mount, pytest.mark.complains]


def test_a_killed_worker_is_replaced(mount: Mount, tmp_path: Path) -> None:
    """If the worker is killed another one replaces it; open files, mappings and listings stay
    valid."""
    want = source_bytes(tmp_path, 0, NAME)
    folder = mount.path / "nlp/tiny/1.0.0"
    before = (folder / NAME).stat()
    with (folder / NAME).open("rb") as file, os.scandir(folder) as listing:
        first = file.read(10)
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        names = [next(listing).name]
        old = mount.kill_worker()
        assert first + file.read() == want
        assert mapping[:] == want
        names += [entry.name for entry in listing]
        mapping.close()
    assert sorted(names) == ["config.json", "manifest.yaml", NAME, "sub", "vocab.txt"]
    assert (folder / NAME).stat().st_ino == before.st_ino
    assert mount.worker() != old
    assert mount.status()["worker"]["ends"][0]["how"] == "killed by SIGKILL"
    assert mount.status()["pid"] == mount.process.pid
    assert mount.status()["open"] == []


def test_a_read_that_is_under_way_is_answered_by_the_next_worker(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    """The next worker answers a read that the dead worker left unanswered."""
    gate = Gate()
    with FaultyOrigin(registry_dir) as origin:
        origin.always(on_objects(gate))
        mount = start_mount(origin.url)
        want = source_bytes(tmp_path, 0, NAME)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append((mount.path / MODEL).read_bytes()))
        reader.start()
        assert gate.arrived.wait(20)
        mount.kill_worker()
        origin.always(None)
        gate.open.set()
        reader.join(30)
        assert found == [want]


def test_the_state_as_a_file_is_never_that_of_two_workers(mount: Mount) -> None:
    """A reader of status.json that has begun finds its end; from the beginning it reads anew."""
    with (mount.path / ".axonfs/status.json").open("rb", buffering=0) as file:
        assert file.read(10)
        old = mount.kill_worker()
        assert file.read() == b""
        file.seek(0)
        assert json.loads(file.read())["worker"]["pid"] != old


def test_passed_through_files_outlive_the_worker(mount: Mount, tmp_path: Path) -> None:
    """Reads of a file with passthrough continue while there is no worker, and with the next one."""
    want = source_bytes(tmp_path, 0, NAME)
    read_and_closed(mount)
    with (mount.path / MODEL).open("rb") as file:
        assert passed_through(mount)[MODEL]
        mount.kill_worker()
        assert file.read() == want
        assert passed_through(mount)[MODEL]
        with (mount.path / MODEL).open("rb") as second:
            assert second.read() == want
            assert mount.status()["connection"]["passed_through"] == 1
    assert mount.status()["connection"]["passed_through"] == 0


DIES_BEFORE_IT_ANSWERS = """
import os, signal
from axonfs.vfs.files import Files
opened = Files.opened
def die(*call):
    opened(*call)
    if os.path.exists({token!r}):
        os.unlink({token!r})
        os.kill(os.getpid(), signal.SIGKILL)
Files.opened = die
"""


def test_an_open_that_is_under_way_is_counted_once(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """A worker that dies between noting an open and answering it leaves no handle behind."""
    token = tmp_path / "die"
    patch = DIES_BEFORE_IT_ANSWERS.format(token=str(token))
    mount = start_mount(registry.url, env=patched(tmp_path, patch))
    for complete in (False, True):
        token.touch()
        with (mount.path / MODEL).open("rb") as file:
            assert not token.exists()
            (row,) = mount.status()["open"]
            assert (row["handles"], row["passed_through"]) == (1, complete)
            assert file.read() == source_bytes(tmp_path, 0, NAME)
        assert mount.status()["open"] == []
        assert mount.status()["connection"]["passed_through"] == 0
    assert len(mount.status()["worker"]["ends"]) == 2


DROPS_PAGES_LATE = """
import os
from axonfs.fuse import session
drop = session.invalidate_pages
def late(inode):
    if os.path.exists({began!r}):
        os.close(os.open({began!r}, os.O_WRONLY))
        os.close(os.open({go!r}, os.O_RDONLY))
    drop(inode)
session.invalidate_pages = late
"""


def test_an_open_waits_while_the_pages_of_its_file_are_dropped(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    """A worker that was killed while the kernel waits for a reader's page would never end."""
    began, go = tmp_path / "began", tmp_path / "go"
    os.mkfifo(began)
    os.mkfifo(go)
    gate, found = Gate(), list[bytes]()
    with FaultyOrigin(registry_dir) as origin:
        patch = DROPS_PAGES_LATE.format(began=str(began), go=str(go))
        mount = start_mount(origin.url, env=patched(tmp_path, patch))
        want = (mount.path / MODEL).read_bytes()
        began.open("rb").close()  # once it was closed and its pages are about to be dropped
        began.unlink()
        run_axonfs("cache", "clean", "--all", "--yes", "--cache", mount.cache)
        origin.always(on_objects(gate))
        reader = threading.Thread(target=lambda: found.append((mount.path / MODEL).read_bytes()))
        reader.start()
        assert not gate.arrived.wait(0.5)
        go.open("wb").close()
        assert gate.arrived.wait(20)
        mount.kill_worker()
        origin.always(None)
        gate.open.set()
        reader.join(30)
    assert found == [want] == [source_bytes(tmp_path, 0, NAME)]


def test_what_the_kernel_was_told_holds_without_the_registry(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """A worker that takes over needs no registry for open and local files."""
    mount = start_mount(registry.url)
    run_axonfs("pin", "nlp/tiny@1.0.0", "--cache", mount.cache)
    with (mount.path / MODEL).open("rb") as file:
        registry.__exit__(None, None, None)
        mount.kill_worker()
        assert file.read() == source_bytes(tmp_path, 0, NAME)
        assert (mount.path / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
    registry.__enter__()


def test_restart(mount: Mount, tmp_path: Path) -> None:
    """`axonfs restart` replaces the programs of holder and worker while the mount stays."""
    with (mount.path / MODEL).open("rb") as file:
        first = file.read(10)
        old = mount.worker()
        assert "restarted" in run_axonfs("restart", mount.path).stderr
        assert mount.worker() != old
        assert mount.process.poll() is None
        assert first + file.read() == source_bytes(tmp_path, 0, NAME)
    assert mount.status()["worker"]["ends"] == []


def test_kernels_that_cannot_resend(
    start_mount: MountFactory, registry_dir: Path, tmp_path: Path
) -> None:
    """On kernels before 6.9 requests in flight get EIO, and later ones work."""
    patch = "from axonfs.connection import handshake\nhandshake.RESEND = 1 << 60"
    gate = Gate()
    with FaultyOrigin(registry_dir) as origin:
        origin.always(on_objects(gate))
        mount = start_mount(origin.url, env=patched(tmp_path, patch))
        assert not mount.status()["connection"]["resend"]
        # Past the page cache, which would ask again for what its readahead did not get.
        command = ["dd", f"if={mount.path / MODEL}", "iflag=direct", "bs=1M", "of=/dev/null"]
        reader = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert gate.arrived.wait(20)
        mount.kill_worker()
        origin.always(None)
        gate.open.set()
        assert b"Input/output error" in reader.communicate(timeout=30)[1]
        assert (mount.path / MODEL).read_bytes() == source_bytes(tmp_path, 0, NAME)


def test_a_worker_that_cannot_live(start_mount: MountFactory, registry: RegistryServer) -> None:
    """A worker that dies repeatedly is replaced with growing pauses, and status counts that."""
    mount = start_mount(registry.url)
    for _ in range(3):
        mount.kill_worker()
    ends = mount.status()["worker"]["ends"]
    assert [end["how"] for end in ends] == ["killed by SIGKILL"] * 3
    log = mount.log.read_text()
    assert "the next in 0 s" in log
    assert "the next in 0.25 s" in log
    assert "the next in 0.5 s" in log
    assert "3 times" in run_axonfs("status", mount.path).stdout


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on for a service's notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def stored_descriptors(systemd: socket.socket) -> dict[str, int]:
    """The descriptors that a service gives away until it says no more of them."""
    found: dict[str, int] = {}
    while len(found) < len(Possessions.NAMES):
        data, descriptors, _, _ = socket.recv_fds(systemd, 4096, 4)
        fields = dict(line.split("=", 1) for line in data.decode().splitlines())
        if fields.get("FDSTORE") == "1":
            found[fields["FDNAME"]] = descriptors[0]
    return found


def test_the_holder_is_replaced_through_systemd(
    start_mount: MountFactory,
    registry: RegistryServer,
    tmp_path: Path,
    systemd: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A holder killed under systemd is replaced through the descriptors that systemd kept, and the
    counters of its metrics go on."""
    port = scraping.free_port()
    monkeypatch.setenv("AXONFS_METRICS", str(port))
    mount = start_mount(registry.url, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    kept = stored_descriptors(systemd)
    # From its first close on the kernel knows that a close is not to be told of: the next one, in
    # the child that becomes the holder, would wait for it.
    (mount.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
    with (mount.path / MODEL).open("rb") as file:
        first = file.read(10)
        opens = scraping.scrape(port)["axonfs_opens_total{served}"]
        assert opens >= 2
        mount.kill()
        process = _started_by_systemd(mount, registry.url, kept)
        mount.process = process
        assert first + file.read() == source_bytes(tmp_path, 0, NAME)
    assert mount.status()["pid"] == process.pid
    settled(lambda: mount.status()["metrics"]["url"] is not None)
    assert scraping.scrape(port)["axonfs_opens_total{served}"] >= opens


def _started_by_systemd(mount: Mount, url: str, kept: dict[str, int]) -> subprocess.Popen[bytes]:
    """The service once more, with the descriptors from 3 on as sd_listen_fds(3) has them."""
    command = [sys.executable, "-m", "axonfs", "mount", str(mount.path), "--foreground"]
    command += ["--registry", url, "--cache", str(mount.cache)]
    program = (
        "import json, os, sys\n"
        "kept, command = json.loads(sys.argv[1]), json.loads(sys.argv[2])\n"
        "high = {name: os.dup2(fd, 100 + fd) for name, fd in kept.items()}\n"
        "for number, fd in enumerate(high.values(), 3): os.dup2(fd, number)\n"
        "os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': str(len(high)),"
        " 'LISTEN_FDNAMES': ':'.join(high)}\n"
        "os.execv(command[0], command)\n"
    )
    with mount.log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(kept), json.dumps(command)],
            pass_fds=list(kept.values()),
            stdout=output,
            stderr=output,
            env={**os.environ, "AXONFS_CONFIG": "/nonexistent"},
        )
    for descriptor in kept.values():
        os.close(descriptor)
    return process


def test_stop_with_readers(mount: Mount) -> None:
    """SIGTERM unmounts after a grace period, even if there are readers, and ends."""
    descriptor = os.open(mount.path / MODEL, os.O_RDONLY)
    os.read(descriptor, 10)
    mount.process.send_signal(signal.SIGTERM)
    assert mount.process.wait(40) == 0
    assert not os.path.ismount(mount.path)
    with contextlib.suppress(OSError):  # ENOTCONN: no worker takes the close any more
        os.close(descriptor)


def test_nothing_of_a_dead_holder_stays(mount: Mount) -> None:
    """Without its holder a worker ends, so that no two workers serve one cache."""
    descriptor = os.pidfd_open(mount.worker())
    mount.kill()
    ended, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    assert ended


def test_a_restart_asked_for_at_any_moment(mount: Mount, tmp_path: Path) -> None:
    """SIGHUP to a worker that is still starting takes effect once it has started."""
    old = mount.worker()
    with (mount.path / MODEL).open("rb") as file:
        first = file.read(10)
        for _ in range(2):  # the second one meets the next worker before it answers
            mount.process.send_signal(signal.SIGHUP)
            wait_for_another(mount, old)
        assert first + file.read() == source_bytes(tmp_path, 0, NAME)
    assert mount.status()["worker"]["ends"] == []


def wait_for_another(mount: Mount, old: int) -> None:
    """Return when the holder has another child than `old`."""
    children = Path(f"/proc/{mount.process.pid}/task/{mount.process.pid}/children")
    deadline = time.monotonic() + 20
    while children.read_text().split() in ([], [str(old)]):
        assert time.monotonic() < deadline
        time.sleep(0.001)  # the start of the next worker has no event


def test_unmounted_while_there_is_no_worker(mount: Mount) -> None:
    """A mount that is unmounted while its worker is being replaced does not come back."""
    (mount.path / MODEL).read_bytes()
    mount.process.send_signal(signal.SIGSTOP)
    worker = int(Path(f"/proc/{mount.process.pid}/task/{mount.process.pid}/children").read_text())
    os.kill(worker, signal.SIGKILL)
    subprocess.run(["umount", "--no-canonicalize", "-l", mount.path], check=True)
    mount.process.send_signal(signal.SIGCONT)
    assert mount.process.wait(20) == 0
    assert not os.path.ismount(mount.path)
