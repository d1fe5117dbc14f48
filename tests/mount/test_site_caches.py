"""Reads through site caches that are real nginx, with the configuration of packaging/caches.

tests/integration/fetch/test_site_caches.py has each fault apart; test_fleet.py has many hosts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from axonfs.http_client.caches import SLICE
from tests.mount.conftest import Mount, MountFactory, settled
from tests.support.nginx import free_port, running
from tests.support.registry import published
from tests.support.sitecaches import nginx_cache

pytestmark = pytest.mark.mount
SPEC = "nlp/tiny@1.0.0"
# Small files have slices of their own, so that shares are even without gigabytes.
FILES = {f"part-{number:02}.bin": (1 << 19) + number for number in range(60)}
FILES["large.bin"] = 2 * SLICE + 17


class Site:
    """An origin with an access log, and three caches before it."""

    def __init__(self, tmp_path: Path, stack: contextlib.ExitStack) -> None:
        self.log = tmp_path / "origin/access.log"
        port = free_port()
        registry = published(tmp_path, FILES, chunk_size=1 << 20)
        stack.enter_context(running(registry, tmp_path / "origin", f"127.0.0.1:{port}"))
        self.url = f"http://127.0.0.1:{port}"
        self.homes = [tmp_path / f"cache-{number}" for number in range(3)]
        self.caches = [stack.enter_context(nginx_cache(self.url, home)) for home in self.homes]

    def options(self, fallback: str) -> tuple[str, ...]:
        via = [option for url in self.caches for option in ("--via", url)]
        return (*via, "--fallback", fallback)

    def sent(self) -> int:
        """Bytes of objects that the origin sent."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return sum(int(line[9]) for line in lines if "/objects/" in line[6])

    def pid(self, number: int) -> int:
        return int((self.homes[number] / "nginx.pid").read_text())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path, stack)


def read(mount: Mount, tmp_path: Path, names: Iterable[str] = FILES) -> None:
    """Read files, and compare them."""
    for name in names:
        whole = (tmp_path / "models/nlp/tiny/1.0.0" / name).read_bytes()
        assert (mount.path / "nlp/tiny/1.0.0" / name).read_bytes() == whole, name


def of_caches(mount: Mount) -> list[dict[str, Any]]:
    """What status says of each cache, in the order of their numbers."""
    (registry,) = mount.status()["registries"]
    found: list[dict[str, Any]] = registry["caches"]
    return found


def signalled(pid: int, which: signal.Signals) -> None:
    """Send a signal to nginx's master and its workers."""
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for one in (pid, *map(int, workers)):
        os.kill(one, which)


def test_caches_hold_one_copy_together(
    site: Site, start_mount: MountFactory, tmp_path: Path
) -> None:
    """Hosts that read through site caches take one copy of the bytes from the registry together,
    and each cache has its share of it."""
    size = sum(FILES.values())
    for host in ("one", "another"):
        mount = start_mount(site.url, options=site.options("never"), cache=tmp_path / host)
        read(mount, tmp_path)
        assert sum(cache["bytes"] for cache in of_caches(mount)) >= size
        asked = [cache["requests"] for cache in of_caches(mount)]
        assert min(asked) >= len(FILES) / 3 - 13, asked  # 3.5 standard deviations: ports vary
    assert size <= site.sent() < 1.5 * size  # on a busy machine a request may be made twice


@pytest.mark.complains
def test_one_has_wrong_bytes_and_one_stalls(
    site: Site, start_mount: MountFactory, tmp_path: Path
) -> None:
    """Where a site cache has wrong bytes or stands still, a read has the right bytes of another
    one; and the cache is used again when it works."""
    first = start_mount(site.url, options=site.options("never"), cache=tmp_path / "one")
    read(first, tmp_path)
    for path in (site.homes[0] / "bytes").rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                file.seek(-9, os.SEEK_END)
                file.write(b"rotted!!!")
    stalled = site.pid(1)
    signalled(stalled, signal.SIGSTOP)
    try:
        second = start_mount(site.url, options=site.options("never"), cache=tmp_path / "two")
        read(second, tmp_path, list(FILES)[:30])
        assert of_caches(second)[1]["fault"]
    finally:
        signalled(stalled, signal.SIGCONT)
    for name in list(FILES)[30:]:
        read(second, tmp_path, [name])
        time.sleep(0.05)
    settled(lambda: of_caches(second)[1]["fault"] is None)
    url = of_caches(second)[0]["url"]
    assert any(f"site cache {url} is set aside" in line for line in second.complaints())
    assert not any(site.url in line and url not in line for line in second.complaints())
