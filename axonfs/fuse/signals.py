"""Reads from /proc which signals are pending for a thread that waits for a request.

Beside interrupts. The kernel also sends FUSE_INTERRUPT when a thread is about to be stopped, traced
or frozen; its program would then get an error without reason. For readahead and O_DIRECT it sends
none, but the signals of a sleeping thread stay pending.
"""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple


def _mask(*numbers: int) -> int:
    return sum(1 << number - 1 for number in numbers)


FATAL = _mask(signal.SIGKILL)  # each thread of a process that is killed gets its own
# These stop or continue a program that does not handle them, or do nothing; none ends it. Under a
# debugger even an ignored signal stays pending until the debugger has seen it.
_HARMLESS = _mask(
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH),
)


# The system calls that only take bytes from a program's memory: write, pwrite64, writev, pwritev,
# pwritev2, sendto, sendmsg and sendmmsg.
_SENDING = {
    "x86_64": frozenset((1, 18, 20, 296, 328, 44, 46, 307)),
    "aarch64": frozenset((64, 68, 66, 70, 287, 206, 211, 269)),
}
SENDING: Set[int] = _SENDING.get(platform.machine(), frozenset())


class Pending(NamedTuple):
    """Pending signals that end a program or that it handles, as masks.

    `own` are those of the thread, `shared` those of its process: the kernel gives these to the
    `first` thread, unless it blocks them. `asleep` says that the thread is in an uninterruptible
    sleep.
    """

    own: int
    shared: int
    first: bool
    asleep: bool


def pending(thread: int) -> Pending | None:
    """The pending signals of a thread; None if it has ended or is hidden from this process."""
    try:
        text = Path(f"/proc/{thread}/status").read_text(errors="replace")
    except OSError:
        return None
    fields = {name: value.strip() for name, _, value in _parts(text)}
    own, shared, blocked, ignored, caught = (
        int(fields[name], 16) for name in ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
    )
    passing = ~blocked & ~ignored & (caught | ~_HARMLESS)
    first = fields["Tgid"] == fields["Pid"]
    return Pending(own & passing, shared & passing, first, fields["State"].startswith("D"))


def _parts(text: str) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in text.splitlines()]


def call(thread: int) -> int | None:
    """The number of the system call in which a thread sleeps, -1 if it is in a page fault of its
    program; None if that is hidden from this process."""
    try:
        return int(Path(f"/proc/{thread}/syscall").read_text().split(maxsplit=1)[0])
    except (OSError, ValueError):  # ValueError: it runs
        return None


def is_gone(thread: int) -> bool:
    """Whether the thread has ended."""
    try:
        os.kill(thread, 0)  # /proc may hide the processes of others
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
