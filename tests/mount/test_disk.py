"""A cache whose disk is full, read-only, gone or broken: real file systems, mounts and readers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axonfs.connection.mountinfo import top_at
from axonfs.rundir import SOCKET
from tests.mount.conftest import FILES, Mount, MountFactory, run_axonfs, source_bytes
from tests.support.disks import MIB, Disk
from tests.support.registry import RegistryServer

pytestmark = [pytest.mark.mount, pytest.mark.complains]
NAMES = tuple(FILES)
FOLDER = "nlp/tiny/1.0.0"
OTHER = "nlp/tiny/1.1.0"
LIMIT = ("--cache-size", "10G", "--prefetch", "off")


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Callable[[str, int], Disk]]:
    """A function that makes a file system of a kind and a size in MiB."""
    made: list[Disk] = []

    def make(kind: str, size: int) -> Disk:
        made.append(getattr(Disk, kind)(tmp_path / f"disk{len(made)}", size * MIB))
        return made[-1]

    yield make
    for disk in made:
        disk.close()


def read_all(mount: Mount, tmp_path: Path, *folders: str) -> None:
    """Every file is right: to its end, in pieces from its middle, and through a mapping."""
    for folder in folders or (FOLDER, OTHER):
        number = (FOLDER, OTHER).index(folder)
        for name in NAMES:
            want, path = source_bytes(tmp_path, number, name), mount.path / folder / name
            with path.open("rb") as file:
                assert file.read() == want
            with path.open("rb", buffering=0) as file:
                file.seek(len(want) // 3)
                assert file.read(1000) == want[len(want) // 3 :][:1000]
            done = subprocess.run(
                [sys.executable, "-c", MAPPED, str(path)], capture_output=True, check=True
            )
            assert done.stdout == want


MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    sys.stdout.buffer.write(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:])
"""


