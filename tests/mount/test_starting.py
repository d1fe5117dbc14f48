"""Starts that fail, at whatever point, leave nothing mounted; and starts without descriptors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.cli.completing import known
from axonfs.connection.mountinfo import axonfs_at, top_at
from axonfs.daemon.holders import running, workers_of
from axonfs.store import file_system
from tests.mount.conftest import FILES, MountFactory, patched, run_axonfs, settled
from tests.mount.test_unmounting import tmpfs
from tests.support.registry import RegistryServer

pytestmark = [pytest.mark.mount, pytest.mark.complains]
FILE = "nlp/tiny/1.0.0/vocab.txt"
ALL = [f"{number:03b}" for number in range(1, 8)]
CLOSED = [
    pytest.param(word, marks=[] if word.count("1") != 1 else pytest.mark.slow) for word in ALL
]


@pytest.fixture
def place(
    tmp_path: Path, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A mountpoint, and settings for commands that take none."""
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "none.yaml"))
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AXONFS_REGISTRY", registry.url)
    path = tmp_path / "m"
    path.mkdir()
    yield path
    subprocess.run(["umount", "-lq", path], check=False)


def test_a_mountpoint_with_ends_of_lines_in_its_name(place: Path, tmp_path: Path) -> None:
    """Any user may mount at such a path, and the mount table does not escape them."""
    odd = place / "a\rb\vc\u2028d"
    odd.mkdir()
    (tmp_path / "disk").mkdir()
    with tmpfs(odd), tmpfs(tmp_path / "disk"):
        assert file_system(tmp_path / "disk") == "tmpfs"
        (odd / "m\rn").mkdir()
        run_axonfs("mount", odd / "m\rn", "--cache", tmp_path / "disk/cache")
        assert known.mountpoints() == []
        assert axonfs_at(odd / "m\rn") is not None
        run_axonfs("umount", odd / "m\rn")


def without(closed: str, *words: str | Path) -> list[str]:
    """A command that has some of the standard descriptors closed, as `100` says for input."""
    redirections = ("<&-", ">&-", "2>&-")
    wanted = " ".join(text for text, bit in zip(redirections, closed, strict=True) if bit == "1")
    axonfs = [sys.executable, "-m", "axonfs", *map(str, words)]
    return ["sh", "-c", f'exec "$@" {wanted}', "sh", *axonfs]


@pytest.mark.parametrize("closed", CLOSED)
def test_standard_descriptors_that_are_closed(place: Path, closed: str) -> None:
    """As some supervisors and cron have them: every command works, and the mount as well."""
    for words in (("mount", place), ("pin", "nlp/tiny@1.0.0"), ("status",)):
        done = subprocess.run(without(closed, *words), check=False, capture_output=True)
        assert done.returncode == 0, (words, done)
        assert b"bug" not in done.stderr
    assert (place / FILE).stat().st_size == FILES["vocab.txt"]
    assert subprocess.run(without(closed, "umount", place), check=False).returncode == 0
    assert top_at(place) is None


@pytest.mark.parametrize("closed", CLOSED)
def test_a_mount_in_the_foreground_without_descriptors(place: Path, closed: str) -> None:
    process = subprocess.Popen(without(closed, "mount", place, "--foreground"))
    settled(lambda: (place / FILE).exists(), 20)
    process.terminate()
    assert process.wait(20) == 0
    assert top_at(place) is None


def test_no_standard_descriptor_becomes_something_else(place: Path) -> None:
    """What Python opens first would have the number of one that is closed, and be written to."""
    process = subprocess.Popen(without("111", "mount", place, "--foreground"))
    settled(lambda: (place / FILE).exists(), 20)
    (holder,) = [one for one in running() if one.mountpoint == place]
    for pid in (holder.pid, *holder.workers):
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    process.terminate()
    assert process.wait(20) == 0


NEVER_ANSWERS = """
from axonfs.daemon.worker import Worker
import trio
async def announce(self):
    await trio.sleep_forever()
Worker._announce = announce
from axonfs.cli import background
background.READY_TIMEOUT = 3.0
"""
CANNOT_START = """
import os, subprocess, sys
made = subprocess.Popen
class Popen(made):
    def __init__(self, command, **options):
        if "worker" in command and os.path.exists(os.environ.get("OUT", "/")):
            raise OSError(11, "Resource temporarily unavailable")
        super().__init__(command, **options)
subprocess.Popen = Popen
"""
DIES = "import sys\nif 'worker' in sys.argv: raise SystemExit(9)"


@pytest.mark.parametrize("foreground", [(), ("--foreground",)])
@pytest.mark.parametrize("patch", [CANNOT_START, DIES])
def test_a_worker_that_does_not_start(
    place: Path, tmp_path: Path, foreground: tuple[str, ...], patch: str
) -> None:
    """A mount that does not come up leaves nothing mounted, whatever the reason."""
    environment = {**os.environ, **patched(tmp_path, patch)}
    command = [sys.executable, "-m", "axonfs", "mount", str(place), *foreground]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert top_at(place) is None
    assert [one for one in running() if one.mountpoint == place] == []


def test_a_mount_that_does_not_answer_in_time(place: Path, tmp_path: Path) -> None:
    environment = {**os.environ, **patched(tmp_path, NEVER_ANSWERS)}
    command = [sys.executable, "-m", "axonfs", "mount", str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "did not answer within 3 s" in done.stderr
    assert top_at(place) is None
    assert run_axonfs("mount", place).returncode == 0  # and nothing is in its way
    run_axonfs("umount", place)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_command_that_ends_before_its_mount_answers(
    place: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """No command has said that there is such a mount, so it is taken away."""
    environment = {**os.environ, **patched(tmp_path, NEVER_ANSWERS)}
    command = [sys.executable, "-m", "axonfs", "mount", str(place)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    settled(lambda: axonfs_at(place) is not None, 20)
    process.send_signal(number)
    assert process.wait(30) != 0
    settled(lambda: top_at(place) is None, 20)
    settled(lambda: not [one for one in running() if one.mountpoint == place], 20)


CANNOT_WATCH = """
import os
pidfd_open = os.pidfd_open
def opened(pid, flags=0):
    if os.path.exists(os.environ.get("OUT", "/")):
        raise OSError(11, "Resource temporarily unavailable")
    return pidfd_open(pid, flags)
os.pidfd_open = opened
"""


@pytest.mark.parametrize("patch", [CANNOT_START, CANNOT_WATCH])
def test_a_worker_that_cannot_be_started_again(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path, patch: str
) -> None:
    """A machine that is out of processes or descriptors for a moment does not cost the mount."""
    token = tmp_path / "out of processes"
    environment = {"OUT": str(token), **patched(tmp_path, patch)}
    mount = start_mount(registry.url, env=environment)
    pid = mount.process.pid
    before = len(os.listdir(f"/proc/{pid}/fd"))
    token.touch()
    mount.kill_worker()
    complaint = "not started: Resource temporarily unavailable"
    settled(lambda: mount.log.read_text().count(complaint) > 1, 20)
    token.unlink()
    assert len((mount.path / FILE).read_bytes()) == FILES["vocab.txt"]
    assert workers_of(pid) == [mount.worker()]
    settled(lambda: len(os.listdir(f"/proc/{pid}/fd")) == before, 20)
