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
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from axonfs.connection.mountinfo import mounts
from axonfs.errors import AxonError, BusyError, UnsupportedError

DEVICE = Path("/dev/fuse")
FUSE_CONFIG = Path("/etc/fuse.conf")
NAME = b"axonfs"
_TYPE = b"fuse.axonfs"
# What a mount says whose process has ended, or whose connection was aborted.
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
CLAIM_SECONDS = 3.0
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
            try:
                done = subprocess.run(
                    ["fusermount3", "-o", options, "--", str(mountpoint)],
                    env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno()), "LC_ALL": "C"},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    check=False,
                )
            except FileNotFoundError as exc:
                raise UnsupportedError("fusermount3 is missing", hint="install fuse3") from exc
        # Their end is closed now: a fusermount3 that failed leaves nobody waiting here.
        return _received(ours) or _refused(mountpoint, done.stderr, allow_other=allow_other)


def _received(sock: socket.socket) -> int | None:
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
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
    return BusyError(f"the mount was refused: {what}", path=str(mountpoint), hint=hint)


def user_allow_other(config: Path = FUSE_CONFIG) -> bool:
    """Whether users may mount for others."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def detach(mountpoint: Path, *, lazy: bool = False) -> str | None:
    """Unmount with umount (root) or fusermount3; what it complained of, None if nothing.

    Raises:
        UnsupportedError: the program is not installed.
    """
    root = os.geteuid() == 0
    command = ["umount", "--no-canonicalize"] if root else ["fusermount3", "-u"]
    if lazy:
        command.append("-l" if root else "-z")
    try:
        done = subprocess.run(
            [*command, "--", str(mountpoint)],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as exc:
        raise UnsupportedError(f"{command[0]} is not installed", hint="install fuse3") from exc
    return (done.stderr.strip() or f"exit {done.returncode}") if done.returncode else None


def readahead_setting(mountpoint: Path) -> Path:
    """The file that says how many KiB the kernel asks for at a time; the mount answers already.

    An open takes the value of its moment; root alone may change it. Source: sysfs-class-bdi.
    """
    device = os.stat(mountpoint).st_dev
    return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")


def clear_dead(mountpoint: Path) -> None:
    """Unmount what killed mounts left at `mountpoint` (every access says ENOTCONN)."""
    with suppress(UnsupportedError):
        while _is_dead(mountpoint) and detach(mountpoint, lazy=True) is None:
            pass  # there may be another below


def _is_dead(mountpoint: Path) -> bool:
    try:
        os.statvfs(mountpoint)  # stat may still be answered from the kernel's cache
    except OSError as exc:
        return exc.errno in DEAD
    return False


@contextmanager
def claimed(mountpoint: Path) -> Iterator[None]:
    """Clear `mountpoint` and keep others of this program from mounting there meanwhile.

    Raises:
        BusyError: another was faster.
    """
    clear_dead(mountpoint)
    try:
        descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        what = f"cannot be mounted on: {exc.strerror}"
        raise BusyError(what, path=str(mountpoint), hint="see axonfs doctor") from exc
    try:
        _lock(descriptor)
        if any(mount.mountpoint == mountpoint for mount in mounts()):
            hint = f"axonfs umount {mountpoint}"
            raise BusyError("another process has just mounted it", path=str(mountpoint), hint=hint)
        yield
    finally:
        os.close(descriptor)


def _lock(directory: int) -> None:
    """Wait for others who mount there. That takes milliseconds: whoever keeps the lock for longer
    does something else with it, and anyone who may read the directory can."""
    until = time.monotonic() + CLAIM_SECONDS
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)
