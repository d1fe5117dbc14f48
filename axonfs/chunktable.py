"""The chunk table of one object: the sha256 of each of its chunks.

Pure. The manifest names a table by its digest, the table names every chunk, so any mirror, cache
or peer may carry the bytes. Format, little endian:

    8   magic "AXONCHK1"
    u64 object size
    u32 chunk size
    u32 zero
    32  sha256 of each chunk, in order; the last chunk may be short
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from axonfs.errors import CorruptError, MalformedError
from axonfs.manifest import ChunkRef, check_chunk_size, chunk_count

MAGIC = b"AXONCHK1"
DIGEST_BYTES = 32
_HEADER = struct.Struct("<8sQII")


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """`digests` holds 32 bytes per chunk; `size` and `chunk_size` are in bytes."""

    size: int
    chunk_size: int
    digests: bytes

    @property
    def count(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def digest_of(self, chunk: int) -> bytes:
        """The raw sha256 of chunk number `chunk`.

        Raises:
            IndexError: the object has no such chunk.
        """
        if not 0 <= chunk < self.count:
            raise IndexError(f"no chunk {chunk} among {self.count}")
        return self.digests[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES]

    def encode(self) -> bytes:
        return _HEADER.pack(MAGIC, self.size, self.chunk_size, 0) + self.digests

    @property
    def ref(self) -> ChunkRef:
        """How a manifest names this table."""
        return ChunkRef(self.chunk_size, hashlib.sha256(self.encode()).hexdigest())


def table_bytes(size: int, chunk_size: int) -> int:
    """The exact length of the encoded table of an object of `size` bytes."""
    return _HEADER.size + chunk_count(size, chunk_size) * DIGEST_BYTES


def parse_table(raw: bytes, *, size: int, chunks: ChunkRef) -> ChunkTable:
    """The table in `raw`, which must be the one that `chunks` names, of an object of `size` bytes.

    Raises:
        CorruptError: the bytes are not those the manifest names.
        MalformedError: they are, and still do not fit the object: the manifest is wrong.
    """
    if hashlib.sha256(raw).hexdigest() != chunks.digest:
        raise CorruptError("the chunk table does not match the digest in the manifest")
    table = decode_table(raw)
    if (table.size, table.chunk_size) != (size, chunks.size):
        raise MalformedError(
            f"the chunk table is of {table.size} bytes in chunks of {table.chunk_size},"
            f" the manifest says {size} in chunks of {chunks.size}"
        )
    return table


def decode_table(raw: bytes) -> ChunkTable:
    """The table in `raw`, whichever object it is of.

    Raises:
        MalformedError: it is not a chunk table, or not one digest per chunk.
    """
    if len(raw) < _HEADER.size:
        raise MalformedError(f"the chunk table has only {len(raw)} bytes")
    magic, size, chunk_size, zero = _HEADER.unpack_from(raw)
    if magic != MAGIC or zero != 0:
        raise MalformedError("this is not a chunk table of a known format")
    check_chunk_size(chunk_size)
    if len(raw) != table_bytes(size, chunk_size):
        raise MalformedError(f"the chunk table has {len(raw)} bytes, which is not one per chunk")
    return ChunkTable(size, chunk_size, raw[_HEADER.size :])
