"""The format of the index's records.

Pure; the bottom of the store. Little endian, except for keys, whose order LMDB compares:

    objects    key: digest (32 bytes)
               sealed: u64 size, u32 chunk size, u32 flags (1 = complete and verified,
               2 = its key is a name, not the digest of its bytes, 4 = verified, and `tables` has
               a table of its own),
               u64 present bytes, f64 accessed (unix seconds), 32 digest of the chunk table (zeros:
               none), 32 digest of the content where the key is another (zeros: the key is it),
               then the cause of a quarantine in UTF-8 (nothing: none)
    groups     key: digest, u32 big endian number of the group
               16 boot id, then for each of 128 chunks one bit of present, one of checked and one
               of adopted (16 bytes each), then one u64 xxh3-64 each
    documents  key: sha256 of the URL; sealed: f64 fetched, JSON [etag, final URL]
    bodies     key: sha256 of the URL; sealed: the body
    manifests  key: sha256 of the spec; sealed: u32 length of the JSON [namespace, name, version,
               base], the JSON, the manifest as published
    tables     key: object digest, u32 big endian chunk size, digest of the table (zeros: the
               object's own, which was made when the whole was verified)
               sealed: the table
    pins       key: sha256 of the spec; sealed: JSON
    meta       format (ASCII number), boot (16 bytes), scrub (sealed: JSON)

Sealed: preceded by the u64 xxh3-64 of the rest, seeded with the kind of the record. A record from a
torn index does not match its seal and counts as missing. Groups have no seal, since each chunk's
sum is compared with its bytes.

A chunk's `checked` bit is valid only if the group has the id of this boot. A chunk is `adopted` if
it was found in a backing file instead of landed: its sum is unknown, so only the chunk table can
verify it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import xxhash

FORMAT = 2
GROUP = 128  # chunks per group record: with 1 KiB of sums a commit changes one leaf page
NO_TABLE = ""
TOUCH_INTERVAL = 60.0  # seconds between two writes of one object's access time
_OBJECT = struct.Struct("<QIIQd32s32s")
_SUM = struct.Struct("<Q")
_VERIFIED, _NAMED, _PROVEN = 1, 2, 4
_BITS = GROUP // 8
_PRESENT, _CHECKED, _ADOPTED, _SUMS = 16, 16 + _BITS, 16 + 2 * _BITS, 16 + 3 * _BITS
GROUP_BYTES = _SUMS + 8 * GROUP
_ZEROS = bytes(_BITS)
_BINARY = bytes.maketrans(b"01", b"\0\1")


class Kind(IntEnum):
    """The seed of a seal, so that a record is not valid in another table."""

    OBJECT = 1
    DOCUMENT = 2
    BODY = 3
    MANIFEST = 4
    TABLE = 5
    PIN = 6
    SCRUB = 7


def checksum(data: bytes | bytearray | memoryview) -> int:
    """xxh3-64, which detects damage by a crash; digests also detect manipulation."""
    return xxhash.xxh3_64_intdigest(data)


def seal(kind: Kind, payload: bytes) -> bytes:
    return _SUM.pack(xxhash.xxh3_64_intdigest(payload, kind)) + payload


def unseal(kind: Kind, raw: bytes | None) -> bytes | None:
    """The sealed payload; None if the record is missing or damaged."""
    if raw is None or len(raw) < _SUM.size:
        return None
    payload = raw[_SUM.size :]
    return payload if seal(kind, payload) == raw else None


@dataclass(slots=True)
class ObjectRecord:
    """The record of one object; a chunk size of 0 means a stray that no entry claimed yet.

    `table` is the digest of the chunk table that verified its chunks, or NO_TABLE.
    A private object (store.py) names the digest of its content in `private_of`. `named`: as in
    FileEntry. `verified`: what is local was compared with the digest of the whole. `proven`: the
    index has the object's own table, so what comes later is compared as well.
    """

    size: int
    chunk_size: int
    table: str = NO_TABLE
    verified: bool = False
    present_bytes: int = 0
    accessed: float = 0.0
    quarantined: str | None = None
    private_of: str | None = None
    named: bool = False
    proven: bool = False

    def encode(self) -> bytes:
        # An axonfs that knows no own tables takes a verified object for a complete one.
        whole = self.verified and (not self.proven or self.present_bytes == self.size)
        flags = whole * _VERIFIED | self.named * _NAMED | (self.verified and self.proven) * _PROVEN
        head = _OBJECT.pack(
            self.size,
            self.chunk_size,
            flags,
            self.present_bytes,
            self.accessed,
            bytes.fromhex(self.table),
            bytes.fromhex(self.private_of) if self.private_of else b"",
        )
        return seal(Kind.OBJECT, head + (self.quarantined or "").encode())

    @classmethod
    def decode(cls, raw: bytes | None) -> Self | None:
        payload = unseal(Kind.OBJECT, raw)
        if payload is None:
            return None
        size, chunk_size, flags, present, accessed, table, content = _OBJECT.unpack_from(payload)
        return cls(
            size,
            chunk_size,
            table.hex() if any(table) else NO_TABLE,
            bool(flags & (_VERIFIED | _PROVEN)),
            present,
            accessed,
            payload[_OBJECT.size :].decode() or None,
            content.hex() if any(content) else None,
            bool(flags & _NAMED),
            bool(flags & _PROVEN),
        )


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object's state in the index; sizes in bytes, `accessed` in unix seconds.

    `digest` is its key, which is the digest of the content unless the object is private.
    """

    digest: str
    size: int
    chunk_size: int
    present_bytes: int
    complete: bool
    quarantined: str | None
    accessed: float
    private_of: str | None

    @property
    def content(self) -> str:
        """The digest of the content."""
        return self.private_of or self.digest


