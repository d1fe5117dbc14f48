"""What every question needs: a scratch directory, a published model, its server, a mount of it.

Everything is the real thing, started as a user would start it: nginx on loopback, `axonfs` as a
process. Below measure.py, which runs questions and writes results down.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.support.nginx import nginx

MIB = 1 << 20
GIB = 1 << 30
READY_SECONDS = 30.0
AXONFS = (sys.executable, "-m", "axonfs")
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory on a real disk that goes away: AXONFS_BENCH_DIR says where, else /var/tmp."""
    where = os.environ.get("AXONFS_BENCH_DIR", "/var/tmp")
    with tempfile.TemporaryDirectory(prefix="axonfs-bench-", dir=where) as path:
        yield Path(path)


def write_model(folder: Path, files: int, size: int, *, sparse: bool = False) -> Path:
    """A model of `files` files of `size` bytes, no two alike in any MiB.

    Args:
        sparse: only the first MiB of each file is data, for sizes that the disk need not hold.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}\n')
    noise = os.urandom(MIB)
    for number in range(files):
        with open(folder / f"model-{number:05}.safetensors", "wb") as file:
            for offset in range(0, min(size, MIB) if sparse else size, MIB):
                stamp = number.to_bytes(4, "big") + offset.to_bytes(8, "big")
                file.write((stamp + noise[len(stamp) :])[: size - offset])
            file.truncate(size)
    return folder


@dataclass(frozen=True)
class Origin:
    """A registry that nginx serves."""

    url: str
    root: Path
    log: Path

    def requests(self) -> int:
        """How many requests nginx has answered."""
        return len(self.log.read_bytes().splitlines())

    def paths(self) -> list[Path]:
        """The object files, in the order of their digests."""
        return sorted(self.root.glob("objects/sha256/*/*"))

    def objects(self) -> list[tuple[str, int]]:
        """URL and size of every object."""
        return [
            (f"{self.url}/{path.relative_to(self.root)}", path.stat().st_size)
            for path in self.paths()
        ]

    def warm(self) -> None:
        """Have all of it in the page cache, so that no run waits for the origin's disk."""
        for path in self.paths():
            subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], check=True)


def publish_model(folder: Path, spec: str, root: Path) -> None:
    """Publish quietly; the model's own directory goes, as nothing reads it again."""
    publish(folder, parse_spec(spec), root)
    shutil.rmtree(folder)


@contextlib.contextmanager
def serving(root: Path, work: Path) -> Iterator[Origin]:
    """nginx over a registry's directory."""
    logs = work / f"nginx-{time.monotonic_ns()}"
    with nginx(root, logs) as url:
        yield Origin(url, root, logs / "access.log")


@dataclass(frozen=True)
class Usage:
    """What a process has used: CPU seconds, and resident bytes at the most."""

    user: float
    system: float
    peak: int

    @property
    def cpu(self) -> float:
        return self.user + self.system


@dataclass(frozen=True)
class Mount:
    """One `axonfs mount --foreground`."""

    path: Path
    cache: Path
    process: subprocess.Popen[bytes]

    def usage(self) -> Usage:
        return usage_of(self.process.pid)

    def resident(self) -> int:
        """Resident bytes now."""
        return _status(self.process.pid, "VmRSS")


def usage_of(pid: int) -> Usage:
    """What a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = (int(field) / _TICKS for field in fields[11:13])
    return Usage(user, system, _status(pid, "VmHWM"))


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(name)


@contextlib.contextmanager
def mounted(url: str, cache: Path, *options: str) -> Iterator[Mount]:
    """A mount that answers; unmounted at the end, its cache left where it is."""
    path = cache.with_name(f"{cache.name}.mnt")
    path.mkdir(parents=True, exist_ok=True)
    log = cache.with_name(f"{cache.name}.log")
    command = [*AXONFS, "mount", str(path), "--foreground", "--registry", url]
    command += ["--cache", str(cache), *options]
    with open(log, "wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=quiet_environment())
    try:
        _wait_until_up(process, path, log)
        yield Mount(path, cache, process)
    finally:
        subprocess.run(
            [*AXONFS, "umount", str(path)], stderr=subprocess.DEVNULL, env=quiet_environment()
        )
        process.terminate()
        process.wait(30)


def _wait_until_up(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while "mounted at" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"no mount at {path}: {log.read_text()}")
        time.sleep(0.02)


def quiet_environment() -> dict[str, str]:
    """The environment without the user's own registries and settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AXONFS_")}
    return {**kept, "AXONFS_CONFIG": "/dev/null"}


def drop_caches() -> None:
    """Write back what is dirty and empty the page cache; needs root.

    Raises:
        PermissionError: in a container that may not; such runs are left out.
    """
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def touch_memory(size: int) -> None:
    """Have the machine own `size` bytes of free memory before a run that fills the page cache.

    A virtual machine gives idle memory back to its host within seconds, and taking a GiB of it
    again costs up to 4 s of system time: more than all else in a cold read, and not ours to show.
    """
    code = (
        "import mmap, sys\nm = mmap.mmap(-1, int(sys.argv[1]))\nm[::4096] = bytes(len(m) // 4096)"
    )
    subprocess.run([sys.executable, "-c", code, str(-(-size // 4096) * 4096)], check=True)
