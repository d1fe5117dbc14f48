"""One object's local bytes: landing chunks, checking them, giving them up.

Above presence (the bits) and backing (the files), below Store, which alone makes StoredObjects.
Knows nothing of where bytes come from: whoever lands a chunk has verified it.

How it is safe:

- Data before index before memory: `land` writes the bytes, commits the bit, and only then sets it
  in the bitmaps that readers look at. A kill between any two leaves a chunk to fetch again.
- A landing that `discard` or `punch` overtook wrote into a file that was cut meanwhile; it sees
  that the epoch moved, and writes again. Those two commit alone, never together with a landing,
  and cut the file before the epoch moves.
- A chunk that reads wrong is read again under the writer lock before its bit is cleared: another
  thread may have cleared and landed it meanwhile.
- The first `hold` waits for the ledger's lock, which `Store.drop` takes as well: a hold meets the
  file with its bits, or neither. The file is opened when a call first needs it (file.py).
- A frozen object's file is read past us, by the kernel: its bytes are written over, never cut.
- A verdict on the whole object is about one generation of its bytes: it does not count if a chunk
  was given up or written since. Once it counts, the object has a chunk table of its own, and takes
  no chunk that was not compared with that.
- Bits go before bytes: where `discard` or `punch` may run beside it, a reader of the descriptor
  asks `present` again after it has read.

Lock order: the ledger's lock, an object's `_writing`, the index's writer lock, an object's other,
that of the open files. `_writing` is held for one write to the file, or for the commit of a
verdict. The first `hold`, `opened`, `land`, `check`, `punch` and what is said to block belong in
worker threads; the rest is short and may be called from any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from axonfs.descriptors import is_shortage
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range, runs
from axonfs.store import backing
from axonfs.store.claims import suits
from axonfs.store.file import BackingFile
from axonfs.store.health import DISK_FAULTS, Health
from axonfs.store.ledger import Ledger
from axonfs.store.openfiles import Descriptor
from axonfs.store.presence import Presence
from axonfs.store.records import GROUP, NO_TABLE, Group, ObjectRecord, checksum

Generation = tuple[int, int]  # moves when chunks are given up or written
Right = Callable[[int, memoryview], bool]  # whether a chunk's bytes are what they should be

TOUCH_INTERVAL = 60.0  # seconds between two writes of one object's access time


class StoredObject:
    """The chunks of one object; one per digest while it is in use. Sizes are in bytes.

    `digest` is that of the content; `key` is what the index and the backing file are named by,
    another only where the object is private (store.py).
    """

    __slots__ = (
        "__weakref__",
        "_cuts",
        "_file",
        "_freezes",
        "_freezing",
        "_holds",
        "_ledger",
        "_noted",
        "_presence",
        "_writes",
        "_writing",
        "chunk_size",
        "count",
        "digest",
        "key",
        "opened",
        "present",
        "size",
    )

    def __init__(self, ledger: Ledger, key: str, record: ObjectRecord) -> None:
        self._ledger = ledger
        self._presence = presence = Presence(
            ledger.index, ledger.boot, ledger.tally, bytes.fromhex(key), record
        )
        self._noted = record.accessed
        self._holds = self._freezes = self._cuts = self._writes = 0
        self._freezing = threading.Lock()  # innermost; guards the two counts above
        # The kernel lets one thread write to a file at a time, and the others spin meanwhile.
        self._writing = threading.Lock()
        self.key = key
        self.digest = record.private_of or key
        self.size = presence.size
        self.chunk_size = presence.chunk_size
        self.count = presence.count
        self._file = file = BackingFile(ledger, key, presence)
        # The descriptor of the backing file, opened if need be; the object is held. Blocks.
        self.opened = file.opened
        # The hot path of every read: whether chunks [start, stop) are local and need no check.
        self.present = presence.usable.all_set

    def __repr__(self) -> str:
        local = self._presence.present.count
        return f"<StoredObject {self.digest[:12]} {local}/{self.count} chunks>"

    @property
    def presence(self) -> Presence:
        """The bits, for Store."""
        return self._presence

    @property
    def health(self) -> Health:
        """That of the cache's disk."""
        return self._ledger.health

    @property
    def held(self) -> bool:
        return self._holds > 0

    @property
    def complete(self) -> bool:
        """Whether every chunk is local; some may still need a check."""
        return self._presence.present_bytes == self.size

    @property
    def present_bytes(self) -> int:
        return self._presence.present_bytes

    @property
    def single(self) -> bool:
        """Whether its one chunk is the object, so that the object's sha256 judges it."""
        return self.count == 1 and self._presence.table != NO_TABLE

    @property
    def quarantined(self) -> str | None:
        """Why nobody is to be served from this object, None if all is well."""
        return self._presence.quarantined

    @property
    def verified(self) -> bool:
        """Whether the bytes that are here were compared with the object's digest."""
        return self._presence.verified

    @property
    def proven(self) -> bool:
        """Whether the object has a chunk table of its own, made when it was verified."""
        return self._presence.proven

    def own_table(self) -> ChunkTable | None:
        """That table; blocks. If it was lost, the object is no longer verified."""
        return self._presence.own_table() if self.proven else None

    @property
    def accessed(self) -> float:
        """Unix seconds."""
        return self._presence.accessed

    @property
    def epoch(self) -> int:
        """How often chunks were given up: a read that saw it move is done again."""
        return self._presence.epoch

    def serves(self, entry: FileEntry) -> bool:
        """Whether what is local was checked by what `entry` would check it by."""
        return suits(self._presence, entry)

    def hold(self) -> None:
        """Keep the object from being evicted; counted. The first one blocks.

        No use of it yet: see `touch`.
        """
        with self._ledger.files.lock:
            if self._holds:
                self._holds += 1
                return
        with self._ledger.lock, self._ledger.files.lock:
            self._holds += 1
            self._file.held = True
            self._ledger.held.add(self.key)

    @property
    def fd(self) -> Descriptor | None:
        """The descriptor, to keep for one call; None where the file is not open just now."""
        return self._file.fd

    @property
    def readable(self) -> bool:
        """Whether the disk let the backing file be opened, as far as that was tried.

        The object is held. Where it did not, a landing tries again.
        """
        return self._file.readable

    def release(self) -> None:
        """Undo one `hold`; before the last, every call on this object has returned."""
        with self._ledger.files.lock:
            if self._holds == 0:
                raise RuntimeError(f"{self!r} is not held")
            self._holds -= 1
            if self._holds == 0:
                self._ledger.held.discard(self.key)
                if (descriptor := self._ledger.files.remove(self._file)) is not None:
                    descriptor.close()
                self._file.reset()

    @property
    def frozen(self) -> bool:
        """Whether the kernel reads the backing file itself."""
        return self._freezes > 0

    def freeze(self) -> bool:
        """Have no byte cut from the file until `thaw`; False if one is being cut now. Counted."""
        with self._freezing:
            self._freezes += self._cuts == 0
            return self._cuts == 0

    def thaw(self) -> None:
        """Undo one `freeze` that was granted."""
        with self._freezing:
            self._freezes -= 1

    def missing(self, start: int, stop: int) -> list[Range]:
        """The runs of chunks in `[start, stop)` that are not local."""
        return self._presence.present.missing(start, stop)

    def unchecked(self, start: int, stop: int) -> list[Range]:
        """The runs in `[start, stop)` that are local and need `check` before use."""
        presence = self._presence
        return [
            extent
            for run in presence.usable.missing(start, stop)
            for extent in presence.present.extents(run.start, run.stop)
        ]

    def adopted(self, start: int, stop: int) -> list[Range]:
        """The runs in `[start, stop)` that `check` judges by the chunk table."""
        return self._presence.adopted.extents(start, stop)

    def hollow(self) -> list[Range]:
        """The runs of local chunks for which the file has a hole. The object is held; blocks.

        Raises:
            NoSpaceError, OSError: the file cannot be opened.
        """
        extents = backing.data_extents(self.opened()) if self.present_bytes else []
        solid = set(backing.whole_chunks(extents, self.chunk_size, self.size))
        local = (chunk for run in self.local() for chunk in range(*run))
        return runs(chunk for chunk in local if chunk not in solid)

    def local(self, start: int = 0) -> list[Range]:
        """The runs of chunks from `start` on that are local, checked or not."""
        return self._presence.present.extents(start, self.count)

    def bytes_of(self, chunks: Range) -> Range:
        """The bytes of a run of chunks."""
        return self._presence.bytes_of(chunks)

    def land(self, chunk: int, view: memoryview, *, proven: bool = False) -> None:
        """Write chunks, from `chunk` on, and make them count. The object is held.

        Args:
            view: whole chunks; the object's last may be short.
            proven: whether they were compared with the object's own table, or with the whole's
                digest. A verified object takes no others: they may have been on their way since
                before the verdict.

        Raises:
            NoSpaceError, OSError: the disk is full or failed; none of the chunks counts.
        """
        presence, unit = self._presence, self.chunk_size
        count = max(-(-len(view) // unit), 1)
        bounds = Range(presence.bounds(chunk).start, presence.bounds(chunk + count - 1).stop)
        if len(view) != bounds.size:
            raise ValueError(f"chunk {chunk} of {self!r} has {bounds.size} bytes, not {len(view)}")
        values = [checksum(view[start : start + unit]) for start in range(0, len(view), unit)]
        descriptor = self._file.writable()
        while True:
            with self._writing:
                if presence.verified and not proven:
                    return
                epoch = presence.epoch
                self._writes += 1
                backing.write_all(descriptor, view, bounds.start)
            if presence.land(chunk, values, epoch):
                self._ledger.health.worked()
                return

    def check(self, chunk: int, buffer: memoryview, right: Right | None = None) -> bool | None:
        """Read a local chunk and compare; a wrong one is no longer local. The object is held.

        None says that the chunk is not local, or was given up meanwhile.

        Args:
            buffer: at least a chunk long; starts with the chunk's bytes afterwards.
            right: judges an adopted chunk, as its chunk table does. One of an object with a
                table is refused without it; of an object without one it is taken as it is,
                since the digest of the whole judges it.
        """
        presence, view = self._presence, buffer[: self._presence.bounds(chunk).size]
        group = presence.group(chunk)
        if not group.present(chunk % GROUP):
            return None
        try:
            descriptor = self.opened()
        except DISK_FAULTS as exc:
            if is_shortage(exc):
                raise
            return False
        value = self._judge(descriptor, chunk, view, right, group)
        if not self._ledger.index.writable:
            return value is not None
        if value is None:
            kept = presence.lose(
                chunk,
                lambda group: self._judge(descriptor, chunk, view, right, group) is not None,
            )
            if kept is False:  # nor may a lost index find its bytes and adopt them
                self.punch(chunk, chunk + 1)
            return kept
        return presence.usable.test(chunk) or presence.confirm(chunk, value) or None

    def discard(self) -> None:
        """Give up every chunk: the digest of the whole was wrong. The object is held."""
        self.punch(0, self.count)

    def punch(self, start: int, stop: int) -> int:
        """Give up chunks `[start, stop)`, such as those behind all readers; returns the bytes.

        The object is held. One that is frozen gives up nothing.
        """
        descriptor = None
        if self.present_bytes:
            with suppress(*DISK_FAULTS):
                descriptor = self.opened()
        with self._freezing:
            if self.frozen:
                return 0
            self._cuts += 1
        try:
            return self._presence.forget(Range(start, stop), partial(self._cut, descriptor))
        finally:
            with self._freezing:
                self._cuts -= 1

    def generation(self) -> Generation:
        """Which bytes are here, for `mark_verified`: the epoch, and the number of landings."""
        with self._writing:  # none is under way
            return self._presence.epoch, self._writes

    def mark_verified(self, generation: Generation, table: ChunkTable | None = None) -> bool:
        """The bytes of the whole were seen to have the object's digest; whether that counts.

        Args:
            generation: as it was before the bytes were read; with another one, or where the object
                is not complete, the verdict does not count.
            table: of those bytes; the object's own from then on.
        """
        epoch, writes = generation
        with self._writing:
            return self._writes == writes and self._presence.verify(epoch, table)

    def quarantine(self, cause: str | None) -> None:
        """Mark the object as one that nobody is to be served from; None takes that back."""
        self._presence.amend(lambda record: setattr(record, "quarantined", cause))

    def touch(self) -> None:
        """Note an access; it reaches the index with a later commit, at most once a minute."""
        now = time.time()
        self._presence.accessed = now
        if now - self._noted >= TOUCH_INTERVAL:
            self._noted = now
            self._ledger.touched[self.key] = now

    def _cut(self, descriptor: int | None, bounds: Range) -> None:
        if descriptor is not None:
            backing.cut(descriptor, bounds, self.size)

    def _judge(
        self, descriptor: int, chunk: int, view: memoryview, right: Right | None, group: Group
    ) -> int | None:
        """Read the chunk into `view`; its sum if it is what it should be, else None."""
        try:
            backing.read_all(descriptor, view, chunk * self.chunk_size)
        except OSError:
            return None
        slot, value = chunk % GROUP, checksum(view)
        if not group.adopted(slot):
            same = value == group.sum_of(slot)
        elif right is None:
            same = self._presence.table == NO_TABLE
        else:
            same = right(chunk, view)
        return value if same else None
