"""The state that all objects of one store share.

Below objects and store. Any thread.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from axonfs.store.backing import Directory
from axonfs.store.health import Health
from axonfs.store.index import Index, Table, Transaction
from axonfs.store.openfiles import OpenFiles
from axonfs.store.records import ObjectRecord, latest
from axonfs.store.tally import Tally

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Ledger:
    """The state that all objects of one store share.

    `lock` guards file names and the set of objects in use, and is held while a file is opened or an
    object dropped. `held` has the keys of the objects that must not be dropped: it changes under
    the lock of `files`, and grows only under `lock` too. `touched` has the access times that the
    next commit of the index writes.
    """

    directory: Directory
    index: Index
    boot: bytes
    health: Health
    files: OpenFiles = field(default_factory=OpenFiles)
    tally: Tally = field(default_factory=Tally)
    lock: threading.Lock = field(default_factory=threading.Lock)
    touched: dict[str, float] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)


def write_accesses(touched: dict[str, float], transaction: Transaction) -> None:
    """Write access times and clear them; if the commit fails, the last minute of them is lost."""
    while touched:
        digest, accessed = touched.popitem()
        record = ObjectRecord.decode(transaction.get(Table.OBJECTS, bytes.fromhex(digest)))
        if record is not None:
            record.accessed = latest(record.accessed, accessed)
            transaction.put(Table.OBJECTS, bytes.fromhex(digest), record.encode())


def boot_of(boot_id: str | None = None) -> bytes:
    """The id of this boot; a random one if the system has none, so that every chunk is checked."""
    try:
        return uuid.UUID(boot_id or BOOT_ID.read_text().strip()).bytes
    except OSError:
        return uuid.uuid4().bytes
