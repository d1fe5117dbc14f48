"""Workers die or are replaced at random moments: every reader goes on with the right bytes."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from axonfs.call import call
from tests.chaos.test_kill_mount import chunks_of
from tests.chaos.workers import Killer, check_cache, check_log, check_nothing_open
from tests.mount.conftest import Mount, MountFactory
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import on_objects
from tests.support.nginx import nginx
from tests.support.profile import SEED, kills, report
from tests.support.readers import Readers
from tests.support.registry import published

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.complains, pytest.mark.timeout(1800)]

CHUNK = 64 << 10
STREAMS = 8
KINDS = ("read", "direct", "mmap") * 2
COLD = {f"part{number}.bin": 90 * CHUNK + number for number in range(1, 4)}
EPOCH = 8  # rounds on one cold cache
SMALL = {"a.bin": 20 * CHUNK + 1, "b.bin": 13 * CHUNK}
MODELS = 6

Chunk = tuple[int, int]


@dataclass
class Meter:
    """A fault: the right answer, chunk by chunk, as far as it is let; and who asked for what."""

    names: list[str]
    read: set[Chunk] = field(default_factory=set)
    again: list[Chunk] = field(default_factory=list)
    sent: Counter[Chunk] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._permits = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._used = threading.Condition(self._lock)
        self._open = False

    def got(self, file: int, chunk: int) -> None:
        """A reader has the bytes of a chunk."""
        with self._lock:
            self.read.add((file, chunk))

    def __call__(self, exchange: faulty.Exchange) -> None:
        file = self.names.index(exchange.seen.path.rpartition("/")[2])
        asked = [(file, chunk) for chunk in range(*chunks_of(exchange.seen.headers["range"]))]
        with self._lock:
            self.again += self.read.intersection(asked)
        exchange.answered = True
        exchange.head()
        for position, chunk in enumerate(asked):
            while not (self._open or self._permits.acquire(timeout=0.1)):
                if exchange.hang(0):
                    return
            with self._lock:
                self.sent[chunk] += 1
                self._used.notify_all()
            exchange.write(exchange.body[position * CHUNK : (position + 1) * CHUNK])

    def let(self, count: int, total: int) -> None:
        """Let `count` more chunks go out, and return when they did or no more are left."""
        with self._lock:
            goal = self.sent.total() + count
            self._permits.release(count)
            self._used.wait_for(lambda: self.sent.total() >= goal or len(self.sent) == total, 60)
            assert self.sent.total() >= goal or len(self.sent) == total

    def open(self) -> None:
        """Let everything go out."""
        self._open = True


def test_cold_reads(tmp_path: Path, start_mount: MountFactory) -> None:
    """Workers die while chunks are on their way: what a reader had got is not asked for again, of
    the rest only what was on its way; every byte is right."""
    registry = published(tmp_path, COLD, chunk_size=CHUNK)
    rounds, struck, twice, read = kills(0.4, EPOCH), Counter[str](), 0, 0
    with FaultyOrigin(registry) as origin:
        for epoch in range(-(-rounds // EPOCH)):
            meter = _cold_epoch(tmp_path, origin, start_mount, f"{SEED}/{epoch}", struck)
            twice += meter.sent.total() - len(meter.sent)
            read += len(meter.read)
    assert struck["kills"] > struck["restarts"]
    report("kill_cold", rounds=struck.total(), **struck, chunks=read, sent_twice=twice)


def _cold_epoch(
    tmp_path: Path, origin: FaultyOrigin, start: MountFactory, seed: str, struck: Counter[str]
) -> Meter:
    plain = [(tmp_path / "models/nlp/tiny/1.0.0" / name) for name in COLD]
    bytes_of = {hashlib.sha256(path.read_bytes()).hexdigest(): path.read_bytes() for path in plain}
    meter, chance = Meter(list(bytes_of)), random.Random(seed)
    total = sum(size // CHUNK + 1 for size in COLD.values())
    origin.always(on_objects(meter))
    mount = start(origin.url, cache=tmp_path / f"cold{seed.replace('/', '-')}")
    killer = Killer(mount, chance)
    pairs = [(mount.path / "nlp/tiny/1.0.0" / path.name, path) for path in plain]
    with Readers(KINDS, pairs, chunk=CHUNK, seed=chance.randrange(1 << 30), got=meter.got):
        for _ in range(EPOCH):
            meter.let(chance.randrange(5, 25), total)
            killer.strike()
        meter.open()
        for mounted, path in pairs:
            assert mounted.read_bytes() == path.read_bytes()
    assert meter.again == [], "what a reader had got was asked for again"
    assert len(meter.sent) == total
    # In each stream one chunk that is being taken in, and what the socket holds.
    assert meter.sent.total() - total <= EPOCH * STREAMS * 2
    struck.update(kills=killer.kills, restarts=killer.restarts)
    check_nothing_open(mount)
    mount.stop()
    check_log(mount)
    assert check_cache(mount.cache, bytes_of, CHUNK) >= sum(COLD.values())
    return meter


@pytest.fixture
def many(tmp_path: Path) -> Iterator[tuple[str, dict[str, Path]]]:
    """The URL of a registry with some models, and their plain files by path in the mount."""
    files: dict[str, Path] = {}
    for number in range(MODELS):
        published(tmp_path, SMALL, spec=f"nlp/m{number}@1.0.0", seed=number, chunk_size=CHUNK)
        folder = f"nlp/m{number}/1.0.0"
        files |= {f"{folder}/{name}": tmp_path / "models" / folder / name for name in SMALL}
    with nginx(tmp_path / "registry", tmp_path / "nginx") as url:
        yield url, files


class Commander(threading.Thread):
    """Pins, unpins, cleans and asks, one after the other, while workers change."""

    def __init__(self, cache: Path, seed: str) -> None:
        super().__init__()
        self._cache = cache
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._over.is_set():
            self._order(self._request())

    def stop(self) -> None:
        self._over.set()
        self.join(60)
        assert not self.is_alive(), "a command is never answered"

    def _request(self) -> dict[str, Any]:
        specs = [f"nlp/m{self._chance.randrange(MODELS)}@1.0.0"]
        return self._chance.choice(
            [
                {"op": "pin", "specs": specs},
                {"op": "pin", "specs": specs, "include": ["a.bin"]},
                {"op": "unpin", "specs": specs},
                {"op": "unpin", "specs": specs, "drop": True},
                {"op": "cache_clean", "all": self._chance.random() < 0.5},
                {"op": "verify", "specs": []},
                {"op": "list"},
            ]
        )

    def _order(self, request: dict[str, Any]) -> None:
        last: dict[str, Any] = {}
        try:
            for event in call(self._cache, request):
                last = event
        except OSError:  # its worker died
            last = {}
        kind = str(last.get("event")) if last.get("event") in ("result", "error") else "cut off"
        self.outcomes[kind] += 1
        if kind == "error":
            self.failures.append(f"{request}: {last['message']}")
        if kind == "result" and request["op"] == "verify" and last["bad"]:
            self.failures.append(f"verify found {last['bad']}")


def test_pins_and_evictions(
    tmp_path: Path, many: tuple[str, dict[str, Path]], start_mount: MountFactory
) -> None:
    """Workers die while models are pinned, unpinned, evicted and checked: every byte is right, and
    no pin, check or listing fails but for the worker's death."""
    url, files = many
    size = 3 * sum(SMALL.values())
    mount = start_mount(url, options=("--cache-size", str(size)))
    commander = Commander(mount.cache, f"{SEED}/commands")
    pairs = [(mount.path / path, plain) for path, plain in files.items()]
    with Readers(KINDS, pairs, chunk=CHUNK, seed=SEED) as readers:
        commander.start()
        try:
            killer = _strike_many(mount, readers, kills(0.4, 7))
        finally:
            commander.stop()
    _check_after(mount, commander, {path: plain.read_bytes() for path, plain in files.items()})
    figures = {"kills": killer.kills, "restarts": killer.restarts, "chunks": readers.chunks}
    answered = {name.replace(" ", "_"): count for name, count in commander.outcomes.items()}
    report("kill_mixed", rounds=killer.kills + killer.restarts, **figures, **answered)


