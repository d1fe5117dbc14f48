"""The chunk table's bytes, and every way in which they can be wrong."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import CorruptError, MalformedError
from axonfs.formats.chunktable import ChunkTable, Hash, parse_table, table_bytes
from axonfs.formats.manifest import ChunkRef

CHUNK = 64 << 10
TABLE = ChunkTable(CHUNK + 5, CHUNK, b"\x11" * 32 + b"\x22" * 32)


def ref_of(raw: bytes, chunk_size: int = CHUNK) -> ChunkRef:
    return ChunkRef(chunk_size, hashlib.sha256(raw).hexdigest())


def test_the_bytes_on_the_wire_are_these() -> None:
    golden = (
        b"AXONCHK1"
        + bytes.fromhex("05000100000000000000010001000000")
        + b"\x11" * 32
        + b"\x22" * 32
    )
    assert TABLE.encode() == golden
    assert TABLE.ref == ref_of(golden)


@given(st.integers(1, 40 * CHUNK), st.data())
def test_a_table_reads_back(size: int, data: st.DataObject) -> None:
    count = -(-size // CHUNK)
    digests = data.draw(st.binary(min_size=32 * count, max_size=32 * count))
    table = ChunkTable(size, CHUNK, digests)
    raw = table.encode()
    assert len(raw) == table_bytes(size, CHUNK)
    assert parse_table(raw, size=size, chunks=table.ref) == table
    assert b"".join(map(table.digest_of, range(table.count))) == digests


def test_each_hash_tells_a_right_chunk_from_a_wrong_one() -> None:
    sums = {Hash.SHA256: hashlib.sha256(b"abc").digest(), Hash.BLAKE3: blake3(b"abc").digest()}
    for hash_, of_abc in sums.items():
        table = ChunkTable(3, CHUNK, of_abc, hash_)
        assert parse_table(table.encode(), size=3, chunks=table.ref) == table
        assert table.right(0, memoryview(b"abc"))
        assert not table.right(0, memoryview(b"abd"))


@pytest.mark.parametrize("chunk", [-1, 2])
def test_a_chunk_that_is_not_there_has_no_digest(chunk: int) -> None:
    with pytest.raises(IndexError):
        TABLE.digest_of(chunk)


@given(st.integers(0, len(TABLE.encode()) - 1), st.integers(0, 7))
def test_one_flipped_bit_is_noticed(at: int, bit: int) -> None:
    raw = bytearray(TABLE.encode())
    raw[at] ^= 1 << bit
    with pytest.raises(CorruptError):
        parse_table(bytes(raw), size=TABLE.size, chunks=TABLE.ref)


HEADER = struct.Struct("<8sQII")
DIGESTS = TABLE.digests


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        TABLE.encode()[:-1],
        TABLE.encode()[:-32],
        TABLE.encode() + b"\0",
        replace(TABLE, size=TABLE.size + 1).encode(),
        replace(TABLE, chunk_size=2 * CHUNK).encode(),
        HEADER.pack(b"AXONCHK2", TABLE.size, CHUNK, 0) + DIGESTS,
        HEADER.pack(b"AXONCHK1", TABLE.size, CHUNK, 2) + DIGESTS,
    ],
)
def test_a_table_that_a_manifest_names_and_that_is_wrong_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_table(raw, size=TABLE.size, chunks=ref_of(raw))
