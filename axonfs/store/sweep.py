"""Backing files whose bytes no record counts: what a kill left between the index and the files.

Beside store, above ledger. The sweep runs once after the cache was opened, beside everything else.
Within one boot the index has all that was committed, so a file that it does not know is of no use
and goes. After a boot the index may know less than the files do, until a sweep came to its end:
then such a file becomes a stray, which counts for usage and eviction, and is adopted when an entry
claims it.

A file is created under the ledger's lock by an object that is held, so one whose object is not held
under that lock is no work in progress. For one worker thread.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from os import stat_result

from axonfs.store.backing import Directory
from axonfs.store.index import Table, Transaction
from axonfs.store.ledger import Ledger
from axonfs.store.records import ObjectRecord
from axonfs.units import counted

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Swept:
    """How many files were removed, and how many are strays now."""

    removed: int = 0
    strays: int = 0


def sweep(ledger: Ledger) -> Swept:
    """Give up or take in the backing files that the index counts no byte of.

    Raises:
        NoSpaceError, OSError: the disk is full or failed.
    """
    swept, foreign = Swept(), []
    counted_files = _counted(ledger)
    for name, digest in ledger.directory.names():
        if digest is None:
            foreign.append(name)
        elif digest not in counted_files:
            _settle(ledger, digest, swept)
    ledger.index.caught_up(ledger.boot)
    if foreign:
        what = f"{counted(len(foreign), 'file')} below {ledger.directory.objects}"
        log.warning("%s left alone, not of this cache: %s, for one", what, min(foreign))
    if swept.removed or swept.strays:
        log.info("%d backing files removed and %d found again", swept.removed, swept.strays)
    return swept


def _counted(ledger: Ledger) -> set[str]:
    """The objects of which the index counts bytes."""
    with ledger.index.view() as view:
        raws = list(view.scan(Table.OBJECTS))
    decoded = ((key.hex(), ObjectRecord.decode(raw)) for key, raw in raws)
    return {digest for digest, record in decoded if record and record.present_bytes}


def _settle(ledger: Ledger, digest: str, swept: Swept) -> None:
    with ledger.lock:
        if digest in ledger.held:
            return
        record = ObjectRecord.decode(ledger.index.get(Table.OBJECTS, bytes.fromhex(digest)))
        if record and record.present_bytes:  # it landed since
            return
        status = ledger.directory.status(digest)
        if ledger.index.behind and record is None and status and status.st_blocks:
            _count(ledger, digest, _stray(status))
            swept.strays += 1
            return
        binned = ledger.directory.discard(digest)
    ledger.directory.unlink(binned)
    swept.removed += 1


def count_strays(directory: Directory, transaction: Transaction) -> None:
    """Have the index, which is new, count every file that there is."""
    for digest, status in directory.files():
        transaction.put(Table.OBJECTS, bytes.fromhex(digest), _stray(status).encode())


def _stray(status: stat_result) -> ObjectRecord:
    """The record of a file that nothing is known of but its size and age."""
    local = min(status.st_blocks * 512, status.st_size)
    return ObjectRecord(status.st_size, 0, present_bytes=local, accessed=status.st_mtime)


def _count(ledger: Ledger, digest: str, record: ObjectRecord) -> None:
    def gain(_: None) -> None:
        ledger.tally.bytes += record.present_bytes

    ledger.index.write(
        lambda txn: txn.put(Table.OBJECTS, bytes.fromhex(digest), record.encode()), gain
    )
