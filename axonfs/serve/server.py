"""HTTP/1.1 over `Resources`: one thread per connection, bodies by sendfile.

The thread of `serve_forever` accepts connections and closes those whose next request is overdue.
Each connection's thread answers its requests. Every wait has a limit: a request has a deadline,
a client that does not read runs into the socket's timeout, and clients beyond MAX_CONNECTIONS stay
in the listen queue.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote

from axonfs import descriptors
from axonfs._version import __version__
from axonfs.errors import AxonError, UnavailableError
from axonfs.formats.layout import PAGE
from axonfs.names import printable
from axonfs.page import CONTENT_TYPE, page
from axonfs.ranges import Range
from axonfs.serve.conditions import holds_etag, range_holds, wanted_range
from axonfs.serve.resources import REVALIDATE, Resource, Resources

log = logging.getLogger(__name__)
# One line per answer, in the common log format of web servers.
access_log = logging.getLogger(f"{__name__}.access")

MAX_CONNECTIONS = 256
REQUEST_SECONDS = 60.0  # from the end of one answer to the end of the next request's headers
STALL_SECONDS = 60.0  # a client that receives nothing for this time loses its connection
CLOSE_SECONDS = 5.0
POLL_SECONDS = 0.25
MAX_LOGGED = 2000  # characters of a request's first line
_ABSOLUTE = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)  # clients of proxies send it
_PLAIN = "text/plain; charset=utf-8"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_OTHER_DESCRIPTORS = 32  # of this process, apart from connections
_PER_CONNECTION = 2  # descriptors: the socket and the file that is sent


class RegistryHandler(BaseHTTPRequestHandler):
    """Answers the requests of one connection, in the connection's thread."""

    protocol_version = "HTTP/1.1"
    server_version = f"axonfs/{__version__}"
    sys_version = ""
    timeout = STALL_SECONDS
    disable_nagle_algorithm = True
    error_content_type = _PLAIN
    error_message_format = "%(code)d %(message)s\n"
    server: RegistryServer

    def handle_one_request(self) -> None:
        self.server.expect(self.connection)
        self._status = self._sent = 0
        try:
            super().handle_one_request()
        finally:
            if self._status and access_log.isEnabledFor(logging.INFO):
                self._log_answer()

    def _log_answer(self) -> None:
        request = printable(self.requestline, MAX_LOGGED).replace('"', "%22")
        moment = self.log_date_time_string()
        client, status, sent = self.client_address[0], self._status, self._sent
        access_log.info('%s - - [%s] "%s" %d %d', client, moment, request, status, sent)

    def do_GET(self) -> None:
        self.server.settle(self.connection)
        if self.server.crowded:
            self.close_connection = True
        target, _, query = self.path.partition("?")
        path = unquote(_ABSOLUTE.sub("", target), errors="replace")
        try:
            self._answer_path(path, query)
        except UnavailableError as exc:  # raised before the first byte of the answer
            self.close_connection = True
            log.debug("%s", exc)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.answer(status, b"503 cannot read the file now\n", more={"Retry-After": "1"})

    def _answer_path(self, path: str, query: str) -> None:
        if path in ("/", f"/{PAGE}"):
            self.answer(HTTPStatus.OK, page(), CONTENT_TYPE)
        elif path == "/healthz":
            self._answer_health()
        elif path == "/api/v1/search":
            words = parse_qs(query, errors="replace", max_num_fields=10).get("q", [""])[0]
            self.answer(HTTPStatus.OK, self.server.resources.search(words), "application/json")
        else:
            with self.server.resources.open(path) as resource:
                if resource:
                    self.answer_resource(resource)
                else:
                    self.answer(HTTPStatus.NOT_FOUND, b"404 not found\n")

    def _answer_health(self) -> None:
        if self.server.resources.present:
            self.answer(HTTPStatus.OK, b"ok\n")
        else:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.answer(status, b"503 the registry's directory cannot be read now\n")

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def refuse(self) -> None:
        self.server.settle(self.connection)
        self.close_connection = True  # a request body may follow, which is not read
        more = {"Allow": "GET, HEAD"}
        self.answer(HTTPStatus.METHOD_NOT_ALLOWED, b"405 read only\n", more=more)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = refuse  # noqa: N815

    def answer(
        self,
        status: HTTPStatus,
        body: bytes,
        content_type: str = _PLAIN,
        *,
        more: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        """Send a short body from memory, with `more` headers."""
        self._head(status, len(body), content_type, REVALIDATE)
        for name, text in more.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.connection.sendall(body)
            self._sent = len(body)

    def answer_resource(self, resource: Resource) -> None:
        """Send the bytes that the request's conditional headers select."""
        if holds_etag(self.headers.get("If-None-Match"), resource.etag):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self._validators(resource)
            self.end_headers()
            return
        wanted = self._wanted(resource)
        if wanted is not None and not wanted.size:
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, _PLAIN, REVALIDATE)
            self.send_header("Content-Range", f"bytes */{resource.size}")
            self.end_headers()
            return
        self._answer_range(resource, wanted)

    def _answer_range(self, resource: Resource, wanted: Range | None) -> None:
        start, stop = wanted or Range(0, resource.size)
        status = HTTPStatus.OK if wanted is None else HTTPStatus.PARTIAL_CONTENT
        self._head(status, stop - start, resource.content_type)
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{resource.size}")
        self.send_header("Accept-Ranges", "bytes")
        self._validators(resource)
        self.end_headers()
        if self.command != "HEAD" and stop > start:
            self.send_body(resource, start, stop)

    def send_body(self, resource: Resource, start: int, stop: int) -> None:
        self._sent = self.connection.sendfile(resource.file, start, stop - start)
        if (
            self._sent != stop - start
        ):  # the file shrank; closing tells the client that no more comes
            self.close_connection = True

    def _wanted(self, resource: Resource) -> Range | None:
        # HTTP defines ranges for GET only.
        if self.command != "GET" or not range_holds(self.headers.get("If-Range"), resource.etag):
            return None
        return wanted_range(self.headers.get("Range"), resource.size)

    def _head(
        self, status: HTTPStatus, length: int, content_type: str, cache_control: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length))
        self.send_header("X-Content-Type-Options", "nosniff")
        if cache_control:
            self.send_header("Cache-Control", cache_control)
        if self.close_connection:
            self.send_header("Connection", "close")

    def _validators(self, resource: Resource) -> None:
        self.send_header("ETag", resource.etag)
        self.send_header("Cache-Control", resource.cache_control)

    def log_request(self, code: int | str = 0, size: int | str = 0) -> None:
        """Keep the status for the line that follows the answer."""
        self._status = int(code)

    def log_date_time_string(self) -> str:
        return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing else. `handle_error` logs faults."""


class RegistryServer(ThreadingHTTPServer):
    """The server of `directory`. Call `serve_forever` in one thread and `close` in another."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        directory: Path,
        host: str,
        port: int,
        handler: type[RegistryHandler] = RegistryHandler,
        *,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self.resources = Resources(directory)
        most = max((descriptors.limit() - _OTHER_DESCRIPTORS) // _PER_CONNECTION, 4)
        self._max_connections = min(max_connections, most)
        self._room = threading.BoundedSemaphore(self._max_connections)
        self._request_seconds = request_seconds
        # Every open connection, and when its next request is due; None during an answer.
        self._due: dict[socket.socket, float | None] = {}
        self._ends = threading.Condition()
        self._closing = False
        self.address_family, address = _resolved(host, port)
        super().__init__(address, handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    @property
    def crowded(self) -> bool:
        """Whether few connections are left, so each answer closes its connection."""
        return len(self._due) > self._max_connections * 3 // 4

    def expect(self, connection: socket.socket) -> None:
        """Start the deadline of the next request. In the connection's thread."""
        self._due[connection] = time.monotonic() + self._request_seconds

    def settle(self, connection: socket.socket) -> None:
        """End the deadline: the request has arrived. In the connection's thread."""
        self._due[connection] = None

    def server_bind(self) -> None:
        if self.server_address[0] == "::":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Skip HTTPServer.server_bind, which looks up a host name that is never used.
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as exc:
            if descriptors.is_shortage(exc):  # the client stays in the listen queue
                descriptors.complain(exc)
                time.sleep(descriptors.PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        while not self._room.acquire(timeout=POLL_SECONDS):
            self.service_actions()
            if self._closing:
                self.shutdown_request(request)
                return
        self.expect(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the thread could not start
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def _ended(self, request: socket.socket) -> None:
        with self._ends:
            self._due.pop(request, None)
            self._ends.notify_all()
        self._room.release()

    def service_actions(self) -> None:
        """Close the connections whose next request is overdue, idle or with partial headers."""
        now = time.monotonic()
        for connection, due in list(self._due.items()):
            if due is not None and due < now:
                _disconnect(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            log.error("a request from %s failed", client_address[0], exc_info=error)

    def close(self) -> None:
        """Stop accepting, close every connection, and wait for the threads."""
        self._closing = True
        self.shutdown()
        self.server_close()
        for connection in list(self._due):
            _disconnect(connection)
        with self._ends:
            self._ends.wait_for(lambda: not self._due, timeout=CLOSE_SECONDS)


def _disconnect(connection: socket.socket) -> None:
    # Wakes the connection's thread, which closes the socket.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise AxonError(
            f"cannot listen on '{printable(host)}': {exc.strerror}",
            hint="choose another --host",
        ) from exc
    family, _, _, _, address = found[0]
    return family, address


def serve(
    directory: Path,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event,
) -> None:
    """Serve the registry in `directory` until `stop` is set.

    Args:
        ready: called with the URL when the server accepts connections.

    Raises:
        AxonError: the directory does not exist, or the address is in use or unknown.
    """
    if not directory.is_dir():
        raise AxonError(f"{printable(str(directory))} is not a directory")
    try:
        server = RegistryServer(directory, host, port)
    except OSError as exc:
        raise AxonError(
            f"cannot listen on {printable(host)} port {port}: {exc.strerror}",
            hint="choose another --port",
        ) from exc
    accepting = threading.Thread(
        target=server.serve_forever, args=(POLL_SECONDS,), name="serve", daemon=True
    )
    accepting.start()
    try:
        if ready:
            ready(server.url)
        stop.wait()
    finally:
        server.close()
        accepting.join()