def _strike_many(mount: Mount, readers: Readers, rounds: int) -> Killer:
    chance = random.Random(f"{SEED}/mixed")
    killer = Killer(mount, chance)
    for _ in range(rounds):
        readers.wait(chance.randrange(1, 60))
        killer.strike()
    readers.wait(60)
    return killer


def _check_after(mount: Mount, commander: Commander, plain: dict[str, bytes]) -> None:
    # A full cache, and nothing there to unpin, are answers.
    answers = ("short by", "nothing of it is local")
    unexpected = [text for text in commander.failures if not any(map(text.__contains__, answers))]
    assert unexpected == []
    assert commander.outcomes["result"]
    for path, whole in plain.items():
        assert (mount.path / path).read_bytes() == whole
    check_nothing_open(mount)
    mount.stop()
    check_log(mount)
    by_digest = {hashlib.sha256(whole).hexdigest(): whole for whole in plain.values()}
    check_cache(mount.cache, by_digest, CHUNK)


def test_what_was_dropped_is_found_again(
    many: tuple[str, dict[str, Path]], start_mount: MountFactory
) -> None:
    """A file whose manifest the cache dropped is no directory to the next worker."""
    url, files = many
    mount = start_mount(url)
    path, plain = next(iter(files.items()))
    assert (mount.path / path).read_bytes() == plain.read_bytes()
    mount.kill_worker()  # so that the kernel's closing of the file is done with
    assert mount.status()["open"] == []
    spec = "nlp/m0@1.0.0"
    list(call(mount.cache, {"op": "unpin", "specs": [spec], "drop": True}))
    mount.kill_worker()
    assert (mount.path / path).stat().st_size == plain.stat().st_size
    assert (mount.path / path).read_bytes() == plain.read_bytes()
