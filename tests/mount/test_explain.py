"""docs/operations.md on programs that wait: each kind of stall is named while it lasts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from axonfs.cli.kernel_side import kernel_side
from tests.mount.conftest import Mount, MountFactory, patched, run_axonfs, settled
from tests.support import faulty
from tests.support.disks import MIB, Disk
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.nginx import free_port
from tests.support.packages import add_package
from tests.support.registry import published

pytestmark = pytest.mark.mount

SIZE = 2 * MIB
HOSTILE, SHOWN = "\x1b[31m\naxonfs", "?[31m?axonfs"
STREAMS = 3
# A name server that does not answer cannot be caused here.
HANGING_NAMES = """
import socket, time
ask = socket.getaddrinfo
def hang(host, port=0, family=0, type=0, proto=0, flags=0):
    if ".hang.test" in str(host) and not flags & socket.AI_NUMERICHOST:
        time.sleep(60)
    return ask(host, port, family, type, proto, flags)
socket.getaddrinfo = hang
"""


@dataclass(frozen=True)
class Stall:
    """A fault of one registry, and what a reader of its model is told.

    Args:
        path: what the fault is for, in the paths of requests.
    """

    cause: str
    words: str
    fault: Callable[[Places], Fault]
    path: str = "/objects/"


class Places:
    """Servers that do not do what they should, by URL."""

    def __init__(self, opened: ExitStack) -> None:
        self.refused = f"http://127.0.0.1:{free_port()}/x"
        self.silent: int = opened.enter_context(listening(16))
        self.full: int = opened.enter_context(listening(0))
        for _ in range(3):  # its queue of connections is full, so the kernel drops what comes
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", self.full))


@contextmanager
def listening(backlog: int) -> Iterator[int]:
    """The port of a server that takes no connection from its queue."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)
        yield server.getsockname()[1]


def always(fault: Fault) -> Callable[[Places], Fault]:
    return lambda places: fault


def moved(url: Callable[[Places], str]) -> Callable[[Places], Fault]:
    return lambda places: faulty.redirect(url(places))


STALLS = {  # in the order in which their registries are asked for manifests
    "manifest": Stall("document", "manifest.yaml", always(faulty.stall_before), path="/2.0.0/"),
    "refused": Stall("retrying", "Connection refused", moved(lambda at: at.refused)),
    "dropped": Stall(
        "connecting", "connecting to 127.0.0.1", moved(lambda at: f"http://127.0.0.1:{at.full}/x")
    ),
    "nameless": Stall(
        "connecting", "looking up the name cdn.hang.test", moved(lambda at: "http://cdn.hang.test/")
    ),
    "handshake": Stall(
        "connecting", "TLS handshake", moved(lambda at: f"https://127.0.0.1:{at.silent}/x")
    ),
    "mute": Stall("first_byte", "first byte", always(faulty.stall_before)),
    "headless": Stall("first_byte", "rest of the head", always(faulty.drip_headers(0.05))),
    "trickle": Stall("receiving", " B of ", always(faulty.drip(0.05))),
    "halfway": Stall("receiving", " came, and nothing for", always(faulty.stall_within)),
    "busy": Stall("retrying", "the server answered 503", always(faulty.status(503))),
    "broken": Stall("retrying", "the server answered 500", always(faulty.status(500))),
    "later": Stall("paused", "asked for", always(faulty.status(503, Retry_After="30"))),
    "limited": Stall("paused", "asked for", always(faulty.status(429, Retry_After="30"))),
    "tableless": Stall("document", "/chunks/", always(faulty.stall_before), path="/chunks/"),
    "packed": Stall("package", "in a pass over", always(faulty.stall_before), path="/packages/"),
    "crowded": Stall("queued", f"one of {STREAMS} streams", always(faulty.stall_before)),
    "uncached": Stall("caches", "site cache", always(faulty.hang_up_before)),
}


