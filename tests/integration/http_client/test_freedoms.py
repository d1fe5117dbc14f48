"""What RFC 9110 and 9112 leave to a server, tried on both clients against raw bytes.

Each row is one freedom and says what documents and bodies make of it: the bytes, or the words of
the error. A row with one expectation holds for both.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import trio

from axonfs.errors import AxonError, MalformedError, UnavailableError
from axonfs.formats.listing import parse_index, parse_versions
from axonfs.formats.safe_yaml import parse_yaml
from axonfs.http_client import Bodies, Documents, Limits, Location, Routes, reading
from axonfs.sources.hub import parse_json
from tests.support.rawserver import Asked, RawServer

DATA = random.Random(9).randbytes(40_000)
SIZE = len(DATA)
UNIT = 8192
FIRST, LAST = UNIT, 3 * UNIT  # what bodies are asked for
FAST = Limits(connect=2, first_byte=2, stall=2, deadline=2, attempts=1)

DIRECT = Routes({})

Make = Callable[[Asked], bytes]


def head(status: str = "200 OK", *lines: str, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{version} {status}", *lines, "", ""]).encode()


def answer(asked: Asked, *lines: str, before: bytes = b"", length: str = "Content-Length") -> bytes:
    """The usual answer: 206 to a range, else 200."""
    part = DATA[asked.start : asked.stop]
    sized = [f"{length}: {len(part)}"] if length else []
    if asked.stop > SIZE:
        return before + head("200 OK", *sized, *lines) + part
    ranged = f"Content-Range: bytes {asked.start}-{asked.stop - 1}/{SIZE}"
    return before + head("206 Partial Content", ranged, *sized, *lines) + part


def plain(*lines: str, before: bytes = b"", length: str = "Content-Length") -> Make:
    return lambda asked: answer(asked, *lines, before=before, length=length)


def whole(first: str, body: bytes = DATA) -> Make:
    """`first` and the whole body, also where a range was asked for."""
    return lambda asked: first.encode() + body


def swapped(old: str, new: str) -> Make:
    """The usual answer with other text in its head."""

    def make(asked: Asked) -> bytes:
        start, _, body = answer(asked).partition(b"\r\n\r\n")
        assert old.encode() in start or asked.stop > SIZE
        return start.replace(old.encode(), new.encode()) + b"\r\n\r\n" + body

    return make


def chunked(extension: bytes = b"", trailer: bytes = b"", size: bytes = b"%x") -> Make:
    def make(asked: Asked) -> bytes:
        start, _, body = answer(asked, "Transfer-Encoding: Chunked", length="").partition(
            b"\r\n\r\n"
        )
        pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
        chunks = [size % len(piece) + extension + b"\r\n" + piece + b"\r\n" for piece in pieces]
        return start + b"\r\n\r\n" + b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"

    return make


def redirected(location: bytes, status: str = "302 Found") -> Make:
    """A redirect from the first URL; `location` may name the place `there`."""

    def make(asked: Asked) -> bytes:
        if not asked.target.startswith("/dir/doc"):
            return answer(asked)
        return (
            f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: ".encode()
            + location
            + (b"\r\n\r\n")
        )

    return make


def coded(codings: str, body: bytes, *, length: bool = True) -> Make:
    lines = [f"Content-Encoding: {codings}"] + [f"Content-Length: {len(body)}"] * length
    return lambda _: head("200 OK", *lines) + body


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


def multipart(asked: Asked, boundary: str = "B", quote: str = "") -> bytes:
    part = DATA[asked.start : asked.stop]
    if asked.stop > SIZE:
        return answer(asked)
    body = (
        f"\r\n--{boundary}\r\ncontent-type: a/b\r\nX-Größe: 1\r\n"
        f"content-RANGE:bytes {asked.start}-{asked.stop - 1}/{SIZE}\r\n\r\n"
    ).encode()
    body += part + f"\r\n--{boundary}--\r\n".encode()
    kind = f"Content-Type: Multipart/ByteRanges ; BOUNDARY={quote}{boundary}{quote}"
    return head("206 Partial Content", kind, f"Content-Length: {len(body)}") + body


def bounded(most: int) -> Make:
    """A server that sends at most `most` bytes of a range at a time."""

    def make(asked: Asked) -> bytes:
        stop = asked.stop if asked.stop > SIZE else min(asked.stop, asked.start + most)
        return answer(Asked("", "", asked.start, stop))

    return make


def aligned(asked: Asked) -> bytes:
    """A cache that sends the whole blocks of 10,000 bytes that a range touches."""
    if asked.stop > SIZE:
        return answer(asked)
    start, stop = asked.start // 10_000 * 10_000, min(-(-asked.stop // 10_000) * 10_000, SIZE)
    return answer(Asked("", "", start, stop))


def bare(asked: Asked) -> bytes:
    start, _, body = answer(asked).partition(b"\r\n\r\n")
    return start.replace(b"\r\n", b"\n") + b"\n\n" + body


OK = "bytes"


@dataclass(frozen=True)
class Row:
    """A freedom; OK stands for the right bytes, other text for what an error says."""

    make: Make
    documents: str = OK
    bodies: str = OK
    closes: bool = False


def refused(make: Make, text: str, *, closes: bool = False) -> Row:
    return Row(make, text, text, closes)


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
INVALID = "invalid HTTP response"
ROWS: Mapping[str, Row] = {
    # Names, white space, lines
    "names in capitals": Row(swapped("Content-", "CONTENT-")),
    "names in lower case": Row(swapped("Content-", "content-")),
    "no white space": Row(swapped(": ", ":")),
    "much white space": Row(swapped(": ", ":\t  \t")),
    "white space behind": Row(plain("ETag: \"e\"  \t")),
    "folded line": Row(plain("X-Folded: one\r\n  two\r\n\tthree", "ETag: \"e\"")),
    "raw UTF-8 in a field": Row(plain("X-Author: Jürgen", "Server: größe/1")),
    "lines end in LF": Row(bare),
    "unit in capitals": Row(swapped("bytes ", "Bytes ")),
    "total of a range unknown": Row(swapped(f"/{SIZE}", "/*")),
    # Status lines, versions, interim answers
    "no reason phrase": Row(swapped(" Partial Content", "")),
    "no reason and no blank": Row(lambda asked: answer(asked).replace(
        b" Partial Content", b"", 1).replace(b" OK", b"", 1)),
    "odd reason phrase": Row(swapped("Partial Content", "Teilweise größer")),
    "HTTP/1.0": Row(swapped("HTTP/1.1", "HTTP/1.0"), closes=True),
    "100": Row(plain(before=b"HTTP/1.1 100 Continue\r\n\r\n")),
    "102": Row(plain(before=b"HTTP/1.1 102 Processing\r\n\r\n")),
    "103": Row(plain(before=EARLY)),
    "many interim answers": Row(plain(before=EARLY * 20 + b"HTTP/1.1 199 X\r\n\r\n" + EARLY)),
    "Connection: Close": Row(plain("Connection: Close"), closes=True),
    "Connection: keep-alive, CLOSE": Row(plain("Connection: Keep-Alive , CLOSE"), closes=True),
    "Connection: keep-alive": Row(plain("Connection: KEEP-alive", "Keep-Alive: timeout=5")),
    # Framing
    "chunked": Row(chunked()),
    "chunks with extensions": Row(chunked(b';a=b;c="d;e"', b"X-Sum: 1\r\nETag: \"t\"\r\n")),
    "chunk sizes padded and in capitals": Row(chunked(size=b"000%X")),
    "until the connection closes": Row(plain(length=""), closes=True),
    "length twice": Row(lambda a: answer(a, f"CONTENT-LENGTH: {len(DATA[a.start : a.stop])}")),
    "length as a list": Row(
        lambda a: answer(a, "Content-Length: {0} , {0}".format(len(DATA[a.start : a.stop])),
                         length="")),
    # Parts of an object
    "200 for a range": Row(whole(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")),
    "less than asked for": Row(bounded(UNIT + 100)),
    "less than a unit": Row(bounded(5000)),
    "more than asked for": Row(aligned),
    "one part of a multipart body": Row(multipart),
    "a quoted boundary": Row(lambda asked: multipart(asked, "a b/c", '"')),
    "416": refused(whole("HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n", b""), "416"),
    "weak ETag": Row(plain('ETag: W/"x"')),
    # Codings that were not asked for
    "gzip": Row(coded("gzip", gzip.compress(DATA))),
    "GZip in chunks of unknown length": Row(coded(" GZip ", gzip.compress(DATA), length=False),
                                           closes=True),
    "x-gzip": Row(coded("x-gzip", gzip.compress(DATA))),
    "two members and padding": Row(
        coded("gzip", gzip.compress(DATA[:99]) + gzip.compress(DATA[99:]) + b"\0" * 9)),
    "deflate": Row(coded("deflate", zlib.compress(DATA))),
    "raw deflate": Row(coded("deflate", raw_deflate(DATA))),
    "stacked": Row(coded("deflate,, gzip", gzip.compress(zlib.compress(DATA)))),
    "identity": Row(plain("Content-Encoding: Identity")),
    "aws-chunked": Row(plain("Content-Encoding: aws-chunked")),
    "a .gz that is called encoded": Row(
        plain("Content-Encoding: x-gzip"), documents="invalid in its content encoding"),
    "cut": refused(coded("gzip", gzip.compress(DATA)[:-9]), "ends too early"),
    "not gzip": refused(coded("gzip", DATA[:-1]), "invalid in its content encoding"),
    "br": refused(plain("Content-Encoding: br"), "unsupported content encoding"),
    # Redirects
    **{
        f"{status} to a relative path": Row(redirected(b"../there/x", f"{status} Moved"))
        for status in (301, 302, 303, 307, 308)
    },
    "raw UTF-8": Row(redirected("/there/größe.bin?n=ü".encode())),
    "raw ISO 8859-1": Row(redirected("/there/größe.bin".encode("latin-1"))),
    "with a blank and a fragment": Row(redirected(b"/there/a b#part")),
    "a query alone": Row(redirected(b"/there?a=b#c"),),
    "to nowhere": refused(whole("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", b""),
                          "without a Location"),
    # What is invalid and dangerous
    "101": refused(plain(before=b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n"), INVALID),
    "lengths that differ": refused(plain("Content-Length: 7"), "conflicting Content-Length"),
    "length and chunks": refused(
        lambda a: chunked()(a).replace(b"\r\n", b"\r\nContent-Length: 5\r\n", 1),
        "both Content-Length and Transfer-Encoding"),
    "a length that is no number": refused(plain("Content-Length: +5", length=""), INVALID),
    "chunks twice": refused(
        plain("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", length=""), INVALID),
    "gzip as a transfer coding": refused(
        plain("Transfer-Encoding: gzip, chunked", length=""), INVALID),
    "a blank before the colon": refused(swapped("Content-Length:", "Content-Length :"),
        "invalid HTTP response: illegal header line: 'Content-Length : "),
    "a bare CR": refused(plain("X: a\rContent-Length: 3"), INVALID),
    "a chunk size that is none": refused(chunked(size=b"0x%x"), INVALID),
    "HTTP/2 in clear": refused(swapped("HTTP/1.1", "HTTP/2"), INVALID),
    "HTTP/0.9": refused(whole("hello\n\n"), INVALID, closes=True),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
async def test_documents(name: str) -> None:
    row = ROWS[name]
    with RawServer(row.make, closes=row.closes) as server:
        async with Documents(FAST, routes=DIRECT) as client:
            with trio.fail_after(5):
                if row.documents == OK:
                    for _ in range(2):  # again on the same connection, where it is kept
                        fetched = await client.get(f"{server.url}dir/doc", limit=SIZE)
                        assert fetched is not None
                        assert fetched.body == DATA
                else:
                    with pytest.raises(AxonError, match=row.documents):
                        await client.get(f"{server.url}dir/doc", limit=SIZE)


@pytest.mark.parametrize("name", ROWS)
def test_bodies(name: str) -> None:
    row = ROWS[name]

    def read(bodies: Bodies, url: str) -> tuple[int, bytes]:
        offsets: list[int] = []
        taken = bytearray()

        def sink(offset: int, view: memoryview) -> None:
            assert not (offset + len(view)) % UNIT or offset + len(view) == SIZE
            offsets.append(offset)
            taken.extend(view)

        bodies.read(Location(url), FIRST, LAST, SIZE, sink, unit=UNIT)
        return offsets[0], bytes(taken)

    with RawServer(row.make, closes=row.closes) as server, Bodies(FAST, routes=DIRECT) as bodies:
        if row.bodies == OK:
            for _ in range(2):
                start, taken = read(bodies, f"{server.url}dir/doc")
                assert (start, taken) in [(0, DATA), (FIRST, DATA[FIRST:LAST])]
        else:
            with pytest.raises(AxonError, match=row.bodies):
                read(bodies, f"{server.url}dir/doc")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"../there/x", "/there/x"),
        (b"x?y", "/dir/x?y"),
        (b"//127.0.0.1:%d/there", "/there"),
        (b"HTTP://127.0.0.1:%d/there#part", "/there"),
        ("/there/größe.bin?n=ü".encode(), "/there/gr%C3%B6%C3%9Fe.bin?n=%C3%BC"),
        ("/there/größe".encode("latin-1"), "/there/gr%F6%DFe"),
        (b"/there/a b#part", "/there/a%20b"),
        (b"/there/a%20b%2Fc", "/there/a%20b%2Fc"),
        (b"/there?a=[b]", "/there?a=[b]"),
    ],
)
async def test_where_a_redirect_leads(location: bytes, target: str) -> None:
    with RawServer(lambda asked: redirected(location)(asked)) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        location = location.replace(b"%d", b"%d" % port)
        await get(f"{server.url}dir/doc")
        read_all(f"{server.url}dir/doc")
        assert [asked.target for asked in server.asked] == ["/dir/doc", target] * 2


def read_all(url: str) -> None:
    with Bodies(FAST, routes=DIRECT) as bodies:
        bodies.read(Location(url), 0, SIZE, SIZE, lambda *_: None, unit=UNIT)


async def get(url: str, limit: int = SIZE) -> None:
    async with Documents(FAST, routes=DIRECT) as client:
        await client.get(url, limit=limit)


async def test_a_bomb_is_bounded_by_what_it_unpacks_to() -> None:
    bomb = gzip.compress(gzip.compress(bytes(100 << 20)))
    with RawServer(coded("gzip, gzip", bomb)) as server:
        with pytest.raises(MalformedError, match="larger than 391 KiB"):
            await get(server.url, 400_000)
        with pytest.raises(UnavailableError, match="longer than its length"):
            read_all(server.url)


@pytest.mark.parametrize("sent", [b"", head("206 Partial Content", f"Content-Length: {SIZE}")])
def test_the_error_of_a_silent_server_is_in_words(sent: bytes) -> None:
    impatient = Limits(connect=2, first_byte=0.3, stall=0.3, deadline=2, attempts=1)
    ranged = sent.replace(b"\r\n", f"\r\nContent-Range: bytes 0-{SIZE - 1}/{SIZE}\r\n".encode(), 1)
    with (
        RawServer(lambda _: ranged) as server,
        Bodies(impatient, routes=DIRECT) as bodies,
        pytest.raises(UnavailableError, match=r"received nothing for 0\.3 s"),
    ):
        bodies.read(Location(server.url), 0, SIZE, SIZE, lambda *_: None, unit=UNIT)


@pytest.mark.parametrize(("most", "enough"), [(400, True), (10, False)])
def test_a_server_that_sends_next_to_nothing_of_each_range_is_given_up(
    most: int, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ANSWER_BYTES", 300)
    given_up = pytest.raises(UnavailableError, match="less than the requested range")
    with RawServer(bounded(most)) as server, nullcontext() if enough else given_up:
        read_all(server.url)


@pytest.mark.parametrize(
    "after",
    [
        "Thu, 01 Jan 2099 00:00:00 GMT",
        "Thursday, 01-Jan-60 00:00:00 GMT",
        "Sun Jan  1 00:00:00 2068",
        "86400",
        " 9999999999999 ",
    ],
)
async def test_every_form_of_retry_after(after: str) -> None:
    with RawServer(lambda _: head("503 Busy", "Content-Length: 0", f"RETRY-AFTER:{after}")) as it:
        with pytest.raises(UnavailableError) as caught:
            await get(it.url)
        assert caught.value.retry_after == 60
        with pytest.raises(UnavailableError) as other:
            read_all(it.url)
        assert other.value.retry_after == 60


def test_a_document_may_begin_with_a_byte_order_mark() -> None:
    mark = "\ufeff".encode()
    assert parse_yaml(mark + b"a: [1]", limit=99) == {"a": [1]}
    assert parse_json(mark + b'{"a": [1]}') == {"a": [1]}
    assert parse_versions(mark + b'{"versions": ["1.0.0"]}').versions == ("1.0.0",)
    assert parse_index(mark + b'{"apiVersion": "axonfs/v1", "models": []}') == ([], 0)


async def test_a_token_that_http_cannot_carry_is_not_shown() -> None:
    headers = {"Authorization": "Bearer s3cret\nX: y"}
    with RawServer(plain()) as server:
        async with Documents(FAST, routes=DIRECT) as client:
            with pytest.raises(UnavailableError, match="cannot send the request") as caught:
                await client.get(server.url, limit=SIZE, headers=headers)
        with (
            Bodies(FAST, routes=DIRECT) as bodies,
            pytest.raises(UnavailableError, match="cannot send the request") as other,
        ):
            bodies.read(Location(server.url, headers), 0, 9, SIZE, lambda *_: None, unit=UNIT)
        assert not server.asked
    assert "s3cret" not in f"{caught.value} {other.value}"
