"""Where the threads of a worker are now, even if its event loop is stuck.

A worker writes their stacks to a file in memory when it gets SIGUSR1. The handler is that of
faulthandler, in C, which needs neither the interpreter's lock nor the event loop. Processes of its
user and of root read the file through /proc. Blocking.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

from axonfs.errors import AxonError

_NAME = "axonfs-stacks"
_LINK = f"/memfd:{_NAME} (deleted)"
_QUIET = 0.2  # seconds without another line after which all is written


def offer() -> None:
    """Have this process write its stacks at SIGUSR1, for as long as it runs."""
    descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)  # so that a reader can empty the file
    faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)


def ask(pid: int, patience: float = 3.0) -> str:
    """The stacks of all Python threads of a worker.

    Raises:
        AxonError: it does not offer them, or is stopped.
        OSError: it has ended, or this user may not inspect it.
    """
    process = os.pidfd_open(pid)  # before the look at it: no other process can get the signal
    try:
        file = os.open(_file(pid), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(file, 0)
            signal.pidfd_send_signal(process, signal.SIGUSR1)
            return _written(file, patience)
        finally:
            os.close(file)
    finally:
        os.close(process)


def _file(pid: int) -> Path:
    """The file, if the process handles the signal; any other would be ended by it."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if caught and int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(link) == _LINK:
                    return link
    raise AxonError(f"process {pid} does not offer its stacks")


def _written(file: int, patience: float) -> str:
    deadline, size, grew = time.monotonic() + patience, 0, time.monotonic()
    while not size or time.monotonic() - grew < _QUIET:
        if time.monotonic() > deadline:
            raise AxonError(f"it wrote no stacks within {patience:.0f} s: it may be stopped")
        if (now := os.fstat(file).st_size) != size:
            size, grew = now, time.monotonic()
        time.sleep(0.02)
    return os.pread(file, size, 0).decode(errors="replace")
