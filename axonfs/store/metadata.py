"""The cache's data beside object bytes: documents, manifests, chunk tables, pins, the scrub state.

Above index and records, below Store, which inherits from it. Manifests are parsed on use; only the
last few stay in memory. Callers check a chunk table or manifest before they store it.

Threading: any thread.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from axonfs.errors import MalformedError
from axonfs.formats.chunktable import ChunkTable, decode_table
from axonfs.formats.document import Document
from axonfs.formats.manifest import ChunkRef, FileEntry, Manifest, parse_manifest
from axonfs.names import Spec
from axonfs.store.health import DISK_FAULTS, Health
from axonfs.store.index import Index, Table, Transaction
from axonfs.store.namespaces import Namespaces
from axonfs.store.records import Kind, ObjectRecord, seal, unseal

log = logging.getLogger(__name__)

# Limit for documents of registries, enough for the index of 20,000 models with 100,000 files. What
# exceeds it is fetched each time: a registry with an endless index must not fill the disk.
BUDGET = 8 << 30
PARSED_BYTES = 8 << 20  # raw size of the manifests kept in parsed form, which is 5 times as large
_SCRUB = b"scrub"
_FETCHED = struct.Struct("<d")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest, and the registry URL that its objects resolve against."""

    manifest: Manifest
    base: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A version exempt from eviction; `files` are object digests, `pinned_at` unix seconds.

    It is also a receipt: `complete` means that at that time all `chunks` of the files, of `size`
    bytes, were local and had been checked since the machine was booted. `unverified` is the number
    of its files for which the registry has no digest to compare with.
    """

    spec: Spec
    manifest_digest: str
    files: tuple[str, ...]
    pinned_at: float
    complete: bool
    chunks: int = 0
    size: int = 0
    unverified: int = 0


@dataclass(frozen=True, slots=True)
class ScrubState:
    """The progress of the scrub; times in unix seconds, 0 for never, `boot` in hex.

    `key` and `chunk` are the position where it resumes. `read` bytes were read in this round, and
    `bad` chunks found. `last_read` and `last_bad` are those of the round that ended at `ended`.
    """

    boot: str = ""
    key: str = ""
    chunk: int = 0
    began: float = 0.0
    read: int = 0
    bad: int = 0
    ended: float = 0.0
    last_read: int = 0
    last_bad: int = 0


class Metadata:
    """The part of Store that does not deal with backing files.

    Documents, manifests and chunk tables can be fetched again: if the disk fails to write or read
    them, that is only reported to `health`. A pin that cannot be written or read is an error.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._full = False
        self.health = Health()
        self._parsed = _ParsedManifests(PARSED_BYTES)
        self.namespaces = Namespaces(index, self._parse_raw)
        self._pins_now = object()  # another one after each change of a pin
        self._pinned: tuple[object, set[str]] = None, set()

    def document(self, url: str) -> Document | None:
        key, head, body = _key(url), None, None
        with self._reporting_faults(), self._index.view() as view:
            head = unseal(Kind.DOCUMENT, view.get(Table.DOCUMENTS, key))
            body = unseal(Kind.BODY, view.get(Table.BODIES, key))
        if head is None or body is None:
            return None
        (fetched,) = _FETCHED.unpack_from(head)
        etag, final_url = json.loads(head[_FETCHED.size :])
        return Document(body, etag, fetched, final_url)

    def put_document(self, url: str, document: Document) -> None:
        key = _key(url)
        head = _FETCHED.pack(document.fetched)
        head += json.dumps([document.etag, document.final_url]).encode()
        if not self._room_for(len(document.body)):
            return

        def apply(transaction: Transaction) -> None:
            transaction.put(Table.DOCUMENTS, key, seal(Kind.DOCUMENT, head))
            transaction.put(Table.BODIES, key, seal(Kind.BODY, document.body))

        self._keep(apply)

    def touch_document(self, url: str, fetched: float) -> None:
        """Record that the document was still current at `fetched`, without rewriting its body."""
        key = _key(url)

        def apply(transaction: Transaction) -> None:
            head = unseal(Kind.DOCUMENT, transaction.get(Table.DOCUMENTS, key))
            if head is not None:
                head = _FETCHED.pack(fetched) + head[_FETCHED.size :]
                transaction.put(Table.DOCUMENTS, key, seal(Kind.DOCUMENT, head))

        self._keep(apply)

    def manifest(self, spec: Spec) -> StoredManifest | None:
        """The manifest of `spec`, parsed now unless it is in memory."""
        record = None
        with self._reporting_faults():
            record = unseal(Kind.MANIFEST, self._index.get(Table.MANIFESTS, _key(str(spec))))
        return None if record is None else self._parse(record)

    def put_manifest(self, manifest: Manifest, base: str) -> None:
        spec = manifest.spec
        head = json.dumps([spec.namespace, spec.name, spec.version, base]).encode()
        record = seal(Kind.MANIFEST, _LENGTH.pack(len(head)) + head + manifest.raw)
        if self._room_for(len(record)):
            self._keep(lambda txn: txn.put(Table.MANIFESTS, _key(str(spec)), record))

    def specs(self) -> list[Spec]:
        """The versions whose manifests are stored, sorted."""
        records: list[bytes] = []
        with self._reporting_faults():
            records = self._records(Table.MANIFESTS, Kind.MANIFEST)
        return sorted(_split(record)[0] for record in records)

    def drop_manifest(self, spec: Spec) -> bool:
        """Drop the manifest; return whether there was one."""
        return self._index.write(lambda txn: txn.delete(Table.MANIFESTS, _key(str(spec))))

    def table(self, entry: FileEntry) -> ChunkTable | None:
        """The stored chunk table that `entry` names; None without one."""
        if entry.chunks is None:
            return None
        raw = None
        with self._reporting_faults():
            raw = self._index.get(Table.TABLES, _table_key(entry.digest, entry.chunks))
        record = unseal(Kind.TABLE, raw)
        if record is None:
            return None
        with suppress(MalformedError):  # a table of format 1, which is fetched again
            return decode_table(record)
        return None

    def put_table(self, digest: str, table: ChunkTable) -> None:
        record = seal(Kind.TABLE, table.encode())
        key = _table_key(digest, table.ref)
        if self._room_for(len(record)):
            self._keep(lambda txn: txn.put(Table.TABLES, key, record))

    def pins(self) -> list[Pin]:
        return sorted(
            map(_decode_pin, self._records(Table.PINS, Kind.PIN)), key=lambda pin: pin.spec
        )

    def put_pin(self, pin: Pin) -> None:
        record = seal(Kind.PIN, _encode_pin(pin))
        self._index.write(lambda txn: txn.put(Table.PINS, _key(str(pin.spec)), record))
        self._pins_now = object()

    def drop_pin(self, spec: Spec) -> bool:
        """Drop the pin; return whether there was one."""
        dropped = self._index.write(lambda txn: txn.delete(Table.PINS, _key(str(spec))))
        self._pins_now = object()
        return dropped

    def pinned_digests(self) -> set[str]:
        """The objects of all pins."""
        return {digest for pin in self.pins() for digest in pin.files}

    def is_pinned(self, key: str) -> bool:
        """Whether a pin has the object with this key; for the owner, who alone writes pins."""
        if self._pinned[0] is not (now := self._pins_now):
            self._pinned = now, self.pinned_digests()
        record = ObjectRecord.decode(self._index.get(Table.OBJECTS, bytes.fromhex(key)))
        return ((record and record.private_of) or key) in self._pinned[1]

    def unprove(self, digest: str) -> None:
        """Mark the pins of an object incomplete, since bytes of it were lost."""
        for pin in self.pins():
            if digest in pin.files and pin.complete:
                self.put_pin(replace(pin, complete=False))

    def scrub_state(self) -> ScrubState:
        """The progress of the scrub; a new state if none is stored, or an invalid one."""
        record = unseal(Kind.SCRUB, self._index.get(Table.META, _SCRUB))
        try:
            return ScrubState(**json.loads(record)) if record else ScrubState()
        except TypeError:  # another version of axonfs stored other fields
            return ScrubState()

    def put_scrub_state(self, state: ScrubState) -> None:
        record = seal(Kind.SCRUB, json.dumps(asdict(state)).encode())
        self._index.write(lambda txn: txn.put(Table.META, _SCRUB, record))

    def _room_for(self, size: int) -> bool:
        fits = self._index.used() + size <= BUDGET
        if not fits and not self._full:
            log.warning("the index has %d bytes; no further registry data is stored", BUDGET)
        self._full = not fits
        return fits

    def _keep(self, apply: Callable[[Transaction], None]) -> None:
        """Write data that can be fetched again; ignore a disk fault."""
        with self._reporting_faults():
            self._index.write(apply)

    @contextmanager
    def _reporting_faults(self) -> Iterator[None]:
        """Report disk faults to `health` instead of raising them."""
        try:
            yield
        except DISK_FAULTS as exc:
            self.health.failed(exc)

    def _records(self, table: Table, kind: Kind) -> list[bytes]:
        with self._index.view() as view:
            records = [unseal(kind, raw) for _, raw in view.scan(table)]
        return [record for record in records if record is not None]

    def _parse_raw(self, raw: bytes) -> Manifest | None:
        record = unseal(Kind.MANIFEST, raw)
        stored = self._parse(record) if record else None
        return stored.manifest if stored else None

    def _parse(self, record: bytes) -> StoredManifest | None:
        spec, base, raw = _split(record)
        digest = hashlib.sha256(base.encode() + b"\0" + raw).digest()
        manifest = self._parsed.get(digest)
        if manifest is None:
            try:
                manifest = parse_manifest(raw, spec, base)
            except MalformedError as exc:
                # An older, less strict version stored it. The new fetch reports what is wrong.
                log.info("ignoring a cached manifest: %s", exc)
                return None
            self._parsed.put(digest, manifest)
        return StoredManifest(manifest, base)


