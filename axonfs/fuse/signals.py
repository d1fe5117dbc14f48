"""Whether a thread that waits for a read got a signal, as /proc says.

Beside interrupts. For what the kernel reads ahead and for O_DIRECT it sends no interrupt, but the
thread is asleep in the read and the signal stays pending.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_FATAL = 1 << signal.SIGKILL - 1


def heeds(thread: int, *, only_fatal: bool = False) -> bool:
    """Whether a thread is asleep in the kernel and has a signal to act on.

    The kernel gives each thread of a process that has to die a SIGKILL of its own, and what is for
    the whole process nearly always to its first thread.
    """
    try:
        text = Path(f"/proc/{thread}/status").read_text()
    except OSError:  # it is gone, or hidden
        return False
    fields = dict(line.partition(":")[::2] for line in text.splitlines())
    if not fields["State"].strip().startswith("D"):
        return False
    pending, shared, blocked = (int(fields[name], 16) for name in ("SigPnd", "ShdPnd", "SigBlk"))
    if fields["Tgid"] == fields["Pid"]:
        pending |= shared
    return bool(pending & ~blocked & (_FATAL if only_fatal else -1))


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
