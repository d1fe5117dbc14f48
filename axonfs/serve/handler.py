"""HTTP/1.1 over `Resources`: the requests of one connection, answered in its thread.

Bodies go by sendfile; with TLS through a buffer. Every wait has a limit: connections.py has the
deadlines, and a client that does not read runs into the socket's timeout.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from email.errors import FirstHeaderLineIsContinuationDefect
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote

from axonfs._version import __version__
from axonfs.errors import UnavailableError
from axonfs.formats.layout import PAGE
from axonfs.names import printable
from axonfs.page import CONTENT_TYPE, page
from axonfs.ranges import Range
from axonfs.serve.access import filtered, may_read
from axonfs.serve.conditions import holds_etag, range_holds, wanted_range
from axonfs.serve.resources import REVALIDATE, Resource
from axonfs.serve.server import RegistryServer
from axonfs.serve.tokens import ANYONE

log = logging.getLogger(__name__)
# One line per answer, in the common log format of web servers.
access_log = logging.getLogger(f"{__name__}.access")

STALL_SECONDS = 60.0  # a client that receives nothing for this time loses its connection
MAX_LOGGED = 2000  # characters of a request's first line
TLS_BUFFER = 256 << 10
ABSOLUTE = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)  # clients of proxies send it
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\0-\x08\x0a-\x1f\x7f]*")
_PLAIN = "text/plain; charset=utf-8"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_HTTPS_ONLY = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 32\r\n\r\n400 this port speaks https only\n"
)
_threads = threading.local()


class RegistryHandler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server_version = f"axonfs/{__version__}"
    sys_version = ""
    timeout = STALL_SECONDS
    disable_nagle_algorithm = True
    error_content_type = _PLAIN
    error_message_format = "%(code)d %(message)s\n"
    server: RegistryServer
    rfile: BufferedReader

    def setup(self) -> None:
        super().setup()
        if isinstance(self.connection, ssl.SSLSocket):
            _shake_hands(self.connection)

    def handle_one_request(self) -> None:
        self._status = self._sent = self._received = 0
        self._grant = ANYONE
        self.command = ""
        try:
            if self.rfile.peek(1):
                self.server.connections.begin(self.connection)
            began = time.monotonic()
            super().handle_one_request()
        finally:
            if self._status:
                self._note_answer(time.monotonic() - began)
        if not self.close_connection:
            self.server.connections.wait(self.connection)

    def _note_answer(self, seconds: float) -> None:
        figures = seconds, self._sent, self._received
        self.server.counts.answered(self.command, self._status, *figures)
        if access_log.isEnabledFor(logging.INFO):
            self._log_answer()

    def parse_request(self) -> bool:
        """Read the head of a request, and answer a client that is over the limit."""
        if not super().parse_request():
            return False
        if not _well_formed(self.headers):
            self.close_connection = True
            self.answer(HTTPStatus.BAD_REQUEST, b"400 a header field is malformed\n")
            return False
        self.server.connections.answer(self.connection)
        self.reusable = not self.close_connection
        if self._has_body():
            self.close_connection = True  # or the body would be taken for the next request
        if not self.server.connections.refused(self.connection):
            return True
        self.close_connection = True
        self.server.counts.refused_connection()
        body = f"503 all {self.server.connections.most} connections are in use\n".encode()
        self.answer(HTTPStatus.SERVICE_UNAVAILABLE, body, more={"Retry-After": "1"})
        return False

    def _has_body(self) -> bool:
        lengths = self.headers.get_all("Content-Length", ["0"])
        return lengths != ["0"] or "Transfer-Encoding" in self.headers

    def _log_answer(self) -> None:
        request = printable(self.requestline, MAX_LOGGED).replace('"', "%22")
        moment = self.log_date_time_string()
        client, who = self.client_address[0], self._grant.name
        answer = f"{self._status} {self._sent}"
        access_log.info('%s - %s [%s] "%s" %s', client, who, moment, request, answer)

    def do_GET(self) -> None:
        target, _, query = self.path.partition("?")
        path = unquote(ABSOLUTE.sub("", target), errors="replace")
        try:
            self._answer_path(path, query)
        except UnavailableError as exc:  # raised before the first byte of the answer
            self.close_connection = True
            log.debug("%s", exc)
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.answer(status, b"503 cannot read the file now\n", more={"Retry-After": "1"})

    def _answer_path(self, path: str, query: str) -> None:
        if path == "/healthz":
            self._answer_health()
        elif not self._admitted():
            pass
        elif path in ("/", f"/{PAGE}"):
            self.answer(HTTPStatus.OK, page(), CONTENT_TYPE)
        elif path == "/api/v1/search":
            words = parse_qs(query, errors="replace", max_num_fields=10).get("q", [""])[0]
            found = self.server.resources.search(words, self._readable)
            self.answer(HTTPStatus.OK, found, "application/json")
        elif not may_read(self._grant, path):
            self.answer(HTTPStatus.FORBIDDEN, f"403 {self._who} may not read this\n".encode())
        elif filtered(self._grant, path):
            self._answer_found(self.server.resources.index(self._readable))
        else:
            with self.server.resources.open(path) as resource:
                if resource:
                    self.answer_resource(resource)
                else:
                    self._answer_found(None)

    def _answer_found(self, document: bytes | None) -> None:
        if document is None:
            self.answer(HTTPStatus.NOT_FOUND, b"404 not found\n")
        else:
            self.answer(HTTPStatus.OK, document, "application/json")

    @property
    def _who(self) -> str:
        return f"the token '{self._grant.name}'"

    def _readable(self, namespace: str) -> bool:
        return self._grant.may("read", namespace)

    def _admitted(self, *, writes: bool = False) -> bool:
        """Find out who sends the request; answer it if that is nobody the server knows."""
        header = self.headers.get("Authorization")
        grant = self.server.access.grant(header, writes=writes)
        if grant is None:
            what = "needs a token" if header is None else "has a token that is not valid here"
            if header is not None:
                self.server.counts.refused_token()
            body = f"401 the request {what}\n".encode()
            # Two fields: browsers look at the first challenge of each only.
            self._head(HTTPStatus.UNAUTHORIZED, len(body), _PLAIN, REVALIDATE)
            for scheme in ("Bearer",) if writes else ("Bearer", "Basic"):
                self.send_header("WWW-Authenticate", f'{scheme} realm="axonfs"')
            self._end(body)
            return False
        self._grant = grant
        return True

    def _answer_health(self) -> None:
        if self.server.resources.present:
            self.answer(HTTPStatus.OK, b"ok\n")
        else:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.answer(status, b"503 the registry's directory cannot be read now\n")

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def refuse(self) -> None:
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
        self._end(body)

    def _end(self, body: bytes) -> None:
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
        self.server.connections.answer(self.connection, stop - start)
        if isinstance(self.connection, ssl.SSLSocket):
            self._sent = _send(self.connection, resource.file.fileno(), Range(start, stop))
        else:
            self._sent = self.connection.sendfile(resource.file, start, stop - start)
        if self._sent != stop - start:
            # The file shrank; closing tells the client that no more comes.
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
        policy = resource.cache_control
        if self._grant is not ANYONE:  # no shared cache may give it to others
            policy = policy.replace("public", "private")
        self.send_header("Cache-Control", policy)

    def log_request(self, code: int | str = 0, size: int | str = 0) -> None:
        """Keep the status for the line that follows the answer."""
        self._status = int(code)

    def log_date_time_string(self) -> str:
        return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing else. `handle_error` logs faults."""


