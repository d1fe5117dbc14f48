"""Checks whether the AxonFS mounts of this machine answer.

A process that accesses a mount whose worker is gone or stuck may hang in an uninterruptible sleep.
So this process never accesses a mount: a child process does, and is abandoned if it hangs.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axonfs.client.apart import run_apart
from axonfs.connection.mountinfo import Mount, mounts
from axonfs.connection.mounting import DEAD

STATUS_PATH = Path(".axonfs", "status.json")
# Seconds to wait for an answer. Even a busy worker answers within a few milliseconds.
PATIENCE = 3.0
_MAX_STATUS_BYTES = 16 << 20
_MAX_STEPS = 4096


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a mount answers, and its status if it does.

    `state` is alive, dead (its process ended), wedged (no answer), or closed (to this user).
    """

    state: str
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int | None:
        """The pid in the mount's status; None if it has none."""
        pid = self.status.get("pid")
        return pid if isinstance(pid, int) and pid > 0 else None


def mount_at(mountpoint: Path) -> Mount | None:
    """The mount at exactly this path, which is not accessed."""
    place = real_path(mountpoint)
    return next((mount for mount in mounts() if mount.mountpoint == place), None)


def real_path(mountpoint: Path) -> Path:
    """Like os.path.realpath, but without accessing paths inside a mount, which may not answer."""
    places = {mount.mountpoint for mount in mounts()}
    path, rest = Path("/"), list(Path(os.path.abspath(mountpoint)).parts[1:])
    for _ in range(_MAX_STEPS):
        if not rest or path in places:
            return path.joinpath(*rest)
        name = rest.pop(0)
        target = _link(path / name) if path / name not in places else None
        if target is None:
            path = path.parent if name == ".." else path / name
        else:
            path = Path("/") if target.is_absolute() else path
            rest = [part for part in target.parts if part != "/"] + rest
    return path.joinpath(*rest)  # the links form a loop


def _link(path: Path) -> Path | None:
    try:
        return Path(os.readlink(path))
    except OSError:
        return None


def health(mount: Mount, patience: float = PATIENCE) -> Health:
    """Read the mount's status file within `patience` seconds."""
    path = str(mount.mountpoint / STATUS_PATH)
    env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    answer = run_apart(["cat", "--", path], patience, _MAX_STATUS_BYTES, env)
    try:
        document = json.loads(answer.out)
    except (ValueError, RecursionError):  # it may be another user's mount
        return Health("wedged" if answer.code is None else _state_of(answer.err))
    return Health("alive", document if isinstance(document, dict) else {})


def _state_of(complaint: bytes) -> str:
    if any(os.strerror(code).encode() in complaint for code in DEAD):
        return "dead"
    return "closed" if os.strerror(errno.EACCES).encode() in complaint else "wedged"
