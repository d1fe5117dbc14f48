"""The holder: owns the FUSE connection and keeps a worker running that serves it.

Beside mount, which is the worker. It holds what must outlive a worker: the connection, the cache's
lock, the control socket and the journal. A worker that dies is replaced and has the kernel send
again what it left unanswered; a reader sees a pause. Imports neither pyfuse3 nor trio: it is small,
does next to nothing, and so has no reason to die.

SIGTERM and SIGINT unmount, lazily after a grace period. SIGHUP replaces the worker and this program
itself by what is installed now; the mount stays. Blocking; main thread.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axonfs import rundir, systemd
from axonfs.connection import claimed, connect, detach, parse_offer
from axonfs.connection.handshake import READ_BYTES
from axonfs.connection.held import DONE, NO_HANDSHAKE, REPLACE, VARIABLE, Held
from axonfs.errors import UnsupportedError

log = logging.getLogger(__name__)

STOPPING = {signal.SIGTERM, signal.SIGINT}
HEEDED = {*STOPPING, signal.SIGHUP}
# Readers get so long to let go before the mount is taken from below them, in seconds.
GRACE = 5.0
# A worker that flushes its index to a slow disk takes a moment to end.
END_SECONDS = 15.0
# The pause before a worker is replaced: none at first, doubling while workers do not last.
BACKOFF_MIN, BACKOFF_MAX = 0.25, 30.0
LASTING = 60.0
# After so long without a worker that answers, readers get an error rather than wait on.
GIVE_UP = 300.0
KEPT_ENDS = 20
_ADOPT = "AXONFS_ADOPT"


@dataclass(slots=True)
class Possessions:
    """What outlives a worker: descriptors, and the kernel's INIT message.

    `state` is a file in memory with what is no descriptor, so that all of it can be kept by others.
    """

    lock: int
    control: int
    journal: int
    state: int
    device: int = -1
    init: bytes = b""
    plain: str | None = None
    answered: bool = False

    NAMES = ("lock", "control", "journal", "state", "device")

    @property
    def descriptors(self) -> dict[str, int]:
        found = {name: getattr(self, name) for name in self.NAMES}
        return {name: number for name, number in found.items() if number >= 0}

    def save(self) -> None:
        """Write what is no descriptor to `state`."""
        text = json.dumps({"init": self.init.hex(), "plain": self.plain})
        os.pwrite(self.state, text.encode(), 0)

    @classmethod
    def adopt(cls, descriptors: dict[str, int]) -> Possessions:
        """What a holder before this one had."""
        text = os.pread(descriptors["state"], 1 << 20, 0)
        saved = json.loads(text)
        return cls(
            **descriptors, init=bytes.fromhex(saved["init"]), plain=saved["plain"], answered=True
        )


def hold(
    command: list[str],
    cache: Path,
    mountpoint: Path,
    *,
    allow_other: bool,
    ready: Callable[[], None],
) -> int:
    """Mount at `mountpoint` and have `command` serve it until it is unmounted; the exit code.

    Args:
        command: starts a worker.
        ready: called once the mount answers.

    Raises:
        AxonError: it cannot be mounted; nothing is left behind.
    """
    # Whoever stops it meanwhile is heard once there is a mount to take away.
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    found = _inherited()
    if {"lock", "control", "journal", "state", "device"} <= set(found):
        possessions = Possessions.adopt(found)
        log.info("going on with the mount at %s", mountpoint)
    else:
        possessions = _acquire(cache, mountpoint, allow_other=allow_other)
    return Holder(possessions, command, cache, mountpoint, ready).run()


def adopting() -> bool:
    """Whether this program goes on with a mount, rather than make one."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    return _ADOPT in os.environ or "device" in names


def _inherited() -> dict[str, int]:
    """Descriptors from before this program was replaced, or that systemd kept."""
    text = os.environ.pop(_ADOPT, "")
    found: dict[str, int] = json.loads(text) if text else {}
    for descriptor in found.values():
        os.set_inheritable(descriptor, False)
    return found or systemd.stored()