def drop_pages(mount: Mount) -> None:
    """Have the kernel ask again for what it keeps of the mount's files."""
    for folder in (FOLDER, OTHER):
        for name in NAMES:
            descriptor = os.open(mount.path / folder / name, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def warnings(mount: Mount) -> list[str]:
    return [line for line in mount.complaints() if "chunks that cannot be cached" in line]


def assert_one_warning(mount: Mount) -> None:
    assert len(warnings(mount)) == 1
    assert mount.complaints() == warnings(mount)


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_full(
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    start_mount: MountFactory,
    tmp_path: Path,
) -> None:
    """While the disk is full reads are served from the source through memory, with one warning,
    until it has space again."""
    disk = disks("tmpfs", 32)
    mount = start_mount(registry.url, cache=disk.path / "cache", options=LIMIT)
    filler = disk.fill()
    read_all(mount, tmp_path)
    drop_pages(mount)
    read_all(mount, tmp_path)
    state = mount.status()["disk"]
    assert "full" in state["fault"]
    assert state["passed"] > sum(FILES.values())
    assert state["bytes"] <= 64 * MIB
    assert "failing since" in run_axonfs("status", "--cache", mount.cache).stdout
    assert_one_warning(mount)
    filler.unlink()

    def recovered() -> bool:
        drop_pages(mount)
        read_all(mount, tmp_path)
        return mount.status()["disk"]["fault"] is None

    wait(recovered)
    fetched = mount.fetched()
    drop_pages(mount)
    read_all(mount, tmp_path)
    assert mount.fetched() == fetched
    with (mount.path / FOLDER / NAMES[0]).open("rb"):
        assert [row["passed_through"] for row in mount.status()["open"]] == [True]


def test_a_small_default_limit(
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    start_mount: MountFactory,
    tmp_path: Path,
) -> None:
    """A mount whose default limit is small says so in its log, in `status` and in `doctor`, and
    serves every byte."""
    cache = disks("tmpfs", 10).path / "cache"
    env = {"AXONFS_CACHE_SIZE": "auto"}
    mount = start_mount(registry.url, cache=cache, options=("--prefetch", "off"), env=env)
    reason = f"since 10 % of the disk of {cache} stays free by default"
    assert mount.status()["cache_limit"] < 9 * MIB
    assert [reason in line for line in mount.complaints()] == [True]
    assert reason in run_axonfs("status", mount.path).stdout
    assert reason in run_axonfs("doctor", "--cache", cache, check=False).stdout
    read_all(mount, tmp_path)


def test_full_and_another_worker(
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    start_mount: MountFactory,
    tmp_path: Path,
) -> None:
    """A worker that takes over on a full disk serves local bytes, and others from the source."""
    disk = disks("tmpfs", 32)
    mount = start_mount(registry.url, cache=disk.path / "cache", options=LIMIT)
    read_all(mount, tmp_path, FOLDER)
    disk.fill()
    mount.kill_worker()
    drop_pages(mount)
    read_all(mount, tmp_path)
    assert len(mount.status()["worker"]["ends"]) == 1


def test_full_with_something_to_evict(
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    start_mount: MountFactory,
    tmp_path: Path,
) -> None:
    """On a disk that other programs filled, cached files that are not pinned are evicted for new
    reads."""
    disk = disks("tmpfs", 32)
    mount = start_mount(registry.url, cache=disk.path / "cache", options=LIMIT)
    read_all(mount, tmp_path, FOLDER)
    disk.fill(leave=2 * MIB)
    drop_pages(mount)

    def cached() -> bool:
        before = mount.fetched()
        read_all(mount, tmp_path, OTHER)
        drop_pages(mount)
        return mount.fetched() == before

    wait(cached)


def test_pin_on_a_full_disk(
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    start_mount: MountFactory,
) -> None:
    """`pin` says before it starts that the disk is too full."""
    disk = disks("tmpfs", 32)
    mount = start_mount(registry.url, cache=disk.path / "cache", options=LIMIT)
    disk.fill(leave=3 * MIB)
    refused = run_axonfs("pin", "nlp/tiny@1.0.0", "--cache", mount.cache, check=False)
    assert refused.returncode == 1
    assert "is available on the disk, short by" in refused.stderr
    assert "free some disk space" in refused.stderr
    assert mount.fetched() == 0


def test_read_only(
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    start_mount: MountFactory,
    tmp_path: Path,
) -> None:
    """On a disk that became read-only, local bytes are read from it, and the others from the
    source."""
    disk = disks("ext4", 64)
    mount = start_mount(registry.url, cache=disk.path / "cache", options=LIMIT)
    read_all(mount, tmp_path, FOLDER)
    fetched = mount.fetched()
    disk.make_read_only()
    drop_pages(mount)
    read_all(mount, tmp_path, FOLDER)
    assert mount.fetched() == fetched
    read_all(mount, tmp_path, OTHER)
    assert "Read-only" in mount.status()["disk"]["fault"]
    assert_one_warning(mount)


def test_broken(
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    start_mount: MountFactory,
    tmp_path: Path,
) -> None:
    """If every access to the disk fails, reads through the mount are served from the source."""
    disk = disks("ext4", 64)
    options = (*LIMIT, "--no-passthrough")
    mount = start_mount(registry.url, cache=disk.path / "cache", options=options)
    with (mount.path / FOLDER / NAMES[0]).open("rb") as before:
        before.read(3 * MIB)
        disk.break_down()
        drop_pages(mount)
        before.seek(0)
        assert before.read() == source_bytes(tmp_path, 0, NAMES[0])
        read_all(mount, tmp_path)
    assert "Input/output error" in mount.status()["disk"]["fault"]
    assert_one_warning(mount)
    assert not mount.status()["worker"]["ends"]


def test_removed(registry: RegistryServer, start_mount: MountFactory, tmp_path: Path) -> None:
    """Readers do not notice if the cache directory is removed under a mount, and a new directory in
    its place is another cache."""
    mount = start_mount(registry.url, options=LIMIT)
    with (mount.path / FOLDER / NAMES[0]).open("rb") as before:
        before.read(2 * MIB)
        shutil.rmtree(mount.cache)
        read_all(mount, tmp_path)
        drop_pages(mount)
        read_all(mount, tmp_path)
        before.seek(0)
        assert before.read() == source_bytes(tmp_path, 0, NAMES[0])
    assert mount.status()["disk"]["fault"]
    assert_one_warning(mount)
    other = start_mount(registry.url, cache=mount.cache, options=LIMIT)
    read_all(other, tmp_path)
    drop_pages(mount)
    read_all(mount, tmp_path)
    assert other.complaints() == []


@pytest.mark.parametrize("removed", ["run", "run/lock"])
def test_a_lock_that_is_removed(
    mount: Mount, registry: RegistryServer, tmp_path: Path, removed: str
) -> None:
    """A cache stays its mount's when `run/` is removed: another mount of it is refused."""
    place = tmp_path / "place"
    place.mkdir()
    options = ("--registry", registry.url, "--cache", mount.cache)
    for _ in range(2):  # the second time beside a worker that has made run/ anew
        subprocess.run(["rm", "-r", mount.cache / removed], check=True)
        refused = run_axonfs("mount", place, *options, check=False)
        assert refused.returncode == 1
        assert "the cache is in use by another process" in refused.stderr
        assert top_at(place) is None
        mount.kill_worker()
        read_all(mount, tmp_path)
    assert (mount.cache / SOCKET).exists() == (removed == "run/lock")


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_mount_on_a_bad_disk(
    kind: str,
    registry: RegistryServer,
    disks: Callable[[str, int], Disk],
    tmp_path: Path,
) -> None:
    """A mount whose cache directory is full or read-only is refused, and says what to do."""
    disk = disks("ext4", 16)
    if kind == "full":
        disk.fill()
    else:
        disk.make_read_only()
    place = tmp_path / "place"
    place.mkdir()
    options = ("--registry", registry.url, "--cache", disk.path / "cache")
    for foreground in ((), ("--foreground",)):
        refused = run_axonfs("mount", place, *options, *foreground, check=False)
        if os.path.ismount(place):
            run_axonfs("umount", place, "--force")
        assert refused.returncode == 1
        assert ("is full" if kind == "full" else "Read-only file system") in refused.stderr
        assert "--cache" in refused.stderr
        assert "Traceback" not in refused.stderr
