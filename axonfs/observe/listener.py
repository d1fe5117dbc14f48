"""A small HTTP server for metrics and health, in threads of its own.

GET only; one request per connection. `pages` make the answers. A client that sends nothing for
SECONDS loses its connection. At MOST connections the oldest one whose request has not come ends, so
clients that send nothing, or slowly, keep no others out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, TypeAlias

from axonfs import descriptors
from axonfs.errors import AxonError
from axonfs.names import printable
from axonfs.settings.listening import UNIX, split_listening

log = logging.getLogger(__name__)

SECONDS = 5.0
MOST = 32
_POLL = 0.1  # seconds that the end of a listener may take
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = _PLAIN
    more: Mapping[str, str] = field(default_factory=dict)


# By path: what makes the answer of a request's headers.
Pages: TypeAlias = Mapping[str, Callable[[Mapping[str, str]], Page]]


class Listener:
    """Serves `pages` at an address of settings/listening.py until it is closed.

    Raises:
        AxonError: the address cannot be used.
    """

    def __init__(self, address: str, pages: Pages) -> None:
        self.address = address
        try:
            self._server = _Server(address, pages)
            self._thread = threading.Thread(
                target=self._server.serve_forever, args=(_POLL,), name="metrics", daemon=True
            )
            self._thread.start()
        # UnicodeError: a label of a name may be too long. RuntimeError: no thread could start.
        except (OSError, UnicodeError, RuntimeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
            what = f"cannot serve metrics at {printable(address)}: {why}"
            raise AxonError(what, hint="choose another address with --metrics") from exc

    @property
    def url(self) -> str:
        """Where to scrape; for a Unix socket its address."""
        return self.address if self.address.startswith(UNIX) else f"http://{self.address}/metrics"

    def close(self) -> None:
        """Stop serving; answers under way may still end."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: str, pages: Pages) -> None:
        self.pages = pages
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, None] = {}  # for a request; the oldest first
        self._answering = 0
        self._path: str | None = None
        host, port = split_listening(address)
        where: Any = host
        if address.startswith(UNIX):
            self.address_family = socket.AF_UNIX
            _remove_dead(host)
        else:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, where = found[0][0], found[0][4]
        super().__init__(where, _Handler)
        self._path = host if address.startswith(UNIX) else None

    def server_bind(self) -> None:
        # Skip HTTPServer.server_bind, which looks up a host name that is never used.
        TCPServer.server_bind(self)

    def server_close(self) -> None:
        # First the path: once the socket is closed, the next worker may make one of its own there.
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        super().server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as exc:
            if descriptors.is_shortage(exc):
                descriptors.complain(exc)
                threading.Event().wait(descriptors.PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._waiting) + self._answering >= MOST
            oldest = next(iter(self._waiting), None) if full else None
            if oldest is not None:
                del self._waiting[oldest]
                with contextlib.suppress(OSError):  # wakes its thread, which closes it
                    oldest.shutdown(socket.SHUT_RDWR)
            if oldest is not None or not full:
                self._waiting[request] = None
        if full and oldest is None:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could start
            self.shutdown_request(request)

    @contextlib.contextmanager
    def answering(self, request: socket.socket) -> Iterator[None]:
        """A block that answers the request of this connection."""
        with self._lock:
            self._waiting.pop(request, None)
            self._answering += 1
        try:
            yield
        finally:
            with self._lock:
                self._answering -= 1

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._waiting.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client of the metrics is gone", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = SECONDS
    server: _Server
    error_content_type = _PLAIN
    error_message_format = "%(code)d %(message)s\n"
    server_version, sys_version = "axonfs", ""

    def do_GET(self) -> None:
        with self.server.answering(self.connection):
            self._answer()

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        make = self.server.pages.get(path)
        if make is None:
            known = ", ".join(self.server.pages)
            page = Page(f"404 there is only {known}\n".encode(), HTTPStatus.NOT_FOUND)
        else:
            page = self._made(make)
        self._send(page)

    def _made(self, make: Callable[[Mapping[str, str]], Page]) -> Page:
        try:
            return make({name.lower(): value for name, value in self.headers.items()})
        except Exception:
            log.exception("a bug in metrics; please report it")
            return Page(b"500 the metrics cannot be gathered\n", HTTPStatus.INTERNAL_SERVER_ERROR)

    def _send(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        for name, value in page.more.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""


def _remove_dead(path: str) -> None:
    """Remove the socket that a worker left which was killed.

    Raises:
        OSError: another process listens there, or it is no socket.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
