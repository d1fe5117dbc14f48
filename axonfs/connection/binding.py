"""Bind mounts of a directory of the mount at other places, and their end.

Beside mounting.py, which mounts the file system itself. Places and directories are descriptors (of
O_PATH), so that no name can be replaced in between, and none of the calls here waits for a mount
that does not answer. It needs Linux 5.12 and root. Blocking.

Source: open_tree(2), mount_setattr(2), move_mount(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

from axonfs.mounttable import Entry, entries, table

_libc = ctypes.CDLL(None, use_errno=True)
# The same numbers on every processor: all of them are newer than 2019.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_EMPTY_PATH, _OPEN_TREE_CLONE = 0x1000, 1
_FROM_DESCRIPTOR, _TO_DESCRIPTOR = 0x04, 0x40
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2


def bind(source: int, target: int) -> None:
    """Mount the directory `source` read-only at the directory `target`, over what is there.

    It is a peer of no other mount: what is mounted in it later shows nowhere else, but at its own
    copies, where that is wanted.

    Raises:
        OSError: the kernel refuses it.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    tree = _call(_OPEN_TREE, source, b"", flags)
    try:
        wanted = _RDONLY | _NOSUID | _NODEV
        attributes = struct.pack(
            "=QQQQ", wanted, 0, _MS_PRIVATE, 0
        )  # set, clear, propagation, user
        _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
        _call(_MOVE_MOUNT, tree, b"", target, b"", _FROM_DESCRIPTOR | _TO_DESCRIPTOR)
    finally:
        os.close(tree)


def unbind(target: int) -> None:
    """Unmount the topmost file system at `target`, a descriptor of its root, even while it is used.

    Raises:
        OSError: nothing is mounted there, or the kernel refuses it.
    """
    if _libc.umount2(os.fsencode(f"/proc/self/fd/{target}"), _MNT_DETACH):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def mount_of(descriptor: int) -> Entry:
    """The mount that a descriptor is in.

    Raises:
        OSError: it is in no mount that this process sees, since that was unmounted.
    """
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    number = next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    for entry in entries(table()):
        if entry.number == number:
            return entry
    raise OSError(errno.ENOENT, "it was unmounted meanwhile")


def _call(number: int, *args: int | bytes) -> int:
    words = [ctypes.c_long(arg) if isinstance(arg, int) else ctypes.c_char_p(arg) for arg in args]
    found: int = _libc.syscall(ctypes.c_long(number), *words)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found
