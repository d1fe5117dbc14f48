"""docs/semantics.md, the mount itself: status, dead mounts, locks, ordinary users."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from axonfs.connection import readahead_setting
from axonfs.connection.mountinfo import mounts
from tests.mount.conftest import FILES, Mount, MountFactory, run_axonfs
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount
NOBODY = 65534


def test_status_file(mount: Mount, registry: RegistryServer) -> None:
    """`.axonfs/status.json` is the live state as a file."""
    (mount.path / "nlp/tiny/1.0.0/vocab.txt").read_bytes()
    first = mount.status()
    assert first["pid"] == mount.process.pid
    assert first["registries"][0]["url"].rstrip("/") == registry.url
    assert first["fetch"]["bytes"] == FILES["vocab.txt"]
    with (mount.path / "nlp/tiny/1.0.0/model.safetensors").open("rb") as file:
        file.read(1)
        assert [row["path"] for row in mount.status()["open"]] == [
            "nlp/tiny/1.0.0/model.safetensors"
        ]


def test_over_a_dead_mount(registry: RegistryServer, start_mount: MountFactory) -> None:
    """A mount over the remains of a killed mount works."""
    mount = start_mount(registry.url)
    mount.kill()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mount.path)
    environment = {**os.environ, "AXONFS_CONFIG": "/nonexistent"}
    command = [sys.executable, "-m", "axonfs", "mount", str(mount.path), "--registry", registry.url]
    subprocess.run([*command, "--cache", str(mount.cache)], env=environment, check=True, timeout=60)
    assert (mount.path / "nlp/tiny/1.0.0/vocab.txt").stat().st_size == FILES["vocab.txt"]
    assert run_axonfs("umount", mount.path).returncode == 0
    assert not os.path.ismount(mount.path)


def test_second_mount(mount: Mount, registry: RegistryServer, tmp_path: Path) -> None:
    """A second mount on the same cache is refused with the pid of the first."""
    other = tmp_path / "other"
    other.mkdir()
    done = run_axonfs(
        "mount", other, "--registry", registry.url, "--cache", mount.cache, check=False
    )
    assert done.returncode == 1
    assert str(mount.process.pid) in done.stderr
    assert not os.path.ismount(other)


def set_readahead(mountpoint: Path, kib: int) -> int:
    """Set the kernel's readahead once something is mounted there, as a udev rule does; returns what
    it is then: in some containers not even root may change it."""
    found: list[int] = []
    while not found:
        found = [mount.connection for mount in mounts() if mount.mountpoint == mountpoint]
        time.sleep(0.002)
    setting = readahead_setting(found[0])
    with suppress(OSError):
        setting.write_text(str(kib))
    return int(setting.read_text())


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.usefixtures("open_to_users")
def test_ordinary_user(registry: RegistryServer) -> None:
    """An ordinary user mounts through `fusermount3`."""
    # Only root can enter the directories that pytest makes.
    home = Path(tempfile.mkdtemp(prefix="axonfs-user-", dir="/tmp"))
    (home / "mnt").mkdir()
    for path in (home, home / "mnt"):
        os.chown(path, NOBODY, NOBODY)
    command = [sys.executable, "-m", "axonfs"]
    as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "timeout": 60}
    environment = {
        "HOME": str(home),
        **{name: os.environ[name] for name in ("PATH", "AXONFS_CACHE_SIZE")},
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    try:
        readahead = ThreadPoolExecutor(1).submit(set_readahead, home / "mnt", 512)
        mount = [*command, "mount", str(home / "mnt"), "--registry", registry.url]
        done = subprocess.run(mount, env=environment, capture_output=True, text=True, **as_user)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        read = ["cat", str(home / "mnt/nlp/tiny/1.0.0/vocab.txt")]
        shown = subprocess.run(read, capture_output=True, check=True, **as_user)  # type: ignore[call-overload]
        assert len(shown.stdout) == FILES["vocab.txt"]
        state = ["cat", str(home / "mnt/.axonfs/status.json")]
        shown = subprocess.run(state, capture_output=True, check=True, **as_user)  # type: ignore[call-overload]
        connection = json.loads(shown.stdout)["connection"]
        if connection["own"]:  # the handshake leaves what root has set before it
            assert connection["read_ahead_kib"] == readahead.result(10)
        umount = [*command, "umount", str(home / "mnt")]
        subprocess.run(umount, env=environment, check=True, **as_user)  # type: ignore[call-overload]
        assert not os.path.ismount(home / "mnt")
    finally:
        subprocess.run(["umount", "-l", home / "mnt"], check=False, capture_output=True)
        shutil.rmtree(home)


def test_unmount_while_a_reader_waits(registry_dir: Path, start_mount: MountFactory) -> None:
    """A forced unmount ends the mount at once, although its registry no longer answers."""
    command = [sys.executable, "-m", "axonfs", "registry", "serve", str(registry_dir)]
    server = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        mount = start_mount(server.stdout.readline().split()[-1])
        weights = mount.path / "nlp/tiny/1.0.0/model.safetensors"
        assert weights.stat().st_size == FILES["model.safetensors"]
        server.send_signal(signal.SIGSTOP)
        reader = subprocess.Popen(
            ["cat", weights], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not mount.status()["open"]:
            assert reader.poll() is None
        assert run_axonfs("umount", "--force", mount.path).returncode == 0
        assert reader.wait(20) != 0
        assert mount.process.wait(20) == 0
    finally:
        server.kill()
        server.communicate()
