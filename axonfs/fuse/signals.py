"""Which signals a thread that waits for a request has yet to act on, as /proc says.

Beside interrupts. The kernel tells of an interrupted request also when its thread is to be stopped,
traced or frozen, and an error would then be the program's, which did not ask for it. For what is
read ahead and for O_DIRECT it tells of nothing, but the signals of a sleeping thread stay pending.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple


def _mask(*numbers: int) -> int:
    return sum(1 << number - 1 for number in numbers)


FATAL = _mask(signal.SIGKILL)  # each thread of a process that has to die gets one of its own
# A program that does not handle these is stopped, goes on, or ignores them, but none ends it. Even
# an ignored one stays pending until a debugger has seen it.
_HARMLESS = _mask(
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH),
)


class Pending(NamedTuple):
    """Signals that end a program or that it handles, as masks: for one thread, and for its process.

    The kernel gives what is for the process to the `first` thread, unless that one blocks it.
    `asleep` says that the thread waits for something in the kernel which no handler interrupts.
    """

    own: int
    shared: int
    first: bool
    asleep: bool


def pending(thread: int) -> Pending | None:
    """What a thread has yet to act on; None if it is gone, or hidden from this process."""
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


def faults(thread: int) -> bool:
    """Whether a thread that is asleep is in a page fault of its program, and not in a system call;
    False where that is hidden."""
    try:
        return Path(f"/proc/{thread}/syscall").read_text().startswith("-1 ")
    except OSError:
        return False


def is_gone(thread: int) -> bool:
    """Whether there is no such thread any more."""
    try:
        os.kill(thread, 0)  # /proc may hide the processes of others
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
