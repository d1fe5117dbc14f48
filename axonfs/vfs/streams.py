"""The access log as the tree has it: a file without size and without end.

Only a lookup of its name finds it, no listing does: a program that reads every file it finds
(`grep -r`, `cp -r`, a backup, an indexer) would never come to its end. What is in it is made above
vfs, by fuse/accesslog.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

ACCESS_LOG = "accesslog"


class Stream(Protocol):
    """What one open handle of the access log reads."""

    def __bool__(self) -> bool:
        """Whether there is something to read now."""

    async def read(self, size: int) -> bytes:
        """Wait for something to read; returns from 1 to `size` bytes. Safe to cancel."""

    def close(self) -> None:
        """Stop taking."""


@dataclass(frozen=True, slots=True)
class Log:
    """The access log. `begin` makes a stream; it takes whether an earlier worker made one for the
    same handle."""

    path: tuple[str, ...]
    begin: Callable[[bool], Stream] = field(compare=False)
