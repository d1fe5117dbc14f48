"""Real mounts for tests: a published registry, its server, and `axonfs mount` as a process."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import axonfs
from axonfs.client.health import mount_at
from axonfs.connection.mountinfo import mounts
from axonfs.daemon.holders import holder_of
from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.support.registry import RegistryServer, make_model

CHUNK = 1 << 20
READY_SECONDS = 30.0

# What the registry of most tests holds: sizes that are not multiples of the chunk.
FILES = {"model.safetensors": 5 * CHUNK + 4321, "vocab.txt": 777, "sub/part.bin": CHUNK + 1}
NAME = "model.safetensors"
MODEL = f"nlp/tiny/1.0.0/{NAME}"


def run_axonfs(*args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "axonfs", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=check,
    )


def settled(done: Callable[[], bool], seconds: float = 60) -> None:
    """Return once `done`, for what has no event."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it does not settle"
        time.sleep(0.1)


@dataclass
class Mount:
    """One `axonfs mount --foreground` process."""

    path: Path
    cache: Path
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.path / ".axonfs/status.json").read_text())
        return status

    def fetched(self) -> int:
        return int(self.status()["fetch"]["bytes"])

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not os.path.ismount(self.path) or "mounted at" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Unmount with SIGTERM and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            # Whatever is left: of what a killed mount left `ismount` says that it is none.
            subprocess.run(["umount", "-lq", self.path], check=False)

    def kill(self) -> None:
        """SIGKILL; returns when the worker is gone as well."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        descriptors = [os.pidfd_open(int(child)) for child in children]
        self.process.kill()
        self.process.wait(20)
        for descriptor in descriptors:
            select.select([descriptor], [], [], 20)
            os.close(descriptor)

    def worker(self) -> int:
        """The pid of the worker that answers now."""
        return int(self.status()["worker"]["pid"])

    def kill_worker(self) -> int:
        """SIGKILL, as the kernel does when memory runs out; returns the pid when it is gone."""
        pid = self.worker()
        end(pid)
        return pid

    def processes(self) -> list[int]:
        """Holder and worker, as other commands find them."""
        (found,) = [one for one in mounts() if one.mountpoint == self.path]
        holder = holder_of(found)
        return [holder.pid, *holder.workers] if holder else []

    def complaints(self) -> list[str]:
        """Log lines that are warnings or worse."""
        lines = self.log.read_text().splitlines()
        return [
            line for line in lines if "WARNING" in line or "ERROR" in line or "Traceback" in line
        ]


MountFactory = Callable[..., Mount]


@pytest.fixture(scope="session")
def published_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `registry_dir` copies, since to publish it takes 0.4 s."""
    place = tmp_path_factory.mktemp("published")
    for number, spec in enumerate(("nlp/tiny@1.0.0", "nlp/tiny@1.1.0", "nlp/org/deep@0.1.0")):
        source = place / f"source{number}"
        make_model(source, FILES, seed=number)
        publish(source, parse_spec(spec), place / "registry", chunk_size=CHUNK)
    return place


@pytest.fixture
def registry_dir(published_models: Path, tmp_path: Path) -> Path:
    """A registry with two versions of one model and one of a model with a longer name, beside the
    directories that were published."""
    for each in published_models.iterdir():
        shutil.copytree(each, tmp_path / each.name)
    return tmp_path / "registry"


@pytest.fixture
def registry(registry_dir: Path) -> Iterator[RegistryServer]:
    with RegistryServer(registry_dir) as server:
        yield server


@pytest.fixture
def open_to_users() -> Iterator[None]:
    """/dev/fuse and the way to this interpreter as distributions have them: some machines keep
    the device for root, or have Python in root's home."""
    wanted = {Path("/dev/fuse"): 0o666}
    for start in (Path(sys.executable), Path(sys.executable).resolve(), Path(axonfs.__file__)):
        wanted |= dict.fromkeys(start.parents, 0o011)
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in wanted}
    for path, bits in wanted.items():
        if before[path] & bits != bits:
            path.chmod(before[path] | bits)
    yield
    for path, mode in before.items():
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


@pytest.fixture
def open_path(tmp_path: Path) -> Iterator[None]:
    """Lets other users reach the test's directory."""
    closed = [path for path in tmp_path.parents if path.stat().st_mode & 0o011 != 0o011]
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path, *closed]}
    for path, mode in before.items():
        path.chmod(mode | 0o011)
    yield
    for path, mode in before.items():
        path.chmod(mode)


@pytest.fixture
def start_mount(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MountFactory]:
    """A function that mounts; each mount is stopped, and its log must be free of warnings unless
    the test is marked `complains`."""
    mounts: list[Mount] = []

    def start(
        *urls: str,
        options: tuple[str, ...] = (),
        cache: Path | None = None,
        env: dict[str, str] | None = None,
        within: tuple[str, ...] = (),
    ) -> Mount:
        path = tmp_path / f"mnt{len(mounts)}"
        path.mkdir()
        log = tmp_path / f"mount{len(mounts)}.log"
        cache = cache or tmp_path / "cache"
        registries = [part for url in urls for part in ("--registry", url)]
        command = ["mount", str(path), "--foreground", "--cache", str(cache), *registries, *options]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*within, sys.executable, "-m", "axonfs", *command],
                stdout=output,
                stderr=output,
                env={**os.environ, "AXONFS_CONFIG": str(tmp_path / "none.yaml"), **(env or {})},
            )
        mounts.append(Mount(path, cache, log, process))
        mounts[-1].wait_ready()
        return mounts[-1]

    yield start
    for mount in mounts:
        mount.stop()
        if request.node.get_closest_marker("complains") is None:
            assert mount.complaints() == []


@pytest.fixture
def mount(start_mount: MountFactory, registry: RegistryServer) -> Mount:
    """A mount of the registry on an empty cache."""
    return start_mount(registry.url)


def passed_through(mount: Mount) -> dict[str, bool]:
    """The open files, and whether the kernel reads them itself."""
    return {row["path"]: row["passed_through"] for row in mount.status()["open"]}


def read_and_closed(mount: Mount) -> None:
    """Read the model, and return when the mount knows of the close. The kernel tells it later than
    the program, and until then further opens are handled like this one, without passthrough."""
    (mount.path / MODEL).read_bytes()
    settled(lambda: mount.status()["open"] == [])


def patched(tmp_path: Path, source: str) -> dict[str, str]:
    """An environment in which every Python runs `source` first: a fault that cannot be caused."""
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch/sitecustomize.py").write_text(source)
    return {"PYTHONPATH": str(tmp_path / "patch")}


def end(worker: int) -> None:
    """Send SIGKILL and return when it is gone. `Mount.kill_worker` reads the status as well."""
    descriptor = os.pidfd_open(worker)
    os.kill(worker, signal.SIGKILL)
    select.select([descriptor], [], [], 20)
    os.close(descriptor)


def source_bytes(tmp_path: Path, number: int, name: str) -> bytes:
    """What was published as `name` of the `number`th model of the registry."""
    return (tmp_path / f"source{number}" / name).read_bytes()


def object_requests(registry: RegistryServer) -> list[tuple[str, str | None]]:
    """Path and Range of the requests for object bytes so far."""
    return [
        (path, ranged)
        for method, path, ranged in registry.requests
        if method == "GET" and "/objects/" in path
    ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty mountpoint, with settings of the test's own; whatever is mounted there goes."""
    monkeypatch.setenv("AXONFS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("AXONFS_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "background"
    path.mkdir()
    yield path
    if mount_at(path) is not None:
        run_axonfs("umount", path, "--force", check=False)
