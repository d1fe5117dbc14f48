"""The two kinds of connection, plain and TLS: send, receive, and wait for a tick at the most.

Below wire.py, which repeats the waits and counts bytes. A body is received in few calls, because
each call takes the GIL. A plain socket fills a view in one call. `SSLSocket.read` returns one TLS
record of at most 16 KiB; the C extension receives all records of a tick in one call. Without
the extension a loop in Python does that.

Threading: a channel belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

BUFFER_SIZE = 64 << 10  # a larger view is for a body, and is filled; a smaller one is for a head


class Channel(Protocol):
    """A connected socket."""

    def pace(self, tick: float, send: float) -> None:
        """Set the seconds after which `receive` and `send` give up."""

    def send(self, data: bytes) -> None:
        """Send all of `data`."""

    def receive(self, buffer: memoryview) -> int:
        """Receive into `buffer`, and return how many bytes; 0 at the end of the connection.

        Fills the view of a body, or as much of it as arrives within a tick.

        Raises:
            TimeoutError: nothing arrived within a tick.
        """

    def surplus(self, seconds: float = 0.0) -> bool:
        """Whether there are bytes that no one received yet, or the server closed the connection;
        waits so long for them."""

    def close(self) -> None: ...


class Plain:
    """A TCP connection. The kernel measures the times, which saves a poll before each call."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._paces = (0.0, 0.0)

    def pace(self, tick: float, send: float) -> None:
        if self._paces == (tick, send):
            return
        self._paces = tick, send
        self._sock.settimeout(None)
        for option, seconds in ((socket.SO_RCVTIMEO, tick), (socket.SO_SNDTIMEO, send)):
            whole = int(seconds)
            value = struct.pack("@ll", whole, max(int((seconds - whole) * 1e6), 1))
            self._sock.setsockopt(socket.SOL_SOCKET, option, value)

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def receive(self, buffer: memoryview) -> int:
        flags = socket.MSG_WAITALL if len(buffer) > BUFFER_SIZE else 0
        try:
            return self._sock.recv_into(buffer, 0, flags)
        except BlockingIOError as exc:
            raise TimeoutError from exc

    def surplus(self, seconds: float = 0.0) -> bool:
        return _readable(self._sock, seconds)

    def close(self) -> None:
        _close(self._sock)


class Secure:
    """A TLS connection.

    Args:
        records: the extension's view of the connection; None without the extension.
    """

    def __init__(self, sock: ssl.SSLSocket, records: object | None) -> None:
        self._sock = sock
        self._records = records
        self._tick = self._send = 0.0
        self._fault: OSError | None = None  # without the extension: what the next call raises

    def pace(self, tick: float, send: float) -> None:
        self._tick, self._send = tick, send
        self._sock.settimeout(tick)

    def send(self, data: bytes) -> None:
        self._sock.settimeout(self._send)
        self._sock.sendall(data)
        self._sock.settimeout(self._tick)

    def receive(self, buffer: memoryview) -> int:
        least = len(buffer) if len(buffer) > BUFFER_SIZE else 1
        if _extension is not None and self._records is not None:
            count: int = _extension.receive(self._records, buffer, least, self._tick)
            return count
        return self._receive_by_record(buffer, least)

    def _receive_by_record(self, buffer: memoryview, least: int) -> int:
        if self._fault is not None:
            raise self._fault
        received, until = 0, time.monotonic() + self._tick
        while received < least and time.monotonic() < until:
            try:
                # With a buffer `read` returns the count, but typeshed declares bytes.
                count: Any = self._sock.read(len(buffer) - received, buffer[received:])
            except TimeoutError:
                if not received:
                    raise
                break
            except OSError as exc:  # what came before it is given first
                self._fault = exc
                if not received:
                    raise
                break
            if not count:
                break
            received += count
        return received

    def surplus(self, seconds: float = 0.0) -> bool:
        if _extension is not None and self._records is not None:
            decrypted = _extension.pending(self._records)
        else:
            decrypted = self._sock.pending()
        return bool(decrypted) or _readable(self._sock, seconds)

    def close(self) -> None:
        _close(self._sock)


def secured(sock: socket.socket, context: ssl.SSLContext, host: str) -> Secure:
    """Do the TLS handshake on `sock`, whose timeout bounds it. On an error `sock` is closed.

    Raises:
        OSError: the handshake failed, or the certificate is not trusted.
    """
    if _extension is not None:
        _extension.expect()
    wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        records = _extension.found(wrapped.fileno()) if _extension is not None else None
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return Secure(wrapped, records)


def _readable(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.close()


def why_no_records() -> str | None:
    """Why Python's own ssl module receives records, one by one; None if the extension does."""
    return _unavailable


def _load() -> tuple[ModuleType | None, str | None]:
    """The extension, or why it is missing."""
    try:
        return import_module("axonfs.http_client._records"), None
    except ModuleNotFoundError:
        return None, "the extension is not built (install a C compiler)"
    except ImportError as exc:  # it does not get at the ssl module's OpenSSL, say
        return None, f"the extension cannot be loaded: {exc}"


_extension, _unavailable = _load()
