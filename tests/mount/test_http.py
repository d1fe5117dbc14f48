"""A mount over a server that uses the freedoms of HTTP, and one that uses them wrongly."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from tests.mount.conftest import CHUNK, FILES, MountFactory, run_axonfs, source_bytes
from tests.support.faulty import Exchange, Fault
from tests.support.faulty_origin import FaultyOrigin

pytestmark = pytest.mark.mount


def early(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" * 3)


def compressed(exchange: Exchange) -> None:
    """Documents and whole objects gzipped, although they were asked for as they are."""
    if exchange.status == 200:
        exchange.body = zlib.compress(gzip.compress(exchange.body))
        exchange.headers["content-encoding"] = "GZIP , deflate"
        exchange.headers["Content-Length"] = str(len(exchange.body))


def plain_200(exchange: Exchange) -> None:
    """No ranges, and everything gzipped."""
    if exchange.status == 206:
        exchange.status, exchange.body = 200, exchange.whole
        del exchange.headers["Content-Range"]
    compressed(exchange)


def less(exchange: Exchange) -> None:
    """At most a third of what was asked for."""
    if exchange.status == 206:
        exchange.body = exchange.body[: max(len(exchange.body) // 3, 100_000)]
        ranged(exchange)


def more(exchange: Exchange) -> None:
    """A thousand bytes more on either side."""
    if exchange.status == 206:
        stop = exchange.start + len(exchange.body) + 1000
        exchange.start = max(exchange.start - 1000, 0)
        exchange.body = exchange.whole[exchange.start : stop]
        ranged(exchange)


def ranged(exchange: Exchange) -> None:
    last = exchange.start + len(exchange.body) - 1
    exchange.headers["Content-Range"] = f"BYTES {exchange.start}-{last}/{exchange.total}"
    exchange.headers["Content-Length"] = str(len(exchange.body))


def multipart(exchange: Exchange) -> None:
    if exchange.status == 206:
        head = f"--x\r\nContent-Range: {exchange.headers.pop('Content-Range')}\r\n\r\n".encode()
        exchange.body = head + exchange.body + b"\r\n--x--\r\n"
        exchange.headers["Content-Type"] = 'multipart/byteranges; boundary="x"'
        exchange.headers["Content-Length"] = str(len(exchange.body))


@pytest.mark.parametrize("fault", [early, compressed, plain_200, less, more, multipart])
def test_what_http_allows_changes_no_byte(
    registry_dir: Path, start_mount: MountFactory, tmp_path: Path, fault: Fault
) -> None:
    with FaultyOrigin(registry_dir) as origin:
        origin.always(fault)
        mount = start_mount(origin.url)
        top = mount.path / "nlp/tiny/latest"
        whole = source_bytes(tmp_path, 1, "model.safetensors")
        with (top / "model.safetensors").open("rb", buffering=0) as file:
            file.seek(3 * CHUNK + 77)
            assert file.read(500) == whole[3 * CHUNK + 77 :][:500]
        for name in FILES:
            assert (top / name).read_bytes() == source_bytes(tmp_path, 1, name)
        run_axonfs("pin", "nlp/tiny@1.0.0", "--cache", mount.cache)
        run_axonfs("pin", "--check", "nlp/tiny@1.0.0", "--cache", mount.cache)


def smuggled(exchange: Exchange) -> None:
    exchange.headers["Transfer-Encoding"] = "chunked"


def switched(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")


@pytest.mark.complains
@pytest.mark.parametrize(
    ("fault", "words"), [(smuggled, "both Content-Length"), (switched, "invalid HTTP response")]
)
def test_what_is_dangerous_is_refused_in_words(
    registry_dir: Path, start_mount: MountFactory, fault: Fault, words: str
) -> None:
    def on_objects(exchange: Exchange) -> None:
        if "/objects/" in exchange.seen.path:
            fault(exchange)

    with FaultyOrigin(registry_dir) as origin:
        origin.always(on_objects)
        mount = start_mount(origin.url, env={"AXONFS_DEADLINE": "2"})
        with pytest.raises(OSError, match=r"Input/output error|timed out"):
            (mount.path / "nlp/tiny/latest/vocab.txt").read_bytes()
        assert words in mount.status()["failures"][-1]["message"]
