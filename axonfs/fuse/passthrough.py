"""Kernel passthrough: the kernel reads and maps complete, verified backing files itself.

Beside the adapter. An inode is either cached or passed through: while a handle of one kind is open,
the kernel refuses an open of the other kind with EIO. So handles are counted per inode here: the
first one decides for all, and the backing id is closed with the last. The caller must not change
the bytes of a backing file until then.

Trio thread only.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import struct
from dataclasses import dataclass

from axonfs import descriptors
from axonfs.fuse import openreply

log = logging.getLogger(__name__)

# _IOW(229, 1, struct fuse_backing_map {s32 fd; u32 flags; u64 padding}) and _IOW(229, 2, u32)
_BACKING_OPEN, _BACKING_CLOSE = 0x4010E501, 0x4004E502
_MAP, _ID = struct.Struct("=iIQ"), struct.Struct("=I")


_FOPEN_PASSTHROUGH = 1 << 7


@dataclass(slots=True)
class _Open:
    """The open handles of one inode; `backing_id` is 0 if they are cached."""

    backing_id: int
    count: int = 0


class Passthrough:
    """The backing ids of one connection.

    `why_not` says why no file is passed through; None if files are.
    """

    def __init__(self, device: int, why_not: str | None = None) -> None:
        self.why_not = openreply.UNAVAILABLE or why_not
        self._device = device
        self._inodes: dict[int, _Open] = {}
        self._handles: dict[int, int] = {}

    def deny(self, why_not: str) -> None:
        """Pass no further file through."""
        self.why_not = self.why_not or why_not

    @property
    def files(self) -> int:
        """How many inodes are passed through now."""
        return sum(found.backing_id > 0 for found in self._inodes.values())

    def opened(self, inode: int, handle: int, backing: int | None) -> int:
        """Count a handle whose open is about to be answered; its backing id, or 0.

        Args:
            backing: descriptor of the file with the inode's bytes, if the kernel may read it.
        """
        self._check_answered()
        found = self._inodes.get(inode)
        if found is None:
            found = self._inodes[inode] = _Open(self._register(backing))
        found.count += 1
        self._handles[handle] = inode
        if found.backing_id:
            openreply.arm(handle, _FOPEN_PASSTHROUGH, found.backing_id)
        return found.backing_id

    def is_open(self, inode: int) -> bool:
        """Whether the kernel was given a handle on `inode` that it has not released."""
        return inode in self._inodes

    def restore(self, inode: int, handle: int, backing_id: int) -> None:
        """Count a handle that an earlier worker gave the kernel."""
        found = self._inodes.setdefault(inode, _Open(backing_id))
        found.count += 1
        self._handles[handle] = inode

    def released(self, handle: int) -> int:
        """Uncount a handle; with an inode's last handle its backing id is closed.

        Returns the inode if this was its last handle and it was cached, else 0.
        """
        inode = self._handles.pop(handle, 0)
        if not inode:
            return 0
        found = self._inodes[inode]
        found.count -= 1
        if found.count:
            return 0
        del self._inodes[inode]
        if not found.backing_id:
            return inode
        fcntl.ioctl(self._device, _BACKING_CLOSE, _ID.pack(found.backing_id))
        return 0

    def _register(self, backing: int | None) -> int:
        """A backing id for the file; 0 if the kernel refuses it."""
        if backing is None or self.why_not is not None:
            return 0
        try:
            request = bytearray(_MAP.pack(backing, 0, 0))
            backing_id: int = fcntl.ioctl(self._device, _BACKING_OPEN, request, True)
        except OSError as exc:
            if descriptors.is_shortage(exc):  # it passes, so only this file goes without
                descriptors.complain(exc)
                return 0
            self.why_not = _refusal(exc)
            log.info("no passthrough: %s", self.why_not)
            return 0
        return backing_id

    def _check_answered(self) -> None:
        """Stop passing files through if libfuse answered the last open without the extension."""
        if openreply.unanswered():
            self.why_not = "libfuse does not use the extension"
            log.warning("no passthrough: %s", self.why_not)


def _refusal(exc: OSError) -> str:
    """Why the kernel refuses the backing files of this cache."""
    if exc.errno == errno.ELOOP:
        return (
            "the cache is on a stacked file system, such as a container's overlayfs;"
            " put it on a volume or another disk with --cache"
        )
    return f"the kernel refuses: {exc.strerror}"
