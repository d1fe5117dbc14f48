"""A mount that runs short of descriptors again and again while its files are read."""

from __future__ import annotations

import os
import random
import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mount.conftest import Mount, MountFactory
from tests.support.profile import SEED, report, scaled
from tests.support.registry import SPEC, RegistryServer, published

pytestmark = [pytest.mark.mount, pytest.mark.complains, pytest.mark.timeout(1800)]
CHUNK = 64 << 10
SIZE = 2 * CHUNK + 10
FOLDER = SPEC.replace("@", "/")
MOST, LEAST = 160, 40


def allow(mount: Mount, count: int) -> None:
    """Limit the descriptors of the mount's worker from now on."""
    resource.prlimit(mount.worker(), resource.RLIMIT_NOFILE, (count, MOST))


def test_a_mount_short_of_descriptors(start_mount: MountFactory, tmp_path: Path) -> None:
    """Cold and warm reads of any of the open files give their bytes, whatever the limit is, and
    neither the disk nor the source is blamed."""
    chance, count, rounds = random.Random(SEED), scaled(150, 1500), scaled(12, 400)
    names = [f"part-{number:04}.bin" for number in range(count)]
    registry = published(tmp_path, dict.fromkeys(names, SIZE), chunk_size=CHUNK)
    plain = [(tmp_path / "models" / FOLDER / name).read_bytes() for name in names]
    within = ("prlimit", f"--nofile={MOST}:{MOST}")
    reads = 0
    with RegistryServer(registry) as server, ExitStack() as stack:
        mount = start_mount(server.url, options=("--prefetch", "off"), within=within)
        files = [os.open(mount.path / FOLDER / name, os.O_RDONLY) for name in names]
        for file in files:
            stack.callback(os.close, file)
        for _ in range(rounds):
            allow(mount, chance.randrange(LEAST, MOST + 1))
            for number in chance.sample(range(count), scaled(20, 60)):
                start = chance.randrange(SIZE)
                want = plain[number][start : start + CHUNK]
                os.posix_fadvise(files[number], 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.pread(files[number], CHUNK, start) == want
                reads += 1
        state = mount.status()
        assert (state["worker"]["ends"], state["disk"]["fault"]) == ([], None)
        assert [row["error"] for row in state["registries"]] == [None]
        assert len(mount.complaints()) <= 1
    report("descriptors", files=count, reads=reads, least=LEAST, rounds=rounds)
