"""The cache: finds, opens, drops and evicts objects, and stores their metadata.

Above objects and metadata; other packages use it through axonfs.store. It neither fetches bytes nor
verifies digests: its callers do.

Two manifests may name the same digest with a different size, chunk size or chunk table. A malicious
registry may lie about a digest that an honest one uses. So chunks that were verified with one table
are never served or dropped because of another: the second object is private, with its own key,
until the first one has been verified as a whole.

A backing file without a record (after the index was lost) is adopted when an entry claims it. Until
then it is a stray, which counts for usage and eviction.

Locks: see objects. The ledger's lock is held while an object is opened or dropped, never while
anything is unlinked; outside it, `_rechecking` while the scrub reads some chunks.

Threading: any thread; calls are short and block.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

from axonfs.errors import BusyError
from axonfs.formats.manifest import FileEntry
from axonfs.names import Spec
from axonfs.ranges import chunk_range
from axonfs.rundir import guard, is_lock, take_lock
from axonfs.store.adopt import adopt, adoptable
from axonfs.store.backing import Directory
from axonfs.store.claims import entry_of, new_record, private_key, rules_out, suits
from axonfs.store.evict import NO_RULES, Eviction, Limit, Rules, choose_victims, limits_of, taken
from axonfs.store.health import DISK_FAULTS
from axonfs.store.index import Index, Table, Transaction, open_owner, open_reader
from axonfs.store.ledger import Ledger, boot_of, write_accesses
from axonfs.store.links import Links
from axonfs.store.metadata import Metadata
from axonfs.store.objects import StoredObject
from axonfs.store.recheck import Recheck, recheck
from axonfs.store.records import FORMAT, ObjectInfo, ObjectRecord, info_of
from axonfs.store.recovery import inspect, recover
from axonfs.store.sweep import Swept, count_strays, sweep


class Store(Metadata):
    """One cache directory; `Store.open` makes it.

    Args:
        touched: the access times that each commit of `index` writes.
    """

    def __init__(
        self,
        directory: Directory,
        index: Index,
        boot: bytes,
        lock: int | None,
        touched: dict[str, float],
    ) -> None:
        super().__init__(index)
        self.directory = directory.root
        self._files = directory
        self.backing = directory.backing  # the path of an object's backing file, by its key
        self._lock = lock
        self._ledger = Ledger(directory, index, boot, self.health, touched=touched)
        self.links = Links(directory, lambda: [pin.spec for pin in self.pins()])
        self._live = WeakValueDictionary[str, StoredObject]()  # the objects in use, by key
        self._rechecking = threading.Lock()  # outside the ledger's

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        owner: bool = True,
        lock: int | None = None,
        boot_id: str | None = None,
    ) -> Self:
        """The cache in `directory`.

        Args:
            owner: take the cache over, creating it if need be; else read it beside its owner,
                creating and changing nothing.
            lock: the owner's lock, where another process took it for this one.
            boot_id: a UUID to take for this boot's, for tests.

        Raises:
            BusyError: another process owns it; its pid is named.
            NotFoundError: it does not exist, and `owner` is false.
            UnsupportedError: the directory is not writable, or others can write to it, or a newer
                axonfs wrote it.
        """
        files, boot, touched = Directory(directory), boot_of(boot_id), dict[str, float]()
        if not owner:
            if directory.exists():
                guard(directory)
            inspect(files.index, boot)
            reader = open_reader(files.index, FORMAT)
            files.enter(owner=False)
            return cls(files, reader, boot, None, touched)
        files.prepare()
        if lock is None or not is_lock(lock, directory):  # the directory was removed and made anew
            lock = take_lock(directory)
        try:
            files.enter(owner=True)
            recover(files.index, boot)
            write = partial(write_accesses, touched)
            index = open_owner(files.index, boot, FORMAT, companion=write)
        except BaseException:
            files.leave()
            os.close(lock)
            raise
        store = cls(files, index, boot, lock, touched)
        try:
            store._take_stock()
        except BaseException:
            store.close()
            raise
        return store

    @property
    def writable(self) -> bool:
        """Whether this process owns the cache."""
        return self._index.writable

    @property
    def boot(self) -> str:
        """This boot's id, in hex."""
        return self._ledger.boot.hex()

    def close(self) -> None:
        """Flush and close the cache; no other thread may be inside a call."""
        if self._lock is not None:
            try:
                self.sync()
            except DISK_FAULTS as exc:
                self.health.failed(exc)
        self._index.close()
        self._ledger.files.close()
        self._files.leave()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def leave_to_parent(self) -> None:
        """In a forked process: close the locks, which the parent process still holds.

        Do not call any other method after this one: the parent also uses the index.
        """
        self._files.leave()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def object(self, entry: FileEntry) -> StoredObject:
        """The object of `entry`, existing or new; callers share it while it is in use."""
        found = self._live.get(entry.digest)
        if found is not None and found.serves(entry):
            return found
        with self._ledger.lock:
            return self._find(entry.digest, entry)

    def peek(self, digest: str) -> ObjectInfo | None:
        """The state of an object in the index, without opening it; None if it is unknown."""
        record = ObjectRecord.decode(self._index.get(Table.OBJECTS, bytes.fromhex(digest)))
        return info_of(digest, record, self._accessed(digest)) if record else None

    def compared(self, stored: StoredObject, entry: FileEntry) -> bool:
        """Whether the index says now that the local bytes of `stored` were compared for `entry`.

        For a process beside the owner, which may give up and fetch bytes at any time.
        """
        record = ObjectRecord.decode(self._index.get(Table.OBJECTS, bytes.fromhex(stored.key)))
        if record is None or record.quarantined or not suits(record, entry):
            return False
        return record.verified or (entry.chunks is not None and not entry.unverified)

    def infos(self) -> list[ObjectInfo]:
        """Every object in the index, even those without local bytes."""
        with self._index.view() as view:
            raws = list(view.scan(Table.OBJECTS))
        decoded = ((key.hex(), ObjectRecord.decode(raw)) for key, raw in raws)
        return [
            info_of(digest, record, self._accessed(digest)) for digest, record in decoded if record
        ]

    def _accessed(self, digest: str) -> float | None:
        """The time of an object's last read, if the index does not have it yet."""
        live = self._live.get(digest)
        return live.accessed if live is not None else self._ledger.touched.get(digest)

    def usage(self) -> int:
        """Local bytes of all objects; a process beside the owner sums them from the index."""
        if self._lock is None:
            return sum(info.present_bytes for info in self.infos())
        return self._ledger.tally.bytes

    def known(self, key: str) -> StoredObject | None:
        """The object under `key` in the index; None if it is a stray or unknown."""
        with self._ledger.lock:
            record = ObjectRecord.decode(self._index.get(Table.OBJECTS, bytes.fromhex(key)))
            if record is None or not record.chunk_size:
                return None
            return self._find(key, entry_of(key, record))

    def recheck(self, stored: StoredObject, start: int, budget: int) -> Recheck:
        """Read and check local chunks from `start` on; bad ones are dropped.

        Ends with the chunk that reaches `budget` bytes. It does not count as a use of the object,
        and `drop` waits for it instead of raising BusyError.
        """
        with self._rechecking:
            stored.hold()
            try:
                table = self.table(entry_of(stored.key, stored.presence.record()))
                return recheck(stored, table, start, budget)
            finally:
                stored.release()

    def quarantined(self) -> dict[str, str]:
        """The quarantined objects, which are not served: digest → cause."""
        if self._lock is not None:
            return dict(self._ledger.tally.quarantined)
        causes = ((info.content, info.quarantined) for info in self.infos())
        return {digest: cause for digest, cause in causes if cause}

    def drop(self, digest: str, *, unpinned: bool = False) -> int:
        """Drop an object and its chunk tables; return the local bytes freed.

        Raises:
            BusyError: it is held, or pinned where it has to be `unpinned`.
        """
        with self._rechecking, self._ledger.lock:
            if digest in self._ledger.held or (unpinned and self.is_pinned(digest)):
                raise BusyError(f"the object {digest[:12]} is in use")
            freed = self._files.in_reserve(partial(self._forget, digest))
            binned = self._files.discard(digest)
        self._files.unlink(binned)
        return freed

    def evict(self, limit: int, rules: Rules = NO_RULES) -> Eviction:
        """Drop objects, least recently used first, until `usage` is at most `limit` bytes and the
        limits of `rules` are kept."""
        freed, dropped, refused = 0, list[str](), set[str]()
        objects, before = self.namespaces.objects(rules.quotas), -1
        while len(refused) > before:
            infos, before = self.infos(), len(refused)
            kept = refused | set(self._ledger.held)
            limits = [*limits_of(infos, rules, objects, time.time()), Limit(limit, limit)]
            for digest in choose_victims(infos, self.pinned_digests(), kept, limits):
                try:
                    freed += self.drop(digest, unpinned=True)
                    dropped.append(digest)
                except BusyError:  # held or pinned since it was chosen; choose another one
                    refused.add(digest)
        short_by, left = max(0, self.usage() - limit), self.infos() if objects else []
        return Eviction(freed, dropped, short_by, taken(left, objects))

    def drop_pin(self, spec: Spec) -> bool:
        """Drop the pin and its directory of links; return whether there was a pin."""
        dropped = self._files.in_reserve(partial(super().drop_pin, spec))
        self.links.remove(spec)
        return dropped

    def release_quarantine(self, digest: str) -> None:
        """End the quarantine of an object, so that it is served again."""

        def apply(transaction: Transaction) -> None:
            record = ObjectRecord.decode(transaction.get(Table.OBJECTS, bytes.fromhex(digest)))
            if record:
                record.quarantined = None
                transaction.put(Table.OBJECTS, bytes.fromhex(digest), record.encode())

        with self._ledger.lock:
            live = self._live.get(digest)
            if live is not None:
                live.quarantine(None)
            else:
                self._index.write(apply, lambda _: self._ledger.tally.mark(digest, None))

    def sync(self) -> None:
        """Write the collected access times, then wait until the index is on disk.

        Raises:
            NoSpaceError, OSError: the disk is full or failed.
        """
        self._index.write(lambda transaction: None)
        self._index.sync()

    def sweep(self) -> Swept:
        """Remove the backing files without bytes in the index (sweep.py), and links without a pin.

        Raises:
            NoSpaceError, OSError: the disk is full or failed.
        """
        self.links.sweep()
        return sweep(self._ledger)

    def probe(self) -> None:
        """Test whether a disk that failed works again, and report the result to `health`."""
        try:
            self._files.probe()
            self.sync()
        except DISK_FAULTS as exc:
            self.health.failed(exc)
        else:
            self.health.recovered()

    def _find(self, digest: str, entry: FileEntry) -> StoredObject:
        """The object in use, else the one in the index, else an adopted or new one.

        Call it under the ledger's lock.
        """
        live = self._live.get(digest)
        if live is not None and live.serves(entry):
            return live
        record = ObjectRecord.decode(self._index.get(Table.OBJECTS, bytes.fromhex(digest)))
        if live is not None or (record and rules_out(record, entry)):
            return self._find(private_key(digest, entry), entry)
        if record is None or not record.chunk_size or not suits(record, entry):
            record = self._claim(digest, entry, record)
        stored = StoredObject(self._ledger, digest, record)
        with self._index.view() as view:
            stored.presence.load(view)
        stored.presence.recount()
        self._live[digest] = stored
        return stored

    def _claim(self, digest: str, entry: FileEntry, old: ObjectRecord | None) -> ObjectRecord:
        """A new record for an object without a suitable one; adopts chunks of its backing file."""
        try:
            return self._claimed(digest, entry, old)
        except DISK_FAULTS as exc:
            self.health.failed(exc)
            return new_record(digest, entry)

    def _claimed(self, digest: str, entry: FileEntry, old: ObjectRecord | None) -> ObjectRecord:
        record = new_record(digest, entry)
        length = self._files.length(digest)
        if not self._index.writable or (old is None and length < 0):
            return record  # written with the first chunk
        if old is not None:
            record.quarantined, record.accessed = old.quarantined, old.accessed
        unclaimed = old is None or not old.chunk_size
        chunks = (
            adoptable(self._files, digest, record) if unclaimed and length <= record.size else []
        )
        record.present_bytes = sum(
            chunk_range(chunk, record.chunk_size, record.size).size for chunk in chunks
        )
        self._index.write(
            lambda transaction: adopt(transaction, self._ledger.boot, digest, record, chunks),
            lambda _: self._gain(record.present_bytes - (old.present_bytes if old else 0)),
        )
        return record

    def _forget(self, digest: str) -> int:
        """Drop the records of an object that is not held; call it under the ledger's lock."""
        key = bytes.fromhex(digest)

        def apply(transaction: Transaction) -> int:
            record = ObjectRecord.decode(transaction.get(Table.OBJECTS, key))
            transaction.delete(Table.OBJECTS, key)
            transaction.delete_all(Table.GROUPS, key)
            transaction.delete_all(Table.TABLES, key)
            return record.present_bytes if record else 0

        def settle(freed: int) -> None:
            self._ledger.tally.mark(digest, None)
            live = self._live.get(digest)
            if live is None:
                self._gain(-freed)
            else:
                live.presence.reset()

        return self._index.write(apply, settle)

    def _take_stock(self) -> None:
        """Sum the local bytes; if the index is new, record the backing files as strays."""
        self._files.empty_trash()
        with suppress(*DISK_FAULTS):
            self._files.reserve()
        infos = self.infos()
        if not infos:
            self._index.write(partial(count_strays, self._files))
            infos = self.infos()
        self._gain(sum(info.present_bytes for info in infos))
        for info in infos:
            if info.quarantined:
                self._ledger.tally.mark(info.content, info.quarantined)

    def _gain(self, count: int) -> None:
        self._ledger.tally.bytes += count
