"""Unmounts, ordinarily or by force, and restarts the processes of a mount.

Blocking. Never accesses the mounted tree itself: if the mount does not answer, this process would
hang too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axonfs.client.health import health
from axonfs.connection import release, release_at, release_dead
from axonfs.connection.mountinfo import Mount, axonfs_at, elsewhere, places_of
from axonfs.connection.mounting import run_helper
from axonfs.daemon.holders import Running, holder_at, holder_of, running, silence
from axonfs.errors import AxonError, BusyError
from axonfs.names import word

CONNECTIONS = Path("/sys/fs/fuse/connections")
# Seconds for the worker to flush its index and end, even if the cache is on a slow disk.
END_TIMEOUT = 20.0
RESTART_TIMEOUT = 60.0
# Seconds for a worker to end after its connection has ended, which the holder notices at once.
MOMENT = 3.0


@dataclass(frozen=True, slots=True)
class UnmountTarget:
    """What to unmount: a mountpoint, the FUSE connection that is or was there, and its holder.

    `holder` is None if the connection has no process any more, or if this user may not inspect it.
    """

    place: Path
    connection: int
    holder: Running | None

    @classmethod
    def at(cls, place: Path) -> UnmountTarget:
        """Find what is mounted at `place`.

        Raises:
            AxonError: no AxonFS is mounted there, and no holder of an earlier mount there runs.
        """
        if (mount := axonfs_at(place)) is not None:
            return cls(place, mount.connection, holder_of(mount))
        if (holder := holder_at(place)) is not None:
            return cls(place, holder.connection, holder)
        raise AxonError("no AxonFS is mounted there", path=str(place), hint="see axonfs status")

    @property
    def processes(self) -> list[int]:
        return [self.holder.pid, *self.holder.workers] if self.holder else []

    def others(self) -> list[str]:
        """Every other place where it is still mounted, for messages."""
        found = [*places_of(self.connection), *elsewhere(self.connection)]
        return [str(place) for place in found]


def unmount(place: Path, *, force: bool) -> list[str]:
    """Unmount, and wait until holder and worker have ended; return remarks for the user.

    Raises:
        BusyError: it is in use; the message says where, or how to see by which processes.
    """
    target = UnmountTarget.at(place)
    with _watched(target.processes) as descriptors:
        if _is_bind(target):
            return _detach_bind(target, lazy=force)
        return _by_force(target, descriptors) if force else _politely(target, descriptors)


def _is_bind(target: UnmountTarget) -> bool:
    """Whether the place is a bind mount: the mount itself is elsewhere and would stay there."""
    home = target.holder.mountpoint if target.holder else target.place
    return home != target.place and home in places_of(target.connection)


def _detach_bind(target: UnmountTarget, *, lazy: bool) -> list[str]:
    if complaint := release_at(target.place, target.connection, lazy=lazy):
        raise _failure(target.place, complaint)
    assert target.holder is not None
    return [f"the mount stays at {target.holder.mountpoint}"]


def _politely(target: UnmountTarget, descriptors: list[int]) -> list[str]:
    if axonfs_at(target.place) is None:  # only its holder is left, and may be ending
        if _ended(descriptors, MOMENT):
            return []
        raise _kept(target, "it is not mounted there any more")
    if complaint := release_at(target.place, target.connection):
        raise _failure(target.place, complaint)
    if target.others():
        raise _kept(target, "it is unmounted there")
    if not _ended(descriptors, END_TIMEOUT):
        raise _lingering(target, "it is unmounted")
    return []


def await_ended(cache: Path) -> None:
    """Wait for the processes of a mount that was just unmounted, say by umount(8): until they have
    ended they keep the cache."""
    for holder in running():
        if holder.cache == cache and holder.mountpoint not in places_of(holder.connection):
            with _watched([holder.pid]) as descriptors:
                if not elsewhere(holder.connection):
                    _ended(descriptors, END_TIMEOUT)


def _kept(target: UnmountTarget, what: str) -> BusyError:
    """Why the holder of a mount keeps running without its mountpoint, and how to end it."""
    others, hint = target.others(), f"axonfs umount --force {word(target.place)} ends it"
    why = f"the same mount is at {', and at '.join(others)}" if others else "it is still in use"
    if others:
        hint = f"unmount that too, or {hint}"
    if (holder := target.holder) is not None:
        what += f", but process {holder.pid} still runs and uses the cache {holder.cache}"
    return BusyError(f"{what}, because {why}", path=str(target.place), hint=hint)


def _lingering(target: UnmountTarget, what: str) -> AxonError:
    """The error if a process of the mount does not end in time."""
    pid = target.holder.pid if target.holder else None
    why, hint = silence(pid)
    what = f"{what}, but process {pid} has not ended within {END_TIMEOUT:.0f} s: {why}"
    return AxonError(what, path=str(target.place), hint=hint)


def _by_force(target: UnmountTarget, descriptors: list[int]) -> list[str]:
    complaint, mounted = None, axonfs_at(target.place) is not None
    if mounted:  # else the kernel may have given the number to another mount
        _abort(target.connection)
        complaint = release(target.connection, lazy=True)
    _send(descriptors, signal.SIGCONT)  # a stopped process has to run to end
    # The holder may not notice that its connection has ended. If the connection could not be ended,
    # the worker would keep running for open files.
    _send(descriptors[:1] if mounted else descriptors, signal.SIGTERM)
    if not _ended(descriptors, END_TIMEOUT):
        _send(descriptors, signal.SIGKILL)
        if not _ended(descriptors, END_TIMEOUT):
            raise _lingering(target, "it is unmounted by force")
    complaint = release_dead(target.connection) or complaint
    if complaint is not None:
        raise _failure(target.place, f"its processes have ended, but {complaint}")
    return [f"the mount left at {other} has no process any more" for other in target.others()]


def restart(mount: Mount) -> dict[str, Any]:
    """Restart the mount's processes; return the status of the new worker once it answers.

    Raises:
        AxonError: the mount does not answer, or the new worker does not.
    """
    status = health(mount).status
    holder, worker = _keeper_of(mount, status), _worker_of(status)
    if holder is None or worker is None:
        what, hint = silence(holder)
        raise AxonError(what, path=str(mount.mountpoint), hint=hint)
    os.kill(holder, signal.SIGHUP)
    deadline = time.monotonic() + RESTART_TIMEOUT
    while time.monotonic() < deadline:
        status = health(mount, deadline - time.monotonic()).status
        if _worker_of(status) not in (None, worker):
            return status
        time.sleep(0.05)  # the old worker may answer until it ends
    what = f"no new worker answered within {RESTART_TIMEOUT:.0f} s"
    raise AxonError(what, path=str(mount.mountpoint), hint="see the mount's log")


def _keeper_of(mount: Mount, status: dict[str, Any]) -> int | None:
    """The pid of the mount's holder.

    A holder of an earlier version does not record its connection; then the mount's status has the
    pid.
    """
    if (holder := holder_of(mount)) is not None:
        return holder.pid
    earlier = [one.pid for one in running() if one.connection < 0 and one.owner == mount.owner]
    return next((pid for pid in earlier if pid == status.get("pid")), None)


def _worker_of(status: dict[str, Any]) -> int | None:
    worker = status.get("worker")
    pid = worker.get("pid") if isinstance(worker, dict) else None
    return pid if isinstance(pid, int) else None


def _failure(mountpoint: Path, complaint: str) -> AxonError:
    if "busy" in complaint:
        by_whom = f"fuser -vm {word(mountpoint)} shows by which processes"
        hint = f"{by_whom}; --force unmounts it anyway"
        return BusyError("it is in use", path=str(mountpoint), hint=hint)
    return AxonError(f"cannot be unmounted: {complaint}", path=str(mountpoint))


def _abort(connection: int) -> None:
    """Abort a FUSE connection, so that processes that wait for an answer get an error now.

    Containers often lack the control file system: root mounts it at its usual place. Without it
    only the lazy unmount is left, which does not help processes that already wait.
    """
    control = CONNECTIONS / str(connection) / "abort"
    if not control.exists() and os.geteuid() == 0:
        run_helper(["mount", "-t", "fusectl", "fusectl", str(CONNECTIONS)])
    with contextlib.suppress(OSError):
        control.write_text("1")


@contextlib.contextmanager
def _watched(pids: list[int]) -> Iterator[list[int]]:
    """A pidfd for each process, opened before the unmount, so that a reused pid does no harm."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(pid))
                stack.callback(os.close, descriptors[-1])
        yield descriptors


def _send(descriptors: list[int], number: signal.Signals) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(descriptor, number)


def _ended(descriptors: list[int], seconds: float) -> bool:
    """Whether all processes end within `seconds`."""
    until = time.monotonic() + seconds
    return all(
        select.select([descriptor], [], [], max(until - time.monotonic(), 0))[0]
        for descriptor in descriptors
    )
