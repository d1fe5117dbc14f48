"""One connection: a socket that waits with patience, not for ever.

reply.py parses; this module does the waiting. Each `recv` wakes up a few times a second to
see whether the reader was cancelled, the server stalls, or the bytes come too slowly to be
progress: a timeout on the socket alone would let a server hold a reader for ever with one byte
now and then.

Threading: a wire belongs to one thread at a time; the pool hands it over.
"""

from __future__ import annotations

import contextlib
import io
import math
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

import h11

from axonfs.http_client.limits import OVERHEAD_BYTES, PROGRESS_BYTES, Limits
from axonfs.http_client.reply import HEAD_BYTES, OverlongError, Reply
from axonfs.http_client.urls import Url

# How often a waiting thread looks up, in seconds: how soon a cancelled one ends.
TICK = 0.2
# With less patience than usual, PROGRESS_BYTES have to come within this many times that patience:
# a source may send a byte now and then, and nothing that is of use.
HURRIED = 2
_BUFFER_SIZE = 64 << 10  # for headers; bodies are read past it, into the caller's buffer


class StallError(TimeoutError):
    """Not one byte within the time allowed."""


class SlowError(TimeoutError):
    """Bytes, but too few within the deadline."""


class CancelledReadError(Exception):
    """The caller said that it no longer wants the bytes."""


class Wire:
    """A connected socket and the buffered reader of everything that comes through it.

    Args:
        sock: plain or TLS, connected; the wire closes it.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._sock = sock
        self._limits = limits
        self._inlet = _Inlet(sock)
        # The one reader: what one answer leaves in its buffer must not get lost unseen.
        self._reader: io.BufferedReader[Any] = io.BufferedReader(self._inlet, _BUFFER_SIZE)
        self._tick = 0.0
        self._secure = isinstance(sock, ssl.SSLSocket)
        self.idle_since = 0.0

    def ask(
        self,
        url: Url,
        target: str,
        headers: Mapping[str, str],
        cancelled: Callable[[], bool],
        patience: float | None = None,
    ) -> Reply:
        """Send one GET and return the answer, its head read.

        Args:
            target: the request line's; path and query, or all of `url` for a proxy.
            patience: seconds to wait for the head, and then for each byte, where that is less than
                the usual.

        Raises:
            OSError, h11.ProtocolError: the connection, the request or the answer is no good.
            CancelledReadError: `cancelled` became true.
        """
        machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        named = {"Host": url.origin.authority, **headers}
        lines = [(name.encode(), value.encode()) for name, value in named.items()]
        request = machine.send(h11.Request(method="GET", target=target, headers=lines))
        assert request is not None
        machine.send(h11.EndOfMessage())
        least = math.inf if patience is None else patience
        limits = self._limits
        self._look_up_every(min(TICK, limits.first_byte, limits.stall, limits.deadline, least))
        self._inlet.watch(cancelled, min(limits.first_byte, least), min(limits.deadline, least))
        self._send(request)
        reply = Reply(self._reader, machine)
        reply.read_head()
        self._inlet.expect_body(min(limits.stall, least), min(limits.deadline, HURRIED * least))
        return reply

    def _look_up_every(self, seconds: float) -> None:
        if seconds != self._tick and not self._secure:
            _block(self._sock, seconds, self._limits.first_byte)
        self._tick = seconds

    def expect(self, size: int) -> None:
        """The answer has a body of so many bytes."""
        self._inlet.expect(size)

    def progressed(self) -> None:
        """Start the deadline anew: a whole unit arrived, or the caller was busy with one."""
        self._inlet.progressed()

    def hurry(self, seconds: float) -> None:
        """Wait at most so long for what still comes; it is not worth more."""
        self._inlet.patience = seconds

    def spent(self) -> bool:
        """Whether the wire cannot carry another request: closed by the server, or with bytes
        on it that nobody asked for."""
        if self._inlet.leftover(self._reader):
            return True
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True  # decrypted with the end of the answer, and no longer on the socket
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.close()

    def _send(self, data: bytes) -> None:
        if self._secure:
            self._sock.settimeout(self._limits.first_byte)
        self._sock.sendall(data)
        if self._secure:
            self._sock.settimeout(self._tick)


class _Inlet(io.RawIOBase):
    """The socket's receiving end."""

    def __init__(self, sock: socket.socket) -> None:
        self._receive = (
            _tls_receive(sock) if isinstance(sock, ssl.SSLSocket) else _plain_receive(sock)
        )
        self._cancelled: Callable[[], bool] = bool
        self._dry = False
        self._deadline = self._progress_by = 0.0
        self._received = self._mark = self._most = 0
        self.patience = 0.0

    def watch(self, cancelled: Callable[[], bool], patience: float, deadline: float) -> None:
        self._cancelled = cancelled
        self.patience = patience
        self._deadline = deadline
        self._most = self._received + OVERHEAD_BYTES
        self.progressed()

    def expect_body(self, patience: float, deadline: float) -> None:
        self.patience = patience
        self._deadline = deadline
        self.progressed()

    def expect(self, size: int) -> None:
        # Chunks of a byte each come in six.
        self._most = self._received + 6 * size + OVERHEAD_BYTES

    def progressed(self) -> None:
        self._progress_by = time.monotonic() + self._deadline
        self._mark = self._received + PROGRESS_BYTES

    def leftover(self, reader: io.BufferedReader[Any]) -> bool:
        """Whether `reader` has bytes in its buffer; asks without reading more."""
        self._dry = True
        try:
            return bool(reader.peek(1))
        finally:
            self._dry = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._dry:
            return None
        asked = time.monotonic()
        self._look_up(asked)
        count = -1
        with contextlib.suppress(TimeoutError):
            count = self._receive(buffer)
        if count < 0:  # outside the handler: what it raises is not the socket's error
            count = self._wait(buffer, asked)
        self._received += count
        if self._received >= self._mark:
            if self._received > self._most:
                raise OverlongError("far more bytes than its body has")
            self.progressed()
        return count

    def _look_up(self, now: float) -> None:
        if self._cancelled():
            raise CancelledReadError
        if now >= self._progress_by:
            raise SlowError(f"hardly a byte for {self._deadline:g} s")

    def _wait(self, buffer: Any, asked: float) -> int:
        """Go on after the first tick without a byte."""
        while True:
            now = time.monotonic()
            self._look_up(now)
            if now - asked >= self.patience:
                raise StallError(f"not a byte for {self.patience:g} s")
            with contextlib.suppress(TimeoutError):
                count: int = self._receive(buffer)
                return count