def _well_formed(headers: Message) -> bool:
    """Whether every line is a header field. The parser drops a line that is none, and all lines
    after it; a proxy in front may still see a Content-Length there, and forward a body that would
    be taken for the next request."""
    kinds = {type(defect) for defect in headers.defects}
    if headers.get_payload() or FirstHeaderLineIsContinuationDefect in kinds:
        return False
    fields = headers.items()
    return all(_NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in fields)


def _shake_hands(sock: ssl.SSLSocket) -> None:
    try:
        sock.do_handshake()
    except ssl.SSLError as exc:
        if exc.reason == "HTTP_REQUEST":
            socket.socket.recv(sock, 1 << 16)  # closing with unread bytes could lose the answer
            socket.socket.sendall(sock, _HTTPS_ONLY)
        raise


def _send(sock: ssl.SSLSocket, fd: int, wanted: Range) -> int:
    """Send a range of a file; return how many bytes it had."""
    # A buffer for each thread: a new one costs a page fault per 4 KiB.
    buffer = getattr(_threads, "buffer", None)
    if buffer is None:
        buffer = _threads.buffer = memoryview(bytearray(TLS_BUFFER))
    at = wanted.start
    while at < wanted.stop and (count := os.preadv(fd, [buffer[: wanted.stop - at]], at)):
        sock.sendall(buffer[:count])
        at += count
    return at - wanted.start
