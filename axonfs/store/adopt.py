"""Adopts the chunks of a backing file that the index lost its record of.

Below store. What is adopted counts as local and is checked before use: nothing is known of it but
that the file has data there. Any thread; `adopt` under the writer lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from axonfs.formats.manifest import chunk_count
from axonfs.store import backing
from axonfs.store.backing import Directory
from axonfs.store.index import Table, Transaction
from axonfs.store.records import GROUP, NO_TABLE, Group, ObjectRecord, group_key


def adoptable(directory: Directory, key: str, record: ObjectRecord) -> list[int]:
    """The complete chunks for which the backing file has data."""
    try:
        descriptor = directory.open_backing(key, writable=False)
    except FileNotFoundError:
        return []
    extents = backing.data_extents(descriptor)
    chunks = backing.whole_chunks(extents, record.chunk_size, record.size)
    if record.table == NO_TABLE and len(chunks) < chunk_count(record.size, record.chunk_size):
        return []  # without a table only the whole object can be verified
    return chunks


def adopt(
    transaction: Transaction, boot: bytes, key: str, record: ObjectRecord, chunks: Iterable[int]
) -> None:
    """Write `record` as that of the object, with `chunks` and no others."""
    raw_key = bytes.fromhex(key)
    transaction.delete_all(Table.GROUPS, raw_key)
    for number, members in groupby(chunks, key=lambda chunk: chunk // GROUP):
        group = Group(None, boot)
        for chunk in members:
            group.adopt(chunk % GROUP)
        transaction.put(Table.GROUPS, group_key(raw_key, number), group.raw)
    transaction.put(Table.OBJECTS, raw_key, record.encode())
