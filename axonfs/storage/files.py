"""Atomic files: written as a draft, flushed, and renamed into place.

A publisher holds a flock on each draft. So another publisher, on any machine that shares the
directory, can tell the drafts of a dead publisher from those of a running one. Blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from axonfs.errors import BusyError
from axonfs.names import word

# Seconds. A publisher holds the lock while it writes a manifest and two lists.
LOCK_TIMEOUT = 120.0


@dataclass(slots=True)
class Draft:
    """A file that is not yet in its place; `fd` is open for writing."""

    path: Path
    fd: int

    def move_to(self, target: Path) -> None:
        """Move the file to `target`, replacing any file there, and flush it to the disk."""
        _make_parents(target)
        os.fsync(self.fd)
        os.rename(self.path, target)
        flush_directory(target.parent)

    def link_to(self, target: Path) -> bool:
        """Like `move_to`, but keep an existing file at `target` and return False.

        On file systems without hard links, the last of two simultaneous writers wins.
        """
        _make_parents(target)
        os.fsync(self.fd)
        try:
            os.link(self.path, target)
        except FileExistsError:
            return False
        except OSError:
            if target.exists():
                return False
            os.rename(self.path, target)
        flush_directory(target.parent)
        return True


@contextlib.contextmanager
def draft(directory: Path) -> Iterator[Draft]:
    """Yield a new draft in `directory`, and remove it afterwards unless it was moved."""
    made = _create(directory)
    try:
        yield made
    finally:
        # Unlink before the lock ends, so no other publisher has to clean up.
        with contextlib.suppress(FileNotFoundError):
            made.path.unlink()
        os.close(made.fd)


def _create(directory: Path) -> Draft:
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        path = directory / f"{os.getpid()}-{secrets.token_hex(8)}"
        # 0666 minus the umask: the web server that reads it often runs as another user.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return Draft(path, fd)
        os.close(fd)  # between open and lock another publisher took it for a dead one's, and swept


def sweep(directory: Path) -> int:
    """Remove the drafts of dead publishers, and return their number."""
    with contextlib.suppress(FileNotFoundError):
        return sum(_remove_if_dead(path) for path in directory.iterdir())
    return 0


def _remove_if_dead(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # already removed, or another user's
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, which excludes other threads and processes.

    Raises:
        BusyError: another holder kept it for LOCK_TIMEOUT.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait_for_lock(fd, path)
        yield
    finally:
        os.close(fd)


def _wait_for_lock(fd: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                what = f"another publisher has held the registry's lock for {LOCK_TIMEOUT:.0f} s"
                hint = f"fuser -v {word(path)} names the process, on its machine"
                raise BusyError(what, source=str(path), hint=hint) from None
        time.sleep(0.05)


def write_all(fd: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def flush_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_parents(target: Path) -> None:
    """Create the missing directories above `target`, and flush the parent of each."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    for parent in missing:
        flush_directory(parent.parent)
