"""One object's local bytes: chunks are landed (written and recorded), checked and dropped.

Above presence (the bits) and backing (the files), below Store, the only one that makes
StoredObjects. It does not know where bytes come from: callers verify a chunk before they land it.

How it is safe:

- Data before index before memory: `land` writes the bytes, commits the bit, and only then sets it
  in the bitmaps that readers use. After a kill between two of these steps, the chunk is fetched
  again.
- If `discard` or `punch` overtakes a landing, its bytes went into a file that was cut meanwhile:
  the landing sees that the epoch has changed, and writes again. Those two never commit together
  with a landing, and cut the file before the epoch changes.
- A bad chunk is read again under the writer lock before its bit is cleared, since another thread
  may have cleared and landed it meanwhile.
- The first `hold` waits for the ledger's lock, which `Store.drop` takes too: so a held object has
  both its file and its bits, or neither. The file is opened on first use (file.py).
- The kernel reads a frozen object's file itself, and programs a linked one: neither is ever cut.
- A check of the whole object is valid for one generation of its bytes: it is ignored if a chunk was
  dropped or written since. After a valid check the object has a chunk table of its own, and accepts
  only chunks that were compared with that.
- A chunk's bit is cleared before its bytes are dropped. If `discard` or `punch` may run meanwhile,
  a reader of the descriptor calls `present` again after it has read.

Lock order: the ledger's lock, an object's `_writing`, the index's writer lock, an object's other
lock, the lock of the open files. `_writing` is held during one write to the file, or the commit of
a check. Call the first `hold`, `opened`, `land`, `check`, `punch` and methods that say that they
block in worker threads; the others are short and may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from axonfs.descriptors import is_shortage
from axonfs.errors import NoSpaceError
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.manifest import FileEntry
from axonfs.ranges import Range
from axonfs.store import backing
from axonfs.store.claims import suits
from axonfs.store.file import BackingFile
from axonfs.store.health import DISK_FAULTS
from axonfs.store.landings import confirm, land
from axonfs.store.ledger import Ledger
from axonfs.store.openfiles import Descriptor
from axonfs.store.presence import Presence
from axonfs.store.records import GROUP, NO_TABLE, TOUCH_INTERVAL, Group, ObjectRecord, checksum
from axonfs.store.writing import Writing

Generation = tuple[int, int]  # changes when chunks are dropped or written
Right = Callable[[int, memoryview], bool]  # whether a chunk's bytes are valid


class StoredObject:
    """The chunks of one object; one per digest while it is in use. Sizes are in bytes.

    `digest` is the digest of the content. `key` names the object in the index and its backing file;
    it differs from `digest` only if the object is private (store.py).
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
        "_writing",
        "bytes_of",
        "chunk_size",
        "count",
        "digest",
        "health",
        "key",
        "missing",
        "opened",
        "present",
        "size",
    )

    def __init__(self, ledger: Ledger, key: str, record: ObjectRecord) -> None:
        self._ledger, self.health = ledger, ledger.health
        self._presence = presence = Presence(
            ledger.index, ledger.boot, ledger.tally, bytes.fromhex(key), record
        )
        self._noted = record.accessed
        self._holds = self._freezes = self._cuts = 0
        self._freezing = threading.Lock()  # innermost; guards the two counts above
        self._writing = Writing()
        self.key, self.digest = key, record.private_of or key
        self.size, self.chunk_size, self.count = presence.size, presence.chunk_size, presence.count
        self._file = file = BackingFile(ledger, key, presence)
        # The descriptor of the backing file, opened if needed; hold the object. Blocks.
        self.opened = file.opened
        # The hot path of every read: whether chunks [start, stop) are local and need no check.
        self.present = presence.usable.all_set
        self.missing = presence.present.missing  # the runs of chunks that are not local
        self.bytes_of = presence.bytes_of

    def __repr__(self) -> str:
        local = self._presence.present.count
        return f"<StoredObject {self.digest[:12]} {local}/{self.count} chunks>"

    @property
    def presence(self) -> Presence:
        """The bits, for Store, and for who watches them."""
        return self._presence

    @property
    def owned(self) -> bool:
        """Whether this process owns the cache, so that it may add and remove chunks."""
        return self._ledger.index.writable

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
        """Whether the object is one chunk, which its sha256 verifies."""
        return self.count == 1 and self._presence.table != NO_TABLE

    @property
    def quarantined(self) -> str | None:
        """Why the object is quarantined and not served; None if it is not."""
        return self._presence.quarantined

    @property
    def verified(self) -> bool:
        """Whether the local bytes were compared with the object's digest."""
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
        """The number of times that chunks were dropped. A read is retried if it has changed."""
        return self._presence.epoch

    def serves(self, entry: FileEntry) -> bool:
        """Whether the local chunks were verified with the same table or digest as `entry` has."""
        return suits(self._presence, entry)

    def hold(self) -> None:
        """Keep the object from being evicted; counted. The first call blocks.

        This does not count as an access: see `touch`.
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
        """The descriptor, to be kept during one call; None if the file is not open now."""
        return self._file.fd

    @property
    def readable(self) -> bool:
        """Whether the last attempt to open the backing file succeeded.

        The caller holds the object. If it failed, the next landing tries again.
        """
        return self._file.readable

    def release(self) -> None:
        """Undo one `hold`. Before the last release every call on this object must have returned."""
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
        """Forbid cuts of the file until `thaw`; False if a cut is in progress. Counted."""
        with self._freezing:
            self._freezes += self._cuts == 0
            return self._cuts == 0

    def thaw(self) -> None:
        """Undo one `freeze` that returned True."""
        with self._freezing:
            self._freezes -= 1

    def unchecked(self, start: int, stop: int) -> list[Range]:
        """The runs of chunks in `[start, stop)` that are local and need `check` before use."""
        return self._presence.unchecked(start, stop)

    def adopted(self, start: int, stop: int) -> list[Range]:
        """The runs of chunks in `[start, stop)` that `check` verifies with the chunk table."""
        return self._presence.adopted.extents(start, stop)

    def local(self, start: int = 0) -> list[Range]:
        """The runs of chunks from `start` on that are local, checked or not."""
        return self._presence.present.extents(start, self.count)

    def land(self, chunk: int, view: memoryview, *, proven: bool = False) -> None:
        """Write chunks from `chunk` on and record them. The caller holds the object.

        Args:
            view: complete chunks; the object's last one may be short.
            proven: whether they were compared with the object's own table or digest. A verified
                object ignores other chunks, which may have been in flight since before it was
                verified.

        Raises:
            NoSpaceError, OSError: the disk is full or failed. None of the chunks is recorded, and
                what was written of them on a full disk is removed.
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
                self._writing.begin(chunk)
                try:
                    backing.write_all(descriptor, view, bounds.start)
                except NoSpaceError:
                    forget = partial(presence.give_back, Range(chunk, chunk + count))
                    self._unless_frozen(partial(forget, partial(self._cut, descriptor)))
                    raise
            if land(presence, chunk, values, epoch):
                self.health.worked()
                return

    def check(self, chunk: int, buffer: memoryview, right: Right | None = None) -> bool | None:
        """Read and verify a local chunk; drop it if it is bad. The caller holds the object.

        None means that the chunk is not local, or was dropped meanwhile.

        Args:
            buffer: at least one chunk long; afterwards it starts with the chunk's bytes.
            right: verifies an adopted chunk with the chunk table. Without it, an adopted chunk of
                an object with a table counts as bad; one of an object without a table is accepted,
                since the digest of the whole object verifies it.
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
        if not self.owned:
            return value is not None
        if value is None:
            judge = partial(self._judge, descriptor, chunk, view, right)
            kept = presence.lose(chunk, lambda group: judge(group) is not None)
            if kept is False:  # drop its bytes too: they must not be adopted after a lost index
                self.punch(chunk, chunk + 1)
            return kept
        return presence.usable.test(chunk) or confirm(presence, chunk, value) or None

    def discard(self) -> None:
        """Drop every chunk, after the digest did not match. The caller holds the object."""
        self._drop(0, self.count)

    def punch(self, start: int, stop: int) -> int:
        """Drop chunks `[start, stop)`, such as those behind all readers; return the bytes freed.

        The caller holds the object. Nothing is dropped if it is frozen or its file linked.
        """
        with suppress(*DISK_FAULTS):
            if self.present_bytes and backing.is_linked(self.opened()):
                return 0
        return self._drop(start, stop)

    def _drop(self, start: int, stop: int) -> int:
        descriptor = None
        with suppress(*DISK_FAULTS):
            descriptor = self.opened() if self.present_bytes else None
        cut = partial(self._cut, descriptor)
        return self._unless_frozen(partial(self._presence.forget, Range(start, stop), cut))

    def _unless_frozen(self, change: Callable[[], int]) -> int:
        """Call `change`, which cuts the file, unless the kernel reads it; the bytes freed."""
        with self._freezing:
            if self.frozen:
                return 0
            self._cuts += 1
        try:
            return change()
        finally:
            with self._freezing:
                self._cuts -= 1

    def generation(self) -> Generation:
        """The generation of the local bytes: the epoch, and the number of landings."""
        with self._writing:  # no landing is in progress
            return self._presence.epoch, self._writing.count

    def reading(self, chunk: int) -> int:
        """Call this before `chunk` is read for a digest, and the chunks in their order; it returns
        the number of times that one of those read before was landed again since."""
        with self._writing:
            return self._writing.reads(chunk)

    def mark_verified(self, generation: Generation, table: ChunkTable | None = None) -> bool:
        """Mark the object verified after its bytes matched its digest; return whether it is.

        Args:
            generation: the generation before the bytes were read. If it has changed since, or if
                the object is not complete, the object is not marked.
            table: the chunk table of those bytes, which becomes the object's own.
        """
        epoch, writes = generation
        with self._writing:
            return self._writing.count == writes and self._presence.verify(epoch, table)

    def quarantine(self, cause: str | None) -> None:
        """Quarantine the object, so that it is not served; None ends the quarantine."""
        self._presence.amend(lambda record: setattr(record, "quarantined", cause))

    def touch(self) -> None:
        """Record an access; a later commit writes it to the index, at most once a minute."""
        now = time.time()
        self._presence.accessed = now
        if abs(now - self._noted) >= TOUCH_INTERVAL:  # the clock may have been set back
            self._noted = now
            self._ledger.touched[self.key] = now

    def _cut(self, descriptor: int | None, bounds: Range) -> None:
        if descriptor is not None:
            backing.cut(descriptor, bounds, self.size)

    def _judge(
        self, descriptor: int, chunk: int, view: memoryview, right: Right | None, group: Group
    ) -> int | None:
        """Read the chunk into `view`; return its sum if it is valid, else None."""
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
