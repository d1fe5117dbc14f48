"""Open /dev/fuse and mount it, as root or through fusermount3; unmount it again.

Blocking. Knows nothing of what is served; the caller reads the kernel's INIT from the descriptor.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from axonfs.connection.mountinfo import FILESYSTEM, places_of, shown, top_at
from axonfs.errors import AxonError, BusyError, UnsupportedError

DEVICE = Path("/dev/fuse")
FUSE_CONFIG = Path("/etc/fuse.conf")
NAME = b"axonfs"
_TYPE = b"fuse.axonfs"
# What a mount says whose process has ended, or whose connection was aborted.
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
CLAIM_SECONDS = 3.0
# A helper program takes milliseconds; one that is stuck in the kernel is left behind.
HELPER_SECONDS = 20.0
# How long a mount may take to say that it is dead; one that says nothing is not dead.
DEAD_SECONDS = 3.0
_RDONLY, _NOSUID, _NODEV = 1, 2, 4  # mount(2)
_libc = ctypes.CDLL(None, use_errno=True)


def connect(mountpoint: Path, *, allow_other: bool) -> int:
    """Mount at `mountpoint`; the descriptor of the connection, with INIT waiting in it.

    Raises:
        UnsupportedError: /dev/fuse is missing or closed to this user, with what to do.
        BusyError: the mountpoint cannot be used.
    """
    if os.geteuid() == 0:
        try:
            return _mount_as_root(mountpoint, allow_other=allow_other)
        except PermissionError:  # root without CAP_SYS_ADMIN, as in many containers
            pass
        except OSError as exc:
            raise _reason(mountpoint, str(exc.strerror), allow_other=allow_other) from exc
    return _mount_as_user(mountpoint, allow_other=allow_other)


def _mount_as_root(mountpoint: Path, *, allow_other: bool) -> int:
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    options += ",default_permissions" + (",allow_other" if allow_other else "")
    flags = ctypes.c_ulong(_RDONLY | _NOSUID | _NODEV)
    if _libc.mount(NAME, os.fsencode(mountpoint), _TYPE, flags, options.encode()):
        code = ctypes.get_errno()
        os.close(device)
        raise OSError(code, os.strerror(code))
    return device


def _mount_as_user(mountpoint: Path, *, allow_other: bool) -> int:
    """fusermount3 mounts, and sends the descriptor over the socket it is told of."""
    options = "ro,nosuid,nodev,default_permissions,fsname=axonfs,subtype=axonfs"
    options += ",allow_other" if allow_other else ""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            complaint = run_helper(
                ["fusermount3", "-o", options, "--", str(mountpoint)],
                variables={"_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
            )
        # Their end is closed now: a fusermount3 that failed sent nothing.
        return _received(ours) or _refused(mountpoint, complaint or "", allow_other=allow_other)


def run_helper(
    command: Sequence[str],
    *,
    variables: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> str | None:
    """Run a program of the system, for `HELPER_SECONDS` at most; its complaint if it failed.

    Raises:
        UnsupportedError: the program is not installed.
    """
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, "LC_ALL": "C", **(variables or {})},
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as exc:
        raise UnsupportedError(f"{command[0]} is not installed", hint="install fuse3") from exc
    try:
        _, complaint = process.communicate(timeout=HELPER_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: what is stuck in the kernel does not end by that
        return f"{command[0]} did not end within {HELPER_SECONDS:.0f} s"
    return (complaint.strip() or f"exit {process.returncode}") if process.returncode else None


def _received(sock: socket.socket) -> int | None:
    sock.setblocking(False)  # what was sent is there; a helper that is stuck sends nothing
    try:
        _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return array.array("i", data)[0]
    return None


def _refused(mountpoint: Path, complaint: str, *, allow_other: bool) -> int:
    text = complaint.strip().removeprefix("fusermount3: ")
    raise _reason(mountpoint, text or "fusermount3 sent nothing", allow_other=allow_other)


def _reason(mountpoint: Path, what: str, *, allow_other: bool) -> AxonError:
    """Why it would not mount, with what to do."""
    if not DEVICE.exists():
        return UnsupportedError(f"{DEVICE} does not exist", hint="load the fuse module")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return UnsupportedError(f"{DEVICE} is closed to this user", hint=f"chmod 0666 {DEVICE}")
    if allow_other and os.getuid() != 0 and not user_allow_other():
        return UnsupportedError(
            "--allow-other is not allowed to users",
            hint=f"add the line user_allow_other to {FUSE_CONFIG}",
        )
    hint = "see axonfs doctor"
    if "username" in what:
        hint = f"fusermount3 wants an entry for user {os.getuid()} in /etc/passwd"
    return BusyError(f"the mount was refused: {what}", path=str(mountpoint), hint=hint)


def user_allow_other(config: Path = FUSE_CONFIG) -> bool:
    """Whether users may mount for others."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def connection_of(device: int, mountpoint: Path) -> int:
    """The number of the connection that was just mounted at `mountpoint`; -1 if it is not there.

    The kernel says it of the descriptor (Linux 6.16), before that what is mounted there does.
    """
    with suppress(OSError):
        for line in Path(f"/proc/self/fdinfo/{device}").read_text().splitlines():
            name, _, number = line.partition(":")
            if name == "fuse_connection":
                return int(number)
    top = top_at(mountpoint)
    return top.device if top is not None and top.filesystem == FILESYSTEM else -1


