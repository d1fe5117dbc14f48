"""The index: the only module that opens LMDB, except for walk.py in its own process.

Bottom of the store, beside records. Knows tables of bytes, but not their meaning.

How it is safe:

- One process writes: the owner of the cache (Store takes the lock). Other processes read through
  LMDB's reader table.
- In that process the writer lock guards every write transaction *and* the update of memory that
  follows: a `Change` is applied inside the transaction and settled right after the commit, before
  the lock is released. So memory is never ahead of the index, and changes do not interleave.
- Group commit: a thread queues its change, then takes the writer lock. The thread that gets the
  lock commits all queued changes; the others then find their change done. This needs no leader and
  no condition variable.
- Commits do not wait for the disk. A killed process loses no commit, since the kernel has the
  pages. A crash of the machine may tear the file. Since LMDB can segfault on a torn file, a child
  process walks it before it is opened, and the first owner after a boot continues in a compacted
  copy, whose free list is new (recovery.py, walk.py).

Threading: any thread; a transaction never leaves the call that began it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from axonfs import rundir
from axonfs.errors import BusyError, NoSpaceError, NotFoundError, ReadOnlyError, UnsupportedError

T = TypeVar("T")

MAP_SIZES = (64 << 30, 8 << 30, 1 << 30, 256 << 20)  # sparse; tried until one fits into memory
_MAX_READERS = 512


class Table(IntEnum):
    """The tables; the name in lower case is the name on disk."""

    META = 0
    OBJECTS = 1
    GROUPS = 2
    DOCUMENTS = 3
    BODIES = 4
    MANIFESTS = 5
    TABLES = 6
    PINS = 7

    @property
    def key(self) -> bytes:
        return self.name.lower().encode()


class Transaction:
    """A read or write transaction; valid only inside the call that gets it.

    `serial` is different for each write transaction of one index, failed ones included.
    """

    __slots__ = ("_raw", "_tables", "serial")

    def __init__(self, raw: Any, tables: list[Any], serial: int = 0) -> None:
        self._raw = raw
        self._tables = tables
        self.serial = serial

    def get(self, table: Table, key: bytes) -> bytes | None:
        found: bytes | None = self._raw.get(key, db=self._tables[table])
        return found

    def put(self, table: Table, key: bytes, value: bytes | bytearray) -> None:
        self._raw.put(key, value, db=self._tables[table])

    def delete(self, table: Table, key: bytes) -> bool:
        return bool(self._raw.delete(key, db=self._tables[table]))

    def delete_all(self, table: Table, prefix: bytes) -> None:
        """Delete every record whose key starts with `prefix`."""
        for key in [key for key, _ in self.scan(table, prefix)]:
            self.delete(table, key)

    def scan(self, table: Table, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The keys that start with `prefix`, with values, in order; do not write meanwhile."""
        with self._raw.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value


