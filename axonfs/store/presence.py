"""Which chunks of one object are local: bits in the index, and the same bits in memory.

Above index and records, below objects, which handles the bytes. Bits change only under the index's
writer lock: a change is applied to the records, committed, and then settled in the bitmaps. So bits
that a reader sees in memory are in the index. Readers take no lock, since a look at a bitmap is one
bytearray operation.

`epoch` increases whenever chunks are dropped. A landing states the epoch in which its bytes were
written, and is ignored if the epoch has changed; so is the result of a check of the whole object.

Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from axonfs.errors import MalformedError
from axonfs.formats.chunktable import ChunkTable, decode_table
from axonfs.formats.manifest import chunk_count
from axonfs.ranges import Bitmap, Range, chunk_range
from axonfs.store.health import DISK_FAULTS
from axonfs.store.index import Change, Index, Table, Transaction
from axonfs.store.records import (
    GROUP,
    Group,
    Kind,
    ObjectRecord,
    group_key,
    own_table_key,
    seal,
    unseal,
)
from axonfs.store.tally import Tally
from axonfs.store.watcher import UNWATCHED


class Presence:
    """The bits of one object, and the fields of its record.

    Args:
        boot: the id of this boot; chunks that were checked in another need a check before use.
    """

    __slots__ = (
        "_boot",
        "_index",
        "_key",
        "_pending",
        "_pending_in",
        "_tally",
        "accessed",
        "adopted",
        "chunk_size",
        "count",
        "epoch",
        "named",
        "present",
        "present_bytes",
        "private_of",
        "proven",
        "quarantined",
        "size",
        "table",
        "usable",
        "verified",
        "watcher",
    )

    def __init__(
        self, index: Index, boot: bytes, tally: Tally, key: bytes, record: ObjectRecord
    ) -> None:
        self._index = index
        self._boot = boot
        self._tally = tally
        self._key = key
        self._pending = self._pending_in = 0
        self.size, self.chunk_size = record.size, record.chunk_size
        self.count = chunk_count(record.size, record.chunk_size)
        self.table = record.table
        self.private_of, self.named = record.private_of, record.named
        self.verified = record.verified
        self.proven, self.quarantined = record.proven, record.quarantined
        self.present_bytes, self.accessed = record.present_bytes, record.accessed
        self.epoch = 0
        self.watcher = UNWATCHED
        self.present = Bitmap(self.count)
        self.usable = Bitmap(self.count)
        self.adopted = Bitmap(self.count)

    def load(self, transaction: Transaction) -> None:
        """Read the bits from the index, before other threads use this object."""
        padded = -(-self.count // GROUP) * GROUP
        columns = bytearray(padded), bytearray(padded), bytearray(padded)
        for key, raw in transaction.scan(Table.GROUPS, self._key):
            at = int.from_bytes(key[len(self._key) :], "big") * GROUP
            if at < padded:
                for column, flags in zip(columns, Group(raw, self._boot).flags(), strict=True):
                    column[at : at + GROUP] = flags
        present, usable, adopted = (bytes(column[: self.count]) for column in columns)
        self.present.load(present)
        # The owner may drop chunks at any time, so other processes check every chunk.
        self.usable.load(usable if self._index.writable else bytes(self.count))
        self.adopted.load(adopted)

    def recount(self) -> None:
        """Correct the record by the bits, if they differ in a torn index."""
        extents = self.present.extents(0, self.count)
        local = sum(self.bytes_of(extent).size for extent in extents)
        if local != self.present_bytes and self._index.writable:
            gain = local - self.present_bytes
            self._index.apart(lambda: self.gain(gain))

    def bounds(self, chunk: int) -> Range:
        """The bytes of one chunk.

        Raises:
            IndexError: the object has no such chunk.
        """
        if not 0 <= chunk < self.count:
            raise IndexError(f"no chunk {chunk} among {self.count}")
        return chunk_range(chunk, self.chunk_size, self.size)

    def bytes_of(self, extent: Range) -> Range:
        stop = min(extent.stop * self.chunk_size, self.size)
        return Range(min(extent.start * self.chunk_size, stop), stop)

    def unchecked(self, start: int, stop: int) -> list[Range]:
        """The runs of chunks that are local and not usable."""
        absent = self.usable.missing(start, stop)
        return [extent for run in absent for extent in self.present.extents(*run)]

    def group(self, chunk: int) -> Group:
        """The committed record that has `chunk`."""
        raw = self._index.get(Table.GROUPS, group_key(self._key, chunk // GROUP))
        return Group(raw, self._boot)

    def commit(self, change: Change, otherwise: Callable[[], None] | None = None) -> None:
        """Commit `change`, with others; if the index fails, call `otherwise` under its lock."""
        try:
            self._index.commit(change)
        except DISK_FAULTS:
            if otherwise is None:
                raise
            self._index.apart(otherwise)

    def lose(self, chunk: int, judge: Callable[[Group], bool]) -> bool | None:
        """Clear a chunk unless `judge`, called under the writer lock, finds it valid after all.

        Returns whether it was valid; None if it is no longer local.
        """
        slot = chunk % GROUP

        def apply(transaction: Transaction) -> bool | None:
            key, group = self.group_in(transaction, chunk // GROUP)
            if not group.present(slot):
                return None
            if judge(group):
                return True
            group.clear(slot)
            transaction.put(Table.GROUPS, key, group.raw)
            self.write_record(transaction, -self.bounds(chunk).size)
            return False

        def settle(right: bool | None) -> None:
            if right is False:
                self._clear_memory(Range(chunk, chunk + 1))
                self.epoch += 1

        return self._index.write(apply, settle)

    def forget(self, chunks: Range, cut: Callable[[Range], None]) -> int:
        """Clear chunks, then call `cut` to remove their bytes; return how many bytes."""

        def apply(transaction: Transaction) -> int:
            extents = self.present.extents(chunks.start, chunks.stop)
            for extent in extents:
                self._clear_records(transaction, extent)
            gone = sum(self.bytes_of(extent).size for extent in extents)
            self.write_record(transaction, -gone)
            return gone

        def settle(_gone: int) -> None:
            self._clear_memory(chunks)
            # The epoch changes last: a landing of the new epoch is then written after the cut.
            try:
                cut(self.bytes_of(chunks))
            finally:
                self.epoch += 1

        return self._index.write(apply, settle)

    def give_back(self, chunks: Range, cut: Callable[[Range], None]) -> int:
        """Call `cut` for the bytes of chunks that are not local, which a failed write left there.

        A landing of one of them that has not been recorded yet is written again: the epoch changes.
        """

        def settle() -> None:
            for run in self.present.missing(chunks.start, chunks.stop):
                cut(self.bytes_of(run))
            self.epoch += 1

        self._index.apart(settle)
        return 0

    def amend(
        self,
        change: Callable[[ObjectRecord], None],
        also: Callable[[Transaction, ObjectRecord], None] = lambda transaction, record: None,
    ) -> None:
        """Change fields of the object's record; `change` is called under the writer lock.

        If the index cannot be written, the change is made in memory only, without `also`.
        """

        def apply(transaction: Transaction) -> ObjectRecord:
            record = self.record()
            change(record)
            also(transaction, record)
            transaction.put(Table.OBJECTS, self._key, record.encode())
            return record

        def settle(record: ObjectRecord) -> None:
            self.verified, self.proven = record.verified, record.proven
            self.quarantined = record.quarantined
            self._tally.mark(self.private_of or self._key.hex(), record.quarantined)

        def settle_apart() -> None:
            record = self.record()
            change(record)
            settle(record)

        try:
            self._index.write(apply, settle)
        except DISK_FAULTS:
            self._index.apart(settle_apart)

    def verify(self, epoch: int, table: ChunkTable | None) -> bool:
        """Mark the object verified if it is complete and still in `epoch`; return whether it is.

        Args:
            table: of the bytes that were compared, to be the object's own.
        """

        def change(record: ObjectRecord) -> None:
            complete = self.present_bytes == self.size
            record.verified = record.proven or (complete and self.epoch == epoch)

        def keep_table(transaction: Transaction, record: ObjectRecord) -> None:
            if table is not None and record.verified:
                key = own_table_key(self._key, self.chunk_size)
                transaction.put(Table.TABLES, key, seal(Kind.TABLE, table.encode()))
                record.proven = True

        self.amend(change, keep_table)
        return self.verified

    def own_table(self) -> ChunkTable | None:
        """The object's own table. Where a torn index lost it, the whole is to be verified anew."""
        with suppress(MalformedError, *DISK_FAULTS):
            raw = self._index.get(Table.TABLES, own_table_key(self._key, self.chunk_size))
            if (table := unseal(Kind.TABLE, raw)) is not None:
                return decode_table(table)

        def change(record: ObjectRecord) -> None:
            record.verified = record.proven = False

        self.amend(change)
        return None

    def reset(self) -> None:
        """Clear memory after the records were dropped; under the writer lock."""
        self.verified = self.proven = False
        self._clear_memory(Range(0, self.count))
        self.quarantined = None
        self.epoch += 1

    def record(self) -> ObjectRecord:
        """The record from memory, which equals the committed one, so landings need no read."""
        return ObjectRecord(
            self.size,
            self.chunk_size,
            self.table,
            self.verified,
            self.present_bytes,
            self.accessed,
            self.quarantined,
            self.private_of,
            self.named,
            self.proven,
        )

    def write_record(self, transaction: Transaction, gain: int) -> None:
        """Write the object's record with `gain` more bytes present."""
        if self._pending_in != transaction.serial:
            self._pending, self._pending_in = 0, transaction.serial
        self._pending += gain  # memory is updated only after the transaction
        record = self.record()
        record.present_bytes += self._pending
        record.verified = record.verified and (gain >= 0 or record.proven)
        transaction.put(Table.OBJECTS, self._key, record.encode())

    def group_in(self, transaction: Transaction, number: int) -> tuple[bytes, Group]:
        key = group_key(self._key, number)
        return key, Group(transaction.get(Table.GROUPS, key), self._boot)

    def _clear_records(self, transaction: Transaction, extent: Range) -> None:
        for number in range(extent.start // GROUP, (extent.stop - 1) // GROUP + 1):
            key, group = self.group_in(transaction, number)
            base = number * GROUP
            for chunk in range(max(extent.start, base), min(extent.stop, base + GROUP)):
                group.clear(chunk - base)
            if group.empty:
                transaction.delete(Table.GROUPS, key)
            else:
                transaction.put(Table.GROUPS, key, group.raw)

    def _clear_memory(self, chunks: Range) -> None:
        gone = 0
        for extent in self.present.extents(chunks.start, chunks.stop):
            gone += self.bytes_of(extent).size
            for chunk in range(extent.start, extent.stop):
                self.usable.clear(chunk)
                self.adopted.clear(chunk)
                self.present.clear(chunk)
        self.watcher.cleared(chunks)
        self.gain(-gone)

    def gain(self, count: int) -> None:
        self.present_bytes += count
        self._tally.bytes += count
        self.verified = self.verified and (count >= 0 or self.proven)
