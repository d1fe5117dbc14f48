"""An HTTP origin that misbehaves on purpose: serves a directory, and breaks answers by plan.

A loopback server in threads, plain or TLS. Each request takes the next fault of the plan (none
left: it behaves) and is recorded with its headers and the connection it came over.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from tests.support.faulty import Exchange, Fault, Seen, behave, status
from tests.support.wiring import Authority, relay


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
        exchange = self._exchange(seen, 200, {}, b"")
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
            return self._exchange(seen, 404, {"Content-Length": "0"}, b"")
        whole = file.read_bytes()
        etag = f'"{hashlib.sha256(whole).hexdigest()[:16]}"'
        exchange = self._exchange(seen, 200, {"ETag": etag}, whole)
        if seen.headers.get("if-none-match") == etag:
            status(304, ETag=etag)(exchange)
        elif seen.headers.get("if-range", etag) == etag:
            _cut(exchange, seen.headers.get("range", ""))
        exchange.headers["Content-Length"] = str(len(exchange.body))
        return exchange

    def _exchange(self, seen: Seen, code: int, headers: dict[str, str], body: bytes) -> Exchange:
        return Exchange(self, self.origin.closing, seen, code, headers, body, whole=body)

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
