"""What a bundle says of this machine and of mounts' processes. Reads /proc and /sys; blocking.

Nothing here touches a mount or a cache.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from axonfs._version import __version__
from axonfs.cli.bundle.secrets import is_secret
from axonfs.cli.extensions import NATIVE, RECORDS, by_whom
from axonfs.connection.mountinfo import mounts
from axonfs.daemon.holders import Running
from axonfs.settings.applied import plain
from axonfs.settings.settings import config_path, resolve

_MOST = 64 << 10  # bytes of one file of /proc or /sys
_FUSE = Path("/sys/fs/fuse/connections")
_SYSTEM = (
    "/proc/version",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/pipe-max-size",
    "/proc/sys/net/core/rmem_max",
    "/proc/sys/net/ipv4/tcp_rmem",
    "/proc/sys/net/ipv4/tcp_congestion_control",
    "/proc/self/limits",
    "/etc/fuse.conf",
    "/etc/os-release",
)
_OF_PROCESS = ("status", "limits", "cgroup", "io", "oom_score", "wchan")
_MEMORY = ("memory.max", "memory.high", "memory.current", "memory.events", "cpu.max", "pids.max")
# Variables whose values say how AxonFS and its libraries behave.
_VARIABLES = re.compile(
    r"AXONFS_\w+|HF_\w+|HUGGING\w+|MODELSCOPE\w+|AWS_\w+|DOCKER_\w+|SSL_\w+|REQUESTS_\w+|OTEL_\w+"
    r"|(?:HTTPS?|NO|ALL)_PROXY|PATH|HOME|LANG|LC_\w+|TERM|TZ|XDG_\w+|PYTHON\w+|INVOCATION_ID"
    r"|JOURNAL_STREAM|KUBERNETES_\w+|container",
    re.IGNORECASE,
)


def versions() -> str:
    """AxonFS, Python, the kernel, libfuse, extensions and libraries."""
    from axonfs.fuse.openreply import UNAVAILABLE
    from axonfs.http_client import why_no_records

    lines = [
        f"axonfs {__version__} at {Path(__file__).resolve().parents[2]}",
        f"python {sys.version.split()[0]} ({platform.python_implementation()}) {sys.executable}",
        f"kernel {platform.release()} {platform.version()} {platform.machine()}",
        f"libc {' '.join(platform.libc_ver())}",
        f"extensions: {by_whom({NATIVE: UNAVAILABLE, RECORDS: why_no_records()})}",
    ]
    wanted = (each for each in requires("axonfs") or () if not re.search(r"extra == .dev", each))
    names = (re.split(r"[^\w.-]", each)[0] for each in wanted)
    return "\n".join((*lines, "", *(_library(name) for name in dict.fromkeys(names))))


def _library(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name}: not installed"


def kernel() -> str:
    """The kernel's side: FUSE connections, limits, memory, pressure."""
    parts = [_file(Path(name)) for name in _SYSTEM]
    fuse = [line for line in _read(Path("/proc/filesystems")).splitlines() if "fuse" in line]
    parts.append("== /proc/filesystems\n" + "\n".join(fuse))
    for folder in (Path("/sys/module/fuse/parameters"), *_connections()):
        parts += [_file(path) for path in _listed(folder) if path.name != "abort"]
    parts += _cgroup("self")
    return "\n\n".join(parts)


def _connections() -> Iterator[Path]:
    return (_FUSE / str(number) for number in sorted({mount.connection for mount in mounts()}))


def _cgroup(pid: int | str) -> list[str]:
    """The limits of a process's control group, and of those above it."""
    group = _read(Path(f"/proc/{pid}/cgroup")).rpartition("::")[2].strip()
    place = Path("/sys/fs/cgroup") / group.lstrip("/")
    folders = [each for each in (place, *place.parents) if each.is_relative_to("/sys/fs/cgroup")]
    return [_file(folder / name) for folder in folders for name in _MEMORY if _read(folder / name)]


def mountinfo() -> str:
    """What is mounted, as this process sees it."""
    return _read(Path("/proc/self/mountinfo"), 1 << 20)


def processes(holders: Iterable[Running]) -> str:
    """Holders and workers: how they were started, what they wait for, their limits."""
    parts = []
    for holder in holders:
        for role, pid in (("holder", holder.pid), *(("worker", pid) for pid in holder.workers)):
            parts.append(f"==== {role} {pid} of {holder.mountpoint}, cache {holder.cache}")
            parts += _process(Path(f"/proc/{pid}"))
            parts += _cgroup(pid)
    return "\n\n".join(parts)


def _process(place: Path) -> list[str]:
    words = _read(place / "cmdline").split("\0")
    links = [_link(path) for path in _listed(place / "fd")]
    kinds = Counter("file" if link[:1] == "/" else link.partition(":")[0] for link in links)
    threads = "\n".join(map(_thread, _listed(place / "task")))
    return [
        f"== command\n{' '.join(words)}",
        *(_file(place / name) for name in _OF_PROCESS),
        f"== descriptors\n{', '.join(f'{kind} {count}' for kind, count in kinds.items())}",
        f"== threads: name, state, what the kernel waits for\n{threads}",
        f"== variables\n{variables_shown(environment(place))}",
    ]


def _thread(place: Path) -> str:
    state = _read(place / "stat").rpartition(")")[2].split()[:1]
    stack = " < ".join(re.findall(r"\] (\w+)", _read(place / "stack")))
    words = (place.name, _read(place / "comm"), *state, _read(place / "wchan"), stack)
    return " ".join(word.strip() for word in words)


def environment(place: Path) -> dict[str, str]:
    """The variables that a process was started with; empty if this user may not see them."""
    words = _read(place / "environ", 1 << 20).split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def variables_shown(variables: Mapping[str, str]) -> str:
    """The variables that matter, one a line; of those with a secret only the name."""
    return "\n".join(
        f"{name}={'(set)' if is_secret(name) and value else value}"
        for name, value in sorted(variables.items())
        if _VARIABLES.fullmatch(name)
    )


def settings() -> dict[str, Any]:
    """The settings that commands use now, and where each comes from; tokens are left out."""
    found = {
        name: {"value": plain(name, value), "from": provenance}
        for name, (value, provenance) in resolve({}).items()
    }
    return {"file": str(config_path()), "settings": found}


def _file(path: Path) -> str:
    return f"== {path}\n{_read(path).rstrip()}"


def _read(path: Path, most: int = _MOST) -> str:
    with suppress(OSError, ValueError), path.open("rb") as file:
        return file.read(most).decode(errors="replace")
    return ""


def _link(path: Path) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return "closed"


def _listed(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []
