"""A real mount over an origin that lies, stalls, hangs up or is gone.

Each fault of the origin gives the reader the right bytes or a documented errno, never zeros and
never a wait much beyond the deadline, and the log says which file, from where, and why.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.workers import is_idle
from tests.mount.conftest import Mount, MountFactory, settled
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects
from tests.support.registry import SPEC, published

pytestmark = pytest.mark.mount

CHUNK = 64 << 10
SIZES = {"model.safetensors": 40 * CHUNK + 4321, "second.bin": 30 * CHUNK, "empty.txt": 0}
FILE = "model.safetensors"
DEADLINE = 2
# Attempts begin within the deadline and each is bounded by it; the rest is a loaded machine.
PATIENCE = 2 * DEADLINE + 4
DOCUMENTED = {errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT}


@dataclass
class Site:
    """A mounted registry and the origin behind it."""

    mount: Mount
    origin: FaultyOrigin
    plain: Path
    folder: str = "nlp/tiny/1.0.0"

    def open(self, name: str = FILE, flags: int = os.O_RDONLY) -> int:
        return os.open(self.mount.path / self.folder / name, flags)

    def read(self, offset: int, size: int, name: str = FILE) -> bytes:
        """One positioned read; looks up nothing that was looked up before."""
        fd = self.open(name)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def expected(self, offset: int, size: int, name: str = FILE) -> bytes:
        return (self.plain / name).read_bytes()[offset : offset + size]

    def digest(self, name: str) -> str:
        return hashlib.sha256((self.plain / name).read_bytes()).hexdigest()

    def errors(self) -> list[str]:
        return [line for line in self.mount.complaints() if "ERROR" in line]


Start = Callable[..., Site]


@pytest.fixture
def start(tmp_path: Path, start_mount: MountFactory) -> Iterator[Start]:
    """A function that mounts a faulty origin; the tree is known before the faults begin."""
    with FaultyOrigin(published(tmp_path, SIZES, chunk_size=CHUNK)) as origin:

        def started(*options: str, streams: int = 8) -> Site:
            config = tmp_path / "config.yaml"
            config.write_text(f"deadline: {DEADLINE}\nstreams: {streams}\n")
            mount = start_mount(origin.url, options=options, env={"AXONFS_CONFIG": str(config)})
            site = Site(mount, origin, tmp_path / "models/nlp/tiny/1.0.0")
            assert set(os.listdir(mount.path / "nlp/tiny/1.0.0")) > set(SIZES)
            return site

        yield started
        origin.always(None)


@pytest.fixture
def site(start: Start) -> Site:
    return start()


@dataclass(frozen=True)
class Staying:
    """A fault that stays, the errno a reader gets, and what the log says."""

    fault: Fault
    errno: int
    cause: str


STAYING = {
    "404": Staying(faulty.status(404), errno.EIO, "404"),
    "401": Staying(faulty.status(401), errno.EACCES, "401"),
    "403": Staying(faulty.status(403), errno.EACCES, "403"),
    "416": Staying(faulty.status(416), errno.ESTALE, "416"),
    "429": Staying(faulty.status(429, Retry_After="1"), errno.EIO, "429"),
    "429-long": Staying(faulty.status(429, Retry_After="60"), errno.EIO, "429"),
    "500": Staying(faulty.status(500), errno.EIO, "500"),
    "204": Staying(faulty.status(204), errno.EIO, "204"),
    "size": Staying(faulty.changed_size, errno.ESTALE, "bytes now"),
    "range": Staying(faulty.wrong_range, errno.EIO, "other bytes than requested"),
    "short": Staying(faulty.short, errno.EIO, "ended early"),
    "long": Staying(faulty.long_length, errno.EIO, "other bytes than requested"),
    "reset": Staying(faulty.reset_before, errno.EIO, "reset"),
    "hung-up": Staying(faulty.hang_up_before, errno.EIO, "closed the connection"),
    "garbage": Staying(faulty.garbage, errno.EIO, "invalid HTTP response"),
    "flip": Staying(faulty.flip, errno.EIO, "digest"),
    "redirect": Staying(faulty.redirect("/objects/round"), errno.EIO, "redirect"),
    "stall": Staying(faulty.stall_before, errno.ETIMEDOUT, "no progress"),
    "drip": Staying(faulty.drip(0.05), errno.ETIMEDOUT, "no progress"),
}


@pytest.fixture
def ailing(tmp_path: Path, start: Start) -> Site:
    """A mount of a model with a file for each fault that stays, which its requests meet."""
    spec = "nlp/ailing@1.0.0"
    published(tmp_path, dict.fromkeys(STAYING, CHUNK + 1), spec=spec, chunk_size=CHUNK)
    site = start(streams=len(STAYING))
    site.folder = "nlp/ailing/1.0.0"
    site.plain = tmp_path / "models/nlp/ailing/1.0.0"
    assert set(os.listdir(site.mount.path / site.folder)) > set(STAYING)
    faults = {site.digest(name): staying.fault for name, staying in STAYING.items()}

    def fault(exchange: faulty.Exchange) -> None:
        chosen = faults.get(exchange.seen.path.rpartition("/")[2])
        if "/objects/" in exchange.seen.path and chosen:
            chosen(exchange)
        elif exchange.seen.path.endswith("/objects/round"):
            faulty.redirect("/objects/round")(exchange)

    site.origin.always(fault)
    return site


@pytest.mark.complains
def test_faults_that_stay(ailing: Site) -> None:
    """Each gives its errno within the deadline, and one log line that names model, file, URL and
    cause; when it is over, the bytes."""

    def failure(name: str) -> int:
        began = time.monotonic()
        with pytest.raises(OSError, match=r".") as caught:
            ailing.read(5, 1000, name)
        assert time.monotonic() - began < PATIENCE, name
        return caught.value.errno or 0

    with ThreadPoolExecutor(len(STAYING)) as pool:
        errnos = dict(zip(STAYING, pool.map(failure, STAYING), strict=True))
    assert errnos == {name: staying.errno for name, staying in STAYING.items()}
    log, failures = ailing.errors(), ailing.mount.status()["failures"]
    for name, staying in STAYING.items():
        (line,) = [text for text in log if f"nlp/ailing@1.0.0 {name}: " in text]
        url = f"{ailing.origin.url}objects/sha256/"
        for part in (url, staying.cause, errno.errorcode[staying.errno]):
            assert part in line
        assert any(failure["message"] in line for failure in failures)
    ailing.origin.always(None)
    # Each waits: the origin asked for a pause of a minute.
    with ThreadPoolExecutor(len(STAYING)) as pool:
        for name, got in zip(
            STAYING, pool.map(partial(ailing.read, 5, 1000), STAYING), strict=True
        ):
            assert got == ailing.expected(5, 1000, name)


@pytest.mark.complains
def test_an_origin_that_is_gone(start: Start, tmp_path: Path) -> None:
    """What is cached stays readable; the rest fails within the deadline, and names are listed."""
    site = start()
    part = site.read(0, 1000)
    site.origin.__exit__()
    began = time.monotonic()
    with pytest.raises(OSError, match=r".") as caught:
        site.read(20 * CHUNK, 1000)
    assert time.monotonic() - began < PATIENCE
    assert caught.value.errno == errno.EIO
    (line,) = site.errors()
    assert "refused" in line
    assert site.origin.url in line
    assert site.read(0, 1000) == part == site.expected(0, 1000)
    assert "tiny" in os.listdir(site.mount.path / "nlp")


@pytest.mark.complains
def test_a_chunk_table_that_cannot_be_had(site: Site) -> None:
    def fault(exchange: faulty.Exchange) -> None:
        if "/chunks/" in exchange.seen.path:
            faulty.status(404)(exchange)

    site.origin.always(fault)
    with pytest.raises(OSError, match="Input/output"):
        site.read(0, 10)
    (line,) = site.errors()
    for part in (SPEC, FILE, site.origin.url + "chunks/sha256/", "chunk table"):
        assert part in line
    site.origin.always(None)
    assert site.read(0, 10) == site.expected(0, 10)


def test_faults_that_pass_are_not_noticed(site: Site) -> None:
    """Not by readers, and not in the log."""
    faults = [
        faulty.stall_within,
        faulty.reset_before,
        faulty.reset_within,
        faulty.short,
        faulty.status(503),
        faulty.status(429, Retry_After="0"),
        faulty.wrong_range,
        faulty.flip,
        faulty.garbage,
    ]
    fd = site.open()
    try:
        for number, fault in enumerate(faults):
            site.origin.plan(fault)
            offset = 4 * number * CHUNK + 7
            assert os.pread(fd, 5000, offset) == site.expected(offset, 5000)
    finally:
        os.close(fd)


# Many more than the cache holds, so that bytes are fetched as long as the chaos lasts.
MANY = {f"part{number}.bin": (5 + number) * CHUNK + number for number in range(12)}
CHAOS = [
    faulty.reset_before,
    faulty.reset_within,
    faulty.hang_up_before,
    faulty.short,
    faulty.long,
    faulty.flip,
    faulty.garbage,
    faulty.ignore_range,
    faulty.wrong_range,
    faulty.without_length,
    faulty.trailing_garbage,
    faulty.coded("br"),
    faulty.status(403),
    faulty.status(404),
    faulty.status(429, Retry_After="1"),
    faulty.status(500),
    faulty.status(503),
]


class Readers:
    """Readers that compare what they get until they are told to stop."""

    def __init__(self, site: Site) -> None:
        self.stop = threading.Event()
        self.reads = 0
        self.refused: set[int] = set()
        self._site = site
        self._bytes = {name: (site.plain / name).read_bytes() for name in MANY}

    def run(self, seed: int) -> None:
        chance = random.Random(seed)
        buffer = mmap.mmap(-1, 8 * CHUNK)
        while not self.stop.is_set():
            name = chance.choice(list(MANY))
            fd = self._site.open(name, os.O_RDONLY | chance.choice((0, os.O_DIRECT)))
            try:
                for _ in range(chance.randrange(1, 10)):
                    self._read(fd, name, buffer, chance)
            finally:
                os.close(fd)

    def _read(self, fd: int, name: str, buffer: mmap.mmap, chance: random.Random) -> None:
        whole = self._bytes[name]
        offset = chance.randrange(0, len(whole), 4096)
        view = memoryview(buffer)[: 4096 * chance.randrange(1, 2 * CHUNK * 4 // 4096)]
        view[:] = bytes(len(view))
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            count = os.preadv(fd, [view], offset)
        except OSError as exc:
            self.refused.add(exc.errno or 0)
            return
        # A fault within a longer read ends it early, as POSIX has it; it says so the next time.
        assert 0 < count <= len(view)
        assert view[:count] == whole[offset : offset + count]
        self.reads += 1


def backing_files(mount: Mount) -> int:
    folder = Path(f"/proc/{mount.process.pid}/fd")
    links = [os.readlink(path) for path in folder.iterdir()]
    return sum("/objects/" in link for link in links)


def sockets(mount: Mount) -> int:
    folder = Path(f"/proc/{mount.process.pid}/fd")
    return sum(os.readlink(path).startswith("socket:") for path in folder.iterdir())


def threads(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.process.pid}/task"))


@pytest.mark.slow
@pytest.mark.complains
def test_chaos(tmp_path: Path, start: Start) -> None:
    """Readers of a cache that is too small, over an origin that fails a third of all requests, get
    the right bytes or a documented errno; afterwards nothing is left of it."""
    published(tmp_path, MANY, spec="nlp/many@1.0.0", chunk_size=CHUNK)
    site = start("--cache-size", "2M")
    site.folder, site.plain = "nlp/many/1.0.0", tmp_path / "models/nlp/many/1.0.0"
    assert set(os.listdir(site.mount.path / site.folder)) > set(MANY)
    before = threads(site.mount), sockets(site.mount)
    draws, lock = faulty.chaos(1, CHAOS, 0.35), threading.Lock()

    def draw(exchange: faulty.Exchange) -> None:
        with lock:
            fault = next(draws)
        fault(exchange)

    site.origin.always(on_objects(draw))
    readers = Readers(site)
    with ThreadPoolExecutor(6) as pool:
        ends = [pool.submit(readers.run, number) for number in range(6)]
        time.sleep(15)  # how long the chaos lasts
        readers.stop.set()
        for end in ends:
            end.result(PATIENCE)
    assert readers.reads > 50
    assert len(site.origin.requests) > 100
    assert readers.refused, "no reader met a fault, so this tested nothing"
    assert readers.refused <= DOCUMENTED
    assert not [line for line in site.mount.complaints() if "Traceback" in line or "bug" in line]

    site.origin.always(None)
    for name, size in MANY.items():
        assert site.read(0, size, name) == site.expected(0, size, name)
    settled(lambda: is_idle(site.mount))
    settled(lambda: backing_files(site.mount) == 0, 5)
    # Trio keeps idle threads for ten seconds; the pool keeps a few connections.
    settled(lambda: threads(site.mount) <= before[0] + 2, 15)
    assert sockets(site.mount) <= before[1] + 16