def _acquire(cache: Path, mountpoint: Path, *, allow_other: bool) -> Possessions:
    rundir.prepare(cache)
    lock = rundir.take_lock(cache)
    journal, state = (os.memfd_create(f"axonfs-{name}") for name in ("journal", "state"))
    control = rundir.listen(cache).detach()
    possessions = Possessions(lock, control, journal, state)
    with claimed(mountpoint):
        device = connect(mountpoint, allow_other=allow_other)
    try:
        possessions.init = os.read(device, READ_BYTES)
        parse_offer(possessions.init)
        possessions.device = device
    except (OSError, ValueError) as exc:
        os.close(device)
        detach(mountpoint, lazy=True)
        possessions.plain = str(exc)
    possessions.save()
    return possessions


@dataclass(slots=True)
class Worker:
    """One worker process, when it was started, and whether it got as far as to answer."""

    process: subprocess.Popen[bytes]
    pidfd: int
    ready: int
    started: float = field(default_factory=time.monotonic)
    answered: bool = False

    def patience(self) -> int | None:
        """Milliseconds that it is still given to answer for the first time; None once it has."""
        return None if self.answered else int(GIVE_UP * 1000)

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within so many seconds."""
        return bool(select.select([self.pidfd], [], [], seconds)[0])

    def reap(self) -> int:
        """Its exit code, after its end; lets go of its descriptors."""
        code = self.process.wait()
        os.close(self.pidfd)
        if self.ready >= 0:
            os.close(self.ready)
        return code


class Holder:
    """Keeps a worker running; `run` returns when the mount is over."""

    def __init__(
        self,
        possessions: Possessions,
        command: list[str],
        cache: Path,
        mountpoint: Path,
        ready: Callable[[], None],
    ) -> None:
        self._possessions = possessions
        self._socket = cache / rundir.SOCKET
        self._command = command
        self._mountpoint = mountpoint
        self._announce = ready
        self._ends: list[dict[str, Any]] = []
        self._brief = 0  # workers in a row that did not last
        self._answered_at = time.monotonic()
        self._signals: list[int] = []

    def run(self) -> int:
        """Start a worker, replace it whenever it ends, unmount when asked to."""
        wakeup, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in HEEDED:
            signal.signal(number, lambda number, frame: self._signals.append(number))
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
        try:
            return self._keep(wakeup)
        finally:
            signal.set_wakeup_fd(-1)
            self._leave()

    def _keep(self, wakeup: int) -> int:
        while True:
            worker = self._start()
            code = self._watch(worker, wakeup)
            if code is None:
                self._unmount(worker)
                return 0
            if code == DONE or self._gone():
                return 0
            if code == REPLACE and self._possessions.plain is None:
                self._replace_program()
            elif self._possessions.answered:
                if not self._go_on(worker, code, wakeup):
                    return 0 if STOPPING & set(self._signals) else 1
            elif code == NO_HANDSHAKE and self._possessions.plain is None:
                self._fall_back()
            else:
                return code if code > 0 else 1

    def _gone(self) -> bool:
        """Whether the connection has ended: there is nothing left for a worker to serve."""
        if self._possessions.device < 0:
            return False
        device = select.poll()
        device.register(self._possessions.device, 0)  # POLLERR is always reported
        return bool(device.poll(0))

    def _start(self) -> Worker:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        mine = self._possessions
        held = Held(
            holder=os.getpid(),
            lock=mine.lock,
            control=mine.control,
            journal=mine.journal,
            ready=write_end,
            device=mine.device,
            init=mine.init,
            first=not mine.answered,
            plain=mine.plain,
            ends=self._ends,
        )
        # The worker takes SIGHUP when it can; until then it would be the end of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, VARIABLE: held.encode()},
                pass_fds=held.descriptors,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            os.close(write_end)
        return Worker(process, os.pidfd_open(process.pid), read_end)

    def _watch(self, worker: Worker, wakeup: int) -> int | None:
        """Wait for the worker's end; its exit code, None if the mount is to be left before."""
        poll = select.poll()
        for descriptor in (wakeup, worker.pidfd, worker.ready):
            poll.register(descriptor, select.POLLIN)
        while True:
            events = {descriptor for descriptor, _ in poll.poll(worker.patience())}
            if not events:
                log.error("the worker (%d) does not answer; it is killed", worker.process.pid)
                worker.process.kill()
            if wakeup in events:
                os.read(wakeup, 4096)
                if self._heed(worker):
                    return None
            if worker.ready in events:
                poll.unregister(worker.ready)
                self._on_ready(worker)
            if worker.pidfd in events:
                return worker.reap()

    def _heed(self, worker: Worker) -> bool:
        """Act on the signals that came in; whether one of them asks to stop."""
        signals, self._signals = self._signals, []
        if signal.SIGHUP in signals:
            worker.process.send_signal(signal.SIGHUP)
        return bool(STOPPING & set(signals))

    def _on_ready(self, worker: Worker) -> None:
        answered = os.read(worker.ready, 1)
        os.close(worker.ready)
        worker.ready = -1
        if not answered:
            return
        worker.answered = True
        if not self._possessions.answered:
            self._possessions.answered = True
            self._announce()
        kept = self._possessions.descriptors if self._possessions.plain is None else {}
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}", kept)

    def _go_on(self, worker: Worker, code: int, wakeup: int) -> bool:
        """Note how a worker ended, and wait before the next one; False if there is none."""
        now = time.monotonic()
        self._answered_at = now if worker.answered else self._answered_at
        self._brief = 0 if now - worker.started > LASTING else self._brief + 1
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self._ends = [*self._ends, {"time": time.time(), "how": how}][-KEPT_ENDS:]
        if now - self._answered_at > GIVE_UP:
            log.error("no worker answered for %.0f s; readers get an error now", GIVE_UP)
            return False
        pause = backoff(self._brief)
        log.warning("the worker (%d) was %s; the next in %.2g s", worker.process.pid, how, pause)
        if select.select([wakeup], [], [], pause)[0]:
            return not STOPPING & set(self._signals)
        return True

    def _fall_back(self) -> None:
        """Have libfuse mount: it does not go along with a connection of ours."""
        mine = self._possessions
        os.close(mine.device)
        detach(self._mountpoint, lazy=True)
        mine.device, mine.init, mine.plain = -1, b"", "libfuse does not go along with the handshake"
        mine.save()

    def _replace_program(self) -> None:
        """Become what is installed now; descriptors and pid stay."""
        mine = self._possessions
        log.info("replacing the program; the mount at %s stays", self._mountpoint)
        descriptors = mine.descriptors
        for descriptor in descriptors.values():
            os.set_inheritable(descriptor, True)
        os.environ[_ADOPT] = json.dumps(descriptors)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

    # -- leaving -----------------------------------------------------------------------------

    def _unmount(self, worker: Worker) -> None:
        """Unmount while the worker still serves; lazily when readers do not let go in time."""
        systemd.notify("STOPPING=1")
        log.info("unmounting %s", self._mountpoint)
        if not self._detached_within(GRACE):
            log.warning("%s is in use; it is taken from below its readers", self._mountpoint)
            self._detach(lazy=True)
        if not worker.ended(GRACE):
            worker.process.terminate()
            worker.process.send_signal(signal.SIGCONT)  # one that was stopped heeds nothing else
            if not worker.ended(END_SECONDS):
                worker.process.kill()
        worker.reap()

    def _detached_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (complaint := self._detach(lazy=False)) is not None:
            if "busy" not in complaint or time.monotonic() > deadline:
                return False
            time.sleep(0.1)  # the kernel does not say when a mount is no longer used
        return True

    def _detach(self, *, lazy: bool) -> str | None:
        try:
            complaint = detach(self._mountpoint, lazy=lazy)
        except UnsupportedError as exc:
            return str(exc)
        gone = complaint and ("not mounted" in complaint or "not found" in complaint)
        return None if gone else complaint

    def _leave(self) -> None:
        """Unmount if that is still to do, and give everything back."""
        systemd.drop(list(Possessions.NAMES))
        if (complaint := self._detach(lazy=True)) is not None:
            log.warning("%s is still mounted: %s", self._mountpoint, complaint)
        else:
            log.info("unmounted %s", self._mountpoint)
        self._socket.unlink(missing_ok=True)


def backoff(brief: int) -> float:
    """Seconds before the next worker, after so many in a row that did not last."""
    return 0.0 if brief <= 1 else min(BACKOFF_MAX, BACKOFF_MIN * 2.0 ** min(brief - 2, 16))
