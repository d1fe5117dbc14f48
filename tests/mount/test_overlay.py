"""A cache on overlayfs, as a container's own directories are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, MountFactory, run_axonfs, source_bytes
from tests.support.disks import MIB, Disk
from tests.support.registry import RegistryServer

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlayfs"),
]
FOLDER = "nlp/tiny/1.0.0"


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory on overlayfs whose upper layer is an ext4 of its own."""
    disk = Disk.ext4(tmp_path / "disk", 96 * MIB)
    layers = {name: disk.path / name for name in ("lower", "upper", "work")}
    for path in layers.values():
        path.mkdir()
    merged = tmp_path / "merged"
    merged.mkdir()
    options = f"lowerdir={layers['lower']},upperdir={layers['upper']},workdir={layers['work']}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    yield merged
    subprocess.run(["umount", "--lazy", merged], check=True)
    disk.close()


def test_a_cache_on_overlayfs(
    registry: RegistryServer, start_mount: MountFactory, overlay: Path, tmp_path: Path
) -> None:
    """With a cache on overlayfs every read goes through the mount, and status says why."""
    mount = start_mount(registry.url, cache=overlay / "cache")
    for _ in range(2):
        for name in FILES:
            path = mount.path / FOLDER / name
            assert path.read_bytes() == source_bytes(tmp_path, 0, name)
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    state = mount.status()
    assert state["connection"]["passed_through"] == 0
    why = state["connection"]["why_no_passthrough"]
    assert "overlayfs" in why
    assert "--cache" in why
    assert state["disk"]["fault"] is None
    assert "overlayfs" in run_axonfs("status", "--cache", mount.cache).stdout
    doctor = run_axonfs("doctor", "--cache", mount.cache, check=False).stdout
    assert "is on overlay, a stacked file system" in doctor
    run_axonfs("pin", "nlp/tiny@1.0.0", "--cache", mount.cache)
    run_axonfs("pin", "--check", "--cache", mount.cache)
    run_axonfs("unpin", "nlp/tiny@1.0.0", "--cache", mount.cache)
    run_axonfs("cache", "clean", "--cache", mount.cache)
    assert mount.status()["cache_used"] == 0
    vocabulary = mount.path / FOLDER / "vocab.txt"
    assert vocabulary.read_bytes() == source_bytes(tmp_path, 0, "vocab.txt")
