"""Fixtures of all experiments: a scratch directory, a published model, a mount of its registry.

Everything is real and started like a user would start it: nginx on loopback (origin.py), `axonfs`
as a process. The programs of the experiments import this.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axonfs.daemon.holders import workers_of
from axonfs.names import parse_spec
from axonfs.publish import publish
from axonfs.storage import Storage

MIB = 1 << 20
GIB = 1 << 30
READY_SECONDS = 30.0
AXONFS = (sys.executable, "-m", "axonfs")
_TICKS = os.sysconf("SC_CLK_TCK")
_numbers = itertools.count()


@contextlib.contextmanager
def scratch(*, memory: bool = False) -> Iterator[Path]:
    """A temporary directory on tmpfs, or on a real disk (AXONFS_BENCH_DIR, else /var/tmp)."""
    where = "/dev/shm" if memory else os.environ.get("AXONFS_BENCH_DIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="axonfs-bench-", dir=where) as path:
        yield Path(path)


def write_model(folder: Path, files: int, size: int) -> Path:
    """Write a model of `files` files of `size` bytes, in which every MiB is different."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}\n')
    noise = os.urandom(MIB)
    for number in range(files):
        with open(folder / f"model-{number:05}.safetensors", "wb") as file:
            for offset in range(0, size, MIB):
                stamp = number.to_bytes(4, "big") + offset.to_bytes(8, "big")
                file.write((stamp + noise[len(stamp) :])[: size - offset])
    return folder


def publish_model(folder: Path, spec: str, root: Path | Storage) -> None:
    """Publish the model in `folder`, and remove `folder`."""
    publish(folder, parse_spec(spec), root)
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Usage:
    """The processor time of processes in seconds, and their peak resident bytes."""

    user: float
    system: float
    peak: int

    @property
    def cpu(self) -> float:
        return self.user + self.system


@dataclass(frozen=True)
class Mount:
    """A running `axonfs mount --foreground`."""

    path: Path
    cache: Path
    process: subprocess.Popen[bytes]

    def version(self, spec: str) -> Path:
        return self.path / spec.replace("@", "/")

    def weights(self, spec: str) -> list[Path]:
        """The files of `write_model`, in the order of their names."""
        return sorted(self.version(spec).glob("model-*.safetensors"))

    @property
    def worker(self) -> int:
        """The pid of the process that serves the mount, a child of `process`."""
        [pid] = workers_of(self.process.pid)
        return pid

    def status(self) -> dict[str, Any]:
        """The mount's own status file."""
        status: dict[str, Any] = json.loads((self.path / ".axonfs/status.json").read_bytes())
        return status

    def usage(self) -> Usage:
        """The usage of the mount's process and its children."""
        used = [usage_of(pid) for pid in _with_children(self.process.pid)]
        return Usage(*(sum(column) for column in zip(*map(_columns, used), strict=True)))


def _columns(usage: Usage) -> tuple[float, float, int]:
    return usage.user, usage.system, usage.peak


def usage_of(pid: int) -> Usage:
    """The usage of a running process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = (int(field) / _TICKS for field in fields[11:13])
    return Usage(user, system, _peak(pid))


def threads_of(pid: int) -> dict[int, float]:
    """The processor time of each thread of a running process so far, in seconds."""
    used = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            nanoseconds, *_ = (task / "schedstat").read_text().split()
            used[int(task.name)] = int(nanoseconds) / 1e9
    return used


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise LookupError(pid)


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # the loop appends to the list
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, tasks.read_text().split())
    return found


@contextlib.contextmanager
def mounted(
    url: str,
    cache: Path,
    *options: str,
    bundle: Path | None = None,
    within: Sequence[str] = (),
) -> Iterator[Mount]:
    """A mount that answers. It is unmounted at the end; its cache stays.

    Args:
        within: a command that starts another in namespaces. `Mount.path` leads through them, as
            the mount may not be visible here.
    """
    path = cache.with_name(f"{cache.name}.mnt")
    path.mkdir(parents=True, exist_ok=True)
    log = cache.with_name(f"{cache.name}.log")
    command = [*within, *AXONFS, "mount", str(path), "--foreground", "--registry", url]
    command += ["--cache", str(cache), *options]
    with open(log, "wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=quiet_environment(bundle))
    try:
        _wait_until_up(process, path, log)
        yield Mount(Path(f"/proc/{process.pid}/root{path}") if within else path, cache, process)
    finally:
        unmount(process, path)


@contextlib.contextmanager
def cold_mount(url: str, work: Path, *options: str, bundle: Path | None = None) -> Iterator[Mount]:
    """A mount with an empty cache, which is deleted at the end."""
    cache = work / f"cache-{next(_numbers)}"
    try:
        with mounted(url, cache, *options, bundle=bundle) as mount:
            yield mount
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _wait_until_up(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while "mounted at" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no mount at {path}: {log.read_text()}")
        time.sleep(0.02)


def unmount(process: subprocess.Popen[bytes], path: Path) -> None:
    """End the mount at `path` and its process: by SIGTERM, else by force."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    if os.path.ismount(path) or not _answers(path):
        subprocess.run(["umount", "-l", str(path)], stderr=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    process.wait()


def _answers(path: Path) -> bool:
    """Whether stat works on a directory, which fails for a mount without a server."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def quiet_environment(bundle: Path | None = None) -> dict[str, str]:
    """The environment without the user's own registries and settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AXONFS_")}
    trusted = {"SSL_CERT_FILE": str(bundle)} if bundle else {}
    return {**kept, "AXONFS_CONFIG": "/dev/null", **trusted}


def forget(path: Path) -> None:
    """Drop the page cache of one file."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def touch_memory(size: int) -> None:
    """Touch `size` bytes of free memory before a run that fills the page cache.

    A virtual machine returns idle memory to its host within seconds. To get a GiB back costs up to
    4 s of system time, more than the rest of a cold read, and has nothing to do with AxonFS. The
    memory is touched in huge pages, the unit in which it is returned and in which the cache writes.
    """
    code = (
        "import mmap, sys\nm = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE)\n"
        "m.madvise(mmap.MADV_HUGEPAGE)\nm[::4096] = bytes(len(m) // 4096)"
    )
    subprocess.run([sys.executable, "-c", code, str(-(-size // 4096) * 4096)], check=True)


def settle(size: int) -> None:
    """Prepare a timed run that fills `size` bytes of memory: flush writes, and touch the memory.

    Touches twice as much, because the kernel also allocates other blocks; at most a third of all.
    """
    os.sync()
    third = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
    if size:
        touch_memory(min(2 * size, third))
