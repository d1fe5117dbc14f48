"""The holder: owns the FUSE connection and keeps a worker process running that serves it.

Beside worker.py, which is that process. The holder keeps what must outlive a worker: the
connection, the cache's lock, the control socket and the journal. When a worker dies, the holder
starts the next one, which has the kernel resend the unanswered requests; readers see a pause. The
holder imports neither pyfuse3 nor trio: a small program that does little has few reasons to die.

SIGTERM and SIGINT unmount, lazily after a grace period. SIGHUP replaces the worker and this program
by the version that is installed now; the mount stays. Blocking; main thread only.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axonfs import rundir
from axonfs.connection import clear_dead, release, release_dead
from axonfs.connection.held import DONE, NO_HANDSHAKE, RELOAD, REPLACE, VARIABLE, Held
from axonfs.connection.mountinfo import top_at
from axonfs.daemon import systemd
from axonfs.daemon.possessions import Possessions, leave_to_libfuse
from axonfs.errors import UnsupportedError

log = logging.getLogger(__name__)

STOPPING = {signal.SIGTERM, signal.SIGINT}
HEEDED = {*STOPPING, signal.SIGHUP}
# How long readers may take to close their files before the unmount becomes lazy, in seconds.
GRACE = 5.0
# How long a worker may take to end, in seconds: it may flush its index to a slow disk.
END_SECONDS = 15.0
# The pause before a worker is replaced, in seconds: none at first, then doubling for each worker in
# a row that ran for less than LASTING seconds.
BACKOFF_MIN, BACKOFF_MAX = 0.25, 30.0
LASTING = 60.0
# After this many seconds without an answering worker, readers get an error instead of waiting on.
GIVE_UP = 300.0
KEPT_ENDS = 20


def block_signals() -> None:
    """Block the signals that `hold` handles, so that one which arrives earlier waits for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)


def hold(possessions: Possessions, command: list[str], parent: int = -1) -> int:
    """Have `command` serve the mount until it is unmounted; the exit code.

    Args:
        command: starts a worker.
        parent: a pipe to the starting command, which gets a byte once the mount answers. If that
            command closes its end earlier, the holder unmounts.
    """
    return Holder(possessions, command, parent).run()


@dataclass(slots=True)
class WorkerProcess:
    """One worker process; `answered` says that the mount has answered through it."""

    process: subprocess.Popen[bytes]
    pidfd: int
    ready: int
    started: float = field(default_factory=time.monotonic)
    answered: bool = False

    def patience(self) -> int | None:
        """Milliseconds that its first answer may take; None once it has answered."""
        return None if self.answered else int(GIVE_UP * 1000)

    def ended(self, seconds: float) -> bool:
        """Whether it ends within this many seconds."""
        return bool(select.select([self.pidfd], [], [], seconds)[0])

    def reap(self) -> int:
        """Its exit code, after its end; closes the descriptors that belong to it."""
        code = self.process.wait()
        os.close(self.pidfd)
        if self.ready >= 0:
            os.close(self.ready)
        return code


