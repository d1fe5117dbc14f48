"""Finds backing files without bytes in the index, as a kill may leave them.

Beside store, above ledger. The sweep runs once after the cache was opened, in the background.
Within one boot the index has all commits, so a file without bytes there is useless and is removed.
After a boot the index may lack commits, until one sweep is complete. Then such a file becomes a
stray, which counts for usage and eviction and is adopted when a manifest entry claims it.

An object creates its file under the ledger's lock and while it is held. So under that lock, a file
whose object is not held is not in use. For one worker thread.
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
    """The numbers of files that were removed, and that became strays."""

    removed: int = 0
    strays: int = 0


def sweep(ledger: Ledger) -> Swept:
    """Remove the backing files without bytes in the index, or count them as strays.

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
        log.warning("%s do not belong to this cache and are ignored, e.g. %s", what, min(foreign))
    if swept.removed or swept.strays:
        log.info("%d backing files removed and %d recovered", swept.removed, swept.strays)
    return swept


def _counted(ledger: Ledger) -> set[str]:
    """The objects with bytes in the index."""
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
    """Record every backing file as a stray in a new index."""
    for digest, status in directory.files():
        transaction.put(Table.OBJECTS, bytes.fromhex(digest), _stray(status).encode())


def _stray(status: stat_result) -> ObjectRecord:
    """The record of a file of which only size and age are known."""
    local = min(status.st_blocks * 512, status.st_size)
    return ObjectRecord(status.st_size, 0, present_bytes=local, accessed=status.st_mtime)


def _count(ledger: Ledger, digest: str, record: ObjectRecord) -> None:
    def gain(_: None) -> None:
        ledger.tally.bytes += record.present_bytes

    ledger.index.write(
        lambda txn: txn.put(Table.OBJECTS, bytes.fromhex(digest), record.encode()), gain
    )
