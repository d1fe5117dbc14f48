"""One answer on a connection: its head and its body.

h11 parses heads and chunked bodies, as in httpcore, so both clients accept and refuse the same
answers. A body of known length goes from the socket into the caller's buffer without a parser.

Threading: belongs to the thread that reads it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import h11

from axonfs.http_client.fields import elements, fields

HEAD_BYTES = 100 << 10  # the same limit as httpcore's
_PIECE = 64 << 10
_BODILESS = frozenset({204, 304})


class OverlongError(h11.RemoteProtocolError):
    """Far more bytes than an answer needs: endless headers, trailers or interim answers."""


class HungUpError(ConnectionError):
    """The server closed the connection instead of an answer."""


class Reply:
    """The answer to the request that `machine` sent. Call `read_head` first."""

    def __init__(self, reader: io.BufferedReader[Any], machine: h11.Connection) -> None:
        self._reader = reader
        self._machine = machine
        self.status = 0
        self.fields: Mapping[str, str] = {}
        self._piece = memoryview(b"")
        self._chunked = False
        self._left: int | None = 0  # bytes of a body with a length; None: until the server closes
        self._ended = False  # the last chunk and its trailers were read

    def read_head(self) -> None:
        """Read the head, and skip interim answers such as 103 Early Hints.

        Raises:
            HungUpError, OSError, h11.RemoteProtocolError: no usable answer.
        """
        event: object = None
        while not isinstance(event, h11.Response):
            self._machine.receive_data(self._head())
            event = self._machine.next_event()
        self.status, self.fields = event.status_code, fields(event.headers.raw_items())
        self._chunked = "chunked" in elements(self.fields.get("transfer-encoding"))
        length = self.fields.get("content-length")
        self._left = int(length) if length is not None else None
        if self.status in _BODILESS:
            self._chunked, self._left = False, 0

    def _head(self) -> bytes:
        """The lines up to the next blank line."""
        head = bytearray()
        while not head.endswith((b"\n\r\n", b"\n\n")):
            line = self._reader.readline(HEAD_BYTES)
            if not line:
                raise HungUpError("the server closed the connection without an answer")
            if not head and not line.startswith(b"HTTP/"):
                raise h11.RemoteProtocolError("no status line")
            head += line
            if len(head) > HEAD_BYTES:
                raise OverlongError("the head is too long")
        return bytes(head)

    @property
    def reusable(self) -> bool:
        """Whether the body was read to its end and the server keeps the connection open."""
        if self._machine.our_state is h11.MUST_CLOSE:
            return False
        if self._chunked:
            return self._ended and not self._machine.trailing_data[0]
        return self._left == 0

    def readinto(self, view: memoryview) -> int:
        """Read up to len(view) bytes of the body, in one receive; 0 at its end, or where the server
        cut it off.

        Raises:
            OSError, h11.RemoteProtocolError: the read failed.
        """
        if self._chunked:
            return self._read_chunked(view)
        if self._left is None:
            return self._reader.readinto1(view)
        count = self._reader.readinto1(view[: self._left])
        self._left -= count
        return count

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the body; empty where `readinto` returns 0."""
        buffer = bytearray(size)
        count = self.readinto(memoryview(buffer))
        return bytes(buffer[:count])

    def _read_chunked(self, view: memoryview) -> int:
        while not self._piece and not self._ended:
            event = self._machine.next_event()
            if event is h11.NEED_DATA:
                self._machine.receive_data(self._reader.read1(_PIECE))
            elif isinstance(event, h11.Data):
                self._piece = memoryview(event.data)
            else:
                self._ended = True
        count = min(len(view), len(self._piece))
        view[:count], self._piece = self._piece[:count], self._piece[count:]
        return count
