"""Whatever the parsers are given, they take or refuse it as documented, in little time and memory.

Inputs are valid documents with pieces cut out, doubled, swapped, flipped and made up.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axonfs.connection import handshake
from axonfs.errors import AxonError, CorruptError, MalformedError, UsageError
from axonfs.formats.archive import Plain, files
from axonfs.formats.chunktable import ChunkTable, decode_table, parse_table
from axonfs.formats.listing import (
    Listing,
    Versions,
    parse_index,
    parse_versions,
    render_index,
    render_versions,
)
from axonfs.formats.manifest import ChunkRef, FileEntry, Manifest, parse_manifest, render_manifest
from axonfs.http_client.answers import content_range
from axonfs.http_client.limits import parse_retry_after
from axonfs.http_client.urls import split_url
from axonfs.names import Spec, parse_spec
from axonfs.store.records import Group, Kind, ObjectRecord, seal, unseal
from axonfs.vfs.journal import Journal
from axonfs.vfs.journal import Kind as Fact
from tests.support.profile import LONG, report, scaled

# Of the thread's own time, which a busy machine does not stretch; a parser that is not linear in
# its input is far beyond it.
SECONDS = 2.0
# What a parser may hold on top of a multiple of its input.
SPARE_BYTES = 8 << 20
PER_BYTE = 100

tried: Counter[str] = Counter()

budget = settings(
    max_examples=scaled(150, 3000),
    deadline=None,
    derandomize=not LONG,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()
    report("fuzz", parsers=len(tried), inputs=tried.total())


SPEC = Spec("nlp", "deep/model", "1.0.0")
TABLE = ChunkTable(3 * 65536, 65536, bytes(range(96)))
MANIFEST = render_manifest(
    Manifest(
        SPEC,
        (
            FileEntry("config.json", 10, "ab" * 32),
            FileEntry("sub/model.safetensors", TABLE.size, "cd" * 32, TABLE.ref),
        ),
        description="a model\twith “text”",
        license="MIT",
        framework="pytorch",
        format="safetensors",
        tags=("a", "b"),
        created=1.7e9,
    )
)
INDEX = render_index([Listing(SPEC, "text", "pytorch", "MIT", ("x",), 12, 1.7e9)] * 2)
VERSIONS = render_versions(Versions(("1.0.0", "2.0.0-rc.1"), "1.0.0"))
RECORD = ObjectRecord(3 * 65536, 65536, "ef" * 32, True, 65536, 1.7e9, "why").encode()
OFFER = struct.pack("=IIQQIIIHH", 104, 26, 2, 0, 0, 0, 0, 0, 0) + struct.pack(
    "=IIIII44x", 7, 41, 131072, 0x73FFFFFB, 0x1FF
)
REPLY = struct.pack("=IiQ", 80, 0, 2) + struct.pack(
    "=IIIIHHIIHHI28x", 7, 38, 4096, 1, 12, 9, 4096, 1, 32, 0, 0
)


def archive() -> bytes:
    """Files and a directory, with headers of each kind."""
    buffer = io.BytesIO()
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as made:
            for path in ("config.json", "sub/" + "long" * 40, "last.bin"):
                header = tarfile.TarInfo(path)
                header.size, header.mtime = 700, 1.5
                made.addfile(header, io.BytesIO(b"data" * 175))
            folder = tarfile.TarInfo("sub")
            folder.type = tarfile.DIRTYPE
            made.addfile(folder)
    return buffer.getvalue().replace(bytes(5120), b"")


ARCHIVE = archive()

TOKENS = [
    *(b"\0", b"\xff" * 8, b"\xed\xa0\x80", b"\r\n", b"..", b"/", b"[" * 2000, b"{" * 2000),
    *(
        b"&a ",
        b"*a",
        b"!!python/object:os.system ",
        b"- ",
        b": ",
        b"null",
        b"true",
        b"NaN",
        b"1e999",
    ),
    *(b"9" * 5000, b"-1", b"\\ud800", b"\x1b[31m", b"'", b'"', b"#", b"%YAML 9.9\n", b"---\n"),
    *(struct.pack("<Q", 1 << 63), struct.pack("<I", 0xFFFFFFFF)),
]


@st.composite
def mangled(draw: st.DrawFn, *samples: bytes) -> bytes:
    """One of the samples, and what some edits make of it; now and then bytes of no sense at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=400))
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        edit = draw(st.sampled_from(["token", "bytes", "cut", "double", "flip", "end"]))
        if edit == "token":
            data[start:stop] = draw(st.sampled_from(TOKENS))
        elif edit == "bytes":
            data[start:stop] = draw(st.binary(max_size=12))
        elif edit == "cut":
            del data[start:stop]
        elif edit == "double":
            data[start:start] = data[start : start + 40]
        elif edit == "flip" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif edit == "end":
            del data[start:]
    return bytes(data)


def attempt(
    name: str, parse: Callable[[bytes], object], data: bytes, *refusals: type[Exception]
) -> object:
    """What `parse` makes of it; None if it refuses it in a documented way."""
    tried[name] += 1
    tracemalloc.reset_peak()
    held, began = tracemalloc.get_traced_memory()[0], time.thread_time()
    found: object = None
    refusal: Exception | None = None
    try:
        found = parse(data)
    except refusals as exc:
        refusal = exc
    assert not isinstance(refusal, AxonError) or str(refusal).isprintable()
    assert time.thread_time() - began < SECONDS
    assert tracemalloc.get_traced_memory()[1] - held < SPARE_BYTES + PER_BYTE * len(data)
    return found


