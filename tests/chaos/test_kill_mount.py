"""SIGKILL a mount while several readers read cold files: the next one goes on where it was."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from axonfs.ranges import Range
from tests.mount.conftest import Mount, MountFactory
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects
from tests.support.profile import SEED, report, scaled
from tests.support.registry import published

pytestmark = [pytest.mark.mount, pytest.mark.slow]

CHUNK = 64 << 10
ROUNDS = scaled(10, 30)
STREAMS = 8
SIZES = {f"part{number}.bin": 90 * CHUNK + number for number in range(1, 4)}
PAUSE = 0.02  # between two chunks of a body, in seconds: the kill comes while bytes are on the way

Chunks = set[tuple[str, int]]


@dataclass
class Site:
    """The origin, what was published there, and what readers got."""

    origin: FaultyOrigin
    plain: Path
    read: Chunks = field(default_factory=set)
    sent: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.bytes = {name: (self.plain / name).read_bytes() for name in SIZES}
        self._names = {hashlib.sha256(data).hexdigest(): name for name, data in self.bytes.items()}
        self._lock = threading.Lock()

    def slowly(self, exchange: faulty.Exchange) -> None:
        """A fault: the right answer, chunk by chunk."""
        exchange.answered = True
        exchange.head()
        for at in range(0, len(exchange.body), CHUNK):
            with self._lock:
                self.sent[self._name(exchange.seen), (exchange.start + at) // CHUNK] += 1
            exchange.write(exchange.body[at : at + CHUNK])
            exchange.hang(PAUSE)

    def requested(self) -> Counter[tuple[str, int]]:
        """Every chunk that was asked for so far, and how often."""
        return Counter(
            (self._name(seen), chunk)
            for seen in list(self.origin.requests)
            if "/objects/" in seen.path
            for chunk in range(*chunks_of(seen.headers["range"]))
        )

    def _name(self, seen: faulty.Seen) -> str:
        return self._names[seen.path.rpartition("/")[2]]


def chunks_of(header: str) -> Range:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", header)
    assert match
    return Range(int(match[1]) // CHUNK, int(match[2]) // CHUNK + 1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with FaultyOrigin(published(tmp_path, SIZES, chunk_size=CHUNK)) as origin:
        site = Site(origin, tmp_path / "models/nlp/tiny/1.0.0")
        origin.always(on_objects(site.slowly))
        yield site


class Reader:
    """Reads whole chunks, some in a row and some here and there, until the mount is gone."""

    def __init__(self, site: Site, mount: Mount, seed: str) -> None:
        self._site = site
        self._mount = mount
        self._chance = random.Random(seed)
        self._buffer = mmap.mmap(-1, CHUNK)

    def run(self, progress: threading.Semaphore) -> None:
        try:
            while True:
                name = self._chance.choice(list(SIZES))
                self._stretch(name, progress)
        except OSError:
            assert self._mount.process.poll() is not None or self._dying()

    def _dying(self) -> bool:
        """Whether the process ends, which may show a moment later than its connection does."""
        return self._mount.process.wait(10) != 0

    def _stretch(self, name: str, progress: threading.Semaphore) -> None:
        whole = self._site.bytes[name]
        first = self._chance.randrange(len(whole) // CHUNK)
        count = self._chance.choice((1, 1, 12))
        fd = os.open(self._mount.path / "nlp/tiny/1.0.0" / name, os.O_RDONLY | os.O_DIRECT)
        try:
            for chunk in range(first, min(first + count, len(whole) // CHUNK)):
                assert os.preadv(fd, [self._buffer], chunk * CHUNK) == CHUNK
                assert self._buffer[:] == whole[chunk * CHUNK : (chunk + 1) * CHUNK]
                self._site.read.add((name, chunk))
                progress.release()
        finally:
            os.close(fd)


def read_and_kill(site: Site, mount: Mount, seed: int) -> None:
    """Four readers, and a kill after as many of their reads as the seed says."""
    progress = threading.Semaphore(0)
    with ThreadPoolExecutor(4) as pool:
        readers = [Reader(site, mount, f"{seed}/{number}") for number in range(4)]
        ends = [pool.submit(reader.run, progress) for reader in readers]
        for _ in range(random.Random(seed).randrange(3, 30)):
            assert progress.acquire(timeout=20)
        mount.kill()
        for end in ends:
            end.result(20)
    subprocess.run(["umount", "-l", mount.path], check=True)


def test_a_killed_mount_goes_on_where_it_was(site: Site, start_mount: MountFactory) -> None:
    """What was read before a kill is not asked for again, and of the rest only what was on its way;
    every byte is right."""
    for seed in range(SEED, SEED + ROUNDS):
        known, before = set(site.read), site.requested()
        read_and_kill(site, start_mount(site.origin.url), seed)
        again = set(site.requested() - before)
        assert not again & known, "what a reader had got was fetched again"

    before = site.requested()
    mount = start_mount(site.origin.url)
    for name, whole in site.bytes.items():
        assert (mount.path / "nlp/tiny/1.0.0" / name).read_bytes() == whole
    assert not set(site.requested() - before) & site.read
    assert len(site.sent) == sum(size // CHUNK + 1 for size in SIZES.values())
    twice = site.sent.total() - len(site.sent)
    # In each stream one chunk that is being taken in, and those that the socket holds: one, or
    # more where the mount had to wait for a processor.
    assert twice <= ROUNDS * STREAMS * 4
    assert site.requested().total() > site.sent.total(), "the kills came when nothing was fetched"
    report("kill_mount", rounds=ROUNDS, chunks=len(site.read))