class Holder:
    """Keeps a worker running; `run` returns when the mount has ended."""

    def __init__(self, possessions: Possessions, command: list[str], parent: int) -> None:
        self._possessions = possessions
        self._command = command
        self._mountpoint = Path(possessions.known.mountpoint)
        self._parent = parent
        self._ends: list[dict[str, Any]] = []
        self._brief = 0  # workers in a row that ran for less than LASTING seconds
        self._answered_at = time.monotonic()
        self._signals: list[int] = []
        # Whether a worker ended on purpose before; this program may have been a holder before.
        self._reloaded = possessions.answered

    def run(self) -> int:
        """Start a worker, replace it whenever it ends, unmount when asked to."""
        try:
            wakeup, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            for number in HEEDED:
                signal.signal(number, lambda number, frame: self._signals.append(number))
            signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
            return self._keep(wakeup)
        finally:
            signal.set_wakeup_fd(-1)
            self._leave()

    def _keep(self, wakeup: int) -> int:
        while True:
            try:
                worker = self._start()
            except OSError as exc:  # the machine is out of memory or processes
                if not self._possessions.answered:
                    raise
                if not self._go_on(f"not started: {exc.strerror}", wakeup):
                    return self._given_up()
                continue
            code = self._watch(worker, wakeup)
            if code is None:
                self._unmount(worker)
                return 0
            if code == DONE or self._gone():
                return 0
            if (end := self._after(worker, code, wakeup)) is not None:
                return end

    def _after(self, worker: WorkerProcess, code: int, wakeup: int) -> int | None:
        """The holder's exit code after a worker's end; None if another worker is to start."""
        own = self._possessions.known.plain is None
        self._reloaded = code in (RELOAD, REPLACE)
        if code == REPLACE and own:
            self._replace_program()
        elif code == RELOAD and own:
            log.info("the next worker starts with other settings")
        elif self._possessions.answered:
            if not self._go_on(self._note_end(worker, code), wakeup):
                return self._given_up()
        elif code == NO_HANDSHAKE and own:
            leave_to_libfuse(self._possessions, "libfuse does not accept the handshake")
        else:
            return code if code > 0 else 1
        return None

    def _given_up(self) -> int:
        return 0 if STOPPING & set(self._signals) else 1

    def _gone(self) -> bool:
        """Whether the connection has ended, so that a worker would have nothing to serve."""
        if self._possessions.device < 0:
            return False
        device = select.poll()
        device.register(self._possessions.device, 0)  # POLLERR is always reported
        return bool(device.poll(0))

    def _start(self) -> WorkerProcess:
        """
        Raises:
            OSError: the machine is short of processes, memory or descriptors; no worker runs.
        """
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            process = self._spawn(self._held(write_end))
            return WorkerProcess(process, pidfd_of(process), read_end)
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)

    def _held(self, ready: int) -> Held:
        mine = self._possessions
        return Held(
            holder=os.getpid(),
            lock=mine.lock,
            control=mine.control,
            journal=mine.journal,
            settings=mine.settings,
            meters=mine.meters,
            ready=ready,
            device=mine.device,
            connection=mine.known.connection,
            init=mine.init,
            first=not mine.answered,
            plain=mine.known.plain,
            reloaded=self._reloaded,
            ends=self._ends,
        )

    def _spawn(self, held: Held) -> subprocess.Popen[bytes]:
        # Blocked until the worker handles SIGHUP and ignores SIGINT: before, each would end it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGINT})
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, VARIABLE: held.encode()},
                pass_fds=held.descriptors,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGINT})

    def _watch(self, worker: WorkerProcess, wakeup: int) -> int | None:
        """Wait for the worker's end; its exit code, or None if the mount is to end before it."""
        poll = select.poll()
        for descriptor in (wakeup, worker.pidfd, worker.ready):
            poll.register(descriptor, select.POLLIN)
        for descriptor in (self._parent, self._possessions.device):
            if descriptor >= 0:
                poll.register(descriptor, 0)  # POLLERR is always reported
        while True:
            events = {descriptor for descriptor, _ in poll.poll(worker.patience())}
            if not events:
                log.error("the worker (%d) does not answer; it is killed", worker.process.pid)
                worker.process.kill()
            if wakeup in events:
                os.read(wakeup, 4096)
                if self._heed(worker):
                    return None
            if self._parent in events:
                log.warning("the command that asked for the mount has ended; unmounting")
                return None
            if self._possessions.device in events:
                return None  # unmounted, which a stopped or stuck worker does not notice
            if worker.ready in events:
                poll.unregister(worker.ready)
                if self._parent >= 0:
                    poll.unregister(self._parent)
                self._on_ready(worker)
            if worker.pidfd in events:
                return worker.reap()

    def _heed(self, worker: WorkerProcess) -> bool:
        """Handle the signals that arrived; whether one of them asks to stop."""
        signals, self._signals = self._signals, []
        if signal.SIGHUP in signals:
            worker.process.send_signal(signal.SIGHUP)
        return bool(STOPPING & set(signals))

    def _on_ready(self, worker: WorkerProcess) -> None:
        answered = os.read(worker.ready, 1)
        os.close(worker.ready)
        worker.ready = -1
        if not answered:
            return
        worker.answered = True
        self._possessions.answered = True
        known = self._possessions.known
        if known.plain is not None and (top := top_at(self._mountpoint)) is not None:
            known.connection = top.device
            self._possessions.save()
        self._announce()

    def _announce(self) -> None:
        """Tell the starting command and systemd that the mount answers."""
        if self._parent >= 0:
            with suppress(BrokenPipeError):  # the command has just ended; the mount stays
                os.write(self._parent, b"1")
            os.close(self._parent)
            self._parent = -1
        kept = self._possessions.descriptors if self._possessions.known.plain is None else {}
        systemd.notify(f"READY=1\nMAINPID={os.getpid()}", kept)

    def _note_end(self, worker: WorkerProcess, code: int) -> str:
        """Note how long a worker lasted; how it ended, in words."""
        now = time.monotonic()
        self._answered_at = now if worker.answered else self._answered_at
        self._brief = 0 if now - worker.started > LASTING else self._brief
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def _go_on(self, how: str, wakeup: int) -> bool:
        """Note how the worker ended, and pause; false if no other worker is to start."""
        self._brief += 1
        self._ends = [*self._ends, {"time": time.time(), "how": how}][-KEPT_ENDS:]
        if time.monotonic() - self._answered_at > GIVE_UP:
            log.error("no worker answered for %.0f s; readers get an error now", GIVE_UP)
            return False
        pause = backoff(self._brief)
        log.warning("the worker was %s; the next in %.2g s", how, pause)
        if select.select([wakeup], [], [], pause)[0]:
            return not STOPPING & set(self._signals)
        return True

    def _replace_program(self) -> None:
        """Execute the program that is installed now; descriptors and pid stay. Returns only if that
        fails."""
        log.info("replacing the program; the mount at %s stays", self._mountpoint)
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
        self._possessions.hand_over()
        try:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        except OSError as exc:
            log.error("cannot execute %s: %s; keeping this program", sys.executable, exc.strerror)
        self._possessions.take_back()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)

    def _unmount(self, worker: WorkerProcess) -> None:
        """Unmount while the worker still serves; lazily if readers keep files open for too long."""
        systemd.notify("STOPPING=1")
        log.info("unmounting %s", self._mountpoint)
        if not self._detached_within(GRACE):
            log.warning("%s is in use; unmounting it lazily", self._mountpoint)
            self._detach(lazy=True)
        worker.process.send_signal(signal.SIGCONT)  # a stopped worker does not notice the unmount
        if not worker.ended(GRACE):
            worker.process.terminate()
            if not worker.ended(END_SECONDS):
                worker.process.kill()
        if worker.ended(END_SECONDS):
            worker.reap()
        else:
            log.error("the worker (%d) does not end; it is left behind", worker.process.pid)

    def _detached_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (complaint := self._detach(lazy=False)) is not None:
            if "busy" not in complaint or time.monotonic() > deadline:
                return False
            time.sleep(0.1)  # the kernel sends no event when the last file is closed
        return True

    def _detach(self, *, lazy: bool, ended: bool = False) -> str | None:
        """Unmount our own connection and nothing else.

        Another file system may be mounted there by now, and another mount may have the number of a
        connection that has ended.
        """
        connection = self._possessions.known.connection
        try:
            if ended or self._gone():
                return release_dead(connection)
            return release(connection, lazy=lazy)
        except UnsupportedError as exc:
            return str(exc)

    def _leave(self) -> None:
        """Unmount if the mount is still there, and release everything."""
        systemd.drop(list(Possessions.NAMES))
        ended = self._possessions.device < 0  # libfuse's connection ends with the worker
        if (complaint := self._detach(lazy=True, ended=ended)) is not None:
            log.warning("%s is still mounted: %s", self._mountpoint, complaint)
        else:
            log.info("unmounted %s", self._mountpoint)
        if self._possessions.known.plain is not None:
            clear_dead(self._mountpoint)  # libfuse's mount stays if its worker was killed
        cache = Path(self._possessions.known.cache)
        with suppress(OSError):
            if rundir.is_lock(self._possessions.lock, cache):  # else another mount has the cache
                Path(cache, rundir.SOCKET).unlink()


def pidfd_of(process: subprocess.Popen[bytes]) -> int:
    """A pidfd of a child. If the kernel refuses one, kill the child: its end would go unnoticed."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        process.kill()
        process.wait()
        raise


def backoff(brief: int) -> float:
    """Seconds before the next worker, after `brief` workers in a row that did not last."""
    return 0.0 if brief <= 1 else min(BACKOFF_MAX, BACKOFF_MIN * 2.0 ** min(brief - 2, 16))
