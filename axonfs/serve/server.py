"""The server's sockets: it accepts connections, does TLS, and gives each connection a thread.

Between handler.py, which answers requests, and connections.py, which limits them. The thread of
`serve_forever` accepts connections and closes those that are overdue.
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from axonfs import descriptors
from axonfs.errors import AxonError
from axonfs.names import printable
from axonfs.observe.family import Family
from axonfs.serve.access import Access
from axonfs.serve.connections import MAX_CONNECTIONS, REQUEST_SECONDS, Connections
from axonfs.serve.counts import Counts
from axonfs.serve.publishing import Publishing
from axonfs.serve.resources import Resources
from axonfs.serve.tls import Certificate

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
EXPIRY_LOOK_SECONDS = 3600.0
POLL_SECONDS = 0.25
_OTHER_DESCRIPTORS = 32  # of this process, apart from connections
_PER_CONNECTION = 2  # descriptors: the socket and the file that is sent


class RegistryServer(ThreadingHTTPServer):
    """The server of `directory`. Call `serve_forever` in one thread and `close` in another.

    Args:
        handler: answers the requests of a connection.
        access: who may do what; by default everybody may read.
        certificate: for https; without it the server speaks http.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        directory: Path,
        host: str,
        port: int,
        handler: type[BaseHTTPRequestHandler],
        *,
        access: Access | None = None,
        certificate: Certificate | None = None,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self.resources = Resources(directory)
        self.access = access or Access()
        self.publishing = Publishing(directory)
        self._expired = -math.inf  # when unfinished uploads were looked at
        self.counts = Counts()
        self.connections = Connections(_allowed(max_connections), request_seconds)
        self._certificate = certificate
        self._reloading = threading.Event()
        self.address_family, address = _resolved(host, port)
        super().__init__(address, handler)

    @property
    def url(self) -> str:
        scheme = "https" if self._certificate else "http"
        host, port = self.server_address[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))
        return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"

    def metrics(self) -> list[Family]:
        """The metrics of this server."""
        connections, readable = self.connections, self.resources.present
        return self.counts.families(connections.count, connections.most, readable=readable)

    def reload(self) -> None:
        """Have the certificate loaded again within a moment."""
        self._reloading.set()

    def server_bind(self) -> None:
        if self.server_address[0] == "::":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Skip HTTPServer.server_bind, which looks up a host name that is never used.
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            sock, address = super().get_request()
        except OSError as exc:
            if descriptors.is_shortage(exc):  # the client stays in the listen queue
                descriptors.complain(exc)
                time.sleep(descriptors.PAUSE)
            raise
        return self._secured(sock), address

    def _secured(self, sock: socket.socket) -> socket.socket:
        if self._certificate is None:
            return sock
        try:
            # The connection's thread does the handshake, for which it may have to wait.
            return self._certificate.context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
        except BaseException:
            sock.close()
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.connections.admit(request):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the thread could not start
            self.connections.ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.ended(request)

    def service_actions(self) -> None:
        self.connections.close_overdue()
        if self._certificate:
            self._certificate.refresh(force=self._reloading.is_set())
        self._reloading.clear()
        if self.access.writable and time.monotonic() - self._expired > EXPIRY_LOOK_SECONDS:
            self._expired = time.monotonic()
            self.publishing.expire()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
            log.error("a request from %s failed", client_address[0], exc_info=error)

    def close(self, grace: float = 0.0) -> None:
        """Stop accepting, close every connection, and wait for the threads.

        Args:
            grace: seconds that answers may take to end.
        """
        self.shutdown()
        self.server_close()
        self.publishing.close()
        self.connections.close_all(grace, CLOSE_SECONDS)


def _allowed(wanted: int) -> int:
    """How many connections there may be, as far as the limit on open files allows."""
    most = max((descriptors.limit() - _OTHER_DESCRIPTORS) // _PER_CONNECTION, 4)
    if most < wanted:
        log.warning("at most %d connections at a time: raise ulimit -n (LimitNOFILE=)", most)
    return min(wanted, most)


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
