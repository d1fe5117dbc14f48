"""docs/security.md without a mount: what a registry can cost and make show."""

from __future__ import annotations

import json
import logging
import random
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from axonfs.cli.logs import log_to_stderr
from axonfs.errors import AxonError, DeadlineError, MalformedError
from axonfs.formats.document import Document
from axonfs.formats.listing import MAX_NODES, MAX_VERSIONS, parse_index, parse_versions
from axonfs.formats.manifest import ChunkRef, FileEntry
from axonfs.http_client import Bodies, Documents, Limits, Location, documents
from axonfs.http_client.limits import OVERHEAD_BYTES, PROGRESS_BYTES
from axonfs.store import Store
from axonfs.store import metadata as store_metadata
from tests.support import faulty
from tests.support.commands import Run
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.files import write_files

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
DATA = bytes(200_000)
FAST = Limits(connect=5, first_byte=5, stall=5, deadline=20, attempts=1)
NOBODY = 65534

Get = Callable[[str], bytes]


def by_documents(url: str) -> bytes:
    async def get() -> bytes:
        async with Documents(replace(FAST, deadline=3)) as documents:
            fetched = await documents.get(url, limit=len(DATA), headers={"Authorization": "s3cret"})
            assert fetched is not None
            return fetched.body

    return trio.run(get)


def by_bodies(url: str) -> bytes:
    taken = bytearray()
    with Bodies(FAST) as bodies:
        bodies.read(
            Location(url, {"Authorization": "s3cret"}), 0, len(DATA), len(DATA),
            lambda _, view: taken.extend(view), unit=65536,
        )  # fmt: skip
    return bytes(taken)


@pytest.fixture(params=[by_documents, by_bodies])
def get(request: pytest.FixtureRequest) -> Get:
    client: Get = request.param
    return client


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(write_files(tmp_path / "www", {"object": DATA})) as origin:
        yield origin


@dataclass
class Endless:
    """Sends `before`, then `repeated` as fast as it is taken."""

    before: bytes
    repeated: bytes
    sent: int = 0

    def __call__(self, exchange: Exchange) -> None:
        exchange.write(self.before)
        piece = self.repeated * (1 + 50_000 // len(self.repeated))
        while not exchange.hang(0):
            exchange.write(piece)
            self.sent += len(piece)
        exchange.hang_up()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "fault",
    [
        Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        Endless(OK + b"X: ", b"x" * 100),
        Endless(OK, b"X: y\r\n"),
        Endless(CHUNKED, b"1;" + b"e" * 60_000 + b"\r\nx\r\n"),
        Endless(CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(DATA), DATA), b"X: y\r\n"),
        Endless(CHUNKED, b"1000\r\n" + bytes(0x1000) + b"\r\n"),
        Endless(OK + b"\r\n", b"body"),
    ],
    ids=["interim", "header", "headers", "extensions", "trailers", "chunks", "body"],
)
def test_an_answer_without_end_is_given_up(get: Get, origin: FaultyOrigin, fault: Endless) -> None:
    """Headers, interim answers, chunk extensions, trailers, bodies: none is read for ever."""
    fault.sent = 0
    origin.always(fault)
    with pytest.raises(AxonError):
        get(origin.url + "object")
    if get is by_bodies:  # documents have their deadline; what socket buffers hold counts here
        assert fault.sent < 6 * len(DATA) + 2 * OVERHEAD_BYTES + (16 << 20)