@contextmanager
def stalling(directory: Path, name: str, stall: Stall, places: Places) -> Iterator[Any]:
    """The setting of a registry of one model, `nlp/NAME`, where what the fault is for stalls."""
    spec = f"nlp/{name}@1.0.0"
    files = {f"{number}.bin": SIZE for number in range(STREAMS)}
    own = SIZE + list(STALLS).index(name)  # so that no two have the same bytes
    registry = published(directory, {"w.bin": own, **files}, spec=spec)
    if name == "packed":
        registry = directory / "packed"
        registry.mkdir()
        add_package(registry, spec, {"w.bin": bytes(SIZE)})
    fault = stall.fault(places)

    def act(exchange: Exchange) -> None:
        if stall.path in exchange.seen.path:
            fault(exchange)

    with FaultyOrigin(registry) as origin, FaultyOrigin(registry) as behind:
        origin.always(act)
        via = {"url": behind.url, "via": [origin.url], "fallback": "never"}
        yield via if name == "uncached" else origin.url


@pytest.fixture
def stalled(tmp_path: Path, start_mount: MountFactory) -> Iterator[Mount]:
    """A mount whose registries stall, each in its way."""
    with ExitStack() as opened:
        places, registries = Places(opened), list[Any]()
        for name, stall in STALLS.items():
            (tmp_path / name).mkdir()
            registries.append(opened.enter_context(stalling(tmp_path / name, name, stall, places)))
        config = tmp_path / "config.yaml"
        given = {"registries": registries, "prefetch": "off", "streams": STREAMS, "deadline": 16}
        config.write_text(yaml.safe_dump(given))
        env = {**patched(tmp_path, HANGING_NAMES), "AXONFS_CONFIG": str(config)}
        mount = start_mount(env=env)
        for name in STALLS.keys() - {"manifest"}:
            place(mount, name).stat()
        yield mount


@contextmanager
def reading(*paths: Path, program: str | Path = "head") -> Iterator[list[int]]:
    """Programs that read the beginning of these files; their pids."""
    readers = [
        subprocess.Popen([program, "-c", "1", path], stdout=subprocess.DEVNULL) for path in paths
    ]
    try:
        yield [reader.pid for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait(20)


def place(mount: Mount, name: str) -> Path:
    return mount.path / f"nlp/{name}/{'2.0.0' if name == 'manifest' else '1.0.0'}/w.bin"


@pytest.mark.complains
def test_each_stall_is_named(stalled: Mount, tmp_path: Path) -> None:
    """`axonfs explain`, `status` and the log say within 5 s who waits for which file, what is done
    for it now, and what to do. The names of programs cannot control a terminal."""
    hostile = tmp_path / HOSTILE
    hostile.symlink_to(shutil.which("head") or "")
    assert "nothing waits" in run_axonfs("explain", stalled.path).stdout
    crowd = [place(stalled, "crowded").with_name(f"{number}.bin") for number in range(STREAMS)]
    with reading(*crowd):
        settled(lambda: stalled.status()["fetch"]["in_flight"] >= STREAMS)
        with reading(*(place(stalled, name) for name in STALLS), program=hostile) as pids:
            by_pid = dict(zip(pids, STALLS, strict=True))
            named = dict[str, dict[str, Any]]()
            settled(lambda: note(stalled, by_pid, named), 15)
            for name, wait in named.items():
                check(wait, name)
            told = json.loads(run_axonfs("explain", stalled.path, "--json").stdout)
            assert {wait["pid"] for wait in told["waits"]} >= set(pids)
            text = run_axonfs("explain", stalled.path).stdout
            assert [pid for pid in pids if f"{SHOWN} (pid {pid}) has waited" not in text] == []
            settled(lambda: logged(stalled) >= set(STALLS), 10)
            state = run_axonfs("status", stalled.path).stdout
            assert "programs that wait" in state
    assert "\x1b" not in text + state + stalled.log.read_text()
    settled(lambda: stalled.status()["waits"] == [])
    over = run_axonfs("explain", stalled.path).stdout
    assert re.match(r"nothing waits; last (head|\?\[31m\?axonfs) \(pid \d+\) waited", over)
    waited = stalled.status()["waited"]
    assert all(waited[stall.cause] > 1 for stall in STALLS.values()), waited
    assert stalled.log.read_text().count("and that is over") >= len(STALLS)


def note(mount: Mount, by_pid: dict[int, str], named: dict[str, dict[str, Any]]) -> bool:
    """Note the waits of these programs that have the right cause, which changes for a moment when a
    source is asked again; whether each had it."""
    for wait in mount.status()["waits"]:
        name = by_pid.get(wait["pid"], "")
        if name and wait["cause"] == STALLS[name].cause and STALLS[name].words in wait["text"]:
            named[name] = wait
    return named.keys() == STALLS.keys()


def check(wait: dict[str, Any], name: str) -> None:
    """What is said of one wait is right."""
    assert wait["program"] == HOSTILE
    assert wait["hint"]
    assert wait["text"].count("after: ") <= 1
    if name == "manifest":
        assert wait["operation"] == "lookup"
        return
    assert wait["operation"] == "read"
    assert (wait["path"], wait["spec"]) == (f"nlp/{name}/1.0.0/w.bin", f"nlp/{name}@1.0.0")
    assert (wait["offset"], wait["chunk"]) == (0, 0)
    assert wait["source"].startswith("http://127.0.0.1:")
    assert 0 < wait["seconds"] < 60


def logged(mount: Mount) -> set[str]:
    """The models for which a line of the log says that one waits."""
    lines = [line for line in mount.log.read_text().splitlines() if " has waited " in line]
    return {name for name in STALLS if any(f" of nlp/{name}/" in line for line in lines)}


@pytest.mark.complains
@pytest.mark.skipif(os.geteuid() != 0, reason="file systems need root")
def test_the_limit_and_the_disk_are_named(tmp_path: Path, start_mount: MountFactory) -> None:
    """A read that the bandwidth limit holds, on a disk that is full; offline, what fails."""
    registry = published(tmp_path, {"w.bin": 8 * MIB})
    disk = Disk.tmpfs(tmp_path / "disk", 16 * MIB)
    try:
        with FaultyOrigin(registry) as origin:
            mount = start_mount(
                origin.url, cache=disk.path / "cache", options=("--bandwidth", "100K")
            )
            path = mount.path / "nlp/tiny/1.0.0/w.bin"
            path.stat()
            disk.fill()
            with reading(path):
                settled(lambda: bool(mount.status()["disk"]["fault"]))
                settled(lambda: "bandwidth" in {one["cause"] for one in mount.status()["waits"]})
                text = run_axonfs("explain", mount.path).stdout
            assert "bandwidth: held by the mount's bandwidth of 100 KiB/s" in text
            assert "→ the mount was started with --bandwidth" in text
            assert "past the cache's disk, which fails: " in text
            assert "not well: the cache's disk fails since" in text
            mount.stop()
            mount = start_mount(origin.url, cache=tmp_path / "empty", options=("--offline",))
            assert run_axonfs("explain", mount.path).stdout.count("offline") == 1
    finally:
        disk.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="file systems need root")
