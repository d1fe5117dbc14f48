"""What the kernel is told without a request: to drop what it keeps of an inode.

Beside the session and pages. A connection has to be open.
"""

from __future__ import annotations

import errno

import pyfuse3


def invalidate_attributes(inode: int) -> None:
    """Have the kernel ask for the attributes of `inode` again; unknown inodes are ignored."""
    _invalidate(inode, attr_only=True)


def invalidate_pages(inode: int) -> None:
    """Have the kernel drop its cached bytes of `inode`. Takes time, so call it in a thread."""
    _invalidate(inode, attr_only=False)


def _invalidate(inode: int, *, attr_only: bool) -> None:
    try:
        pyfuse3.invalidate_inode(inode, attr_only=attr_only)
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise
