"""An ordinary user's mount, through fusermount3, beside what root mounted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axonfs.connection.mountinfo import axonfs_at, top_at
from axonfs.daemon.holders import running
from tests.mount.conftest import settled
from tests.mount.test_mounting import NOBODY
from tests.mount.test_unmounting import tmpfs
from tests.support.registry import RegistryServer

pytestmark = [
    pytest.mark.mount,
    pytest.mark.usefixtures("open_to_users"),
    pytest.mark.skipif(os.getuid() != 0, reason="becomes another user"),
]
Axonfs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home() -> Iterator[Path]:
    """A user's home directory with a mountpoint; pytest's own is closed to users."""
    home = Path(tempfile.mkdtemp(prefix="axonfs-procs-", dir="/tmp"))
    (home / "mnt").mkdir()
    for path in (home, home / "mnt"):
        os.chown(path, NOBODY, NOBODY)
    yield home
    for place in ("mnt", "mnt", "bind"):
        subprocess.run(["umount", "-lq", home / place], check=False)
    shutil.rmtree(home)


@pytest.fixture
def axonfs(home: Path, registry: RegistryServer) -> Iterator[Axonfs]:
    """Commands of that user."""
    environment = {
        "HOME": str(home),
        **{name: os.environ[name] for name in ("PATH", "AXONFS_CACHE_SIZE")},
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "AXONFS_REGISTRY": registry.url,
    }

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "axonfs", *map(str, words)],
            env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False,
            user=NOBODY, group=NOBODY, extra_groups=[],
        )  # fmt: skip

    yield run
    for holder in running():
        if holder.mountpoint == home / "mnt":
            os.kill(holder.pid, signal.SIGKILL)


def test_a_bind_mount_of_a_user_s_mount(home: Path, axonfs: Axonfs) -> None:
    """The user may not unmount what root has bound, but may end the mount."""
    (home / "bind").mkdir()
    assert axonfs("mount", home / "mnt").returncode == 0
    (holder,) = [one for one in running() if one.mountpoint == home / "mnt"]
    mount = subprocess.run(["mount", "-i", "--bind", home / "mnt", home / "bind"], check=False)
    assert mount.returncode == 0
    done = axonfs("umount", home / "mnt")
    assert done.returncode == 1
    assert f"process {holder.pid} still runs" in done.stderr
    assert f"the same mount is at {home / 'bind'}" in done.stderr
    done = axonfs("umount", "--force", home / "mnt")
    assert done.returncode in (0, 1), done.stderr
    assert axonfs_at(home / "mnt") is None
    assert not [one for one in running() if one.pid == holder.pid]
    assert str(home / "bind") in done.stderr or axonfs_at(home / "bind") is None


def test_what_was_mounted_over_a_user_s_mount_stays(home: Path, axonfs: Axonfs) -> None:
    assert axonfs("mount", home / "mnt").returncode == 0
    (holder,) = [one for one in running() if one.mountpoint == home / "mnt"]
    os.kill(holder.pid, signal.SIGSTOP)
    subprocess.run(["fusermount3", "-u", home / "mnt"], check=True, user=NOBODY, group=NOBODY)
    with tmpfs(home / "mnt"):
        os.kill(holder.pid, signal.SIGCONT)
        settled(lambda: not [one for one in running() if one.pid == holder.pid], 20)
        top = top_at(home / "mnt")
        assert top is not None
        assert top.filesystem == "tmpfs"
