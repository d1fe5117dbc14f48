"""Mounting: pyfuse3's session from start to unmount.

libfuse opens /dev/fuse and negotiates here; everything above sees only `Session`, so a
connection of our own can take its place.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3
import trio

from axonfs.errors import BusyError, UnsupportedError
from axonfs.fuse.adapter import Adapter

log = logging.getLogger(__name__)

# One request of the largest size the kernel makes, 1 MiB, and one chunk of the default size.
READ_AHEAD_KIB = 1024
# How often it is looked whether the connection still is there, in seconds.
GONE_INTERVAL = 0.5


class Session:
    """A mounted file system; `serve` answers until `stop` or an unmount from outside."""

    def __init__(self) -> None:
        self._serving = trio.CancelScope()

    async def serve(self) -> None:
        """Answer requests until the mount ends, those under way included."""
        with self._serving:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_when_gone)
                await pyfuse3.main()
                nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Have `serve` return."""
        self._serving.cancel()

    async def _stop_when_gone(self) -> None:
        """Leave when the connection ended: pyfuse3 would first finish what nobody waits for."""
        device = select.poll()
        device.register(_device(), 0)  # POLLERR is always reported
        while not device.poll(0):  # noqa: ASYNC110 - the kernel sets no event of ours
            await trio.sleep(GONE_INTERVAL)
        log.info("the kernel ended the connection")
        self.stop()


@contextmanager
def mounted(adapter: Adapter, mountpoint: Path, *, allow_other: bool) -> Iterator[Session]:
    """Mount on entry, unmount on exit.

    Raises:
        UnsupportedError: /dev/fuse is missing or closed to this user, with what to do.
        BusyError: the mountpoint is in use.
    """
    clear_dead(mountpoint)
    options = set(pyfuse3.default_options) | {"ro", "fsname=axonfs", "subtype=axonfs"}
    options |= {"allow_other"} if allow_other else set()
    try:
        pyfuse3.init(adapter, str(mountpoint), options)
    except RuntimeError as exc:
        raise _reason(mountpoint, allow_other=allow_other) from exc
    try:
        yield Session()
    finally:
        pyfuse3.close(unmount=True)


def _device() -> int:
    """The descriptor of the FUSE connection, which libfuse keeps to itself."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    raise UnsupportedError("libfuse has no /dev/fuse open", hint="report this")


def widen(mountpoint: Path) -> None:
    """Have the kernel ask for `READ_AHEAD_KIB` at a time, where root is allowed to say so.

    The mount answers already. It asks for 128 KiB otherwise, and each request costs as much as
    the copy of its bytes.
    """
    device = os.stat(mountpoint).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        setting.write_text(f"{READ_AHEAD_KIB}")
    except OSError as exc:
        log.debug("requests stay small: %s", exc)


def clear_dead(mountpoint: Path) -> None:
    """Unmount what a killed mount left at `mountpoint` (every access says ENOTCONN)."""
    try:
        os.statvfs(mountpoint)  # stat may still be answered from the kernel's cache
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
        tool = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-u", "-z"]
        subprocess.run([*tool, str(mountpoint)], check=False, capture_output=True)


def _reason(mountpoint: Path, *, allow_other: bool) -> Exception:
    """Why libfuse, which only prints, would not mount."""
    if not os.path.exists("/dev/fuse"):
        return UnsupportedError("/dev/fuse does not exist", hint="load the fuse module")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return UnsupportedError("/dev/fuse is closed to this user", hint="chmod 0666 /dev/fuse")
    if allow_other and os.getuid() != 0 and not _user_allow_other():
        return UnsupportedError(
            "--allow-other is not allowed to users",
            hint="add the line user_allow_other to /etc/fuse.conf",
        )
    return BusyError("the mount was refused", path=str(mountpoint), hint="see axonfs doctor")


def _user_allow_other() -> bool:
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)