class Change:
    """A change of the index, which may share a transaction with others."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: Exception | None = None

    def apply(self, transaction: Transaction) -> None:
        """Write to the index; under the writer lock. Does not change memory: commits may fail."""
        raise NotImplementedError

    def settle(self) -> None:
        """Update memory; called under the writer lock, after the commit."""


class _Call(Change):
    """A change made of two functions."""

    __slots__ = ("_apply", "_settle", "result")

    def __init__(
        self, apply: Callable[[Transaction], Any], settle: Callable[[Any], None] | None
    ) -> None:
        super().__init__()
        self._apply = apply
        self._settle = settle
        self.result: Any = None

    def apply(self, transaction: Transaction) -> None:
        self.result = self._apply(transaction)

    def settle(self) -> None:
        if self._settle is not None:
            self._settle(self.result)


class Index:
    """An open index.

    Args:
        behind: files may have what it does not know, as after a boot, until `caught_up`.
        companion: called inside every write transaction, for what may wait until one happens.
    """

    def __init__(
        self,
        environment: Any,
        tables: list[Any],
        *,
        writable: bool,
        behind: bool = False,
        companion: Callable[[Transaction], None] | None = None,
    ) -> None:
        self._environment = environment
        self._tables = tables
        self.writable = writable
        self.behind = behind
        self._companion = companion
        self._writer = threading.Lock()
        self._queue: deque[Change] = deque()
        self._serial = 0

    @contextmanager
    def view(self) -> Iterator[Transaction]:
        """A consistent read of several records."""
        with _faults(), self._environment.begin() as raw:
            yield Transaction(raw, self._tables)

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            with self._environment.begin(db=self._tables[table]) as raw:
                found: bytes | None = raw.get(key)
                return found
        except lmdb.Error as exc:
            raise _fault(exc) from exc

    def used(self) -> int:
        """The size of all records and their pages, in bytes; cheap."""
        with _faults(), self._environment.begin() as raw:
            stats = [raw.stat(table) for table in self._tables]
        pages = ("branch_pages", "leaf_pages", "overflow_pages")
        return sum(stat["psize"] * sum(stat[kind] for kind in pages) for stat in stats)

    def commit(self, change: Change) -> None:
        """Apply `change`, in one transaction with the changes of other threads.

        Raises:
            NoSpaceError: the disk or the index's address space is full; nothing changed.
            OSError: the disk failed; nothing changed.
        """
        self._refuse_readers()
        self._queue.append(change)
        with self._writer:
            if not change.done:
                self._run(self._drain())
        if change.error is not None:
            raise change.error

    def write(
        self, apply: Callable[[Transaction], T], settle: Callable[[T], None] | None = None
    ) -> T:
        """Run `apply` in a transaction of its own, then `settle`, both under the writer lock.

        For changes that must not share a transaction with a landing, and for rare changes.
        """
        self._refuse_readers()
        change = _Call(apply, settle)
        with self._writer:
            self._run([change])
        if change.error is not None:
            raise change.error
        result: T = change.result
        return result

    def apart(self, settle: Callable[[], None]) -> None:
        """Update memory alone, under the writer lock, when the index cannot be written."""
        with self._writer:
            settle()

    def caught_up(self, boot: bytes) -> None:
        """Record that in this boot the index knows all bytes in the files."""
        if self.behind:
            self.write(lambda transaction: transaction.put(Table.META, b"swept", boot))
            self.behind = False

    def sync(self) -> None:
        """Wait until everything committed is on disk."""
        if self.writable:
            with _faults():
                self._environment.sync(True)

    def close(self) -> None:
        """Close the index; no other thread may use it."""
        with self._writer:
            self._environment.close()

    def _refuse_readers(self) -> None:
        if not self.writable:
            raise ReadOnlyError("another process owns the cache; this one only reads it")

    def _drain(self) -> list[Change]:
        batch = []
        while self._queue:
            batch.append(self._queue.popleft())
        return batch

    def _run(self, batch: list[Change]) -> None:
        try:
            with self._environment.begin(write=True) as raw:
                self._serial += 1
                transaction = Transaction(raw, self._tables, self._serial)
                for change in batch:
                    change.apply(transaction)
                if self._companion is not None:
                    self._companion(transaction)
        except Exception as exc:
            # Each thread raises its own instance: a traceback belongs to one thread.
            for change in batch:
                change.error = _fault(exc) if isinstance(exc, lmdb.Error) else exc
                change.error.__cause__ = exc if isinstance(exc, lmdb.Error) else None
                change.done = True
            return
        for change in batch:
            change.settle()
            change.done = True


def _fault(exc: Exception) -> Exception:
    """Translate LMDB's errors to those of this package."""
    if isinstance(exc, lmdb.MapFullError):
        return NoSpaceError("the cache's index is full", hint="axonfs cache clean")
    if isinstance(exc, lmdb.DiskError):  # py-lmdb's name for ENOSPC
        return NoSpaceError("the disk of the cache's index is full", hint=rundir.FREE_SPACE)
    return OSError(errno.EIO, f"the cache's index failed: {exc}")


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except lmdb.Error as exc:
        raise _fault(exc) from exc


