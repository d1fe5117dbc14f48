"""The keeper: runs a holder, and has copies of its descriptors, so that the mount outlives it.

For a container, where no systemd keeps descriptors. To the holder the keeper is what systemd is
to a service: it takes what the holder has it store, and gives it to the next holder if one dies.
A guard (kept.py) in another container has the same copies, for the case that keeper and holder
die together. Only one keeper of a cache works at a time; the next one waits for its end, so it
may be started before. Like the holder it imports neither pyfuse3 nor trio. Blocking; main thread
only.

SIGTERM ends keeper, holder and worker, and leaves the mount to the guard, if one has the copies;
else, and at SIGINT, the holder unmounts. SIGHUP goes to the holder, which then starts the
installed version.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from axonfs import rundir
from axonfs.daemon.holder import LASTING, STOPPING, backoff
from axonfs.daemon.holders import State
from axonfs.daemon.kept import Guarded, Kept, name_process
from axonfs.daemon.possessions import ADOPT
from axonfs.errors import UsageError
from axonfs.names import printable

log = logging.getLogger(__name__)

LOCK = Path(rundir.RUN, "keeper.lock")
NOTIFY = Path(rundir.RUN, "keeper.notify")
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
# Seconds between two looks for a guard while there is none.
AGAIN = 0.5
# Seconds for a guard to come back before SIGTERM unmounts: its container may be replaced just then.
GRACE = 20.0
# Seconds for a holder to unmount, and for what is left of one that was killed to end.
END_SECONDS = 60.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None)


def keep(cache: Path, command: list[str], guard: Path) -> int:
    """Have `command`, which starts a holder in the foreground, serve the mount; the exit code.

    Args:
        guard: the socket of the guard.
    """
    name_process()
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    rundir.prepare(cache)
    wakeup, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in HEEDED:
        signal.signal(number, lambda number, frame: None)
    lock = _take_turn(cache, wakeup)
    return Keeper(cache, command, Guarded(guard), wakeup, lock).run() if lock is not None else 0


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _take_turn(cache: Path, wakeup: int) -> int | None:
    """Wait until no other keeper of this cache works, and no holder of an earlier one.

    Returns:
        The lock's descriptor; None if a signal ends this keeper meanwhile.
    """
    lock = os.open(cache / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    waiting = False
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        if not waiting:
            log.info("another keeper has the mount; waiting for its end")
            waiting = True
        if STOPPING & _arrived(wakeup, 0.1):
            return None


def _bury(holder: int) -> None:
    """Wait for children that have ended, but the holder. A container's first process gets those
    whose parents have ended, such as what a probe left when its time was over."""
    while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if found.si_pid == holder:
            return
        os.waitpid(found.si_pid, 0)


def _arrived(wakeup: int, seconds: float) -> set[int]:
    """The signals that arrived, or that arrive within `seconds`."""
    if not select.select([wakeup], [], [], seconds)[0]:
        return set()
    return set(os.read(wakeup, 4096))


class Keeper:
    """Keeps a holder running; `run` returns when the mount has ended or is left to the guard."""

    def __init__(
        self, cache: Path, command: list[str], guard: Guarded, wakeup: int, lock: int
    ) -> None:
        self._cache = cache
        self._command = command
        self._guard = guard
        self._wakeup = wakeup
        self._lock = lock
        self._kept = Kept()
        self._guarded = False  # whether the guard has what `_kept` has
        self._answered = False
        self._ending = False
        self._late: set[int] = set()  # signals that arrived while no holder ran
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._place = cache / NOTIFY
        self._place.unlink(missing_ok=True)
        with rundir.reachable(self._place) as address:
            self._notified.bind(address)
        self._notified.setblocking(False)

    def run(self) -> int:
        """Start a holder, and replace it whenever it is killed."""
        self._inherit()
        brief = 0
        while True:
            started = time.monotonic()
            holder = self._start()
            code = self._watch(holder)
            self._reap()
            self._hear()
            if self._ending or code == 0:
                if not self._kept.alive:  # it was unmounted
                    self._forget()
                return 0
            if not self._answered:
                return code if code > 0 else 1
            brief = 0 if time.monotonic() - started > LASTING else brief + 1
            log.warning("the holder ended with %d; starting the next", code)
            if not self._kept.alive:  # nothing to continue with: the next one mounts anew
                self._forget()
            if self._stopped_within(backoff(brief)):
                return 0

    def _inherit(self) -> None:
        """Take the guard's copies, if the mount still lives.

        Raises:
            UsageError: they are of another mount.
        """
        self._kept = Kept(self._guard.get())
        if self._kept.alive:
            self._check_ours(self._kept.descriptors)
            self._answered = self._guarded = True
            log.info("continuing the mount of an earlier keeper")
        else:
            self._forget()

    def _check_ours(self, kept: Mapping[str, int]) -> None:
        if rundir.is_lock(kept["lock"], self._cache):
            return
        with suppress(OSError, ValueError, TypeError):
            other = State.load(kept["state"])
            if other.cache != str(self._cache):  # else its lock was only removed
                what = f"the guard keeps the mount at {printable(other.mountpoint)}"
                raise UsageError(what, hint="give each mount a guard, and so a plugin, of its own")

    def _forget(self) -> None:
        self._kept.clear()
        self._guard.drop()
        self._guarded = False

    def _start(self) -> subprocess.Popen[bytes]:
        kept = self._kept.descriptors
        environment = {**os.environ, "NOTIFY_SOCKET": str(self._place)}
        if kept:
            environment[ADOPT] = json.dumps(kept)
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            env=environment,
            # The lock too: no other keeper starts a holder while this one's lives.
            pass_fds=[self._lock, *kept.values()],
            preexec_fn=die_with_parent,
        )

    def _watch(self, holder: subprocess.Popen[bytes]) -> int:
        """Wait for the holder's end; its exit code, negative after a signal."""
        while (code := holder.poll()) is None:
            waited = [self._wakeup, self._notified.fileno()]
            if (connection := self._guard.connection) is not None:
                waited.append(connection.fileno())
            ready, _, _ = select.select(waited, [], [], None if self._guarded else AGAIN)
            if waited[2:] and waited[2] in ready:  # it says nothing unasked, so it has ended
                self._guard.close()
                self._guarded = False
            self._hear()
            self._share()
            _bury(holder.pid)
            if self._wakeup in ready:
                self._heed(_arrived(self._wakeup, 0), holder)
        return code

    def _hear(self) -> None:
        """Take what the holder has this process store."""
        for state, numbers in self._notifications():
            name = state.get("FDNAME", "")
            if state.get("FDSTORE") and numbers:
                self._kept.put(name, numbers.pop())
                self._guarded = False
            elif state.get("FDSTOREREMOVE"):
                self._kept.drop(name)
                self._guarded = False
            self._answered |= bool(state.get("READY"))
            for number in numbers:
                os.close(number)

    def _notifications(self) -> Iterator[tuple[dict[str, str], list[int]]]:
        while True:
            try:
                text, numbers, _, _ = socket.recv_fds(
                    self._notified, 4096, 4, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            lines = text.decode(errors="replace").splitlines()
            yield dict(line.split("=", 1) for line in lines if "=" in line), numbers

    def _share(self) -> None:
        """Give the guard what it lacks."""
        if self._guarded or not self._answered:
            return
        if self._kept.whole:
            self._guarded = self._guard.put(self._kept.descriptors)
            if self._guarded:
                log.info("the guard has the mount's descriptors")

    def _heed(self, signals: set[int], holder: subprocess.Popen[bytes]) -> None:
        if signal.SIGHUP in signals:
            holder.send_signal(signal.SIGHUP)
        if signal.SIGINT in signals or (signal.SIGTERM in signals and not self._left(holder)):
            self._ending = True
            holder.send_signal(signal.SIGTERM)

    def _left(self, holder: subprocess.Popen[bytes]) -> bool:
        """Leave the mount to the guard; false if none comes."""
        until = time.monotonic() + GRACE
        if not self._guarded:
            log.info("waiting for a guard to leave the mount to")
        # Asked even if it has them: a guard that has just ended has nothing.
        while not (self._kept.alive and self._guard.put(self._kept.descriptors, last=True)):
            self._guard.close()  # it may have been replaced by another
            stopped = STOPPING & _arrived(self._wakeup, AGAIN)
            if stopped or not self._kept.alive or time.monotonic() > until:
                return False
        log.info("leaving the mount to the guard")
        self._ending = True
        holder.kill()
        return True

    def _reap(self) -> None:
        """Wait until the holder's worker has ended, which dies with it."""
        until = time.monotonic() + END_SECONDS
        while time.monotonic() < until:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                self._late |= _arrived(self._wakeup, 0.05)

    def _stopped_within(self, seconds: float) -> bool:
        """Pause before the next holder; whether a signal says that there is to be none."""
        until = time.monotonic() + seconds
        while not STOPPING & self._late and (left := until - time.monotonic()) > 0:
            self._late |= _arrived(self._wakeup, left)
        return bool(STOPPING & self._late)
