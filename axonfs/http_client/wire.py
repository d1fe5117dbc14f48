"""One connection: a socket whose waits have limits.

reply.py parses; this module waits. Each `recv` wakes up a few times a second and checks whether the
reader was cancelled, the server stalls, or bytes come too slowly. A timeout on the socket would not
be enough: a server that sends a byte now and then could hold a reader for ever.

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

# Seconds between the checks of a waiting thread, and so the delay until a cancelled read ends.
TICK = 0.2
# With less patience than usual, PROGRESS_BYTES must arrive within this multiple of the patience. A
# source that only sends a byte now and then makes no progress.
HURRIED = 2
_BUFFER_SIZE = 64 << 10  # for headers; bodies go directly into the caller's buffer


class StallError(TimeoutError):
    """No byte arrived within the time allowed."""


class SlowError(TimeoutError):
    """Too few bytes arrived within the deadline."""


class CancelledReadError(Exception):
    """The caller cancelled the read."""


class Wire:
    """A connected socket and its buffered reader.

    Args:
        sock: connected, plain or TLS; the wire closes it.
        spread: whether it may be to any address of its host; else it is to the first one.
    """

    def __init__(self, sock: socket.socket, limits: Limits, *, spread: bool = True) -> None:
        self.spread = spread
        self._sock = sock
        self._limits = limits
        self._inlet = _Inlet(sock)
        # The only reader of the socket: surplus bytes of an answer stay visible in its buffer.
        self._reader: io.BufferedReader[Any] = io.BufferedReader(self._inlet, _BUFFER_SIZE)
        self._tick = 0.0
        self._secure = isinstance(sock, ssl.SSLSocket)
        self.idle_since = 0.0

    def request(
        self,
        url: Url,
        target: str,
        headers: Mapping[str, str],
        cancelled: Callable[[], bool],
        patience: float | None = None,
    ) -> Reply:
        """Send one GET, read the head of the answer, and return the answer.

        Args:
            target: of the request line: path and query, or the whole URL for a proxy.
            patience: seconds to wait for the head, and then for each byte, if less than the usual.

        Raises:
            OSError, h11.ProtocolError: the connection failed, or the request or answer is invalid.
            CancelledReadError: `cancelled` returned true.
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
        """Note that the answer has a body of `size` bytes."""
        self._inlet.expect(size)

    def progressed(self) -> None:
        """Restart the deadline: a unit arrived, or the caller was busy with one."""
        self._inlet.progressed()

    def waited(self, seconds: float) -> None:
        """Note that the caller did not receive for so long: the deadline moves."""
        self._inlet.waited(seconds)

    def hurry(self, seconds: float) -> None:
        """Wait at most `seconds` for each further byte of this answer."""
        self._inlet.patience = seconds

    def spent(self) -> bool:
        """Whether the wire cannot carry another request: the server closed it, or surplus bytes
        arrived."""
        if self._inlet.leftover(self._reader):
            return True
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True  # surplus bytes that TLS has decrypted already
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
    """The receiving side of the socket."""

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
        # In the chunked encoding a chunk of one byte takes six.
        self._most = self._received + 6 * size + OVERHEAD_BYTES

    def progressed(self) -> None:
        self._progress_by = time.monotonic() + self._deadline
        self._mark = self._received + PROGRESS_BYTES

    def waited(self, seconds: float) -> None:
        self._progress_by += seconds

    def leftover(self, reader: io.BufferedReader[Any]) -> bool:
        """Whether `reader` has bytes in its buffer; does not read from the socket."""
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
        if count < 0:  # after the handler, so errors of `_wait` are not chained to the timeout
            count = self._wait(buffer, asked)
        self._received += count
        if self._received >= self._mark:
            if self._received > self._most:
                raise OverlongError("far more bytes than the answer's body has")
            self.progressed()
        return count

    def _look_up(self, now: float) -> None:
        if self._cancelled():
            raise CancelledReadError
        if now >= self._progress_by:
            raise SlowError(f"too few bytes for {self._deadline:g} s")

    def _wait(self, buffer: Any, asked: float) -> int:
        """Receive after a first TICK without a byte."""
        while True:
            now = time.monotonic()
            self._look_up(now)
            if now - asked >= self.patience:
                raise StallError(f"received nothing for {self.patience:g} s")
            with contextlib.suppress(TimeoutError):
                count: int = self._receive(buffer)
                return count


def _block(sock: socket.socket, receive: float, send: float) -> None:
    """Let the kernel measure the timeouts, which saves a poll before each call."""
    sock.settimeout(None)
    for option, seconds in ((socket.SO_RCVTIMEO, receive), (socket.SO_SNDTIMEO, send)):
        whole = int(seconds)
        value = struct.pack("@ll", whole, max(int((seconds - whole) * 1e6), 1))
        sock.setsockopt(socket.SOL_SOCKET, option, value)


def _plain_receive(sock: socket.socket) -> Callable[[memoryview], int]:
    def receive(buffer: memoryview) -> int:
        # Fill a body's view in one call: many small calls would each take the GIL. A read of
        # headers takes the bytes that are there.
        flags = socket.MSG_WAITALL if len(buffer) > _BUFFER_SIZE else 0
        try:
            return sock.recv_into(buffer, 0, flags)
        except BlockingIOError as exc:
            raise TimeoutError from exc

    return receive


def _tls_receive(sock: ssl.SSLSocket) -> Callable[[memoryview], int]:
    def receive(buffer: memoryview) -> int:
        # A read returns one TLS record of at most 16 KiB. A read of headers takes one record. A
        # body takes all records of a TICK, because a check costs as much as a record.
        most = len(buffer) if len(buffer) > _BUFFER_SIZE else 1
        received, until = 0, time.monotonic() + TICK
        while received < most and time.monotonic() < until:
            try:
                # With a buffer `read` returns the count, but typeshed declares bytes.
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