def open_owner(
    path: Path,
    boot: bytes,
    form: int,
    *,
    map_size: int | None = None,
    companion: Callable[[Transaction], None] | None = None,
) -> Index:
    """The index at `path` for the one process that writes; created if it does not exist.

    Args:
        companion: called inside every write transaction.

    Raises:
        UnsupportedError: a newer axonfs wrote it.
        NoSpaceError, OSError: the disk is full or failed.
    """
    with _faults():
        environment = _environment(path, map_size, readonly=False, create=True, mode=0o600)
        try:
            _check_format(environment, path, form)
            environment.reader_check()  # dead readers would keep old pages from being reused
            tables = _tables_as_they_are(environment, boot, form)
            tables = tables or _create_tables(environment, boot, form)
            with environment.begin(db=tables[Table.META]) as raw:
                behind = raw.get(b"swept") != boot
        except BaseException:
            environment.close()
            raise
    return Index(environment, tables, writable=True, behind=behind, companion=companion)


def open_reader(path: Path, form: int) -> Index:
    """The index at `path` for a process beside the owner; creates and upgrades nothing.

    Raises:
        NotFoundError: there is no index.
        UnsupportedError: a newer axonfs wrote it.
    """
    if not path.exists() or path.stat().st_size == 0:
        raise NotFoundError("there is no cache here yet", source=str(path.parent))
    # Without a lock file there was no writer yet, and LMDB must not create the file.
    lock = Path(f"{path}-lock").exists()
    with _faults():
        environment = _environment(path, None, readonly=True, create=False, lock=lock)
        try:
            _check_format(environment, path, form)
            tables = [environment.open_db(table.key, create=False) for table in Table]
        except BaseException as exc:
            environment.close()
            if isinstance(exc, lmdb.NotFoundError):
                raise NotFoundError("the cache is being set up", source=str(path.parent)) from exc
            raise
    return Index(environment, tables, writable=False)


def _environment(path: Path, map_size: int | None, **options: Any) -> Any:
    options |= {"subdir": False, "sync": False, "metasync": False}
    options |= {"max_dbs": 16, "max_readers": _MAX_READERS}
    options["readahead"] = False  # mapped pages of the index count as this process's memory
    for size in (map_size,) if map_size else MAP_SIZES:
        try:
            return lmdb.open(os.fsencode(path), map_size=size, **options)
        except lmdb.MemoryError:
            continue
        except lmdb.Error as exc:
            if "already open in this process" not in str(exc):
                raise
            raise BusyError("this process already has the cache open", source=str(path)) from exc
    raise UnsupportedError("the address space is too small for the cache's index")


def _check_format(environment: Any, path: Path, form: int) -> None:
    try:
        meta = environment.open_db(Table.META.key, create=False)
    except (lmdb.NotFoundError, lmdb.ReadonlyError):
        return  # new
    with environment.begin(db=meta) as raw:
        found = raw.get(b"format")
    if found is not None and int(found) > form:
        raise UnsupportedError(
            f"a newer axonfs wrote this cache (format {int(found)}; this version reads {form})",
            source=str(path.parent),
            hint="upgrade axonfs, or use another --cache",
        )


def _create_tables(environment: Any, boot: bytes, form: int) -> list[Any]:
    # One transaction, so that other processes see all of the tables or none.
    with environment.begin(write=True) as raw:
        tables = [environment.open_db(table.key, txn=raw) for table in Table]
        raw.put(b"format", str(form).encode(), db=tables[Table.META])
        raw.put(b"boot", boot, db=tables[Table.META])
    return tables


def _tables_as_they_are(environment: Any, boot: bytes, form: int) -> list[Any] | None:
    """The tables; None if one is missing, or if they are of another boot or format.

    Writes nothing, since the disk may be full when a worker takes over.
    """
    with suppress(lmdb.Error):
        tables = [environment.open_db(table.key, create=False) for table in Table]
        with environment.begin(db=tables[Table.META]) as raw:
            if raw.get(b"boot") == boot and raw.get(b"format") == str(form).encode():
                return tables
    return None
