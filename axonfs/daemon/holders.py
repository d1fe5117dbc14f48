"""Finds the holders of AxonFS mounts, and reads what each knows of its mount.

A holder keeps what it knows in a file in memory (`State`). Processes of its user and of root read
that file through /proc, so it works while the holder is stopped and after the mountpoint was
removed. Used by cli and client beside connection/mountinfo.py. Blocking.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from axonfs.connection.mountinfo import Mount, places_of, same_namespace
from axonfs.names import printable

STATE_NAME = "axonfs-state"
# The name of a process that has copies of a holder's descriptors, and is none (kept.py).
KEEPER_NAME = "axonfs-keeper"
_LINK = f"/memfd:{STATE_NAME} (deleted)"
_MAX_STATE_BYTES = 1 << 20


@dataclass(slots=True)
class State:
    """What a holder knows beside its descriptors.

    `init` is the kernel's INIT message in hexadecimal digits. `plain` says why libfuse made the
    connection, None if the holder made it. `connection` is -1 while it is not known. `frozen` has
    the settings that cannot change while the mount lasts, in the form of flags. `config` is the
    user's own config file, which may not exist.
    """

    mountpoint: str
    cache: str
    init: str = ""
    plain: str | None = None
    connection: int = -1
    frozen: dict[str, str | bool] = field(default_factory=dict)
    config: str = ""

    def save(self, descriptor: int) -> None:
        """Write it to `descriptor`, replacing what was there."""
        text = json.dumps(asdict(self)).encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))

    @classmethod
    def load(cls, descriptor: int) -> State:
        """
        Raises:
            ValueError: the file is malformed.
        """
        found = json.loads(os.pread(descriptor, _MAX_STATE_BYTES, 0))
        # A holder of an earlier version wrote fewer fields.
        return cls(**{"mountpoint": "", "cache": "", **found})


@dataclass(frozen=True, slots=True)
class Running:
    """A running holder. `owner` is the user of its process, from the kernel; the rest is from its
    own state file."""

    pid: int
    owner: int
    mountpoint: Path
    cache: Path
    connection: int
    config: Path

    @property
    def workers(self) -> list[int]:
        """The pid of its worker; empty while the worker is being replaced."""
        return workers_of(self.pid)


def workers_of(holder: int) -> list[int]:
    """The processes of this program whose parent is the holder."""
    processes = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in processes if _parent(pid) == holder and _is_ours(pid)]


def running() -> list[Running]:
    """The holders that this user may inspect."""
    found = (_running(int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return [holder for holder in found if holder is not None]


def holder_of(mount: Mount) -> Running | None:
    """The holder of the mount's connection; it must belong to the mount's owner.

    An earlier mount may have had the same number, and its holder may not have noticed the end yet.
    Root of a container may say what it likes, so a holder goes first that sees the mount as this
    process does, at a place of its own.
    """
    places = places_of(mount.connection)

    def is_distant(holder: Running) -> bool:
        return holder.mountpoint not in places or not same_namespace(holder.pid)

    found = [
        holder
        for holder in running()
        if holder.connection == mount.connection and holder.owner == mount.owner
    ]
    found.sort(key=lambda holder: (is_distant(holder), holder.mountpoint != mount.mountpoint))
    return next(iter(found), None)


def holder_at(mountpoint: Path) -> Running | None:
    """The holder of the mount that is, or was, at `mountpoint`."""
    found = [holder for holder in running() if holder.mountpoint == mountpoint]
    found.sort(key=lambda each: (not same_namespace(each.pid), each.owner != os.geteuid()))
    return next(iter(found), None)


def _running(pid: int) -> Running | None:
    with suppress(OSError, ValueError, TypeError):  # it has ended, or this user may not inspect it
        if _is_ours(pid) and (link := _state_file(pid)) is not None:
            state, owner = _state(link), os.stat(f"/proc/{pid}").st_uid
            places = Path(state.mountpoint), Path(state.cache)
            return Running(pid, owner, *places, int(state.connection), Path(state.config))
    return None


def _state_file(pid: int) -> Path | None:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(link) == _LINK:
                return link
    return None


def _state(link: Path) -> State:
    descriptor = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return State.load(descriptor)
    finally:
        os.close(descriptor)


def _is_ours(pid: int) -> bool:
    """Whether it runs a mount of this program. Neither systemd nor a keeper does, which may have
    the same descriptors."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_bytes().strip() == KEEPER_NAME.encode():
            return False
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(word.rpartition(b"/")[2] == b"axonfs" for word in words)
    return False


def _parent(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    return 0


_STATES = {b"T": "stopped", b"t": "stopped", b"D": "waiting for the kernel", b"Z": "ended"}


def _state_of(pid: int) -> str:
    with suppress(OSError, IndexError):
        letter = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        return _STATES.get(letter, "running")
    return "ended"


def asleep(pid: int) -> list[str]:
    """The threads of a process that no signal wakes, most often since a disk does not answer."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        with suppress(OSError):
            name, _, state = (path / "stat").read_text(errors="replace").rpartition(") ")
            if state.startswith("D"):
                thread, where = printable(name.partition("(")[2]), (path / "wchan").read_text()
                found.append(f"{thread} is asleep in the kernel ({where})")
    return found


def silence(holder: int | None) -> tuple[str, str]:
    """Why a mount does not answer, and what to do; `holder` is the pid of its holder, if known."""
    if holder is None:
        return "the mount does not answer", "see axonfs doctor"
    worker = next(iter(workers_of(holder)), None)
    for name, pid in (("holder", holder), ("worker", worker)):
        if pid is not None and _state_of(pid) == "stopped":
            return f"the mount's {name} (pid {pid}) is stopped", f"kill -CONT {pid} continues it"
    if worker is None:
        return f"the mount (pid {holder}) has no worker now", "wait until it has started another"
    if asleep(worker):
        what = f"the mount's worker (pid {worker}) does not answer, and sleeps in the kernel"
        hint = "does the cache's disk answer? See df, dmesg and iostat -x 1; until it does, no"
        return what, f"{hint} signal ends the worker"
    what = f"the mount's worker (pid {worker}) does not answer: it is {_state_of(worker)}"
    return what, f"kill -KILL {worker} makes the mount replace it, and readers see a pause"
