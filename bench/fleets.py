"""Fleets: hosts with lines of their own, which read one model from an origin with a limited line.

Each host may have a site cache, nginx with its own directory and the configuration of packaging/,
and a mount with its own cache directory. fleet.py measures with them, and a test has a short form.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import operator
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.downloads import program
from bench.fixtures import Mount, mounted
from bench.lan import Host, Switch, switch
from tests.support.nginx import executable, running, started
from tests.support.sitecaches import rendered, values

PORT = 8080
# Mounts that start at a time: more would only wait for the processors.
STARTING = 4
# Bytes per second that are no download.
QUIET_BYTES = 100_000
_ANSWER = re.compile(rb'"GET (\S+) [^"]*" \d+ (\d+) ')


@dataclass(frozen=True)
class Sent:
    """What a server has answered; `documents` are requests for anything but objects."""

    requests: int
    bytes: int
    documents: int


def sent(log: Path) -> Sent:
    """What nginx with this access log has answered."""
    answers = [found for line in log.read_bytes().splitlines() if (found := _ANSWER.search(line))]
    documents = sum(not found[1].startswith(b"/objects/") for found in answers)
    return Sent(len(answers), sum(int(found[2]) for found in answers), documents)


@dataclass
class Processors:
    """How much of this machine's processors was used within the block, from 0 to 1."""

    busy: float = 0.0

    def __enter__(self) -> Self:
        self._before = _processor_times()
        return self

    def __exit__(self, *_: object) -> None:
        used, every = map(operator.sub, _processor_times(), self._before)
        self.busy = used / every


def _processor_times() -> tuple[int, int]:
    """What all processors worked, and all time, in the kernel's ticks."""
    _, *fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    times = list(map(int, fields[:8]))
    return sum(times) - times[3] - times[4], sum(times)


def cache_url(host: Host) -> str:
    """The URL of the cache of a host, whether it runs or not."""
    return f"http://{host.address}:{PORT}"


@dataclass(frozen=True)
class SiteCache:
    """A running cache."""

    host: Host
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def stall(self) -> None:
        """Stop it; the kernel still accepts connections for it."""
        self.process.send_signal(signal.SIGSTOP)


@dataclass(frozen=True)
class Reading:
    """What one host read: the digest of all bytes, or the error that ended it."""

    seconds: float
    digest: str
    error: OSError | None = None


def read(mount: Mount, spec: str) -> Reading:
    """Read the weights of a version in order."""
    digest, began, error = hashlib.sha256(), time.monotonic(), None
    buffer = memoryview(bytearray(1 << 20))
    folder = mount.version(spec)
    try:
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".safetensors"):
                continue
            with open(folder / name, "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
    except OSError as exc:
        error = exc
    return Reading(time.monotonic() - began, digest.hexdigest(), error)


def read_together(
    mounts: Sequence[Mount], spec: str, meanwhile: Callable[[], object] = lambda: None
) -> list[Reading]:
    """All mounts read the same version, and this thread runs `meanwhile`."""
    with ThreadPoolExecutor(len(mounts)) as pool:
        running = [pool.submit(read, mount, spec) for mount in mounts]
        meanwhile()
        return [one.result() for one in running]


class Fleet:
    """An origin, and hosts.

    Args:
        line: where the origin is.
        work: for the directories of all.
        stack: ends all that is started.
    """

    def __init__(
        self, lan: Switch, line: Host, hosts: list[Host], work: Path, stack: contextlib.ExitStack
    ) -> None:
        self.line = line
        self.hosts = hosts
        self.caches: list[SiteCache] = []
        self._lan = lan
        self._work = work
        self._stack = stack
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        return f"http://{self.line.address}:{PORT}"

    def sent(self) -> Sent:
        """What the origin has answered."""
        return sent(self._work / "origin/access.log")

    @property
    def urls(self) -> list[str]:
        """The URLs of the caches."""
        return [cache.url for cache in self.caches]

    def join(self, bits_per_second: int) -> Host:
        """One more host."""
        return self._lan.host(bits_per_second)

    def start_caches(self, hosts: Sequence[Host]) -> None:
        """Start a cache with an empty directory on each of the hosts."""
        for host in hosts:
            self.caches.append(
                self._stack.enter_context(_site_cache(host, self.line, self._home()))
            )

    def start_liar(self, host: Host, root: Path) -> SiteCache:
        """Start what looks like a cache, and sends the files of another registry."""
        home, listen = self._home(), f"{host.address}:{PORT}"
        nginx = running(root, home, listen, within=host.inside())
        process = self._stack.enter_context(nginx)
        return SiteCache(host, f"http://{listen}", home / "access.log", process)

    def mount(self, hosts: Sequence[Host], *options: str, start: Sequence[str] = ()) -> list[Mount]:
        """Mount the registry on each of the hosts, with empty caches.

        Args:
            start: a command that starts another.
        """

        def one(host: Host) -> Mount:
            within = (*host.inside(), *start)
            return self._stack.enter_context(
                mounted(self.url, self._home(), *options, within=within)
            )

        with ThreadPoolExecutor(STARTING) as pool:
            return list(pool.map(one, hosts))

    def download(self, keys: Sequence[str]) -> float:
        """Every host downloads files of the registry with curl; the seconds until the last is done.

        Raises:
            RuntimeError: a download failed.
        """
        wanted = [word for key in keys for word in ("-o", "/dev/null", f"{self.url}/{key}")]
        command, began = [program("curl"), "-sSf", *wanted], time.monotonic()
        running = [subprocess.Popen([*host.inside(), *command]) for host in self.hosts]
        codes = [one.wait() for one in running]
        if any(codes):
            raise RuntimeError("a host could not download the model")
        return time.monotonic() - began

    def until_sent(self, size: float) -> None:
        """Wait until the origin's line has carried so many bytes to the hosts."""
        while self.line.carried()[1] < size:
            time.sleep(0.05)

    def until_quiet(self) -> None:
        """Wait until the origin's line carries nothing more: caches complete what they began."""
        before = -QUIET_BYTES
        while (now := self.line.carried()[1]) - before >= QUIET_BYTES:
            before = now
            time.sleep(1)

    def _home(self) -> Path:
        return self._work / str(next(self._numbers))


@contextlib.contextmanager
def _site_cache(host: Host, origin: Host, home: Path) -> Iterator[SiteCache]:
    """nginx as packaging/ has it, in one process, with its files in `home`."""
    home.mkdir()
    given = values(f"http://{origin.address}:{PORT}", PORT)
    (home / "nginx.conf").write_text(rendered("nginx.conf.template", given))
    command = [*host.inside(), executable(), "-p", str(home), "-c", str(home / "nginx.conf")]
    command += ["-e", str(home / "error.log"), "-g", "daemon off; master_process off;"]
    with started(command, home / "nginx.pid", home / "error.log") as process:
        try:
            yield SiteCache(host, cache_url(host), home / "access.log", process)
        finally:
            process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def fleet(registry: Path, work: Path, hosts: int, line: int, host_line: int) -> Iterator[Fleet]:
    """A fleet of hosts without caches and mounts; rates of the lines in bits per second."""
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(switch())
        origin = lan.host(line)
        listen = f"{origin.address}:{PORT}"
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        stack.enter_context(running(registry, work / "origin", listen, within=origin.inside()))
        yield Fleet(lan, origin, [lan.host(host_line) for _ in range(hosts)], work, stack)
