"""Commands beside a mount whose worker or holder is stopped: none of them waits for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from axonfs import call, rundir
from axonfs.cli.main import main
from axonfs.client.health import real_path
from axonfs.daemon.holder import GRACE
from axonfs.rundir import SOCKET, reachable
from axonfs.settings import editing
from tests.mount.conftest import FILES, Mount, MountFactory, run_axonfs
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Gate, on_objects

pytestmark = [pytest.mark.mount, pytest.mark.complains]
SPEC = "nlp/tiny@1.0.0"
FILE = "nlp/tiny/1.0.0/vocab.txt"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands in this process, with less patience."""
    monkeypatch.setattr(call, "SILENCE", 0.2)
    monkeypatch.setattr(call, "ALIVE", 1.0)
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "none.yaml"))


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[int]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


COMMANDS = ("pin", SPEC), ("unpin", SPEC), ("verify",), ("status",), ("cache", "clean")


def test_a_stopped_worker(mount: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands beside a stopped worker or holder end, and say which process it is and what to
    do."""
    with stopped(mount.worker()) as pid:
        for words in COMMANDS:
            began = time.monotonic()
            assert main([*words, "--cache", str(mount.cache)]) == 1
            assert time.monotonic() - began < 10
            said = capsys.readouterr().err
            assert f"the mount's worker (pid {pid}) is stopped" in said
            assert f"kill -CONT {pid} continues it" in said


def test_what_needs_no_worker_works_beside_one_that_is_stopped(
    mount: Mount, capsys: pytest.CaptureFixture[str]
) -> None:
    run_axonfs("pin", SPEC, "--cache", mount.cache)
    linked = Path(run_axonfs("path", SPEC, "--cache", mount.cache).stdout.strip())
    with stopped(mount.worker()) as pid:
        for words in (["list"], ["pin", "--check"], ["cache", "stats"], ["path", SPEC]):
            assert main([*words, "--cache", str(mount.cache)]) == 0
            out, said = capsys.readouterr()
            assert f"(pid {pid}) is stopped" in said
            assert "this is from its cache" in said
            assert out
        (linked / "config.json").unlink()
        assert main(["path", SPEC, "--cache", str(mount.cache)]) == 1
        assert "in use by" not in capsys.readouterr().err, "the worker would not make it either"


def test_a_worker_that_is_stopped_in_the_middle(
    start_mount: MountFactory, registry_dir: Path
) -> None:
    gate = Gate()
    with FaultyOrigin(registry_dir) as origin:
        origin.always(on_objects(gate))
        mount = start_mount(origin.url)
        events = call.call(mount.cache, {"op": "pin", "specs": [SPEC]})
        next(events)
        assert gate.arrived.wait(20)
        with stopped(mount.worker()), pytest.raises(TimeoutError):
            list(events)
        origin.always(None)
        gate.open.set()


def test_a_worker_that_says_nothing_for_long(
    start_mount: MountFactory, registry_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it works for a command it is asked whether it is alive, and waited for."""
    gate, asked = Gate(), threading.Semaphore(0)
    alive = call.alive

    def watched(cache: Path) -> None:
        alive(cache)
        asked.release()

    monkeypatch.setattr(call, "alive", watched)
    with FaultyOrigin(registry_dir) as origin:
        mount = start_mount(origin.url)
        origin.always(gate)
        with ThreadPoolExecutor(1) as pool:
            info = pool.submit(list, call.call(mount.cache, {"op": "info", "spec": SPEC}))
            for _ in range(4):
                assert asked.acquire(timeout=20)
            origin.always(None)
            gate.open.set()
            assert info.result(20)[-1]["event"] == "result"


def test_a_full_backlog(mount: Mount) -> None:
    """So many commands wait for a stopped worker that no further one is let in."""
    with stopped(mount.worker()), contextlib.ExitStack() as stack:
        for _ in range(rundir._BACKLOG + 2):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            with reachable(mount.cache / SOCKET) as address, contextlib.suppress(BlockingIOError):
                one.connect(address)
        with pytest.raises(TimeoutError):
            call.alive(mount.cache)


def test_umount_with_a_stopped_worker(mount: Mount) -> None:
    """The holder sees that the connection has ended, and ends the worker that does not."""
    os.kill(mount.worker(), signal.SIGSTOP)
    began = time.monotonic()
    assert run_axonfs("umount", mount.path).returncode == 0
    assert time.monotonic() - began < GRACE
    assert mount.process.wait(1) == 0


def test_umount_with_a_stopped_holder(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("axonfs.cli.unmounting.END_TIMEOUT", 1.0)
    with stopped(mount.process.pid) as pid:
        assert main(["umount", str(mount.path)]) == 1
        said = capsys.readouterr().err
        assert f"process {pid} has not ended within 1 s" in said
        assert f"the mount's holder (pid {pid}) is stopped; kill -CONT {pid}" in said
        assert main(["umount", "--force", str(mount.path)]) == 0
        assert mount.process.wait(5) is not None


def test_a_path_below_a_mount_that_does_not_answer(mount: Mount, tmp_path: Path) -> None:
    """A command that is given such a path does not touch it."""
    (tmp_path / "link").symlink_to(mount.path)
    with stopped(mount.worker()):
        assert real_path(tmp_path / "link" / "nlp" / "new") == mount.path / "nlp/new"
        assert real_path(tmp_path / "link") == mount.path
        for path in (mount.path / "nlp/new", tmp_path / "link/nlp/new"):
            done = run_axonfs("umount", path, check=False)
            assert "no AxonFS is mounted there" in done.stderr


def test_an_edit_of_the_config_while_another_is_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(editing, "LOCK_SECONDS", 0.2)
    with editing._locked(tmp_path):
        assert main(["config", "set", "streams", "3"]) == 2
    assert "another process has held the lock" in capsys.readouterr().err


def test_a_mount_is_made_beside_one_that_is_stopped(mount: Mount, tmp_path: Path) -> None:
    with stopped(mount.worker()):
        done = run_axonfs("mount", mount.path, "--registry", "http://127.0.0.1:1",
                          "--cache", tmp_path / "other", check=False)  # fmt: skip
        assert done.returncode == 1
        assert "already mounted" in done.stderr
    assert len((mount.path / FILE).read_bytes()) == FILES["vocab.txt"]


def test_tokens_go_to_no_other_user(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may ask another user's mount: with what that one has."""
    sent: list[bytes] = []
    monkeypatch.setattr(socket.socket, "sendall", lambda self, data: sent.append(data))
    for uid in (os.geteuid(), 65534):
        monkeypatch.setattr(call, "peer", lambda connection, uid=uid: uid)
        call._connected(mount.cache, {"op": "ping", "tokens": {"hf": "secret"}}).close()
    assert [b"secret" in line for line in sent] == [True, False]