async def test_a_drip_that_never_stalls_has_an_end(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a document progresses, it is given up after ten deadlines (two, here)."""
    monkeypatch.setattr(documents, "DEADLINES_MAX", 2)

    def drip(exchange: Exchange) -> None:
        exchange.write(OK + b"\r\n")
        while not exchange.hang(0.02):
            exchange.write(bytes(PROGRESS_BYTES))
        exchange.hang_up()

    origin.always(drip)
    async with Documents(Limits(deadline=1, attempts=1)) as client:
        with pytest.raises(DeadlineError):
            await client.get(origin.url + "object", limit=1 << 40)


@pytest.mark.parametrize("item", [b"{}", b"[]", b'{"":0}', b"[[]]"])
def test_an_index_of_nothing_takes_little(item: bytes) -> None:
    """An index within its bytes may not take fifty times their memory."""
    head = b'{"apiVersion":"axonfs/v1","models":['
    raw = head + (item + b",") * ((60 << 20) // (len(item) + 1)) + b"{}]}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MalformedError, match=f"more than {MAX_NODES:,} values"):
        parse_index(raw)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10


def test_a_list_of_versions_has_an_end() -> None:
    """More versions than any model has are refused before they are sorted."""
    listed = ",".join(f'"{number}"' for number in range(MAX_VERSIONS + 1))
    with pytest.raises(MalformedError, match=f"more than {MAX_VERSIONS:,}"):
        parse_versions(f'{{"versions": [{listed}]}}'.encode())


def test_the_index_is_not_filled_by_what_registries_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond its budget the index keeps nothing more of registries' words, and says so once."""
    monkeypatch.setattr(store_metadata, "BUDGET", 4 << 20)
    store = Store.open(tmp_path / "cache")
    for number in range(20):
        store.put_document(f"http://r/{number}", Document(bytes(1 << 20), None, 0.0, "http://r/"))
    assert store.document("http://r/0") is not None
    assert store.document("http://r/19") is None
    store.close()
    assert (tmp_path / "cache/index.lmdb").stat().st_blocks * 512 < 8 << 20
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_claimed_size_takes_no_disk(tmp_path: Path) -> None:
    """A manifest may claim any size: the disk is not filled ahead of the bytes."""
    store = Store.open(tmp_path / "cache")
    entry = FileEntry("huge.bin", 1 << 41, "ab" * 32, ChunkRef(1 << 20, "cd" * 32))
    stored = store.object(entry)
    stored.hold()
    stored.land(5, memoryview(bytes([1]) * (1 << 20)))
    assert store.usage() == 1 << 20
    stored.release()
    store.close()
    blocks = sum(path.lstat().st_blocks for path in (tmp_path / "cache").rglob("*"))
    assert blocks * 512 < 4 << 20


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/", "data:,x", "unix:/run/x", "http://xn--a/",
     f"http://{ESCAPE}/", "http://[::1", "javascript:x"],
)  # fmt: skip
def test_a_redirect_to_another_scheme_is_refused(
    get: Get, origin: FaultyOrigin, location: str
) -> None:
    """Neither client follows a redirect to anything but http and https; the message is safe."""
    origin.always(faulty.redirect(location))
    with pytest.raises(AxonError) as caught:
        get(origin.url + "object")
    assert str(caught.value).isprintable()
    assert len(origin.requests) == 1


@pytest.mark.parametrize("change", ["port", "host", "scheme"])
def test_credentials_stay_with_their_origin(
    get: Get, origin: FaultyOrigin, tmp_path: Path, change: str
) -> None:
    """Neither client takes a token along to another host, port or scheme."""
    with FaultyOrigin(tmp_path / "www") as other:
        to = {
            "port": other.url,
            "host": origin.url.replace("127.0.0.1", "127.0.0.2").replace("127.0.0.2", "localhost"),
            "scheme": origin.url.replace("http:", "https:"),
        }[change]
        origin.plan(faulty.redirect(to + "object"))
        try:
            assert get(origin.url + "object") == DATA
        except AxonError:
            assert change == "scheme"  # that port speaks no TLS
        first, *rest = [*origin.requests, *other.requests]
        assert first.headers["authorization"] == "s3cret"
        assert all("authorization" not in seen.headers for seen in rest)
        assert rest or change == "scheme"


@pytest.mark.parametrize("etag", ['"é"', '"\x9b31m"', '"x\x1b[2J"', "W/\xff", '"a" \t"b"'])
async def test_any_etag_is_borne(origin: FaultyOrigin, etag: str) -> None:
    """What a server sends as an ETag may come back to it; it breaks nothing on the way."""
    origin.always(faulty.status(200, ETag=etag))
    async with Documents(FAST) as documents:
        fetched = await documents.get(origin.url + "object", limit=100)
        assert fetched is not None
        again = await documents.get(origin.url + "object", limit=100, etag=fetched.etag)
        assert again is not None
    origin.always(None)
    with Bodies(FAST) as bodies, pytest.raises(AxonError) as caught:
        await trio.to_thread.run_sync(_read_with_etag, bodies, origin.url + "object", etag)
    assert str(caught.value).isprintable()


