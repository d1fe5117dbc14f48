"""The journal of inodes and handles that the kernel knows, for the next worker.

Sits below vfs. The journal is an append-only file in memory (memfd), which the holder of the FUSE
connection keeps open. A worker writes each record before the kernel learns of it, so the next
worker knows every number that the kernel may use. A kill can only cut off a record that the kernel
does not know of yet.

    record     u8 kind, 3 zero, u32 bytes of text, u64, u64, then the text; native byte order
    NODE       inode, additional references, the path's segments joined by NUL
    LOOKUP     inode, additional references (FORGET: dropped references)
    OPEN       handle, inode, the backing id in decimal (0: none)
    RELEASE    handle, 0
    SNAPSHOT   0, 0, records: they replace everything before it

A new inode and its first reference are one record. With two, a snapshot or a kill between them
would leave an inode without references, which replay would take for a forgotten one.

Trio thread only; a write copies some 50 bytes and does not block longer.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum

from axonfs.ranges import Range
from axonfs.store.backing import cut

log = logging.getLogger(__name__)

_HEAD = struct.Struct("=B3xIQQ")
# A journal is rewritten when it has grown by this much, or by its own size if that is more.
GROWTH = 1 << 20


class Kind(IntEnum):
    """The kind of a record."""

    NODE = 1
    LOOKUP = 2
    FORGET = 3
    OPEN = 4
    RELEASE = 6
    SNAPSHOT = 7


@dataclass(slots=True)
class KnownNode:
    """An inode that the kernel holds `lookups` references to."""

    path: tuple[str, ...]
    lookups: int = 0


@dataclass(frozen=True, slots=True)
class KnownHandle:
    """An open file; `backing_id` is 0 unless the kernel reads the backing file itself."""

    inode: int
    backing_id: int = 0


@dataclass(slots=True)
class Known:
    """The inodes and handles that the kernel knows; `last` is the highest handle ever used."""

    nodes: dict[int, KnownNode] = field(default_factory=dict)
    handles: dict[int, KnownHandle] = field(default_factory=dict)
    last: int = 0

    def apply(self, kind: int, one: int, two: int, text: bytes) -> None:
        """Apply one record."""
        match kind:
            case Kind.NODE:
                path = tuple(text.decode().split("\0")) if text else ()
                self.nodes.setdefault(one, KnownNode(path)).lookups += two
            case Kind.LOOKUP | Kind.FORGET:
                self._count(one, two if kind == Kind.LOOKUP else -two)
            case Kind.OPEN:
                self.handles[one] = KnownHandle(two, int(text))
                self.last = max(self.last, one)
            case Kind.RELEASE:
                self.handles.pop(one, None)
            case Kind.SNAPSHOT:
                self.nodes, self.handles = {}, {}
                _apply_all(self, text)

    def _count(self, inode: int, change: int) -> None:
        node = self.nodes.get(inode)
        if node is None:
            return
        node.lookups += change
        if node.lookups <= 0:
            del self.nodes[inode]

    def records(self) -> Iterator[bytes]:
        """The records of a journal with exactly this content."""
        yield _record(Kind.OPEN, self.last, 0, b"0")
        yield _record(Kind.RELEASE, self.last)
        for inode, node in self.nodes.items():
            yield _record(Kind.NODE, inode, node.lookups, "\0".join(node.path).encode())
        for number, handle in self.handles.items():
            yield _record(Kind.OPEN, number, handle.inode, str(handle.backing_id).encode())


class Journal:
    """The journal in the file `descriptor`, which the caller owns.

    `known` is the journal's content, kept up to date.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.known, self._end = _replay(descriptor)
        # Drop a record that a kill cut off: it would make all records after it unreadable.
        os.ftruncate(descriptor, self._end)
        self._rewrite_at = self._end + GROWTH

    @classmethod
    def new(cls) -> Journal:
        """An empty journal in a new memfd."""
        return cls(os.memfd_create("axonfs-journal"))

    def note(self, kind: Kind, one: int, two: int = 0, text: bytes = b"") -> None:
        """Write one record; when this returns the kernel may learn of it."""
        self._append(_record(kind, one, two, text))
        self.known.apply(kind, one, two, text)
        if self._end >= self._rewrite_at:
            self._rewrite()

    def _append(self, record: bytes) -> None:
        """Write a complete record or nothing: a partial one would break the next replay.

        Raises:
            OSError: not enough memory.
        """
        try:
            if os.pwrite(self._descriptor, record, self._end) != len(record):
                raise OSError(errno.ENOSPC, "a record of the journal is cut off")
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(record)

    def _rewrite(self) -> None:
        """Append a snapshot, then free everything before it: a kill leaves at least one of the two.

        If there is not enough memory for a snapshot, the journal stays as it is and keeps growing.
        """
        start = self._end
        snapshot = _record(Kind.SNAPSHOT, 0, 0, b"".join(self.known.records()))
        self._rewrite_at = start + len(snapshot) + max(GROWTH, len(snapshot))
        try:
            self._append(snapshot)
        except OSError as exc:
            log.warning("cannot shorten the journal of the mount: %s", exc)
            return
        cut(self._descriptor, Range(0, start), self._end)


def _record(kind: Kind, one: int, two: int = 0, text: bytes = b"") -> bytes:
    return _HEAD.pack(kind, len(text), one, two) + text


def _replay(descriptor: int) -> tuple[Known, int]:
    """The content of the journal, and the end of its last complete record."""
    size = os.fstat(descriptor).st_size
    start = os.lseek(descriptor, 0, os.SEEK_DATA) if size else 0
    data = os.pread(descriptor, size - start, start)
    known = Known()
    # The part that was freed reads as zeros up to the snapshot; no record begins with a zero.
    stop = _apply_all(known, data, len(data) - len(data.lstrip(b"\0")))
    return known, start + stop


def _apply_all(known: Known, data: bytes, position: int = 0) -> int:
    """Apply the complete records from `position` on; return the end of the last one."""
    while len(data) - position >= _HEAD.size:
        kind, length, one, two = _HEAD.unpack_from(data, position)
        stop = position + _HEAD.size + length
        if stop > len(data):
            break
        # Skip malformed records: a worker that failed on one could never start again.
        with suppress(ValueError):
            known.apply(kind, one, two, data[position + _HEAD.size : stop])
        position = stop
    return position