def latest(recorded: float, noted: float) -> float:
    """The last access of an object, in unix seconds.

    `noted`, if it is not 0, is at most TOUCH_INTERVAL before `recorded`, which the index has. If it
    is further behind, the clock was ahead when that was written.
    """
    return noted if 0 < noted < recorded - TOUCH_INTERVAL else max(recorded, noted)


def info_of(digest: str, record: ObjectRecord, accessed: float | None) -> ObjectInfo:
    """The ObjectInfo of a record; `accessed` is a later access than the record's, if known."""
    return ObjectInfo(
        digest,
        record.size,
        record.chunk_size,
        record.present_bytes,
        record.chunk_size > 0 and record.present_bytes == record.size,
        record.quarantined,
        latest(record.accessed, accessed or 0.0),
        record.private_of,
    )


def own_table_key(key: bytes, chunk_size: int) -> bytes:
    """Where an object's own table is."""
    return key + chunk_size.to_bytes(4, "big") + bytes(32)


def group_key(digest: bytes, group: int) -> bytes:
    return digest + group.to_bytes(4, "big")


class Group:
    """The record of 128 neighbouring chunks, which can be changed and written back.

    Args:
        raw: the record, None if it does not exist yet. A record with a wrong length counts as
            missing: its chunks are fetched again.
        boot: the id of this boot; `checked` bits of other boots are dropped.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: bytes | None, boot: bytes) -> None:
        self.raw = bytearray(raw if raw and len(raw) == GROUP_BYTES else GROUP_BYTES)
        if self.raw[:_PRESENT] != boot:
            self.raw[:_PRESENT] = boot
            self.raw[_CHECKED:_ADOPTED] = _ZEROS

    @property
    def empty(self) -> bool:
        return self.raw[_PRESENT:_CHECKED] == _ZEROS

    def present(self, slot: int) -> bool:
        return self._test(_PRESENT, slot)

    def adopted(self, slot: int) -> bool:
        return self._test(_ADOPTED, slot)

    def sum_of(self, slot: int) -> int:
        (value,) = _SUM.unpack_from(self.raw, _SUMS + 8 * slot)
        return int(value)

    def settle(self, slot: int, value: int) -> None:
        """Mark a chunk present and checked, with the sum `value`."""
        _SUM.pack_into(self.raw, _SUMS + 8 * slot, value)
        byte, bit = slot >> 3, 1 << (slot & 7)
        self.raw[_PRESENT + byte] |= bit
        self.raw[_CHECKED + byte] |= bit
        self.raw[_ADOPTED + byte] &= ~bit

    def adopt(self, slot: int) -> None:
        """Mark a chunk present but not verified."""
        byte, bit = slot >> 3, 1 << (slot & 7)
        self.raw[_PRESENT + byte] |= bit
        self.raw[_CHECKED + byte] &= ~bit
        self.raw[_ADOPTED + byte] |= bit

    def clear(self, slot: int) -> None:
        byte, mask = slot >> 3, ~(1 << (slot & 7))
        for field in (_PRESENT, _CHECKED, _ADOPTED):
            self.raw[field + byte] &= mask

    def flags(self) -> tuple[bytes, bytes, bytes]:
        """(present, usable, adopted), a byte of 0 or 1 per chunk; usable chunks need no check."""
        present = int.from_bytes(self.raw[_PRESENT:_CHECKED], "little")
        checked = int.from_bytes(self.raw[_CHECKED:_ADOPTED], "little")
        adopted = int.from_bytes(self.raw[_ADOPTED:_SUMS], "little")
        return _spread(present), _spread(present & checked & ~adopted), _spread(present & adopted)

    def _test(self, field: int, slot: int) -> bool:
        return bool(self.raw[field + (slot >> 3)] & (1 << (slot & 7)))


def _spread(bits: int) -> bytes:
    return f"{bits:0{GROUP}b}"[::-1].encode().translate(_BINARY)
