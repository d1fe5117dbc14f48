"""What the objects of one store share.

Below objects. Any thread.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from axonfs.store.backing import Directory
from axonfs.store.health import Health
from axonfs.store.index import Index, Table, Transaction
from axonfs.store.openfiles import OpenFiles
from axonfs.store.presence import Tally
from axonfs.store.records import ObjectRecord

if TYPE_CHECKING:
    from axonfs.store.objects import StoredObject

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Ledger:
    """What the objects of one store share.

    `lock` guards `live` and file names, and is held while a file is opened or an object dropped.
    `held`, and how often each object is, may only grow under it as well; the lock of `files`
    guards those.
    """

    directory: Directory
    index: Index
    boot: bytes
    health: Health
    files: OpenFiles = field(default_factory=OpenFiles)
    tally: Tally = field(default_factory=Tally)
    lock: threading.Lock = field(default_factory=threading.Lock)
    touched: dict[str, float] = field(default_factory=dict)
    held: dict[str, StoredObject] = field(default_factory=dict)
    live: weakref.WeakValueDictionary[str, StoredObject] = field(
        default_factory=weakref.WeakValueDictionary
    )

    def accessed(self, digest: str) -> float | None:
        """When an object was last read, if the index does not know that yet."""
        live = self.live.get(digest)
        return live.accessed if live is not None else self.touched.get(digest)

    def write_accesses(self, transaction: Transaction) -> None:
        """Rides along with every commit; what a failed one loses is a minute of recency."""
        while self.touched:
            digest, accessed = self.touched.popitem()
            record = ObjectRecord.decode(transaction.get(Table.OBJECTS, bytes.fromhex(digest)))
            if record is not None:
                record.accessed = max(record.accessed, accessed)
                transaction.put(Table.OBJECTS, bytes.fromhex(digest), record.encode())


def boot_of(boot_id: str | None = None) -> bytes:
    """This boot's id; where the system has none, one of our own: every chunk is then checked."""
    try:
        return uuid.UUID(boot_id or BOOT_ID.read_text().strip()).bytes
    except OSError:
        return uuid.uuid4().bytes