@budget
@given(mangled(MANIFEST))
def test_manifest(data: bytes) -> None:
    found = attempt("manifest", lambda raw: parse_manifest(raw, SPEC), data, MalformedError)
    if isinstance(found, Manifest):
        again = parse_manifest(render_manifest(found), SPEC)
        assert [entry.path for entry in again.files] == [entry.path for entry in found.files]
        for entry in found.files:
            assert not {"", ".", ".."} & set(entry.path.split("/"))


@budget
@given(mangled(INDEX))
def test_index(data: bytes) -> None:
    found = attempt("index", lambda raw: parse_index(raw)[0], data, MalformedError)
    if isinstance(found, list):
        assert parse_index(render_index(found))[1] == 0


@budget
@given(mangled(VERSIONS))
def test_versions(data: bytes) -> None:
    found = attempt("versions", parse_versions, data, MalformedError)
    if isinstance(found, Versions):
        assert found.latest is None or found.latest in found.versions


@budget
@given(mangled(TABLE.encode()))
def test_chunk_table(data: bytes) -> None:
    found = attempt("chunk table", decode_table, data, MalformedError)
    if isinstance(found, ChunkTable):
        assert found.encode() == data
        assert found.count == -(-found.size // found.chunk_size)
    named = ChunkRef(65536, TABLE.ref.digest)
    attempt(
        "chunk table by its digest",
        lambda raw: parse_table(raw, size=TABLE.size, chunks=named),
        data,
        *(CorruptError, MalformedError),
    )


@budget
@given(mangled(OFFER), mangled(REPLY))
def test_init(message: bytes, reply: bytes) -> None:
    offer = attempt("INIT", handshake.parse_offer, message, ValueError)
    if not isinstance(offer, handshake.Offer):
        offer = handshake.parse_offer(OFFER)
    found = attempt(
        "INIT reply",
        lambda raw: handshake.amend(raw, offer, passthrough=True)[0],
        reply,
        ValueError,
    )
    if isinstance(found, bytes):
        assert len(found) == 80
        assert found[8:16] == offer.unique.to_bytes(8, "little")


@budget
@given(mangled(RECORD), mangled(RECORD[8:]), st.sampled_from(list(Kind)))
def test_index_records(raw: bytes, payload: bytes, kind: Kind) -> None:
    """A record that is not what was written is none; what is sealed comes back."""
    found = attempt("object record", ObjectRecord.decode, raw)
    assert found is None or raw == RECORD
    assert unseal(kind, seal(kind, payload)) == payload
    other = next(each for each in Kind if each != kind)
    assert unseal(other, seal(kind, payload)) is None


@budget
@given(mangled(bytes(Group(None, bytes(16)).raw)), st.binary(min_size=16, max_size=16))
def test_chunk_groups(raw: bytes, boot: bytes) -> None:
    """Bits may be wrong, which a chunk's own sum finds; nothing else is."""

    def parse(data: bytes) -> object:
        group = Group(data, boot)
        present, usable, adopted = group.flags()
        assert len(present) == len(usable) == len(adopted) == 128
        assert not any(use and not there for use, there in zip(usable, present, strict=True))
        return group

    attempt("chunk group", parse, raw)


def journal_bytes() -> bytes:
    """A journal with one fact of each kind."""
    journal_file = os.memfd_create("sample")
    journal = Journal(journal_file)
    journal.note(Fact.NODE, 5, 0, b"nlp\0tiny")
    journal.note(Fact.LOOKUP, 5, 2)
    journal.note(Fact.OPEN, 1, 5, b"3")
    journal.note(Fact.SNAPSHOT, 0, 0, b"".join(journal.known.records()))
    journal.note(Fact.FORGET, 5, 1)
    journal.note(Fact.RELEASE, 1)
    data = os.pread(journal_file, 1 << 16, 0)
    os.close(journal_file)
    return data


@budget
@given(mangled(journal_bytes()))
def test_journal(data: bytes) -> None:
    """What a journal says may be nonsense; the next worker starts all the same, and writes on."""

    def parse(raw: bytes) -> object:
        descriptor = os.memfd_create("fuzz")
        try:
            os.pwrite(descriptor, raw, 0)
            journal = Journal(descriptor)
            journal.note(Fact.OPEN, 99, 7, b"0")
            assert Journal(descriptor).known == journal.known
            return journal
        finally:
            os.close(descriptor)

    attempt("journal", parse, data)


@budget
@given(mangled(b"nlp/deep/model@1.0.0"))
def test_spec(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = attempt("spec", lambda raw: parse_spec(text), data, UsageError)
    if isinstance(found, Spec):
        assert parse_spec(str(found)) == found


@budget
@given(mangled(b"bytes 0-65535/131072", b"https://u:p@[::1]:443/a%20b?c=d#e", b"120"))
def test_headers(data: bytes) -> None:
    """What a server says of ranges, of where to go instead, and of when to come back."""
    text = data.decode("latin-1")
    attempt("Content-Range", lambda raw: content_range(text), data)
    attempt("Location", lambda raw: split_url(text), data, ValueError)
    waits = attempt("Retry-After", lambda raw: parse_retry_after(text, 1.7e9), data)
    assert waits is None or 0 <= float(str(waits)) <= 60


@budget
@given(mangled(ARCHIVE), st.booleans())
def test_archive(data: bytes, packed: bool) -> None:
    """What a package may be: a gzip stream that is damaged, or one of a damaged archive."""

    def parse(raw: bytes) -> object:
        pieces = iter([memoryview(gzip.compress(raw, 1) if packed else raw)])
        stream = io.BufferedReader(Plain(lambda: next(pieces, memoryview(b"")), 1 << 30), 1 << 16)
        return [path for path, size in files(stream) if len(stream.read(size)) == size]

    found = attempt("archive", parse, data, MalformedError)
    for path in found if isinstance(found, list) else ():
        assert not {"", ".", ".."} & set(path.split("/"))
