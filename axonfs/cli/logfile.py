"""The log file of a mount in the background: opened by the command, rotated while mounted.

Holder and worker share the file as their standard error, so it also has what Python or libfuse
write there. Each process checks the file before it writes a line. The first one that finds it too
large renames it to `mount.log.1`; the others then open the new file. Any thread; blocks for a few
system calls.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path
from typing import TextIO

from axonfs.errors import AxonError

LOG = Path("run", "mount.log")
MAX_LOG_BYTES = 10 << 20
_STDOUT, _STDERR = 1, 2


def open_log(path: Path) -> int:
    """Open the log for appending; a large log is renamed first.

    Raises:
        AxonError: the cache cannot be written.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            _set_aside(path, os.stat(path, follow_symlinks=False))
        return _open(path)
    except OSError as exc:
        what = f"the cache cannot be written: {exc.strerror}"
        raise AxonError(what, path=str(path), hint="choose another with --cache DIR") from exc


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def _set_aside(path: Path, seen: os.stat_result) -> None:
    """Rename the log to `mount.log.1` if it is large, and still the file `seen`."""
    if seen.st_size <= MAX_LOG_BYTES:
        return
    descriptor = _open(path)
    try:
        # Two processes may see the large log: one renames it, the other finds a new one here. The
        # lock is not waited for, so that a process that was stopped here does not block others.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path, follow_symlinks=False), seen):
                path.replace(path.with_suffix(".log.1"))
    finally:
        os.close(descriptor)


def is_stderr(path: Path) -> bool:
    """Whether standard error is the log at `path`, or its renamed predecessor."""
    with contextlib.suppress(OSError):
        place = os.readlink(f"/proc/self/fd/{_STDERR}").removesuffix(" (deleted)")
        return place in (os.path.realpath(path), os.path.realpath(path.with_suffix(".log.1")))
    return False


class LogFile(logging.StreamHandler[TextIO]):
    """Writes to standard error, which is the log at `path`, and rotates it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # the disk fails: write to the file that is open
            self._rotate()
        super().emit(record)

    def _rotate(self) -> None:
        here = os.fstat(_STDERR)
        if self._is_current(here):
            _set_aside(self._path, here)
        if not self._is_current(here):
            descriptor = _open(self._path)
            for number in (_STDOUT, _STDERR):
                if os.path.samestat(os.fstat(number), here):
                    os.dup2(descriptor, number)
            os.close(descriptor)

    def _is_current(self, here: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.stat(self._path, follow_symlinks=False), here)
        except FileNotFoundError:
            return False