def _read_with_etag(bodies: Bodies, url: str, etag: str) -> None:
    location = Location(url, etag=etag)
    bodies.read(location, 0, len(DATA), len(DATA), lambda _offset, _view: None, unit=65536)


NAMES = ["Link", "Location", "ETag", "Retry-After", "Content-Range", "Content-Encoding"]
NAMES += ["Content-Length", "Transfer-Encoding", "Set-Cookie", "Content-Type", "Date", "Connection"]
PIECES = ["<http://[x>; rel=next", "http://[x", "<", ">", "; rel=next", "//", "bytes 0-", "-1"]
PIECES += ["\x1b[2J", "é", "xn--", "data:", "file:", "@", ":99999", "%", "/", "*", '"', ",", " "]
PIECES += ["chunked", "gzip", "\t", "9" * 400]


def test_any_header_is_borne(get: Get, origin: FaultyOrigin) -> None:
    """Whatever stands in its headers, an answer is taken or refused with a safe message."""
    draw = random.Random(20)
    games = [(200, {name: piece}) for name in NAMES[:6] for piece in PIECES[:10]]
    for _ in range(90):
        values = ("".join(draw.choices(PIECES, k=draw.randint(1, 4))) for _ in range(2))
        headers = dict(zip(draw.sample(NAMES, 2), values, strict=True))
        games.append((draw.choice([200, 206, 302, 401, 404, 503]), headers))
    for status, headers in games:
        origin.always(_with_headers(status, headers))
        try:
            get(origin.url + "object")
        except AxonError as exc:
            if not str(exc).isprintable():
                raise


def _with_headers(status: int, headers: dict[str, str]) -> Callable[[Exchange], None]:
    def fault(exchange: Exchange) -> None:
        exchange.status = status
        exchange.headers |= headers
        exchange.send()
        exchange.hang_up()

    return fault


@pytest.mark.parametrize(("form", "lines_each"), [("text", 2), ("json", 0)])
def test_no_line_of_a_log_commands_a_terminal(
    form: str, lines_each: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """A log line is one line and printable, whatever text is in it; tracebacks as well."""
    logger = logging.getLogger("axonfs")
    handlers, level = logger.handlers[:], logger.level
    log_to_stderr(form)
    try:
        logger.error("from a registry: %s", f"{ESCAPE}\n2026-01-01T00:00:00Z INFO forged\u202e")
        try:
            raise ValueError(f"{ESCAPE}\n2026-01-01T00:00:00Z INFO forged")
        except ValueError:
            logger.exception("a bug")
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    lines = capfd.readouterr().err.splitlines()
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if line.startswith("20")]) == lines_each
    assert form == "text" or [json.loads(line)["level"] for line in lines] == ["error"] * 2


def test_a_debugging_traceback_is_safe_too(
    run: Run, monkeypatch: pytest.MonkeyPatch, origin: FaultyOrigin
) -> None:
    """AXONFS_DEBUG=1 shows where a fault came from, made safe as everything else is."""
    monkeypatch.setenv("AXONFS_DEBUG", "1")
    origin.always(faulty.status(302, Location=f"http://{ESCAPE}℀/"))
    done = run("info", "nlp/tiny@1.0.0", "--registry", origin.url)
    assert done.code == 1
    assert "Traceback" in done.err
    assert all(line.isprintable() for line in done.err.splitlines())


def test_a_password_in_a_url_is_not_repeated(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A URL with a password is refused, and so is a bad proxy; neither message has the password."""
    assert "s3cret" not in run("search", "x", "--registry", "https://me:s3cret@host").err
    monkeypatch.setenv("AXONFS_REGISTRY", "http://ok https://me:s3/cret@host")
    assert "cret" not in run("config", "list").err
    monkeypatch.setenv("AXONFS_REGISTRY", "http://127.0.0.1:9")
    for proxy in ("me:s3cret@host:99999", "https://me:s3cret@host"):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        done = run("search", "x")
        assert done.code != 0
        assert "s3cret" not in done.err
