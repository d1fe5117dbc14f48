"""The file of a trace: private, append-only and bounded; it never takes the place of another file.

Blocking; any thread. A thread that hangs in the disk keeps the descriptor open: its number would be
another file's by the time the thread goes on. A worker that is killed leaves whole lines, or one
torn line at the end, which the next worker ends before it goes on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import weakref
from pathlib import Path
from typing import Self

from axonfs.errors import AxonError, BusyError, NoSpaceError, UsageError
from axonfs.trace.records import MAGIC

# The most bytes of one file. A load takes about 50 KiB for each GiB that comes, 5 for each that is
# read again.
MOST = 64 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class TraceFile:
    """An open trace; `size` is its length. It is closed with its last reference at the latest."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, os.close, descriptor)
        self._close.atexit = False  # a disk that hangs must not keep a worker from ending

    @classmethod
    def open(cls, path: Path) -> Self:
        """Create the file at `path`, for its owner alone; or go on in it, if it is a trace.

        Raises:
            UsageError: there is another file, a link, or a trace of another user.
            BusyError: another mount records into it.
            AxonError: it cannot be created.
        """
        try:
            descriptor = _opened(path)
        except OSError as exc:
            raise _unusable(path, exc) from exc
        try:
            size = _checked(path, descriptor)
        except OSError as exc:
            os.close(descriptor)
            raise _unusable(path, exc) from exc
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, size)

    @property
    def head(self) -> bytes:
        """The first line; empty if the file is new."""
        return os.pread(self._descriptor, 200, 0).partition(b"\n")[0]

    def append(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: the disk does not take them, or the file is closed.
        """
        rest = memoryview(lines)
        with self._lock:
            if not self._close.alive:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            while rest:
                written = os.write(self._descriptor, rest)
                self.size += written
                rest = rest[written:]

    def close(self) -> None:
        """Close it once nothing is written; others may record into it from then on."""
        with self._lock:
            self._close()


def _opened(path: Path) -> int:
    try:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, _FLAGS)


def _checked(path: Path, descriptor: int) -> int:
    """The length of the file, which is a trace of this user that no other process writes."""
    found = os.fstat(descriptor)
    own = found.st_uid == os.geteuid() and found.st_nlink == 1 and not found.st_mode & 0o022
    if not stat.S_ISREG(found.st_mode):
        raise UsageError("is not a file", path=str(path), hint=_OTHER)
    if found.st_size and os.pread(descriptor, len(MAGIC), 0) != MAGIC:
        raise UsageError("exists, and is not a trace", path=str(path), hint=_OTHER)
    if not own:
        what = "is a trace that others own or may write, or that has another name"
        raise UsageError(what, path=str(path), hint=_OTHER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        what = "another mount records into it"
        raise BusyError(what, path=str(path), hint=_OTHER) from exc
    except OSError:
        pass  # a file system without locks
    if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
        os.write(descriptor, b"\n")
        return found.st_size + 1
    return found.st_size


_OTHER = "name another file"


def _unusable(path: Path, exc: OSError) -> AxonError:
    if exc.errno in (errno.ELOOP, errno.EMLINK):
        return UsageError("is a symbolic link", path=str(path), hint=_OTHER)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError("the disk of the trace is full", path=str(path), hint=_OTHER)
    if exc.errno == errno.EISDIR:
        return UsageError("is a directory", path=str(path), hint=_OTHER)
    return AxonError(f"the trace cannot be written: {exc.strerror}", path=str(path), hint=_OTHER)