def _block(sock: socket.socket, receive: float, send: float) -> None:
    """Have the kernel keep the time, so that no call needs a poll before it."""
    sock.settimeout(None)
    for option, seconds in ((socket.SO_RCVTIMEO, receive), (socket.SO_SNDTIMEO, send)):
        whole = int(seconds)
        value = struct.pack("@ll", whole, max(int((seconds - whole) * 1e6), 1))
        sock.setsockopt(socket.SOL_SOCKET, option, value)


def _plain_receive(sock: socket.socket) -> Callable[[memoryview], int]:
    def receive(buffer: memoryview) -> int:
        # A body's view is filled in one call, which spares the many small ones and their turns
        # at the interpreter lock. What reads headers must take what there is.
        flags = socket.MSG_WAITALL if len(buffer) > _BUFFER_SIZE else 0
        try:
            return sock.recv_into(buffer, 0, flags)
        except BlockingIOError as exc:
            raise TimeoutError from exc

    return receive


def _tls_receive(sock: ssl.SSLSocket) -> Callable[[memoryview], int]:
    def receive(buffer: memoryview) -> int:
        # A read brings one record, of 16 KiB at the most. What reads headers must take what there
        # is; a body gets as many as come in a tick, since looking up costs as much as a record.
        most = len(buffer) if len(buffer) > _BUFFER_SIZE else 1
        received, until = 0, time.monotonic() + TICK
        while received < most and time.monotonic() < until:
            try:
                # Given a buffer, `read` returns the count; typeshed knows only of bytes.
                count: Any = sock.read(len(buffer) - received, buffer[received:])
            except TimeoutError:
                if not received:
                    raise
                break
            if not count:
                break
            received += count
        return received

    return receive
