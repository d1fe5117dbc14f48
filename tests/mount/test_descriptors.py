"""A mount that may have few descriptors, and readers that have far more files open."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from axonfs.rundir import SOCKET, reachable
from tests.mount.conftest import Mount, MountFactory, run_axonfs, settled
from tests.support.registry import SPEC, RegistryServer, published

pytestmark = [pytest.mark.mount]
CHUNK = 64 << 10
NAMES = [f"part-{number:03}.bin" for number in range(240)]
LIMIT = 96
FOLDER = SPEC.replace("@", "/")


def limited(count: int) -> tuple[str, ...]:
    """Runs a program that may have `count` descriptors, and may not raise that."""
    return ("prlimit", f"--nofile={count}:{count}")


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[RegistryServer]:
    """A registry with one version of many files, each of two chunks."""
    directory = published(tmp_path, dict.fromkeys(NAMES, CHUNK + 10), chunk_size=CHUNK)
    with RegistryServer(directory) as server:
        yield server


def plain(tmp_path: Path, name: str) -> bytes:
    return (tmp_path / "models" / FOLDER / name).read_bytes()


def opened(mount: Mount, name: str) -> BinaryIO:
    return (mount.path / FOLDER / name).open("rb", buffering=0)


def descriptors(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.worker()}/fd"))


def test_more_open_files_than_descriptors(
    parts: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """More files can be open, mapped and read than the mount may have descriptors."""
    mount = start_mount(parts.url, options=("--prefetch", "off"), within=limited(LIMIT))
    with ExitStack() as stack:
        files = [stack.enter_context(opened(mount, name)) for name in NAMES]
        for name, file in zip(NAMES, files, strict=True):
            assert os.pread(file.fileno(), 5, 0) == plain(tmp_path, name)[:5]
        for name, file in zip(NAMES, files, strict=True):
            assert os.pread(file.fileno(), CHUNK + 10, 0) == plain(tmp_path, name)
        assert descriptors(mount) <= LIMIT
    settled(lambda: not mount.status()["open"])
    # Whole and closed before they are opened again, they are passed through.
    with ExitStack() as stack:
        for name in NAMES:
            with opened(mount, name) as file:
                mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            stack.callback(mapped.close)
            assert mapped[CHUNK:] == plain(tmp_path, name)[CHUNK:]
        state = mount.status()
        assert state["connection"]["passed_through"] == len(NAMES)
        assert descriptors(mount) <= LIMIT
    assert (state["worker"]["ends"], state["disk"]["fault"]) == ([], None)


@pytest.mark.complains
def test_a_takeover_of_more_files_than_descriptors(
    parts: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """A worker that takes over has more files open than it may have descriptors."""
    mount = start_mount(parts.url, options=("--prefetch", "off"), within=limited(LIMIT))
    with ExitStack() as stack:
        files = [stack.enter_context(opened(mount, name)) for name in NAMES]
        for file in files[::2]:
            os.pread(file.fileno(), 5, 0)
        mount.kill_worker()
        for name, file in zip(NAMES, files, strict=True):
            assert os.pread(file.fileno(), CHUNK + 10, 0) == plain(tmp_path, name)
        assert descriptors(mount) <= LIMIT
    assert len(mount.complaints()) == 1  # of the worker's end


def test_more_commands_than_descriptors(
    parts: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """If there are more commands than descriptors for them, they wait in turn; readers do not
    wait."""
    mount = start_mount(parts.url, options=("--prefetch", "off"), within=limited(LIMIT))
    files = [opened(mount, name) for name in NAMES[:50]]
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(file)
            os.pread(file.fileno(), 1, 0)
        for _ in range(2 * LIMIT):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.setblocking(False)
            with suppress(BlockingIOError), reachable(mount.cache / SOCKET) as address:
                connection.connect(address)
        for name, file in zip(NAMES[:50], files, strict=False):
            assert os.pread(file.fileno(), CHUNK, 0) == plain(tmp_path, name)[:CHUNK]
    assert run_axonfs("status", "--cache", mount.cache).returncode == 0
    with opened(mount, NAMES[100]) as file:
        assert file.read() == plain(tmp_path, NAMES[100])
    state = mount.status()
    assert (state["worker"]["ends"], state["disk"]["fault"]) == ([], None)
    assert [row["error"] for row in state["registries"]] == [None]


def test_a_pin_of_more_files_than_descriptors(parts: RegistryServer, tmp_path: Path) -> None:
    """A command that owns the cache needs no more descriptors than it may have."""
    command = [*limited(64), sys.executable, "-m", "axonfs", "pin", SPEC]
    options = ["--registry", parts.url, "--cache", str(tmp_path / "cache")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is pinned" in done.stdout
