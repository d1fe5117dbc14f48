"""Which object a manifest entry gets: its key and record, and which chunks may be shared.

Pure; above records, below objects and store. Two manifests may disagree about the same digest;
store.py explains what follows.
"""

from __future__ import annotations

import hashlib

from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, ChunkRef, FileEntry
from axonfs.store.presence import Presence
from axonfs.store.records import NO_TABLE, ObjectRecord


def suits(known: ObjectRecord | Presence, entry: FileEntry) -> bool:
    """Whether chunks of `known` may be served as chunks of `entry`."""
    if known.size != entry.size:
        return False
    if known.named != entry.named:
        return False  # a registry could use another file's sha256 as the name of its own file
    if entry.chunks is None:
        return known.verified or known.table == NO_TABLE
    return known.chunk_size == entry.chunks.size and (
        known.verified or known.table == entry.chunks.digest
    )


def rules_out(record: ObjectRecord, entry: FileEntry) -> bool:
    """Whether the object has local chunks that may not be served as chunks of `entry`."""
    return record.chunk_size > 0 and record.present_bytes > 0 and not suits(record, entry)


def new_record(digest: str, entry: FileEntry) -> ObjectRecord:
    private_of = None if digest == entry.digest else entry.digest
    if entry.chunks is None:
        return ObjectRecord(
            entry.size, DEFAULT_CHUNK_SIZE, private_of=private_of, named=entry.named
        )
    return ObjectRecord(entry.size, entry.chunks.size, entry.chunks.digest, private_of=private_of)


def entry_of(key: str, record: ObjectRecord) -> FileEntry:
    """A manifest entry that the object under `key` may serve."""
    chunks = ChunkRef(record.chunk_size, record.table) if record.table != NO_TABLE else None
    digest = record.private_of or key
    return FileEntry("", record.size, digest, chunks, unverified=record.named)


def private_key(key: str, entry: FileEntry) -> str:
    """The key of the object of `entry` if `key` is taken by an object with other chunks."""
    chunks = entry.chunks
    identity = f"{key} {entry.size} {chunks.size} {chunks.digest}" if chunks else ""
    identity = identity or f"{key} {entry.size}"
    return hashlib.sha256(identity.encode()).hexdigest()