class _ParsedManifests:
    """The manifests that were parsed last, by the digest of base and document.

    The budget is in raw bytes; the newest manifest is always kept.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._size = 0
        self._manifests: OrderedDict[bytes, Manifest] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: bytes) -> Manifest | None:
        with self._lock:
            found = self._manifests.get(digest)
            if found is not None:
                self._manifests.move_to_end(digest)
            return found

    def put(self, digest: bytes, manifest: Manifest) -> None:
        with self._lock:
            if digest in self._manifests:
                return
            self._manifests[digest] = manifest
            self._size += len(manifest.raw)
            while self._size > self._budget and len(self._manifests) > 1:
                _, oldest = self._manifests.popitem(last=False)
                self._size -= len(oldest.raw)


def _key(text: str) -> bytes:
    # Hashed, since a URL or spec may be longer than a key in LMDB, 511 bytes.
    return hashlib.sha256(text.encode()).digest()


def _table_key(digest: str, chunks: ChunkRef) -> bytes:
    # With the table's digest, so that a registry with a false table does not replace the true one.
    return bytes.fromhex(digest) + chunks.size.to_bytes(4, "big") + bytes.fromhex(chunks.digest)


def _split(record: bytes) -> tuple[Spec, str, bytes]:
    """(spec, base, raw manifest) of a manifest's record."""
    (length,) = _LENGTH.unpack_from(record)
    stop = _LENGTH.size + length
    namespace, name, version, base = json.loads(record[_LENGTH.size : stop])
    return Spec(namespace, name, version), base, record[stop:]


def _encode_pin(pin: Pin) -> bytes:
    spec = pin.spec
    value: dict[str, Any] = {
        "spec": [spec.namespace, spec.name, spec.version],
        "manifest": pin.manifest_digest,
        "files": list(pin.files),
        "pinned_at": pin.pinned_at,
        "complete": pin.complete,
        "chunks": pin.chunks,
        "size": pin.size,
    }
    if pin.unverified:
        value["unverified"] = pin.unverified
    return json.dumps(value, separators=(",", ":")).encode()


def _decode_pin(record: bytes) -> Pin:
    value = json.loads(record)
    return Pin(
        Spec(*value["spec"]),
        value["manifest"],
        tuple(value["files"]),
        value["pinned_at"],
        value["complete"],
        value.get("chunks", 0),
        value.get("size", 0),
        value.get("unverified", 0),
    )
