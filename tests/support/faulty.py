"""An HTTP origin that misbehaves on purpose: serves a directory, and breaks answers by plan.

A loopback server in threads, plain or TLS, and everything that can go wrong with it: the list of
faults is what makes this file long. Each request takes the next fault of the plan (none left: it
behaves) and is recorded with its headers and the connection it came over. A fault is a function
of an `Exchange`; the functions below make them. `chaos` draws them from a seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from tests.support.wiring import Authority, relay


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came in; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    connection: int
    method: str = "GET"


@dataclass(slots=True)
class Exchange:
    """What would be answered if nothing went wrong; a fault changes it, or answers itself."""

    handler: _Handler
    seen: Seen
    status: int
    headers: dict[str, str]
    body: bytes
    start: int = 0  # of the body in the object
    total: int = 0
    answered: bool = False

    def head(self) -> None:
        lines = [f"HTTP/1.1 {self.status} Whatever"]
        lines += [f"{name}: {text}" for name, text in self.headers.items()]
        self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def write(self, data: bytes) -> None:
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def send(self) -> None:
        self.answered = True
        self.head()
        self.write(self.body)

    def hang(self, seconds: float | None = None) -> bool:
        """Wait until the origin closes (True) or `seconds` have passed."""
        return self.handler.origin.closing.wait(seconds)

    def hang_up(self, *, reset: bool = False) -> None:
        self.answered = True
        self.handler.close_connection = True
        if reset:
            linger = b"\x01\0\0\0\0\0\0\0"  # on, 0 seconds: close() sends RST
            self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.handler.connection.close()


Fault = Callable[[Exchange], None]


def behave(exchange: Exchange) -> None:
    """No fault: keeps a place in a plan."""


def stall_before(exchange: Exchange) -> None:
    """Take the request, say nothing."""
    exchange.hang()
    exchange.hang_up()


def stall_within(exchange: Exchange) -> None:
    """Send half the body, then nothing."""
    exchange.head()
    exchange.write(exchange.body[: len(exchange.body) // 2])
    exchange.hang()
    exchange.hang_up()


def drip(interval: float) -> Fault:
    """Send the body a byte at a time: never silent, never done."""

    def fault(exchange: Exchange) -> None:
        exchange.head()
        _drip(exchange, exchange.body, interval)

    return fault


def drip_headers(interval: float) -> Fault:
    """The same with a header that does not end."""

    def fault(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        _drip(exchange, b"x" * 60_000, interval)

    return fault


def _drip(exchange: Exchange, data: bytes, interval: float) -> None:
    for number in range(len(data)):
        exchange.write(data[number : number + 1])
        if exchange.hang(interval):
            break
    exchange.hang_up()


def reset_before(exchange: Exchange) -> None:
    exchange.hang_up(reset=True)


def reset_within(exchange: Exchange) -> None:
    exchange.head()
    exchange.write(exchange.body[: len(exchange.body) // 2])
    exchange.hang_up(reset=True)


def hang_up_before(exchange: Exchange) -> None:
    exchange.hang_up()


def short(exchange: Exchange) -> None:
    """Promise the body, send all but one byte, hang up."""
    exchange.head()
    exchange.write(exchange.body[:-1])
    exchange.hang_up()


def without_length(exchange: Exchange) -> None:
    """The body ends where the connection does."""
    del exchange.headers["Content-Length"]
    exchange.headers["Connection"] = "close"
    exchange.send()
    exchange.hang_up()


def chunked(exchange: Exchange) -> None:
    """The body in chunked transfer coding."""
    del exchange.headers["Content-Length"]
    exchange.headers["Transfer-Encoding"] = "chunked"
    exchange.head()
    for at in range(0, len(exchange.body), 50_000):
        piece = exchange.body[at : at + 50_000]
        exchange.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    exchange.write(b"0\r\n\r\n")
    exchange.answered = True


def long(exchange: Exchange) -> None:
    """A byte more than asked for, in chunked coding, where no header gives it away."""
    exchange.body += b"!"
    chunked(exchange)


def long_length(exchange: Exchange) -> None:
    """A byte more than asked for, and the header says so."""
    exchange.body += b"!"
    exchange.headers["Content-Length"] = str(len(exchange.body))


def trailing_garbage(exchange: Exchange) -> None:
    """The right answer, and then bytes that were not requested."""
    exchange.send()
    exchange.write(b"garbage")


def wrong_range(exchange: Exchange) -> None:
    """The right number of bytes from the wrong place."""
    first, last = exchange.start + 1, exchange.start + len(exchange.body)
    exchange.headers["Content-Range"] = f"bytes {first}-{last}/{exchange.total}"


def unreadable_range(exchange: Exchange) -> None:
    exchange.headers["Content-Range"] = "bytes all/of-it"


def ignore_range(exchange: Exchange) -> None:
    """200 with everything."""
    exchange.status = 200
    exchange.body = exchange.handler.whole
    exchange.headers.pop("Content-Range", None)
    exchange.headers["Content-Length"] = str(len(exchange.body))


def changed_etag(exchange: Exchange) -> None:
    exchange.headers["ETag"] = '"another"'


def changed_size(exchange: Exchange) -> None:
    """The object has grown by a byte."""
    if exchange.status == 206:
        last = exchange.start + len(exchange.body) - 1
        text = f"bytes {exchange.start}-{last}/{exchange.total + 1}"
        exchange.headers["Content-Range"] = text
    else:
        exchange.body += b"!"
        exchange.headers["Content-Length"] = str(len(exchange.body))


def flip(exchange: Exchange) -> None:
    """One bit in the middle of the body is wrong."""
    middle = len(exchange.body) // 2
    flipped = bytes([exchange.body[middle] ^ 0x10])
    exchange.body = exchange.body[:middle] + flipped + exchange.body[middle + 1 :]


def garbage(exchange: Exchange) -> None:
    """Not HTTP."""
    exchange.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    exchange.hang_up()


def coded(coding: str) -> Fault:
    """Claim a coding that was not asked for, and send the plain bytes."""

    def fault(exchange: Exchange) -> None:
        exchange.headers["Content-Encoding"] = coding

    return fault


def endless(exchange: Exchange) -> None:
    """A body without a length and without an end."""
    del exchange.headers["Content-Length"]
    exchange.headers["Connection"] = "close"
    exchange.head()
    while not exchange.hang(0):
        exchange.write(b"x" * 65536)
    exchange.hang_up()


def status(code: int, **headers: str) -> Fault:
    """Answer `code`; `Retry_After="1"` becomes a header."""

    def fault(exchange: Exchange) -> None:
        exchange.status = code
        exchange.body = b"" if code in (204, 304) else f"this is a {code}\n".encode()
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        exchange.headers = {"Content-Length": str(len(exchange.body)), **named}

    return fault


def redirect(location: str) -> Fault:
    return status(302, Location=location)


class FaultyOrigin:
    """The server; a context manager. `plan` gives faults to the next requests, one each.

    Args:
        directory: what is served, ranges and ETags included.
        authority: serve TLS with a certificate of it.
    """

    def __init__(self, directory: Path, authority: Authority | None = None) -> None:
        self.directory = directory
        self.closing = threading.Event()
        self.requests: list[Seen] = []
        self.connections = 0
        self._plan: list[tuple[str, Fault]] = []
        self._always: Fault | None = None
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler, self, authority)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        scheme = "https" if authority else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/"

    def plan(self, *faults: Fault, of: str = "") -> None:
        """What happens to the next requests whose path contains `of`, one each."""
        self._plan.extend((of, fault) for fault in faults)

    def always(self, fault: Fault | None) -> None:
        """What happens to requests beyond the plan."""
        self._always = fault

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def note(self, seen: Seen) -> Fault:
        with self._lock:
            self.requests.append(seen)
            for number, (part, fault) in enumerate(self._plan):
                if part in seen.path:
                    del self._plan[number]
                    return fault
            return self._always or behave

    def connected(self) -> int:
        with self._lock:
            self.connections += 1
            return self.connections


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # joined at the end: a thread that leaks hangs the test

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[_Handler],
        origin: FaultyOrigin,
        authority: Authority | None,
    ) -> None:
        super().__init__(address, handler)
        self.origin = origin
        self._context = authority.server_context() if authority else None
        self._open: set[socket.socket] = set()

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):  # a client that hangs up or distrusts us
            request.settimeout(30)
            self._open.add(request)
            if self._context:
                request = self._context.wrap_socket(request, server_side=True)
                self._open.add(request)
            try:
                super().finish_request(request, client_address)
            finally:
                self._open.discard(request)
                request.close()

    def shutdown(self) -> None:
        super().shutdown()
        for sock in list(self._open):  # idle kept-alive connections wait in a read
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up on faults all the time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.origin = self.server.origin
        self.number = self.origin.connected()
        self.whole = b""

    def do_GET(self) -> None:
        headers = {name.lower(): text for name, text in self.headers.items()}
        seen = Seen(self.path, headers, self.number)
        fault = self.origin.note(seen)
        exchange = self._right(seen)
        fault(exchange)
        if not exchange.answered:
            exchange.send()

    def do_CONNECT(self) -> None:
        """Be a proxy: connect through to where the client wants."""
        headers = {name.lower(): text for name, text in self.headers.items()}
        seen = Seen(self.path, headers, self.number, "CONNECT")
        exchange = Exchange(self, seen, 200, {}, b"")
        self.origin.note(seen)(exchange)
        self.close_connection = True
        if exchange.status != 200:
            exchange.send()
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), 10) as through:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            relay(self.connection, through)

    def _right(self, seen: Seen) -> Exchange:
        path = urlsplit(seen.path).path  # a proxy is asked for a whole URL
        file = self.origin.directory / unquote(path).lstrip("/")
        if not file.is_file():
            return Exchange(self, seen, 404, {"Content-Length": "0"}, b"")
        self.whole = file.read_bytes()
        etag = f'"{hashlib.sha256(self.whole).hexdigest()[:16]}"'
        exchange = Exchange(self, seen, 200, {"ETag": etag}, self.whole, 0, len(self.whole))
        if seen.headers.get("if-none-match") == etag:
            status(304, ETag=etag)(exchange)
        elif seen.headers.get("if-range", etag) == etag:
            _cut(exchange, seen.headers.get("range", ""))
        exchange.headers["Content-Length"] = str(len(exchange.body))
        return exchange

    def log_message(self, *_: object) -> None:
        """Quiet: `requests` has them all."""


def _cut(exchange: Exchange, text: str) -> None:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", text)
    if match is None:
        return
    first, last = int(match[1]), min(int(match[2]), exchange.total - 1)
    if first >= exchange.total:
        status(416)(exchange)
        return
    exchange.status = 206
    exchange.start = first
    exchange.body = exchange.body[first : last + 1]
    exchange.headers["Content-Range"] = f"bytes {first}-{last}/{exchange.total}"


def chaos(seed: int, faults: Iterable[Fault], rate: float) -> Iterator[Fault]:
    """An endless plan: each request meets one of `faults` with probability `rate`."""
    draw = random.Random(seed)
    choices = list(faults)
    while True:
        yield draw.choice(choices) if draw.random() < rate else behave
