"""Connect to an origin: TCP, through a proxy if one is set, and TLS for https.

Blocking, for worker threads. All steps together may take `Limits.connect` seconds.
"""

from __future__ import annotations

import socket
import time

from axonfs.errors import UnavailableError
from axonfs.http_client.addresses import Addresses
from axonfs.http_client.channel import Channel, Plain, secured
from axonfs.http_client.faults import fault
from axonfs.http_client.limits import Limits
from axonfs.http_client.resolver import lookup
from axonfs.http_client.routes import Routes, Trust
from axonfs.http_client.stages import NO_CONNECTION, NO_NAME, NO_PROXY, NO_TLS
from axonfs.http_client.urls import Origin, Url, shown
from axonfs.http_client.wire import Wire
from axonfs.names import printable
from axonfs.steps import Cause, Step

_HEAD_LIMIT = 16 << 10


class Dialer:
    """Makes connections; any thread may use it."""

    def __init__(self, limits: Limits, routes: Routes, trust: Trust) -> None:
        self._limits = limits
        self._routes = routes
        self._trust = trust
        self._addresses = Addresses()

    def dial(self, url: Url, patience: float | None, *, spread: bool = True) -> Wire:
        """A new connection for requests to `url`.

        Args:
            spread: whether connections take turns at the addresses of the host.
            patience: seconds for all steps, if less than the usual.

        Raises:
            OSError: the connection failed.
            UnavailableError: the proxy refuses.
        """
        usual = self._limits.connect
        until = time.monotonic() + (usual if patience is None else min(usual, patience))
        proxy = self._routes.proxy(url.origin)
        sock = self._connect(proxy.origin if proxy else url.origin, until, spread=spread)
        try:
            channel: Channel = Plain(sock)
            if url.origin.secure:
                if proxy:
                    with _connecting(f"waiting for the proxy {shown(str(proxy))}", NO_PROXY):
                        _tunnel(sock, proxy, url.origin, until)
                sock.settimeout(_left(until))
                with _connecting(f"in the TLS handshake with {url.origin.authority}", NO_TLS):
                    channel = secured(sock, self._trust.context, url.origin.host)
        except BaseException:
            sock.close()
            raise
        return Wire(channel, self._limits, spread=spread)

    def target(self, url: Url) -> tuple[str, dict[str, str]]:
        """The target of `url` for the request line, and the headers for the proxy."""
        proxy = self._routes.proxy(url.origin)
        if proxy is None or url.origin.secure:
            return url.target, {}
        return str(url), proxy_authorization(proxy)

    def _connect(self, origin: Origin, until: float, *, spread: bool) -> socket.socket:
        """Connect to the first address that answers; each gets an equal share of the time left."""
        with _connecting(f"looking up the name {origin.host}", NO_NAME):
            found = lookup(origin.address or origin.host, origin.port, _left(until))
        addresses = self._addresses.ordered(origin, found, spread=spread)
        failure: OSError = OSError("the host name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_left(until) / (len(addresses) - number))
                text = f"connecting to {origin.authority} at {address[0]}"
                with _connecting(text, NO_CONNECTION):
                    sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as exc:
                sock.close()
                failure = exc
                self._addresses.failed(address)
            else:
                self._addresses.connected(address)
                return sock
        raise failure


def _connecting(text: str, hint: str) -> Step:
    return Step(Cause.CONNECTING, text, hint=hint)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the connection took too long")
    return left


def proxy_authorization(proxy: Url) -> dict[str, str]:
    credentials = proxy.credentials.get("Authorization")
    return {"Proxy-Authorization": credentials} if credentials else {}


def _tunnel(sock: socket.socket, proxy: Url, origin: Origin, until: float) -> None:
    """Ask `proxy` to connect `sock` to `origin`, by HTTP's CONNECT."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    place = f"{host}:{origin.port}"
    headers = {"Host": place, **proxy_authorization(proxy)}
    lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    sock.settimeout(_left(until))
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    status = _read_head(sock, until).split(b"\r\n")[0].decode("latin-1")
    code = status.split(" ")[1] if status.count(" ") else ""
    if not (status.startswith("HTTP/1.") and code == "200"):
        what = f"the proxy does not connect to {place}: '{printable(status, 80)}'"
        hint = "check HTTPS_PROXY" if code == "407" else None
        temporary = code.startswith("5")
        raise fault(UnavailableError, what, shown(str(proxy)), transient=temporary, hint=hint)


def _read_head(sock: socket.socket, until: float) -> bytes:
    """The answer's head. Read byte by byte: the bytes after the blank line belong to TLS."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        sock.settimeout(_left(until))
        byte = sock.recv(1)
        if not byte or len(head) >= _HEAD_LIMIT:
            raise ConnectionResetError("the proxy closed the connection")
        head += byte
    return bytes(head)
