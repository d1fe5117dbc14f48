"""Readers of a slow origin that get signals at any moment: nothing of them stays in the mount."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from axonfs.call import call
from axonfs.http_client.pool import IDLE_WIRES
from axonfs.vfs.journal import Journal, KnownNode
from tests.chaos.workers import Footprint, check_log, check_nothing_open, is_idle
from tests.mount.conftest import Mount, MountFactory, settled
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.profile import SEED, report, scaled
from tests.support.registry import published
from tests.support.stuck import HANDLED, PROGRAM

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.complains]

CHUNK = 64 << 10
SIZES = {f"part{number}.bin": 200 * CHUNK + number for number in range(1, 4)}
ROUNDS = scaled(120, 1500)
RESTARTS = scaled(1, 5)
READERS = 6
KINDS = ("read", "page", "direct", "mmap", "mmap-page", "send", "stat", "readdir")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)
FOLDER = "nlp/tiny/1.0.0"
# Idle connections that the two clients keep: for bodies, and for documents.
KEPT_CONNECTIONS = IDLE_WIRES + 8


def slowly(exchange: Exchange) -> None:
    """The right answer, late."""
    exchange.hang(random.uniform(0.0, 0.3))


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(published(tmp_path, SIZES, chunk_size=CHUNK)) as origin:
        yield origin


class Interrupted:
    """One reader that is signalled at a random moment, and how it ended."""

    def __init__(self, mount: Mount, seed: str) -> None:
        self._mount = mount
        self._chance = random.Random(seed)

    def run(self) -> str:
        chance = self._chance
        if chance.random() < 0.3:  # so that there is something to wait for
            with contextlib.suppress(OSError):  # no worker answers during a restart
                list(call(self._mount.cache, {"op": "cache_clean", "all": True}))
        how, number, handled = chance.choice(KINDS), chance.choice(SIGNALS), chance.random() < 0.5
        offset = chance.randrange(200) * CHUNK
        command = [sys.executable, "-I", "-S", PROGRAM, how, str(self._path(how))]
        command += [str(int(handled)), str(offset)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.2))  # the moment is what is tried out
            process.send_signal(number)
            _, complaint = process.communicate(timeout=20)
        caught = handled and number != signal.SIGKILL
        done = {0, HANDLED} if caught else {0, -number}
        missing = how == "stat" and b"No such file" in complaint
        assert process.returncode in done or missing, (how, number, handled, complaint)
        return "signalled" if process.returncode else "done"

    def _path(self, how: str) -> Path:
        if how == "stat":  # a name that the origin is asked for
            return self._mount.path / f"nlp/tiny/2.0.{self._chance.randrange(1 << 20)}/config.json"
        folder = self._mount.path / FOLDER
        return folder if how == "readdir" else folder / self._chance.choice(list(SIZES))


def known(mount: Mount) -> dict[int, KnownNode]:
    """The inodes that the mount takes the kernel to know, from the journal that it holds."""
    descriptors = Path(f"/proc/{mount.process.pid}/fd")
    name = next(fd for fd in descriptors.iterdir() if "axonfs-journal" in os.readlink(fd))
    copy = os.memfd_create("copy")
    try:
        os.write(copy, name.read_bytes())
        return Journal(copy).known.nodes
    finally:
        os.close(copy)


def forgotten(mount: Mount) -> bool:
    """Whether the kernel takes nothing more of the mount to be known than it must."""
    Path("/proc/sys/vm/drop_caches").write_text("2")
    return not known(mount)


def test_signals_at_any_moment(
    start_mount: MountFactory, origin: FaultyOrigin, tmp_path: Path
) -> None:
    mount = start_mount(origin.url)
    os.listdir(mount.path / FOLDER)
    origin.always(slowly)
    before = Footprint.of(mount.worker())
    ends: Counter[str] = Counter()
    for part in range(RESTARTS + 1):
        with ThreadPoolExecutor(READERS) as pool:
            seeds = [f"{SEED}/{part}/{number}" for number in range(ROUNDS // (RESTARTS + 1))]
            rounds = [pool.submit(Interrupted(mount, seed).run) for seed in seeds]
            if part:
                mount.process.send_signal(signal.SIGHUP)
            ends += Counter(end.result() for end in rounds)
    origin.always(None)
    settled(lambda: is_idle(mount))
    check_nothing_open(mount)
    for name in SIZES:
        plain = (tmp_path / "models" / FOLDER / name).read_bytes()
        found = (mount.path / FOLDER / name).read_bytes()
        assert hashlib.sha256(found).digest() == hashlib.sha256(plain).digest()
    settled(lambda: forgotten(mount))
    after = Footprint.of(mount.worker())
    idle = after.descriptors["socket"] - before.descriptors["socket"]  # connections to the origin
    assert after.descriptors.total() - before.descriptors.total() == idle <= KEPT_CONNECTIONS
    assert "object" not in after.descriptors
    check_log(mount)
    assert ends["signalled"] > ROUNDS / 4
    report("interrupts", rounds=ends.total(), signalled=ends["signalled"], restarts=RESTARTS)
