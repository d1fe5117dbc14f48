"""The scrub on real mounts, and bytes that changed on the disk."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from axonfs.names import parse_spec
from axonfs.store import Pin
from tests.mount.conftest import CHUNK, FILES, MountFactory, run_axonfs, source_bytes
from tests.support.fetching import rig
from tests.support.registry import SPEC, RegistryServer
from tests.support.stores import BOOT, backing_file

pytestmark = pytest.mark.mount
NAME = "model.safetensors"
MODEL = f"nlp/tiny/1.0.0/{NAME}"
FAST = {"AXONFS_SCRUB": "1G"}


@pytest.fixture
def backing(registry: RegistryServer, tmp_path: Path) -> Path:
    """The backing file of a pinned model, as a process before the last boot left it."""

    async def fill() -> Path:
        async with rig(tmp_path / "cache", registry.url, boot=BOOT) as parts:
            version = await parts.tree.version(parse_spec(SPEC))
            for name in (*FILES, "config.json"):
                feed = await parts.open(name)
                await parts.read(feed)
                feed.close()
            digests = tuple(entry.digest for entry in version.manifest.files)
            parts.store.put_pin(Pin(version.spec, version.manifest.digest, digests, 1.0, True))
            entry = version.manifest.file(NAME)
            assert entry is not None
            return backing_file(tmp_path / "cache", entry.digest)

    return trio.run(fill)


def spoil(backing: Path, chunk: int) -> None:
    with backing.open("r+b") as file:
        file.seek(chunk * CHUNK + 99)
        file.write(b"rot")


def wait(done: Callable[[], bool]) -> None:
    """The end of a scrub has no event."""
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.complains
def test_rot_before_a_boot(
    backing: Path, registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """A byte that changed on the disk is not read from a chunk that was not checked since the
    machine was booted."""
    spoil(backing, 2)
    mount = start_mount(registry.url, env={"AXONFS_SCRUB": "off"})
    with (mount.path / MODEL).open("rb") as file:
        assert [row["passed_through"] for row in mount.status()["open"]] == [False]
        assert file.read() == source_bytes(tmp_path, 0, NAME)
    assert mount.fetched() == CHUNK


def test_passthrough_after_a_boot(
    backing: Path, registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """After a boot the scrub checks the local chunks, and complete files have passthrough again
    before they are read."""
    mount = start_mount(registry.url, env=FAST)
    wait(lambda: bool(mount.status()["scrub"]["ended"]))
    with (mount.path / MODEL).open("rb") as file:
        assert [row["passed_through"] for row in mount.status()["open"]] == [True]
        assert file.read() == source_bytes(tmp_path, 0, NAME)
    assert mount.status()["reads"] == 0


@pytest.mark.complains
def test_rot_below_a_mapping(
    backing: Path, registry: RegistryServer, start_mount: MountFactory, tmp_path: Path
) -> None:
    """The scrub repairs a byte that changed on the disk in a file that the kernel reads itself,
    also under open mappings."""
    want = source_bytes(tmp_path, 0, NAME)
    config = tmp_path / "config.yaml"
    config.write_text("scrub: off\n")
    mount = start_mount(registry.url, env={"AXONFS_CONFIG": str(config)})
    run_axonfs("pin", "--check", "--cache", mount.cache)
    with (
        (mount.path / MODEL).open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping,
    ):
        assert [row["passed_through"] for row in mount.status()["open"]] == [True]
        assert mapping[:] == want
        spoil(backing, 1)
        assert mapping[:] != want
        config.write_text("scrub: 1G\n")
        mount.kill_worker()  # the next one reads its settings anew
        wait(lambda: bool(mount.status()["scrub"]["ended"]))
        assert mount.status()["scrub"]["last_bad"] == 1
        assert mapping[:] == want
    assert mount.fetched() == CHUNK
