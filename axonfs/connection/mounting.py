"""Opens /dev/fuse and mounts it, as root or through fusermount3; unmounts it again.

Does not serve the connection; the caller reads the kernel's INIT from its descriptor. Blocking.
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
from dataclasses import dataclass
from pathlib import Path

from axonfs.connection.mountinfo import places_of, shown, top_at
from axonfs.distro import install_fuse
from axonfs.errors import AxonError, BusyError, UnsupportedError
from axonfs.mounttable import FILESYSTEM
from axonfs.names import word

DEVICE = Path("/dev/fuse")
FUSE_CONFIG = Path("/etc/fuse.conf")
NAME = "axonfs"
_TYPE = b"fuse.axonfs"
# The errors of a mount whose process has ended or whose connection was aborted.
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
CLAIM_SECONDS = 3.0
# How long to wait for a helper program. It takes milliseconds, or is stuck in the kernel.
HELPER_SECONDS = 20.0
# How long to wait for an error of a dead mount; one that does not answer counts as alive.
DEAD_SECONDS = 3.0
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096  # mount(2)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Manner:
    """How to mount: for whom, under which name in the mount table, and whether programs may run."""

    allow_other: bool
    source: str = NAME
    noexec: bool = False

    @property
    def words(self) -> str:
        """For fusermount3 and libfuse: the options beside those that all mounts have."""
        source = self.source.replace("\\", "\\\\").replace(",", "\\,")
        words = [f"fsname={source}", "subtype=axonfs"]
        words += ["allow_other"] * self.allow_other + ["noexec"] * self.noexec
        return ",".join(words)

    @property
    def flags(self) -> int:
        """For mount(2)."""
        return _RDONLY | _NOSUID | _NODEV | (_NOEXEC if self.noexec else 0)


def connect(mountpoint: Path, manner: Manner) -> int:
    """Mount at `mountpoint`; the connection's descriptor, from which INIT can be read.

    Raises:
        UnsupportedError: /dev/fuse is missing, or this user may not open it.
        BusyError: the mountpoint cannot be used.
    """
    if os.geteuid() == 0:
        try:
            return _mount_as_root(mountpoint, manner)
        except PermissionError:  # root without CAP_SYS_ADMIN, as in many containers
            pass
        except OSError as exc:
            what = str(exc.strerror)
            raise _reason(mountpoint, what, allow_other=manner.allow_other) from exc
    return _mount_as_user(mountpoint, manner)


def _mount_as_root(mountpoint: Path, manner: Manner) -> int:
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    options += ",default_permissions" + (",allow_other" if manner.allow_other else "")
    source, flags = os.fsencode(manner.source), ctypes.c_ulong(manner.flags)
    if _libc.mount(source, os.fsencode(mountpoint), _TYPE, flags, options.encode()):
        code = ctypes.get_errno()
        os.close(device)
        raise OSError(code, os.strerror(code))
    return device


def set_noexec(mountpoint: Path, *, noexec: bool) -> None:
    """Change whether programs may run from a mount; only root may.

    Raises:
        OSError: the kernel refuses.
    """
    manner = Manner(allow_other=True, noexec=noexec)
    flags = ctypes.c_ulong(manner.flags | _REMOUNT | _BIND)
    if _libc.mount(None, os.fsencode(mountpoint), None, flags, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(mountpoint))


def _mount_as_user(mountpoint: Path, manner: Manner) -> int:
    """Have fusermount3 mount; it sends the descriptor over a socket."""
    options = f"ro,nosuid,nodev,default_permissions,{manner.words}"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            complaint = run_helper(
                ["fusermount3", "-o", options, "--", str(mountpoint)],
                variables={"_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
            )
        # Their end is closed now: a fusermount3 that failed sent nothing.
        return _received(ours) or _refused(mountpoint, complaint or "", manner)


def run_helper(
    command: Sequence[str],
    *,
    variables: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> str | None:
    """Run a system program for `HELPER_SECONDS` at most; its error message, None if it succeeded.

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
        raise UnsupportedError(f"{command[0]} is not installed", hint=install_fuse()) from exc
    try:
        _, complaint = process.communicate(timeout=HELPER_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: a program that is stuck in the kernel does not end
        return f"{command[0]} did not end within {HELPER_SECONDS:.0f} s"
    return (complaint.strip() or f"exit {process.returncode}") if process.returncode else None


def _received(sock: socket.socket) -> int | None:
    sock.setblocking(False)  # the helper has already sent the descriptor, or it never will
    try:
        _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return array.array("i", data)[0]
    return None


def _refused(mountpoint: Path, complaint: str, manner: Manner) -> int:
    text = complaint.strip().removeprefix("fusermount3: ") or "fusermount3 sent nothing"
    raise _reason(mountpoint, text, allow_other=manner.allow_other)


def _reason(mountpoint: Path, what: str, *, allow_other: bool) -> AxonError:
    """The error of a mount that failed, with what to do."""
    if not DEVICE.exists():
        hint = f"modprobe fuse, or for a container --device {DEVICE}"
        return UnsupportedError(f"{DEVICE} does not exist", hint=hint)
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        what = f"this user may not open {DEVICE}"
        return UnsupportedError(what, hint=f"chmod 0666 {DEVICE}")
    if allow_other and os.getuid() != 0 and not user_allow_other():
        return UnsupportedError(
            "users may not mount with --allow-other",
            hint=f"add the line user_allow_other to {FUSE_CONFIG}",
        )
    hint = "see axonfs doctor"
    if "username" in what:
        hint = f"add user {os.getuid()} to /etc/passwd, where fusermount3 looks for it"
    if "not permitted" in what:
        hint = (
            "a container needs --cap-add SYS_ADMIN --security-opt apparmor=unconfined,"
            " and for a user no no-new-privileges"
        )
    return BusyError(f"the mount was refused: {what}", path=str(mountpoint), hint=hint)


def user_allow_other(config: Path = FUSE_CONFIG) -> bool:
    """Whether users may mount with allow_other."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def connection_of(device: int, mountpoint: Path) -> int:
    """The number of the connection that was just mounted at `mountpoint`; -1 if it is unmounted.

    Since Linux 6.16 /proc shows it for the descriptor; before, it is that of the topmost mount.
    """
    with suppress(OSError):
        for line in Path(f"/proc/self/fdinfo/{device}").read_text().splitlines():
            name, _, number = line.partition(":")
            if name == "fuse_connection":
                return int(number)
    top = top_at(mountpoint)
    return top.device if top is not None and top.filesystem == FILESYSTEM else -1


def detach(mountpoint: Path, *, lazy: bool = False) -> str | None:
    """Unmount with umount (root) or fusermount3; its error message, None if it succeeded.

    Raises:
        UnsupportedError: the program is not installed.
    """
    root = os.geteuid() == 0
    command = ["umount", "--no-canonicalize"] if root else ["fusermount3", "-u"]
    if lazy:
        command.append("-l" if root else "-z")
    return run_helper([*command, "--", str(mountpoint)])


def release(connection: int, *, lazy: bool = False) -> str | None:
    """Unmount `connection` from every mountpoint that this process sees, and nothing else.

    It has to be mounted: else the next mount may have its number.

    Returns:
        Why it is still mounted, None if it is not.

    Raises:
        UnsupportedError: the program that unmounts is not installed.
    """
    complaint = None
    for place in places_of(connection):
        complaint = release_at(place, connection, lazy=lazy) or complaint
    return complaint


def release_dead(connection: int) -> str | None:
    """Unmount what is left of a connection that has ended: like `release`, for dead mounts only.

    A mount that answers is another one, which now has the same number.
    """
    complaint = None
    for place in places_of(connection):
        if not shown(place, connection) or _is_dead(place):
            complaint = release_at(place, connection, lazy=True) or complaint
    return complaint


def release_at(mountpoint: Path, connection: int, *, lazy: bool = False) -> str | None:
    """Unmount `connection` from one mountpoint, unless another file system is mounted on top.

    The kernel can only unmount the topmost file system.
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
    """The file with the number of KiB that the kernel reads at a time.

    An open file keeps the value of its open; only root may change it. Source: sysfs-class-bdi.
    """
    return Path(f"/sys/class/bdi/0:{connection}/read_ahead_kb")


def clear_dead(mountpoint: Path) -> None:
    """Unmount the dead AxonFS mounts at `mountpoint`; other file systems stay."""
    with suppress(UnsupportedError):
        while _is_dead(mountpoint) and detach(mountpoint, lazy=True) is None:
            pass  # there may be another below


def _is_dead(mountpoint: Path) -> bool:
    """Whether an AxonFS is topmost there and every access fails because its process has ended."""
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
    """Clear `mountpoint`, and keep other AxonFS processes from mounting there in the block.

    Raises:
        BusyError: another AxonFS is mounted there.
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
    """Refuse a mountpoint of another AxonFS; any other file system may be mounted over."""
    top = top_at(mountpoint)
    if top is None or top.filesystem != FILESYSTEM:
        return
    what, hint = "another process has just mounted it", f"axonfs umount {word(mountpoint)}"
    if _is_dead(mountpoint):  # `clear_dead` failed
        what = "a mount whose process has ended is left there, and this user may not unmount it"
        hint = f"as root, where it was mounted: umount -l {word(mountpoint)}"
    raise BusyError(what, path=str(mountpoint), hint=hint)


def _lock(directory: int) -> None:
    """Wait for other processes that mount there, which takes milliseconds.

    A process that holds the lock for longer uses it for something else: every user who may read the
    directory can take it.
    """
    until = time.monotonic() + CLAIM_SECONDS
    while time.monotonic() < until:
        with suppress(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)
