"""Keeps a limited number of backing files open: those that were used last.

Beside backing, below ledger. Closing a file here drops a reference to its descriptor, which closes
with the last reference: a call that uses the descriptor keeps it open. So reads take no lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

from axonfs import descriptors

# Keeping more files open costs more kernel memory than it saves calls of `open`.
MOST = 16384
# Descriptors left for sockets, the index, pipes and threads, if the limit is large enough.
OTHERS = 256


class Descriptor(int):
    """The number of an open file, closed by `close` or with the last reference to this object."""

    _closed = False

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close it now. No call uses it, but a traceback may still refer to it."""
        if not self._closed:
            self._closed = True
            close(self)

    __del__ = close


class Opened(Protocol):
    """An object that may have its backing file open."""

    fd: Descriptor | None
    held: bool

    @property
    def accessed(self) -> float:
        """The time of its last use."""


class OpenFiles:
    """The objects that have their backing file open.

    `lock` guards them and their `fd`, and is never held during a blocking call.

    Args:
        most: how many may be open; by default a share of the process's limit.
    """

    def __init__(self, most: int | None = None) -> None:
        self.lock = threading.Lock()
        self._most = most
        self._open: dict[Opened, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def most(self) -> int:
        """The maximum number of open files."""
        return self._most or share(descriptors.limit() - descriptors.for_native_threads())

    def add(self, opened: Opened, descriptor: Descriptor) -> None:
        """Register an open file, and close others if there are too many.

        If the object is not held any more, only the caller keeps the descriptor.
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
        """Unregister a file and return its descriptor; the caller holds the lock."""
        self._open.pop(opened, None)
        descriptor, opened.fd = opened.fd, None
        return descriptor

    def make_room(self) -> None:
        """Close half of the files, after the process ran out of descriptors."""
        with self.lock:
            closed = self._oldest(len(self._open) // 2)
        closed.clear()

    def close(self) -> None:
        """Close every file; no call may use one any more."""
        with self.lock:
            descriptors = [self.remove(opened) for opened in list(self._open)]
        for descriptor in filter(None, descriptors):
            descriptor.close()

    def _oldest(self, left: int) -> list[Descriptor | None]:
        """Unregister all but the last `left` files; return the references that keep them open."""
        by_use = sorted(self._open, key=lambda opened: opened.accessed)
        return [self.remove(opened) for opened in by_use[: max(len(by_use) - left, 0)]]


def share(limit: int) -> int:
    """The number of a process's descriptors for backing files."""
    return min(max(limit - OTHERS, limit // 4, 8), MOST)
