"""The processes that keep AxonFS mounts: which there are, and what each says of its mount.

A holder keeps what it knows in a file in memory (`State`). Others of its user and root read that
through /proc, so nothing has to answer: the processes may be stopped, and the mountpoint may be
gone. Beside mountinfo.py. Blocking.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from axonfs.connection.mountinfo import Mount

STATE_NAME = "axonfs-state"
_LINK = f"/memfd:{STATE_NAME} (deleted)"
_MAX_STATE_BYTES = 1 << 20


@dataclass(slots=True)
class State:
    """What a holder keeps beside its descriptors.

    `init` is the kernel's INIT message in hexadecimal digits; `plain` says why libfuse made the
    connection, None where it is the holder's own. `connection` is -1 while it is not known.
    `frozen` are the settings that hold until it is mounted anew, as flags have them; `config` is
    its user's own config file, which may not exist.
    """

    mountpoint: str
    cache: str
    init: str = ""
    plain: str | None = None
    connection: int = -1
    frozen: dict[str, str | bool] = field(default_factory=dict)
    config: str = ""

    def save(self, descriptor: int) -> None:
        """Write it, in place of what was there."""
        text = json.dumps(asdict(self)).encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))

    @classmethod
    def load(cls, descriptor: int) -> State:
        """
        Raises:
            ValueError: it is not what a holder writes.
        """
        found = json.loads(os.pread(descriptor, _MAX_STATE_BYTES, 0))
        # A holder of an earlier version wrote less.
        return cls(**{"mountpoint": "", "cache": "", **found})


@dataclass(frozen=True, slots=True)
class Running:
    """A holder that runs. `owner` is the user of its process, which the kernel says; the rest is
    what the process says."""

    pid: int
    owner: int
    mountpoint: Path
    cache: Path
    connection: int
    config: Path

    @property
    def workers(self) -> list[int]:
        """Its worker, or none while that is being replaced."""
        return workers_of(self.pid)


def workers_of(holder: int) -> list[int]:
    """The processes of this program that the holder started."""
    processes = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in processes if _parent(pid) == holder and _is_ours(pid)]


def running() -> list[Running]:
    """The holders that this user may look into."""
    found = (_running(int(path.name)) for path in Path("/proc").glob("[0-9]*"))
    return [holder for holder in found if holder is not None]


def holder_of(mount: Mount) -> Running | None:
    """The holder of the mount's connection; one of another user than its owner is not believed.

    The number may have been that of an earlier mount, whose holder has not noticed its end yet.
    """
    found = [
        holder
        for holder in running()
        if holder.connection == mount.connection and holder.owner == mount.owner
    ]
    found.sort(key=lambda holder: holder.mountpoint != mount.mountpoint)
    return next(iter(found), None)


def holder_at(mountpoint: Path) -> Running | None:
    """The holder whose mount is, or was, at `mountpoint`."""
    found = [holder for holder in running() if holder.mountpoint == mountpoint]
    own = [holder for holder in found if holder.owner == os.geteuid()]
    return next(iter(own or found), None)


def serving(mount: Mount) -> list[int]:
    """The processes of the mount: holder and worker. Empty if this user may not look into them."""
    holder = holder_of(mount)
    return [holder.pid, *holder.workers] if holder else []


def _running(pid: int) -> Running | None:
    with suppress(OSError, ValueError, TypeError):  # it has ended, or is closed to this user
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
    """Whether it runs this program. systemd keeps the same descriptors, and is not meant."""
    with suppress(OSError):
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


def silence(holder: int | None) -> tuple[str, str]:
    """Why a mount does not answer, and what to do about it; `holder` is its process if known."""
    if holder is None:
        return "the mount does not answer", "see axonfs doctor"
    worker = next(iter(workers_of(holder)), None)
    for name, pid in (("holder", holder), ("worker", worker)):
        if pid is not None and _state_of(pid) == "stopped":
            return f"the mount's {name} (pid {pid}) is stopped", f"kill -CONT {pid} continues it"
    if worker is None:
        return f"the mount (pid {holder}) has no worker now", "wait a moment: it starts another one"
    what = f"the mount's worker (pid {worker}) does not answer: it is {_state_of(worker)}"
    return what, f"kill -KILL {worker} has another one take over, and readers see a pause"
