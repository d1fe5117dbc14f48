"""Atomic files: written aside, flushed, and renamed into place.

A file being written is locked (flock), so a later publisher can tell the leftovers of a dead one
from the work of a living one, on any number of machines that share the directory. Blocking.
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

# Seconds. A publisher has the lock while it writes a manifest and two lists.
LOCK_TIMEOUT = 120.0


@dataclass(slots=True)
class Draft:
    """A file that is not in place yet; `fd` is open for writing."""

    path: Path
    fd: int

    def move_to(self, target: Path) -> None:
        """Puts the file at `target`, in place of what may be there, and on the disk."""
        _make_parents(target)
        os.fsync(self.fd)
        os.rename(self.path, target)
        flush_directory(target.parent)

    def link_to(self, target: Path) -> bool:
        """As `move_to`, but False if something is there already, which then stays.

        Where the file system has no hard links, of two writers at the same instant the last
        one wins.
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
    """A new draft in `directory`, which is gone afterwards unless it was moved."""
    made = _create(directory)
    try:
        yield made
    finally:
        # Unlinked before it is unlocked: nobody else ever has to.
        with contextlib.suppress(FileNotFoundError):
            made.path.unlink()
        os.close(made.fd)


def _create(directory: Path) -> Draft:
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        path = directory / f"{os.getpid()}-{secrets.token_hex(8)}"
        # 0666 less the umask: the web server that reads it is often another user.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return Draft(path, fd)
        os.close(fd)  # another publisher took it for a dead one's between open and lock


def sweep(directory: Path) -> int:
    """Removes the drafts of writers that are dead; how many there were."""
    with contextlib.suppress(FileNotFoundError):
        return sum(_remove_if_dead(path) for path in directory.iterdir())
    return 0


def _remove_if_dead(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # gone, or another user's
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
    """Excludes every other holder of the lock at `path`, in this process and in others.

    Raises:
        BusyError: another one did not let go of it.
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
                what = f"another publisher has had the registry's lock for {LOCK_TIMEOUT:.0f} s"
                hint = f"see which process with fuser -v {path}, here or where the disk is shared"
                raise BusyError(what, source=str(path), hint=hint) from None
        time.sleep(0.05)


def replace(target: Path, content: bytes, drafts: Path) -> None:
    """Makes `content` the content of `target`, in one step; nothing is done if it is already."""
    with contextlib.suppress(FileNotFoundError):
        if target.read_bytes() == content:
            return
    with draft(drafts) as new:
        write_all(new.fd, content)
        new.move_to(target)


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
    """The directories above `target`, each flushed into its own parent where it is new."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    for parent in missing:
        flush_directory(parent.parent)
