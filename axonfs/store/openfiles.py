"""The backing files that are open: a limited number, those that were used last.

Beside backing, below ledger. To close a file here is to drop the reference to its descriptor, which
is closed with the last one: a call that was given it keeps it open. So a read takes no lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

from axonfs import descriptors

# To keep more open takes more of the kernel's memory than it saves in calls of `open`.
MOST = 16384
# Left for sockets, the index, pipes and threads, where the limit is large enough.
OTHERS = 256


class Descriptor(int):
    """The number of an open file, closed by `close` or with the last reference to this object."""

    _closed = False

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close it now: no call uses it, but the traceback of one may still refer to it."""
        if not self._closed:
            self._closed = True
            close(self)

    __del__ = close


class Opened(Protocol):
    """What has a backing file open."""

    fd: Descriptor | None
    held: bool

    @property
    def accessed(self) -> float:
        """When it was used last."""


class OpenFiles:
    """The objects that have their backing file open.

    `lock` guards them and `fd` of each, and is never held while anything blocks.

    Args:
        most: how many may be open, None for what the process's limit leaves for them.
    """

    def __init__(self, most: int | None = None) -> None:
        self.lock = threading.Lock()
        self._most = most
        self._open: dict[Opened, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def most(self) -> int:
        """How many may be open."""
        return self._most or share(descriptors.limit())

    def add(self, opened: Opened, descriptor: Descriptor) -> None:
        """Note that the file is open now, and close others where these are too many.

        The caller alone keeps the descriptor of an object that is not held any more.
        """
        with self.lock:
            if not opened.held:
                return
            most = self.most
            closed = self._oldest(most - most // 4) if len(self._open) >= most else []
            opened.fd = descriptor
            self._open[opened] = None
        closed.clear()  # closes them, without the lock

    def remove(self, opened: Opened) -> Descriptor | None:
        """Let go of a file's descriptor, which is returned; the lock is held."""
        self._open.pop(opened, None)
        descriptor, opened.fd = opened.fd, None
        return descriptor

    def make_room(self) -> None:
        """Close half of the files: the process has no descriptor left."""
        with self.lock:
            closed = self._oldest(len(self._open) // 2)
        closed.clear()

    def close(self) -> None:
        """Close every file: no call uses one any more."""
        with self.lock:
            descriptors = [self.remove(opened) for opened in list(self._open)]
        for descriptor in filter(None, descriptors):
            descriptor.close()

    def _oldest(self, left: int) -> list[Descriptor | None]:
        """Have only `left` open; returns the references that still keep the others so."""
        by_use = sorted(self._open, key=lambda opened: opened.accessed)
        return [self.remove(opened) for opened in by_use[: max(len(by_use) - left, 0)]]


def share(limit: int) -> int:
    """How many of a process's descriptors are for backing files."""
    return min(max(limit - OTHERS, limit // 4, 8), MOST)
