"""The open connections of a server: how many there may be, and how long each may take.

Below server.py, which accepts them; a handler reports what its connection does. A connection waits
for a request, or gets an answer; both have a deadline. Over the limit, the connection that has been
idle for longest gives way to a new one. If none is idle, the new one is refused: it gets a 503 at
once. Any thread.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
from dataclasses import dataclass

MAX_CONNECTIONS = 256
MAX_REFUSED = 64  # connections over the limit that get a 503 at a time; more are closed
REQUEST_SECONDS = 60.0  # from the end of one answer to the end of the next request's headers
REFUSAL_SECONDS = 5.0
SILENT_SECONDS = 5.0  # a new connection that has sent nothing for this time counts as idle
LEAVE_SECONDS = 1.0  # for the thread of a connection that has to give way
SLOWEST = 1024  # bytes per second; a client that reads or sends a body slower loses its connection


@dataclass(slots=True)
class _Connection:
    """Times in monotonic seconds.

    `due` is the deadline; `idle_from` is when the connection is idle, if until then no byte of a
    request comes.
    """

    due: float
    idle_from: float = math.inf
    refused: bool = False


class Connections:
    """The connections of one server, by socket.

    Args:
        most: how many there may be at a time, apart from refused ones.
        request_seconds: how long a request may take to arrive.
    """

    def __init__(
        self, most: int = MAX_CONNECTIONS, request_seconds: float = REQUEST_SECONDS
    ) -> None:
        self.most = most
        self._request_seconds = request_seconds
        self._open: dict[socket.socket, _Connection] = {}
        self._closing = False
        self._changed = threading.Condition()

    def admit(self, sock: socket.socket) -> bool:
        """Add a new connection, perhaps as a refused one; return False if it must be closed."""
        with self._changed:
            if not self._room() and (idle := self._longest_idle()):
                self._open[idle].idle_from = math.inf
                disconnect(idle)
                self._changed.wait_for(self._room, LEAVE_SECONDS)
            refused = not self._room()
            if refused and not self._room_to_refuse():
                return False
            seconds = min(REFUSAL_SECONDS, self._request_seconds) if refused else None
            idle_from = math.inf if refused else self._deadline(SILENT_SECONDS)
            self._open[sock] = _Connection(self._deadline(seconds), idle_from, refused)
            return True

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def _room(self) -> bool:
        return sum(not one.refused for one in self._open.values()) < self.most

    def _room_to_refuse(self) -> bool:
        """Whether one more connection can be refused. The one that was refused first gives way: it
        has sent nothing, or does not read its 503."""
        waiting = [sock for sock, one in self._open.items() if one.refused]
        if len(waiting) >= MAX_REFUSED:
            disconnect(waiting[0])
            self._changed.wait_for(lambda: waiting[0] not in self._open, LEAVE_SECONDS)
        return len(waiting) < MAX_REFUSED or waiting[0] not in self._open

    def _longest_idle(self) -> socket.socket | None:
        for sock in sorted(self._idle(), key=lambda sock: self._open[sock].idle_from):
            if not _readable(sock):  # its next request has just arrived
                return sock
        return None

    def _idle(self) -> list[socket.socket]:
        now = time.monotonic()
        return [sock for sock, one in self._open.items() if one.idle_from <= now]

    def _deadline(self, seconds: float | None = None) -> float:
        return time.monotonic() + (self._request_seconds if seconds is None else seconds)

    def refused(self, sock: socket.socket) -> bool:
        """Whether this connection is over the limit, so that its request gets a 503."""
        return self._open[sock].refused

    def wait(self, sock: socket.socket) -> None:
        """Start the deadline of the next request, after an answer."""
        with self._changed:
            if self._closing:
                disconnect(sock)
            self._open[sock].due = self._deadline()
            self._open[sock].idle_from = time.monotonic()

    def begin(self, sock: socket.socket) -> None:
        """Note that a request has begun to arrive; its deadline stays."""
        with self._changed:
            self._open[sock].idle_from = math.inf

    def answer(self, sock: socket.socket, size: int = 0, *, seconds: float = 0.0) -> None:
        """Start the deadline of an answer or of a request's body of `size` bytes; `seconds` are
        added to it."""
        with self._changed:
            needed = self._request_seconds + size / SLOWEST
            self._open[sock].due = self._deadline(needed + seconds)

    def ended(self, sock: socket.socket) -> None:
        """Forget a connection that is closed."""
        with self._changed:
            self._open.pop(sock, None)
            self._changed.notify_all()

    def close_overdue(self) -> None:
        """Close the connections whose deadline has passed."""
        now = time.monotonic()
        with self._changed:
            overdue = [sock for sock, one in self._open.items() if one.due < now]
        for sock in overdue:
            disconnect(sock)

    def close_all(self, grace: float, patience: float) -> None:
        """Close the idle connections at once and the others after `grace` seconds; return when all
        have ended, or after `patience` more seconds."""
        with self._changed:
            self._closing = True
            for sock in self._idle():
                disconnect(sock)
            self._changed.wait_for(lambda: not self._open, grace)
            for sock in self._open:
                disconnect(sock)
            self._changed.wait_for(lambda: not self._open, patience)


def disconnect(sock: socket.socket) -> None:
    """Wake the connection's thread, which closes the socket."""
    # Not SSLSocket's own method, which takes the TLS state away from that thread.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return True