def detach(mountpoint: Path, *, lazy: bool = False) -> str | None:
    """Unmount with umount (root) or fusermount3; what it complained of, None if nothing.

    Raises:
        UnsupportedError: the program is not installed.
    """
    root = os.geteuid() == 0
    command = ["umount", "--no-canonicalize"] if root else ["fusermount3", "-u"]
    if lazy:
        command.append("-l" if root else "-z")
    return run_helper([*command, "--", str(mountpoint)])


def release(connection: int, *, lazy: bool = False) -> str | None:
    """Unmount `connection` from every place where this process sees it, and nothing else.

    It has to be mounted: the kernel gives the number of one that is not to the next mount.

    Returns:
        Why it is still mounted somewhere, None if it is not.

    Raises:
        UnsupportedError: the program that unmounts is not installed.
    """
    complaint = None
    for place in places_of(connection):
        complaint = release_at(place, connection, lazy=lazy) or complaint
    return complaint


def release_dead(connection: int) -> str | None:
    """What is left of a connection that has ended: like `release`, where nothing answers any more.

    A mount that answers is another one, which has the number now.
    """
    complaint = None
    for place in places_of(connection):
        if not shown(place, connection) or _is_dead(place):
            complaint = release_at(place, connection, lazy=True) or complaint
    return complaint


def release_at(mountpoint: Path, connection: int, *, lazy: bool = False) -> str | None:
    """Unmount `connection` from one place, unless something else is mounted on top of it there.

    The kernel unmounts what is topmost, and nothing below that can be named.
    """
    top = top_at(mountpoint)
    # A disk's partition may have the same minor number as the connection.
    if top is not None and (top.filesystem, top.device) != (FILESYSTEM, connection):
        what = f"a {top.filesystem} file system is mounted on top of it"
        return f"{what}; unmount that first: umount {mountpoint}"
    complaint = detach(mountpoint, lazy=lazy)
    gone = complaint and ("not mounted" in complaint or "not found" in complaint)
    return None if gone else complaint


def readahead_setting(connection: int) -> Path:
    """The file that says how many KiB the kernel asks for at a time.

    An open takes the value of its moment; root alone may change it. Source: sysfs-class-bdi.
    """
    return Path(f"/sys/class/bdi/0:{connection}/read_ahead_kb")


def clear_dead(mountpoint: Path) -> None:
    """Unmount what killed AxonFS mounts left at `mountpoint`; another file system stays."""
    with suppress(UnsupportedError):
        while _is_dead(mountpoint) and detach(mountpoint, lazy=True) is None:
            pass  # there may be another below


def _is_dead(mountpoint: Path) -> bool:
    """Whether an AxonFS is topmost there and every access to it says that it has no process."""
    top = top_at(mountpoint)
    if top is None or top.filesystem != FILESYSTEM:
        return False
    codes: list[int | None] = []
    asking = threading.Thread(target=lambda: codes.append(_fault(mountpoint)), daemon=True)
    asking.start()
    asking.join(DEAD_SECONDS)
    return bool(codes) and codes[0] in DEAD


def _fault(mountpoint: Path) -> int | None:
    try:
        os.statvfs(mountpoint)  # stat may still be answered from the kernel's cache
    except OSError as exc:
        return exc.errno
    return None


@contextmanager
def claimed(mountpoint: Path) -> Iterator[None]:
    """Clear `mountpoint` and keep others of this program from mounting there meanwhile.

    Raises:
        BusyError: something is mounted there: another process was faster.
    """
    clear_dead(mountpoint)
    _refuse_taken(mountpoint)  # before the directory is opened: its mount may not answer
    try:
        descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        what = f"cannot be mounted on: {exc.strerror}"
        raise BusyError(what, path=str(mountpoint), hint="see axonfs doctor") from exc
    try:
        _lock(descriptor)
        _refuse_taken(mountpoint)
        yield
    finally:
        os.close(descriptor)


def _refuse_taken(mountpoint: Path) -> None:
    """An AxonFS there is another process's; any other file system may be mounted over."""
    top = top_at(mountpoint)
    if top is not None and top.filesystem == FILESYSTEM:
        hint = f"axonfs umount {mountpoint}"
        raise BusyError("another process has just mounted it", path=str(mountpoint), hint=hint)


def _lock(directory: int) -> None:
    """Wait for others who mount there. That takes milliseconds: whoever keeps the lock for longer
    does something else with it, and anyone who may read the directory can."""
    until = time.monotonic() + CLAIM_SECONDS
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)