def test_a_disk_that_hangs_is_seen_from_outside(tmp_path: Path, start_mount: MountFactory) -> None:
    """While writes to the cache's disk hang, the threads that wait for it are told."""
    disk = Disk.ext4(tmp_path / "disk", 64 * MIB)
    try:
        with FaultyOrigin(published(tmp_path, {"w.bin": 8 * MIB})) as origin:
            mount = start_mount(origin.url, cache=disk.path / "cache")
            path = mount.path / "nlp/tiny/1.0.0/w.bin"
            path.stat()
            with disk.frozen():
                reader = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
                settled(lambda: "asleep in the kernel" in str(kernel_side(mount.path)), 20)
                told = kernel_side(mount.path)["processes"]
                assert "does the cache's disk answer?" in told
                assert "kill -KILL" not in told
            assert len(reader.communicate(timeout=20)[0]) == 8 * MIB
    finally:
        disk.close()


def test_a_mount_that_does_not_answer_is_seen_from_outside(mount: Mount) -> None:
    """While its worker is stopped, the kernel's side of it is told."""
    worker = mount.worker()
    os.kill(worker, signal.SIGSTOP)
    with reading(mount.path / "nlp/tiny/1.1.0/vocab.txt") as (pid,):
        try:
            settled(lambda: f"head (pid {pid})" in kernel_side(mount.path).get("programs", ""), 20)
            told = kernel_side(mount.path)
        finally:
            os.kill(worker, signal.SIGCONT)
    assert f"worker (pid {worker}) is stopped; kill -CONT {worker}" in told["processes"]
    waiting = re.search(r"; (\d+) requests wait", told["kernel"])
    assert waiting is None or int(waiting[1]) > 0  # sysfs may be hidden
    assert "nothing waits" in run_axonfs("explain", mount.path).stdout
