"""Sample a process: which of its threads run, and whether the one that runs holds the GIL.

    python -m bench.sampler PID LOCKED THREAD

The kernel interrupts each processor 500 times per second and tells which thread runs there
(perf_event_open). For a thread of the process, the sampler then reads from the memory of the
process who holds the GIL (gil.py knows where). A thread that holds the GIL and waits for a
processor is in no sample: it would not wait on a machine with more processors. The process is
neither stopped nor changed.

Prints the share of the samples in which the running thread held the GIL, once the input ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import select
import struct
import sys
from collections.abc import Callable

# Nanoseconds between two samples of a processor, and the most samples per second of all.
PERIOD, MOST = 2_000_000, 8_000
POINTER = struct.calcsize("P")

_CALLS = {"x86_64": 298, "aarch64": 241}
_SOFTWARE, _CPU_CLOCK, _SAMPLE_TID, _EXCLUDE_IDLE = 1, 0, 2, 1 << 7
_SAMPLE, _RECORD = 9, struct.Struct("IHHII")  # type, flags, size, pid, tid
# Where the ring says how much the kernel has written and the sampler has read.
_HEAD, _TAIL = 1024, 1032
_PAGE = mmap.PAGESIZE


class _Attributes(ctypes.Structure):
    """The kernel's struct perf_event_attr, in its first version."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("breakpoint_type", ctypes.c_uint32),
        ("breakpoint_address", ctypes.c_uint64),
    )


class Processor:
    """The samples of one processor, from now on."""

    def __init__(self, number: int, period: int) -> None:
        attributes = _Attributes(
            type=_SOFTWARE,
            size=ctypes.sizeof(_Attributes),
            config=_CPU_CLOCK,
            sample_period=period,
            sample_type=_SAMPLE_TID,
            flags=_EXCLUDE_IDLE,
            wakeup_events=1,
        )
        call = _CALLS[platform.machine()]
        self.fd = _libc.syscall(call, ctypes.byref(attributes), -1, number, -1, 0)
        if self.fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"perf_event_open: {os.strerror(code)}")
        self._ring = mmap.mmap(self.fd, 2 * _PAGE)

    def latest(self) -> tuple[int, int] | None:
        """The process and thread of the last sample. Earlier ones are dropped: they are stale."""
        (head,) = struct.unpack_from("Q", self._ring, _HEAD)
        at = _PAGE + (head - _RECORD.size) % _PAGE
        struct.pack_into("Q", self._ring, _TAIL, head)
        if at + _RECORD.size > 2 * _PAGE:
            return None  # it is cut in two, behind a record of another size
        kind, _, size, process, thread = _RECORD.unpack_from(self._ring, at)
        return (process, thread) if (kind, size) == (_SAMPLE, _RECORD.size) else None


_libc = ctypes.CDLL(None, use_errno=True)


def last_holder(memory: int, locked: int) -> tuple[int, bool]:
    """The address of the state of the thread that was the last to hold the GIL; whether it still
    does."""
    state, held = struct.unpack("Pi", os.pread(memory, POINTER + 4, locked - POINTER))
    return state, bool(held)


def holder(memory: int, locked: int, thread: int) -> int:
    """The kernel's id of the thread that holds the GIL, or 0."""
    state, held = last_holder(memory, locked)
    if not held:
        return 0
    with contextlib.suppress(OSError):  # the thread has just ended
        (found,) = struct.unpack("l", os.pread(memory, POINTER, state + thread))
        return int(found)
    return 0


def share(pid: int, holds: Callable[[], int], processors: dict[int, Processor]) -> float:
    """Take samples until the input ends; return the share of the samples under the GIL."""
    poll = select.poll()
    for fd in (0, *processors):
        poll.register(fd, select.POLLIN)
    held = total = 0
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                return held / max(total, 1)
            sampled = processors[fd].latest()
            if sampled and sampled[0] == pid:
                total += 1
                held += holds() == sampled[1]


def main() -> None:
    pid, locked, thread = map(int, sys.argv[1:])
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    os.pread(memory, 1, locked)
    numbers = os.sched_getaffinity(pid)
    period = max(PERIOD, len(numbers) * 1_000_000_000 // MOST)
    opened = [Processor(number, period) for number in numbers]
    with contextlib.suppress(PermissionError):
        # Otherwise a sample waits while all processors are busy, and the GIL moves on.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print("ready", flush=True)
    by_fd = {processor.fd: processor for processor in opened}
    print(share(pid, lambda: holder(memory, locked, thread), by_fd), flush=True)


if __name__ == "__main__":
    main()
