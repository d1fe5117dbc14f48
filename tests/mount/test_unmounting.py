"""Taking mounts away where something else is mounted too: on top, beside, in another namespace."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.connection import mounting
from axonfs.connection.mountinfo import axonfs_at, elsewhere, top_at
from axonfs.daemon.holder import GRACE
from axonfs.mounttable import Entry
from axonfs.rundir import SOCKET
from tests.mount.conftest import FILES, Mount, MountFactory, patched, run_axonfs, settled
from tests.support.registry import RegistryServer

pytestmark = [
    pytest.mark.mount,
    pytest.mark.complains,
    pytest.mark.skipif(os.getuid() != 0, reason="mounts other file systems"),
]
FILE = "nlp/tiny/1.0.0/vocab.txt"


def shell(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True)


@contextlib.contextmanager
def tmpfs(place: Path) -> Iterator[None]:
    """Another file system at `place`, with a file of its own."""
    shell("mount", "-t", "tmpfs", "tmpfs", place)
    try:
        (place / "theirs").touch()
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=False)


@contextlib.contextmanager
def namespace(place: Path) -> Iterator[int]:
    """A process in a mount namespace of its own, which sees the mount at `place`."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    process = subprocess.Popen(
        [*command, f"test -e {place}/.axonfs && echo ready; exec sleep 600"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("extension", ["None", "'no extension'"])
def test_a_worker_notices_its_end_at_once(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path, extension: str
) -> None:
    """Without looking for it, as it does only for requests that keep libfuse from ending."""
    never = f"""
import axonfs.fuse.openreply as openreply, axonfs.fuse.session as session
session.GONE_INTERVAL = 3600.0
openreply.UNAVAILABLE = {extension}
"""
    mount = start_mount(registry.url, env=patched(tmp_path, never))
    assert (mount.path / FILE).stat().st_size == FILES["vocab.txt"]
    mount.stop()
    assert "the kernel ended the connection" in mount.log.read_text()


def test_what_others_mounted_in_the_place_of_a_mount_stays(mount: Mount) -> None:
    """A holder unmounts its own connection, and no other mount at its mountpoint."""
    mount.process.send_signal(signal.SIGSTOP)  # it notices only when the place is taken again
    shell("umount", mount.path)
    with tmpfs(mount.path):
        mount.process.send_signal(signal.SIGCONT)
        assert mount.process.wait(20) == 0
        assert (mount.path / "theirs").exists()


def test_another_mount_with_the_same_number_stays(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """The kernel gives the number of a connection that has ended to the next one."""
    first = start_mount(registry.url)
    first.process.send_signal(signal.SIGSTOP)
    shell("umount", first.path)
    second = start_mount(registry.url, cache=tmp_path / "second")
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(20) == 0
    assert len((second.path / FILE).read_bytes()) == FILES["vocab.txt"]
    assert second.process.poll() is None


def test_what_others_mounted_on_top_stays(mount: Mount) -> None:
    """The mount below cannot be reached then: the command and the log say so."""
    with tmpfs(mount.path):
        done = run_axonfs("umount", mount.path, check=False)
        assert done.returncode == 1
        assert "a tmpfs file system is mounted on top of it" in done.stderr
        assert f"umount {mount.path}" in done.stderr
        mount.process.terminate()
        assert mount.process.wait(30) == 0
        assert (mount.path / "theirs").exists()
    assert "a tmpfs file system is mounted on top of it" in mount.log.read_text()
    assert run_axonfs("umount", mount.path).returncode == 0
    assert axonfs_at(mount.path) is None


def test_force_ends_a_mount_below_another(mount: Mount) -> None:
    with tmpfs(mount.path):
        done = run_axonfs("umount", "--force", mount.path, check=False)
        assert "its processes have ended, but a tmpfs file system" in done.stderr
        mount.process.wait(5)
        assert (mount.path / "theirs").exists()


def test_a_worker_starts_below_another_file_system(mount: Mount) -> None:
    """It asks nothing of what lies on top, and the mount goes on when that is gone."""
    first = mount.worker()
    with tmpfs(mount.path):
        os.kill(first, signal.SIGKILL)
        settled(lambda: mount.log.read_text().count("mounted at") == 2)
    assert len((mount.path / FILE).read_bytes()) == FILES["vocab.txt"]
    assert mount.worker() != first
    assert len(mount.status()["worker"]["ends"]) == 1


def test_a_dead_file_system_of_another_kind_stays(
    registry: RegistryServer, tmp_path: Path, mount: Mount
) -> None:
    """A mount clears away what an AxonFS left, and no other program's mount."""
    place = tmp_path / "foreign"
    place.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(
        ["mount", "-i", "-t", "fuse.sshfs", "-o", options, "host:", place],
        check=True,
        pass_fds=[device],
    )
    os.close(device)  # every access says ENOTCONN from now on
    try:
        done = run_axonfs("mount", place, "--registry", registry.url, "--cache", tmp_path / "c2",
                          check=False)  # fmt: skip
        assert done.returncode != 0
        top = top_at(place)
        assert top is not None
        assert top.filesystem == "fuse.sshfs"
    finally:
        shell("umount", "-l", place)


def test_a_bind_mount(mount: Mount, tmp_path: Path) -> None:
    """`axonfs umount` beside a bind mount or another mount namespace says where else the mount is,
    and `--force` ends it even if its mountpoint is gone."""
    bind = tmp_path / "bind"
    bind.mkdir()
    shell("mount", "--bind", mount.path, bind)
    with namespace(mount.path) as pid:
        done = run_axonfs("umount", mount.path, check=False)
        assert done.returncode == 1
        assert (
            f"process {mount.process.pid} still runs and uses the cache {mount.cache}"
            in done.stderr
        )
        assert f"the same mount is at {bind}" in done.stderr
        assert f"{mount.path} in the mount namespace of process {pid} (sleep)" in done.stderr
        assert f"axonfs umount --force {mount.path}" in done.stderr
        assert len((bind / FILE).read_bytes()) == FILES["vocab.txt"]
        done = run_axonfs("umount", "--force", mount.path)
        assert f"namespace of process {pid} (sleep) has no process any more" in done.stderr
        assert mount.process.wait(5) == 0
        assert axonfs_at(bind) is None


def test_the_bind_mount_alone(mount: Mount, tmp_path: Path) -> None:
    """The mount goes on where it was made, by force too."""
    bind = tmp_path / "bind"
    bind.mkdir()
    for force in ([], ["--force"]):
        shell("mount", "--bind", mount.path, bind)
        done = run_axonfs("umount", *force, bind)
        assert f"the mount stays at {mount.path}" in done.stderr
        assert axonfs_at(bind) is None
        assert len((mount.path / FILE).read_bytes()) == FILES["vocab.txt"]


def test_the_last_bind_mount(mount: Mount, tmp_path: Path) -> None:
    """With the last place where it is seen the mount ends."""
    bind = tmp_path / "bind"
    bind.mkdir()
    shell("mount", "--bind", mount.path, bind)
    shell("umount", mount.path)
    assert run_axonfs("umount", bind).returncode == 0
    assert mount.process.wait(5) == 0


def test_a_mount_that_only_another_namespace_sees(mount: Mount) -> None:
    found = axonfs_at(mount.path)
    assert found is not None
    with namespace(mount.path) as pid:
        assert [(place.mountpoint, place.pid) for place in elsewhere(found.connection)] == [
            (mount.path, pid)
        ]
        shell("umount", mount.path)
        done = run_axonfs("umount", mount.path, check=False)
        assert done.returncode == 1
        assert "it is not mounted there any more" in done.stderr
        assert f"namespace of process {pid} (sleep)" in done.stderr
    assert mount.process.wait(10) == 0


def test_umount_without_a_mountpoint_finds_what_is_left(
    mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mount with a bind mount is one mount, and so is one that only its process is left of."""
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.delenv("AXONFS_MOUNTPOINT", raising=False)
    bind = tmp_path / "bind"
    bind.mkdir()
    shell("mount", "--bind", mount.path, bind)
    first = run_axonfs("umount", check=False)
    assert f"{mount.path}: it is unmounted there" in first.stderr
    assert f"the same mount is at {bind}" in first.stderr
    with (bind / FILE).open("rb"):
        shell("umount", "-l", bind)
        second = run_axonfs("umount", check=False)
        assert f"{mount.path}: it is not mounted there any more" in second.stderr
        run_axonfs("umount", "--force")
    assert mount.process.wait(5) == 0


def test_files_that_are_open_after_a_lazy_unmount(mount: Mount) -> None:
    with (mount.path / FILE).open("rb"):
        shell("umount", "-l", mount.path)
        done = run_axonfs("umount", mount.path, check=False)
        assert done.returncode == 1
        assert f"process {mount.process.pid} still runs" in done.stderr
        assert "it is still in use" in done.stderr
        began = time.monotonic()
        run_axonfs("umount", "--force", mount.path)
        assert time.monotonic() - began < GRACE  # which is for readers, and not by force
        assert mount.process.wait(5) == 0


def test_what_is_left_while_another_file_system_is_in_its_place(mount: Mount) -> None:
    with (mount.path / FILE).open("rb"):
        shell("umount", "-l", mount.path)
        with tmpfs(mount.path):
            done = run_axonfs("umount", mount.path, check=False)
            assert "it is not mounted there any more" in done.stderr
            assert f"axonfs umount --force {mount.path} ends it" in done.stderr
            run_axonfs("umount", "--force", mount.path)
            assert (mount.path / "theirs").exists()
        assert mount.process.wait(5) == 0


def test_a_disk_with_the_number_of_the_connection_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks have minor numbers of their own: one may lie on top and have the same."""
    place = Path("/nonexistent")
    disk = Entry(number=2, parent=1, mountpoint=place, device=52, filesystem="ext4", owner=0)
    monkeypatch.setattr(mounting, "top_at", lambda mountpoint: disk)
    monkeypatch.setattr(mounting, "detach", lambda mountpoint, lazy: None)
    complaint = mounting.release_at(place, 52)
    assert complaint is not None
    assert "ext4 file system is mounted on top of it" in complaint


def test_the_control_socket_of_another_mount_stays(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """A mount whose cache was moved away, and a second one with a cache in its place."""
    first = start_mount(registry.url)
    first.cache.rename(tmp_path / "moved")
    second = start_mount(registry.url)
    first.stop()
    assert (second.cache / SOCKET).exists()
    run_axonfs("restart", second.path)


def test_sigterm_takes_the_bind_mounts_too(mount: Mount, tmp_path: Path) -> None:
    bind = tmp_path / "bind"
    bind.mkdir()
    shell("mount", "--bind", mount.path, bind)
    mount.process.terminate()
    assert mount.process.wait(20) == 0
    assert axonfs_at(bind) is None


def test_a_mount_through_libfuse(
    start_mount: MountFactory, registry: RegistryServer, tmp_path: Path
) -> None:
    """Where libfuse makes the connection the holder knows it as well, and unmounts no other."""
    patch = "from axonfs.connection import handshake\nhandshake.OPCODE = 99"
    mount = start_mount(registry.url, env=patched(tmp_path, patch))
    assert not mount.status()["connection"]["own"]
    mount.process.send_signal(signal.SIGSTOP)
    shell("umount", mount.path)
    with tmpfs(mount.path):
        mount.process.send_signal(signal.SIGCONT)
        assert mount.process.wait(20) == 0
        assert (mount.path / "theirs").exists()
