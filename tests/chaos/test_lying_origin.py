"""A real mount over an origin that lies and fails without end: right bytes or a documented errno,
and nothing that leaks."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.call import call
from tests.chaos.workers import Footprint, is_idle
from tests.mount.conftest import Mount, MountFactory, settled
from tests.support import faulty
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.profile import SEED, report, scaled
from tests.support.readers import Readers
from tests.support.registry import published
from tests.support.seaweed import BUCKET, NO_AWS
from tests.support.wiring import Authority

pytestmark = [
    pytest.mark.mount,
    pytest.mark.slow,
    pytest.mark.complains,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs for the cache"),
]

CHUNK = 64 << 10
SIZES = {"a.bin": 25 * CHUNK + 1, "b.bin": 12 * CHUNK}
MODELS = 4
STREAMS = 16
DEADLINE = 2
# An attempt begins within the deadline and is bounded by it; before it others may hold the streams,
# and behind it is a loaded machine.
PATIENCE = 40
DOCUMENTED = (errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT)
KINDS = ("read", "direct", "mmap", "direct") * 2
RATE = 0.12
BURST = 150  # requests, of which the first few are refused


def stall_briefly(exchange: Exchange) -> None:
    """As `stall_before`, but for no longer than the client can be waiting."""
    exchange.hang(2 * DEADLINE)
    exchange.hang_up()


def stall_halfway(exchange: Exchange) -> None:
    """As `stall_within`, but for no longer than the client can be waiting."""
    exchange.head()
    exchange.write(exchange.body[: len(exchange.body) // 2])
    stall_briefly(exchange)


FAULTS: dict[str, Fault] = {
    "stall": stall_briefly,
    "stall within": stall_halfway,
    "slow loris": faulty.drip(0.005),
    "slow loris in a header": faulty.drip_headers(0.005),
    "reset": faulty.reset_before,
    "reset within": faulty.reset_within,
    "hang up": faulty.hang_up_before,
    "short": faulty.short,
    "long": faulty.long,
    "long by its length": faulty.long_length,
    "garbage behind": faulty.trailing_garbage,
    "wrong range": faulty.wrong_range,
    "unreadable range": faulty.unreadable_range,
    "200 for 206": faulty.ignore_range,
    "no length": faulty.without_length,
    "chunked": faulty.chunked,
    "changed ETag": faulty.changed_etag,
    "changed size": faulty.changed_size,
    "flipped bit": faulty.flip,
    "garbage": faulty.garbage,
    "unknown coding": faulty.coded("br"),
    "endless": faulty.endless,
    "304": faulty.status(304),
    "401": faulty.status(401),
    "404": faulty.status(404),
    "416": faulty.status(416),
    "429": faulty.status(429, Retry_After="1"),
    "429 for long": faulty.status(429, Retry_After="3600"),
    "500": faulty.status(500),
    "redirect in a circle": faulty.redirect("/circle"),
    "redirect to a file": faulty.redirect("file:///etc/passwd"),
    "redirect to another scheme": faulty.redirect("gopher://127.0.0.1/"),
    "redirect to a closed port": faulty.redirect("http://127.0.0.1:1/"),
    "redirect to nowhere": faulty.redirect("http://[::bad"),
    "redirect without a place": faulty.status(302),
}


def refusal(status: int, code: str) -> Fault:
    """What an object store answers."""

    def fault(exchange: Exchange) -> None:
        faulty.status(status)(exchange)
        exchange.body = f"<Error><Code>{code}</Code></Error>".encode()
        exchange.headers = {"Content-Length": str(len(exchange.body))}

    return fault


STORE_FAULTS: dict[str, Fault] = {
    "SlowDown": refusal(503, "SlowDown"),
    "InternalError": refusal(500, "InternalError"),
    "ExpiredToken": refusal(400, "ExpiredToken"),
    "RequestTimeTooSkewed": refusal(403, "RequestTimeTooSkewed"),
    "403": refusal(403, "AccessDenied"),
    "PermanentRedirect": refusal(301, "PermanentRedirect"),
    "NoSuchBucket": refusal(404, "NoSuchBucket"),
}


class Liar:
    """Gives each request a fault that its path, its range and how often it came decide."""

    def __init__(self, faults: dict[str, Fault]) -> None:
        self._faults = faults
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        self.requests = 0

    def __call__(self, exchange: Exchange) -> None:
        name = self._choose(exchange)
        if name:
            self._faults[name](exchange)

    def _choose(self, exchange: Exchange) -> str | None:
        key = f"{exchange.seen.path} {exchange.seen.headers.get('range')}"
        with self._lock:
            self._asked[key] += 1
            self.requests += 1
            name = self._draw(exchange.seen.path, f"{SEED} {key} {self._asked[key]}")
            if name:
                self.given[name] += 1
        return name

    def _draw(self, path: str, seed: str) -> str | None:
        if path == "/circle":
            return "redirect in a circle"
        if self.requests % BURST < 8:
            return "503"
        draw = random.Random(seed)
        name = draw.choice(list(self._faults)) if draw.random() < RATE else None
        # A manifest that is gone is no fault: the version then does not exist.
        return None if name in ("403", "404") and "/objects/" not in path else name


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[tuple[FaultyOrigin, FaultyOrigin]]:
    """A registry with some models, and an origin with an untrusted certificate."""
    for number in range(MODELS):
        spec = f"nlp/m{number}@1.0.0"
        registry = published(tmp_path, SIZES, spec=spec, seed=number, chunk_size=CHUNK)
    (registry / BUCKET).symlink_to(".")
    (tmp_path / "ca").mkdir()
    authority = Authority.make(tmp_path / "ca")
    with FaultyOrigin(registry) as origin, FaultyOrigin(registry, authority) as untrusted:
        yield origin, untrusted


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system for the cache alone, which shows what is deleted and still held by someone."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "cache", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def held_after_deletion(disk: Path) -> int:
    """How many files have no name any more and exist all the same."""
    usage = os.statvfs(disk)
    named = sum(len(folders) + len(files) for _, folders, files in os.walk(disk))
    return usage.f_files - usage.f_ffree - named


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_right_bytes_or_a_documented_errno(
    scheme: str,
    tmp_path: Path,
    disk: Path,
    origins: tuple[FaultyOrigin, FaultyOrigin],
    start_mount: MountFactory,
) -> None:
    """Whatever the origin does, readers get the right bytes or a documented errno in time; when
    it is over everything can be read, and the worker holds no more than before."""
    origin, untrusted = origins
    liar = Liar(
        {
            **FAULTS,
            **(STORE_FAULTS if scheme == "s3" else {}),
            "503": faulty.status(503, Retry_After="0"),
            "redirect to an untrusted host": faulty.redirect(untrusted.url),
        }
    )
    config = tmp_path / "config.yaml"
    config.write_text(f"deadline: {DEADLINE}\nstreams: {STREAMS}\n")
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", **NO_AWS}
    mount = start_mount(
        origin.url if scheme == "http" else f"s3://{BUCKET}?endpoint_url={origin.url}",
        cache=disk / "cache",
        options=("--cache-size", str(sum(SIZES.values()))),
        env={"AXONFS_CONFIG": str(config), **keys},
    )
    plain = tmp_path / "models"
    paths = [f"nlp/m{number}/1.0.0/{name}" for number in range(MODELS) for name in SIZES]
    pairs = [(mount.path / path, plain / path) for path in paths]
    worker = _read_all(mount, pairs)
    settled(lambda: is_idle(mount))
    before, held = Footprint.of(worker), held_after_deletion(disk)

    origin.always(liar)
    with Readers(
        KINDS, pairs, chunk=CHUNK, seed=SEED, errnos=DOCUMENTED, seconds=PATIENCE
    ) as readers:
        settled(lambda: liar.requests >= scaled(200, 6000), 900)
    origin.always(None)

    assert _read_all(mount, pairs) == worker
    _check_nothing_leaked(mount, worker, before)
    # A backing id that was not closed would keep its file, which nothing else shows.
    list(call(mount.cache, {"op": "cache_clean", "all": True}))
    assert held_after_deletion(disk) == held
    assert untrusted.requests == []
    survived = {name.replace(" ", "_"): count for name, count in liar.given.items()}
    figures = {"chunks": readers.chunks, "errnos": readers.errnos.total()}
    report(
        "lying_origin",
        requests=liar.requests,
        faults=liar.given.total(),
        kinds=len(survived),
        **figures,
    )


def _read_all(mount: Mount, pairs: list[tuple[Path, Path]]) -> int:
    """Compare every file; the pid of the worker that served them."""
    for mounted, path in pairs:
        assert mounted.read_bytes() == path.read_bytes()
    return mount.worker()


def _check_nothing_leaked(mount: Mount, worker: int, before: Footprint) -> None:
    settled(lambda: is_idle(mount))
    # Idle threads end after ten seconds; connections are kept, one for each stream at most.
    settled(lambda: Footprint.of(worker).threads <= before.threads)
    now = Footprint.of(worker)
    assert now.descriptors["socket"] <= before.descriptors["socket"] + STREAMS
    now.descriptors.pop("socket")
    before.descriptors.pop("socket")
    assert not now.descriptors - before.descriptors
    assert mount.status()["worker"]["ends"] == []
    log = mount.log.read_text()
    assert "a bug" not in log
    assert "Traceback" not in log
