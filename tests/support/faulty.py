"""What can go wrong with an answer of an HTTP origin: faults for `FaultyOrigin`.

A fault is a function of an `Exchange`; the functions below make them, and `chaos` draws them from a
seed.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler


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

    handler: BaseHTTPRequestHandler
    closing: threading.Event  # the origin ends
    seen: Seen
    status: int
    headers: dict[str, str]
    body: bytes
    start: int = 0  # of the body in the object
    whole: bytes = b""  # the object
    answered: bool = False

    @property
    def total(self) -> int:
        return len(self.whole)

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
        return self.closing.wait(seconds)

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
    exchange.body = exchange.whole
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


def chaos(seed: int, faults: Iterable[Fault], rate: float) -> Iterator[Fault]:
    """An endless plan: each request meets one of `faults` with probability `rate`."""
    draw = random.Random(seed)
    choices = list(faults)
    while True:
        yield draw.choice(choices) if draw.random() < rate else behave
