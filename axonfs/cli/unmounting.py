"""Taking a mount away: the polite way, and by force. Also replacing its processes.

Blocking. Never touches the mounted tree itself: a wedged one would hold this process too.
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

CONNECTIONS = Path("/sys/fs/fuse/connections")
# The worker flushes its index and ends; a cache on a slow disk takes a moment.
END_TIMEOUT = 20.0
RESTART_TIMEOUT = 60.0
# A holder sees at once that its connection has ended; its worker takes a moment to end.
MOMENT = 3.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be taken away: a place, the connection that is or was mounted there, and who
    keeps that; None where it has no process any more, or one that this user may not look into."""

    place: Path
    connection: int
    holder: Running | None

    @classmethod
    def at(cls, place: Path) -> Target:
        """
        Raises:
            AxonError: no AxonFS is mounted there, and no process keeps one that was.
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
        """Every other place where it is still mounted, in words."""
        found = [*places_of(self.connection), *elsewhere(self.connection)]
        return [str(place) for place in found]


def unmount(place: Path, *, force: bool) -> list[str]:
    """Unmount, and return when holder and worker have ended; what else is to be said.

    Raises:
        BusyError: it is in use; the message says where, or how to see by whom.
    """
    target = Target.at(place)
    with _watched(target.processes) as descriptors:
        if _is_bind(target):
            return _detach_bind(target, lazy=force)
        return _by_force(target, descriptors) if force else _politely(target, descriptors)


def _is_bind(target: Target) -> bool:
    """Whether it is mounted where its holder mounted it as well, and so goes on there."""
    home = target.holder.mountpoint if target.holder else target.place
    return home != target.place and home in places_of(target.connection)


def _detach_bind(target: Target, *, lazy: bool) -> list[str]:
    if complaint := release_at(target.place, target.connection, lazy=lazy):
        raise _failure(target.place, complaint)
    assert target.holder is not None
    return [f"the mount goes on at {target.holder.mountpoint}"]


def _politely(target: Target, descriptors: list[int]) -> list[str]:
    if axonfs_at(target.place) is None:  # only its holder is left of it, and may be ending
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


def _kept(target: Target, what: str) -> BusyError:
    """Why the process of a mount goes on without its mountpoint, and how to end it."""
    others, hint = target.others(), f"axonfs umount --force {target.place} ends it"
    why = f"the same mount is at {', and at '.join(others)}" if others else "it is still in use"
    if others:
        hint = f"unmount that too, or {hint}"
    if (holder := target.holder) is not None:
        what += f", but process {holder.pid} goes on and has the cache {holder.cache}"
    return BusyError(f"{what}, since {why}", path=str(target.place), hint=hint)


def _lingering(target: Target, what: str) -> AxonError:
    """A process does not end although nothing keeps it."""
    pid = target.holder.pid if target.holder else None
    why, hint = silence(pid)
    what = f"{what}, but process {pid} has not ended within {END_TIMEOUT:.0f} s: {why}"
    return AxonError(what, path=str(target.place), hint=hint)


def _by_force(target: Target, descriptors: list[int]) -> list[str]:
    complaint, mounted = None, axonfs_at(target.place) is not None
    if mounted:  # else the number may be another mount's by now
        _abort(target.connection)
        complaint = release(target.connection, lazy=True)
    _send(descriptors, signal.SIGCONT)  # one that was stopped ends as well
    # The holder may not see that its connection has ended. Where the connection could not be ended,
    # the worker would go on for files that are open.
    _send(descriptors[:1] if mounted else descriptors, signal.SIGTERM)
    if not _ended(descriptors, END_TIMEOUT):
        _send(descriptors, signal.SIGKILL)
        if not _ended(descriptors, END_TIMEOUT):
            raise _lingering(target, "it is taken away")
    complaint = release_dead(target.connection) or complaint
    if complaint is not None:
        raise _failure(target.place, f"its processes have ended, but {complaint}")
    return [f"what is left at {other} has no process any more" for other in target.others()]


def restart(mount: Mount) -> dict[str, Any]:
    """Have the mount's processes replaced; the state of the new worker once it answers.

    Raises:
        AxonError: it does not answer, or not again.
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
    what = f"no new worker answers within {RESTART_TIMEOUT:.0f} s"
    raise AxonError(what, path=str(mount.mountpoint), hint="see the mount's log")


def _keeper_of(mount: Mount, status: dict[str, Any]) -> int | None:
    """The pid of the mount's holder. One of an earlier version does not say which connection it
    has; then the mount says which of those it is."""
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
        return BusyError(
            "it is in use",
            path=str(mountpoint),
            hint=f"see by whom with fuser -vm {mountpoint}, or take it away with --force",
        )
    return AxonError(f"cannot be unmounted: {complaint}", path=str(mountpoint))


def _abort(connection: int) -> None:
    """End a FUSE connection, so that a process that waits for an answer gets an error now.

    Containers often lack the control file system: root mounts it where it belongs. Without it
    there is the lazy unmount alone, which frees all but those that wait already.
    """
    control = CONNECTIONS / str(connection) / "abort"
    if not control.exists() and os.geteuid() == 0:
        run_helper(["mount", "-t", "fusectl", "fusectl", str(CONNECTIONS)])
    with contextlib.suppress(OSError):
        control.write_text("1")


@contextlib.contextmanager
def _watched(pids: list[int]) -> Iterator[list[int]]:
    """A pidfd of each, from before the unmount: a reused pid cannot be taken for one of them."""
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
    """Whether all processes end within so many seconds."""
    until = time.monotonic() + seconds
    return all(
        select.select([descriptor], [], [], max(until - time.monotonic(), 0))[0]
        for descriptor in descriptors
    )
