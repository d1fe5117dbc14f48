"""One connection, whose waits have limits.

Above channel.py, which receives. reply.py parses; this module waits. Each receive wakes up a few
times a second and checks whether the reader was cancelled, the server stalls, or bytes come too
slowly. A timeout on the socket would not be enough: a server that sends a byte now and then could
hold a reader for ever.

Threading: a wire belongs to one thread at a time; the pool hands it over.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import h11

from axonfs.http_client.channel import BUFFER_SIZE, Channel
from axonfs.http_client.limits import OVERHEAD_BYTES, PROGRESS_BYTES, Limits
from axonfs.http_client.reply import HEAD_BYTES, OverlongError, Reply
from axonfs.http_client.urls import Url
from axonfs.units import size

# Seconds between the checks of a waiting thread, and so the delay until a cancelled read ends. A
# call that receives a body returns what has arrived by then.
TICK = 0.05
# With less patience than usual, PROGRESS_BYTES must arrive within this multiple of the patience. A
# source that only sends a byte now and then makes no progress.
HURRIED = 2


class StallError(TimeoutError):
    """No byte arrived within the time allowed."""


class SlowError(TimeoutError):
    """Too few bytes arrived within the deadline."""


class CancelledReadError(Exception):
    """The caller cancelled the read."""


class Wire:
    """A channel and its buffered reader.

    Args:
        channel: the wire closes it.
        spread: whether it may be to any address of its host; else it is to the first one.
    """

    def __init__(self, channel: Channel, limits: Limits, *, spread: bool = True) -> None:
        self.spread = spread
        self._channel = channel
        self._limits = limits
        self._inlet = _Inlet(channel)
        # The only reader of the channel: surplus bytes of an answer stay visible in its buffer.
        # It is for heads; bodies go directly into the caller's buffer.
        self._reader: io.BufferedReader[Any] = io.BufferedReader(self._inlet, BUFFER_SIZE)
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
        tick = min(TICK, limits.first_byte, limits.stall, limits.deadline, least)
        self._channel.pace(tick, limits.first_byte)
        self._inlet.watch(cancelled, min(limits.first_byte, least), min(limits.deadline, least))
        self._channel.send(request)
        reply = Reply(self._reader, machine)
        reply.read_head()
        self._inlet.expect_body(min(limits.stall, least), min(limits.deadline, HURRIED * least))
        return reply

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
        return self.comes(0.0)

    def comes(self, seconds: float) -> bool:
        """Whether bytes, or the end of the connection, are there within `seconds`."""
        return self._inlet.leftover(self._reader) or self._channel.surplus(seconds)

    @property
    def silence(self) -> float:
        """Seconds since a byte came, or was not waited for; any thread may ask."""
        asked = self._inlet.asked
        return time.monotonic() - asked if asked else 0.0

    def awaited(self, server: str) -> str:
        """What came of the head of an answer, as a clause; any thread may ask."""
        if not (came := self._inlet.came):
            return f"waiting for the first byte of the answer of {server}"
        return f"waiting for the rest of the head of the answer of {server}: {size(came)} came"

    def hang_up(self) -> None:
        self._channel.close()


class _Inlet(io.RawIOBase):
    """The receiving side of a channel."""

    def __init__(self, channel: Channel) -> None:
        self._receive = channel.receive
        self._cancelled: Callable[[], bool] = bool
        self._dry = False
        self._deadline = self._progress_by = 0.0
        self._received = self._began = self._mark = self._most = 0
        self.patience = 0.0
        self.asked = 0.0  # since when a byte is waited for that did not come within a tick

    def watch(self, cancelled: Callable[[], bool], patience: float, deadline: float) -> None:
        self._cancelled = cancelled
        self.patience = patience
        self._deadline = deadline
        self._began = self._received
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

    @property
    def came(self) -> int:
        """Bytes since `watch`."""
        return self._received - self._began

    def leftover(self, reader: io.BufferedReader[Any]) -> bool:
        """Whether `reader` has bytes in its buffer; does not receive."""
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
            self.asked = asked
            count = self._wait(buffer, asked)
            self.asked = 0.0
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
                return self._receive(buffer)
