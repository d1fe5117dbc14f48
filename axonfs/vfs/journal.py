"""What the kernel was told: which inodes it knows and which handles it holds, for the next worker.

Sits below vfs. An append-only file in memory (memfd) that whoever holds the FUSE connection keeps
open; a worker writes each fact before the kernel learns of it, so the next worker never meets a
number that it does not know. What a kill cuts off is a record that the kernel was not told yet.

    record     u8 kind, 3 zero, u32 bytes of text, u64, u64, then the text; native byte order
    NODE       inode, references more, the path's segments joined by NUL
    LOOKUP     inode, references more (FORGET: less)
    OPEN       handle, inode, the backing id in decimal (0: none)
    RELEASE    handle, 0
    SNAPSHOT   0, 0, records: everything before it counts no more

A new inode and its first reference are one record: between two, a snapshot or a kill would leave an
inode that has no reference, which replay takes for a forgotten one.

Trio thread only; a write is a copy of some 50 bytes and blocks for no longer.
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
# A journal is written anew when it has grown by so much, and again by as much as it then has.
GROWTH = 1 << 20


class Kind(IntEnum):
    """What a record says."""

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
    """A file that is open; `backing_id` is 0 unless the kernel reads its backing file."""

    inode: int
    backing_id: int = 0


@dataclass(slots=True)
class Known:
    """Everything that the kernel may name; `last` is the highest handle there ever was."""

    nodes: dict[int, KnownNode] = field(default_factory=dict)
    handles: dict[int, KnownHandle] = field(default_factory=dict)
    last: int = 0

    def apply(self, kind: int, one: int, two: int, text: bytes) -> None:
        """Take one record into account."""
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
        """What a journal says that says just this."""
        yield _record(Kind.OPEN, self.last, 0, b"0")
        yield _record(Kind.RELEASE, self.last)
        for inode, node in self.nodes.items():
            yield _record(Kind.NODE, inode, node.lookups, "\0".join(node.path).encode())
        for number, handle in self.handles.items():
            yield _record(Kind.OPEN, number, handle.inode, str(handle.backing_id).encode())


class Journal:
    """The journal in the file `descriptor`, which stays the caller's.

    `known` is what it said when it was opened, and is kept up to date.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.known, self._end = _replay(descriptor)
        # What a kill cut off would make everything behind it unreadable.
        os.ftruncate(descriptor, self._end)
        self._rewrite_at = self._end + GROWTH

    @classmethod
    def new(cls) -> Journal:
        """An empty journal in memory of its own."""
        return cls(os.memfd_create("axonfs-journal"))

    def note(self, kind: Kind, one: int, two: int = 0, text: bytes = b"") -> None:
        """Write one fact; the kernel may be told when it returns."""
        self._append(_record(kind, one, two, text))
        self.known.apply(kind, one, two, text)
        if self._end >= self._rewrite_at:
            self._rewrite()

    def _append(self, record: bytes) -> None:
        """Write all of a record, or nothing: what is behind the end would spoil the next replay.

        Raises:
            OSError: memory is short.
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

        Where memory is too short for a snapshot the journal stays as it is, and goes on growing.
        """
        start = self._end
        snapshot = _record(Kind.SNAPSHOT, 0, 0, b"".join(self.known.records()))
        self._rewrite_at = start + len(snapshot) + max(GROWTH, len(snapshot))
        try:
            self._append(snapshot)
        except OSError as exc:
            log.warning("the journal of the mount cannot be shortened: %s", exc)
            return
        cut(self._descriptor, Range(0, start), self._end)


def _record(kind: Kind, one: int, two: int = 0, text: bytes = b"") -> bytes:
    return _HEAD.pack(kind, len(text), one, two) + text


def _replay(descriptor: int) -> tuple[Known, int]:
    """What the journal says, and where its last whole record ends."""
    size = os.fstat(descriptor).st_size
    start = os.lseek(descriptor, 0, os.SEEK_DATA) if size else 0
    data = os.pread(descriptor, size - start, start)
    known = Known()
    # What was let go reads as zeros up to the snapshot, and no record begins with one.
    stop = _apply_all(known, data, len(data) - len(data.lstrip(b"\0")))
    return known, start + stop


def _apply_all(known: Known, data: bytes, position: int = 0) -> int:
    """Apply the whole records from `position` on; where the last one ends."""
    while len(data) - position >= _HEAD.size:
        kind, length, one, two = _HEAD.unpack_from(data, position)
        stop = position + _HEAD.size + length
        if stop > len(data):
            break
        # What makes no sense says nothing: a worker that fails over it would never answer again.
        with suppress(ValueError):
            known.apply(kind, one, two, data[position + _HEAD.size : stop])
        position = stop
    return position
