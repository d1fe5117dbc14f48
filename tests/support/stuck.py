"""Readers that get stuck in one system call or page fault, each a process, to be signalled.

Run as a program: HOW PATH HANDLED OFFSET. Says `ready` right before the call. Ends with 0 when it
got what it asked for, with 7 from the handler of a signal in a call, with 8 and the errno on any
other failure. A handled signal's number is written to standard error as soon as it is delivered,
before any Python runs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Where the kernel has a reader asleep.
ASLEEP = ("request_wait_answer", "folio_wait", "fuse_direct", "wait_for_completion")
HANDLED = 7
PROGRAM = __file__


@contextlib.contextmanager
def stuck(how: str, path: Path, *, handled: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A reader that is asleep in the kernel; killed when the block is left."""
    command = [sys.executable, "-I", "-S", PROGRAM, how, str(path), str(int(handled)), "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            until_asleep(process)
            yield process
        finally:
            process.kill()


def until_asleep(process: subprocess.Popen[bytes]) -> None:
    """Return when the program waits for a file system in the kernel."""
    deadline = time.monotonic() + 20
    while not (where := Path(f"/proc/{process.pid}/wchan").read_text()).startswith(ASLEEP):
        assert process.poll() is None, "the reader did not wait"
        assert time.monotonic() < deadline, where
        time.sleep(0.01)  # there is no event for it


def main(how: str, path: str, handled: str, offset: str) -> None:
    if handled == "1":
        # During a page fault no Python runs until it is over.
        at_once = how not in ("mmap", "mmap-page", "send")
        os.set_blocking(2, False)
        signal.set_wakeup_fd(2, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, frame: at_once and os._exit(HANDLED))
    else:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    wait = prepared(how, path, int(offset))
    os.write(1, b"ready\n")
    try:
        wait()
    except OSError as exc:
        os.write(2, f"{exc}".encode())
        os._exit(8)
    os._exit(0)


def prepared(how: str, path: str, offset: int) -> Callable[[], object]:
    """What waits; all that comes before it is done."""
    calls: dict[str, Callable[[], object]] = {
        "stat": lambda: os.stat(path),
        "open": lambda: os.open(path, os.O_RDONLY),
        "readlink": lambda: os.readlink(path),
        "getxattr": lambda: os.getxattr(path, "user.axonfs.spec"),
    }
    if how in calls:
        return calls[how]
    if how == "readdir":
        descriptor = os.open(path, os.O_RDONLY)
        return lambda: os.listdir(descriptor)
    descriptor = os.open(path, os.O_RDONLY | (os.O_DIRECT if how == "direct" else 0))
    buffer = mmap.mmap(-1, 1 << 20)
    if how in ("read", "direct"):
        return lambda: os.preadv(descriptor, [buffer], offset)
    if how == "page":  # as the kernel reads for a program that reads at random
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return lambda: os.pread(descriptor, 10, offset)
    mapping = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    if how == "mmap":
        return lambda: mapping[offset]
    if how == "mmap-page":
        mapping.madvise(mmap.MADV_RANDOM)
        return lambda: mapping[offset]
    assert how == "send", how  # the kernel's own page fault
    _, end = os.pipe()
    return lambda: sent(end, mapping, offset)


def sent(end: int, mapping: mmap.mmap, offset: int) -> None:
    with memoryview(mapping) as view:
        assert os.write(end, view[offset : offset + 100]) == 100


if __name__ == "__main__":
    main(*sys.argv[1:])
