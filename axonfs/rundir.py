"""The `run/` directory of a cache: the owner's lock and the control socket's name.

A user or a script may remove `run/` while the owner lives. So the process that writes to the cache
holds a second lock, on `objects/`.

Also the rule for cache directories: nobody but their owner and root may change them, so that no
name in them can be made a link to something else.

Just above errors. Imports nothing heavy, since the process that holds a mount needs it. Blocking.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from axonfs.errors import AxonError, BusyError, NoSpaceError, UnsupportedError

RUN = "run"
LOCK = Path(RUN, "lock")
SOCKET = Path(RUN, "control.sock")
FREE_SPACE = "free some space there, or choose another disk with --cache"
_BACKLOG = 64
OBJECTS = "objects"
# What a cache directory has: a link put there under one of these names would be followed.
_NAMES = (RUN, OBJECTS, "index.lmdb")


def prepare(cache: Path) -> Path:
    """`run/` below `cache`, made for the owner alone where it is missing.

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
    """Refuse a directory in which other users could change what is in use.

    Where it is sticky, as a fresh tmpfs is, others may add names but take none away: then what
    there is of a cache must not be theirs.

    Raises:
        UnsupportedError: they could, with what to do.
        OSError: there is none.
    """
    status = os.stat(directory)
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        what, hint = "other users can write to the cache directory", f"chmod go-w {directory}"
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
    """An empty directory of one's own, such as a container's volume, is closed to others."""
    status = os.stat(directory)
    open_to_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if open_to_others and status.st_uid == os.geteuid() and not os.listdir(directory):
        directory.chmod(stat.S_IMODE(status.st_mode) & ~0o022)


def make_private(path: Path) -> Path:
    """A directory of the cache that its owner alone can enter, made so where it is not."""
    guard(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    guard(path)
    if os.stat(path).st_mode & 0o077:
        path.chmod(0o700)
    return path


def take_lock(cache: Path) -> int:
    """Become the owner; the descriptor holds the lock until its last copy is closed.

    Raises:
        BusyError: another process is; its pid is named.
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
        raise BusyError(what, source=str(cache)) from exc
    try:
        sign_lock(descriptor)
    except OSError as exc:
        os.close(descriptor)
        raise unusable(exc, cache) from exc
    return descriptor


def claim_objects(cache: Path) -> int:
    """A descriptor of `objects/` that holds its lock; run/lock is taken already.

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
        hint = f"fuser -v {cache / OBJECTS} shows it"
        raise BusyError(what, source=str(cache), hint=hint) from exc
    except OSError:
        pass  # NFS locks no directory: there run/lock is the only one
    return descriptor


def sign_lock(descriptor: int) -> None:
    """Say in the lock whose it is now: this process's."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def owner_of(cache: Path) -> int | None:
    """The process that the lock names, which is the owner's as long as somebody has the lock."""
    try:
        text = (cache / LOCK).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 0 else None


def is_lock(descriptor: int, cache: Path) -> bool:
    """Whether this is still the lock that others would find: the directory may be another one."""
    try:
        found = os.stat(cache / LOCK)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def listen(cache: Path) -> socket.socket:
    """The control socket, which only the owner and root can connect to. The lock is ours."""
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
    """An address for a socket whose path may be longer than the 107 bytes of sockaddr_un."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    def __exit__(self, *exc: object) -> None:
        os.close(self._directory)


def unusable(exc: OSError, cache: Path) -> AxonError:
    """What a cache directory that cannot be written means."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError("the cache's disk is full", source=str(cache), hint=FREE_SPACE)
    return UnsupportedError(
        f"the cache directory cannot be used: {exc.strerror}",
        source=str(cache),
        hint="choose another with --cache, or make it writable",
    )
