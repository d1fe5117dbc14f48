"""The `run/` directory of a cache: the owner's lock and the control socket.

A user or a script may remove `run/` while the owner runs. So the process that writes to the cache
holds a second lock, on `objects/`.

This module also checks the permissions of cache directories: only their owner and root may change
them, so that no other user can replace a name in them by a link.

It imports no large package, since the small process that holds a mount uses it. Blocking.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path
from shlex import quote

from axonfs.errors import AxonError, BusyError, NoSpaceError, UnsupportedError

RUN = "run"
LOCK = Path(RUN, "lock")
SOCKET = Path(RUN, "control.sock")
FREE_SPACE = "free some space there, or choose another disk with --cache"
_BACKLOG = 64
OBJECTS = "objects"
PINNED = "pinned"
# The names in a cache directory. A link that another user made with such a name would be followed.
_NAMES = (RUN, OBJECTS, PINNED, "index.lmdb")


def prepare(cache: Path) -> Path:
    """Make `run/` in `cache` if it is missing, accessible to its owner only; return its path.

    Raises:
        UnsupportedError: the directory cannot be written.
        NoSpaceError: the disk is full.
    """
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close_if_empty(cache)
        return make_private(cache / RUN)
    except OSError as exc:
        raise unusable(exc, cache) from exc


def guard(directory: Path) -> None:
    """Refuse a directory in which other users could change the cache.

    In a sticky directory, such as a fresh tmpfs, others may add names but not remove them: then
    the names that a cache uses must not belong to them.

    Raises:
        UnsupportedError: other users could change it; the hint says what to do.
        OSError: the directory does not exist or cannot be read.
    """
    status = os.stat(directory)
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        what = "other users can write to the cache directory"
        hint = f"chmod go-w {quote(str(directory))}"
        raise UnsupportedError(what, source=str(directory), hint=hint)
    with os.scandir(directory) as entries:
        ours = [directory, *(Path(entry) for entry in entries if entry.name.startswith(_NAMES))]
    for path in ours:
        owner = os.lstat(path).st_uid if path != directory else status.st_uid
        if owner not in (os.geteuid(), 0):
            what = f"{path.name} belongs to another user, uid {owner}, who could change the cache"
            hint = "choose another directory with --cache"
            raise UnsupportedError(what, source=str(directory), hint=hint)


def _close_if_empty(directory: Path) -> None:
    """Remove other users' write permission from an empty directory, such as a fresh volume."""
    status = os.stat(directory)
    open_to_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if open_to_others and status.st_uid == os.geteuid() and not os.listdir(directory):
        directory.chmod(stat.S_IMODE(status.st_mode) & ~0o022)


def make_private(path: Path) -> Path:
    """Make a directory of the cache, or change its mode, so that only its owner can enter it."""
    guard(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    guard(path)
    if os.stat(path).st_mode & 0o077:
        path.chmod(0o700)
    return path


def take_lock(cache: Path) -> int:
    """Become the owner of the cache; the lock is held until the last copy of the descriptor closes.

    Raises:
        BusyError: another process owns it; the message names its pid.
    """
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(cache / LOCK, flags, 0o600)
    except OSError as exc:
        raise unusable(exc, cache) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        what = f"the cache is in use by process {pid or 'unknown'}"
        hint = "wait until that process is done, or use another cache"
        raise BusyError(what, source=str(cache), hint=hint) from exc
    try:
        sign_lock(descriptor)
    except OSError as exc:
        os.close(descriptor)
        raise unusable(exc, cache) from exc
    return descriptor


def claim_objects(cache: Path) -> int:
    """Lock `objects/` and return its descriptor; the caller already holds run/lock.

    Raises:
        BusyError: another process writes to the cache; its run/lock was removed.
        FileNotFoundError: the cache has no `objects/` yet.
    """
    descriptor = os.open(cache / OBJECTS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(descriptor)
        what = f"the cache is in use by another process, whose {LOCK} was removed"
        hint = f"fuser -v {quote(str(cache / OBJECTS))} shows it"
        raise BusyError(what, source=str(cache), hint=hint) from exc
    except OSError:
        pass  # NFS cannot lock a directory: there run/lock is the only lock
    return descriptor


def sign_lock(descriptor: int) -> None:
    """Write this process's pid into the lock file."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def owner_of(cache: Path) -> int | None:
    """The pid in the lock file; it is the owner's as long as a process holds the lock."""
    try:
        text = (cache / LOCK).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 0 else None


def is_lock(descriptor: int, cache: Path) -> bool:
    """Whether `descriptor` is the lock file that is in `cache` now; it may have been replaced."""
    try:
        found = os.stat(cache / LOCK)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def listen(cache: Path) -> socket.socket:
    """Listen on the control socket, to which only the owner and root can connect.

    The caller holds the lock.
    """
    path = cache / SOCKET
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with reachable(path) as address:
            listening.bind(address)
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


class reachable:  # noqa: N801 - reads as a phrase
    """A socket address for a path that may be longer than the 107 bytes of sockaddr_un."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    def __exit__(self, *exc: object) -> None:
        os.close(self._directory)


def unusable(exc: OSError, cache: Path) -> AxonError:
    """The AxonError for a cache directory that cannot be written."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError("the cache's disk is full", source=str(cache), hint=FREE_SPACE)
    return UnsupportedError(
        f"the cache directory cannot be used: {exc.strerror}",
        source=str(cache),
        hint="choose another with --cache, or make it writable",
    )
