"""Objects for tests of the store: bytes with their entry and chunk table, and how to land them."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from axonfs.formats.chunktable import ChunkTable, chunk_digest
from axonfs.formats.manifest import FileEntry
from axonfs.store import Store, StoredObject

CHUNK = 64 << 10
BOOT = "11111111-1111-1111-1111-111111111111"
NEXT_BOOT = "22222222-2222-2222-2222-222222222222"


@dataclass(frozen=True)
class Sample:
    """One object's bytes, and what a manifest says of them."""

    data: bytes
    table: ChunkTable
    entry: FileEntry

    @property
    def digest(self) -> str:
        return self.entry.digest

    def chunk(self, number: int) -> memoryview:
        size = self.table.chunk_size
        return memoryview(self.data)[number * size : (number + 1) * size]


def sample(size: int, *, seed: int = 0, chunk_size: int = CHUNK, table: bool = True) -> Sample:
    """`size` random bytes, the same for the same seed."""
    data = random.Random(seed).randbytes(size)
    digests = [
        chunk_digest(data[start : start + chunk_size]) for start in range(0, size, chunk_size)
    ]
    chunks = ChunkTable(size, chunk_size, b"".join(digests))
    digest = hashlib.sha256(data).hexdigest()
    entry = FileEntry(f"file-{seed}", size, digest, chunks.ref if table else None)
    return Sample(data, chunks, entry)


@contextmanager
def held(store: Store, entry: FileEntry) -> Iterator[StoredObject]:
    stored = store.object(entry)
    stored.hold()
    stored.touch()
    try:
        yield stored
    finally:
        stored.release()


def land(store: Store, what: Sample, *chunks: int) -> None:
    """Land the chunks named, all of them where none is."""
    with held(store, what.entry) as stored:
        for chunk in chunks or range(stored.count):
            stored.land(chunk, what.chunk(chunk))


def read(stored: StoredObject, what: Sample, chunk: int) -> bool:
    """Whether a usable chunk reads as it should; the object is held."""
    expected = what.chunk(chunk)
    assert stored.present(chunk, chunk + 1)
    return os.pread(stored.opened(), len(expected), chunk * stored.chunk_size) == expected


def backing_file(cache: Path, digest: str) -> Path:
    """The file that has an object's bytes; the layout of the cache is fixed."""
    return cache / "objects" / digest[:2] / digest


def whole(what: Sample) -> bytearray:
    """A buffer for a chunk."""
    return bytearray(what.table.chunk_size)
