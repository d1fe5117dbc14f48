"""Taking a mount away: the polite way, and by force.

Blocking. Never touches the mounted tree itself: a wedged one would hold this process too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from axonfs.cli.mounts import Health, health
from axonfs.connection import detach
from axonfs.connection.mountinfo import Mount, owned, serving
from axonfs.errors import AxonError, BusyError

CONNECTIONS = Path("/sys/fs/fuse/connections")
# The worker flushes its index and ends; a cache on a slow disk takes a moment.
END_TIMEOUT = 20.0
RESTART_TIMEOUT = 60.0


def unmount(mount: Mount, *, force: bool) -> None:
    """Unmount, and return when holder and worker have ended.

    Raises:
        BusyError: somebody uses it; the message says how to see who.
    """
    with _watched(_processes(mount)) as descriptors:
        if force:
            abort(mount)
        complaint = detach(mount.mountpoint, lazy=force)
        if complaint:
            raise _failure(mount.mountpoint, complaint)
        if force:
            _send(descriptors, signal.SIGCONT)  # one that was stopped ends as well
        if _ended(descriptors, END_TIMEOUT):
            return
        if force:
            _send(descriptors, signal.SIGKILL)
        if not (force and _ended(descriptors, END_TIMEOUT)):
            raise AxonError(
                f"it is unmounted, but its process has not ended within {END_TIMEOUT:.0f} s",
                hint="see the mount's log with axonfs doctor",
            )


def _processes(mount: Mount) -> list[int]:
    """Holder and worker, as the kernel names them, else as the mount does."""
    if found := serving(mount):
        return found
    pid = health(mount).pid
    return [pid] if pid is not None and owned(pid, mount) else []


def restart(mount: Mount) -> int:
    """Have the mount's processes replaced; the new worker's pid once it answers.

    Raises:
        AxonError: it does not answer, or not again.
    """
    before = health(mount)
    worker = _worker_of(before)
    if before.pid is None or worker is None or not owned(before.pid, mount):
        hint = f"axonfs umount --force {mount.mountpoint}"
        raise AxonError("the mount does not answer", path=str(mount.mountpoint), hint=hint)
    os.kill(before.pid, signal.SIGHUP)
    deadline = time.monotonic() + RESTART_TIMEOUT
    while (now := _worker_of(health(mount, deadline - time.monotonic()))) in (None, worker):
        if time.monotonic() > deadline:
            raise AxonError(
                f"no new worker answers within {RESTART_TIMEOUT:.0f} s",
                path=str(mount.mountpoint),
                hint="see the mount's log",
            )
        time.sleep(0.05)  # the old worker may answer until it ends
    assert now is not None
    return now


def _worker_of(state: Health) -> int | None:
    worker = state.status.get("worker")
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


def abort(mount: Mount) -> None:
    """End the FUSE connection, so that whoever waits for an answer gets an error now.

    Containers often lack the control file system: root mounts it where it belongs. Without it
    there is the lazy unmount alone, which frees all but those who are waiting already.
    """
    control = CONNECTIONS / str(mount.connection) / "abort"
    if not control.exists() and os.geteuid() == 0:
        mounting = ["mount", "-t", "fusectl", "fusectl", str(CONNECTIONS)]
        subprocess.run(mounting, capture_output=True, check=False)
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
