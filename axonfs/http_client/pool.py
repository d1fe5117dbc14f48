"""Idle connections by origin, and idle receive buffers, for reuse by the next request.

Thread-safe; each lock is held for a few list operations, never during I/O.
"""

from __future__ import annotations

import threading
import time

from axonfs import memory
from axonfs.http_client.urls import Origin
from axonfs.http_client.wire import Wire

# Servers close an idle connection after 5 to 75 s. A request on a connection that the server has
# just closed costs one round trip, a new connection costs one to three.
IDLE_SECONDS = 30.0
IDLE_WIRES = 16


class Pool:
    """Idle wires. `take` hands a wire over to the caller, `put` hands it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[Origin, bool], list[Wire]] = {}
        self._closed = False

    def take(self, origin: Origin, *, spread: bool = True) -> Wire | None:
        """The wire that was used last and can still carry a request, if any.

        Args:
            spread: as for `Dialer.dial`.
        """
        while True:
            with self._lock:
                kept = self._idle.get((origin, spread))
                if not kept:
                    return None
                wire = kept.pop()
            if time.monotonic() - wire.idle_since < IDLE_SECONDS and not wire.spent():
                return wire
            wire.hang_up()

    def put(self, origin: Origin, wire: Wire) -> None:
        """Keep `wire` for the next request. Its last answer was read to the end."""
        wire.idle_since = time.monotonic()
        with self._lock:
            if not self._closed:
                self._idle.setdefault((origin, wire.spread), []).append(wire)
            surplus = [wire] if self._closed else self._surplus()
        for old in surplus:
            old.hang_up()

    def _surplus(self) -> list[Wire]:
        """Remove the wires that are too old, and the oldest wires beyond IDLE_WIRES."""
        every = [wire for kept in self._idle.values() for wire in kept]
        every.sort(key=lambda wire: wire.idle_since)
        stale = time.monotonic() - IDLE_SECONDS
        surplus = [wire for wire in every[:-IDLE_WIRES] if wire.idle_since > stale]
        surplus += [wire for wire in every if wire.idle_since <= stale]
        for key, kept in list(self._idle.items()):
            kept[:] = [wire for wire in kept if wire not in surplus]
            if not kept:
                del self._idle[key]
        return surplus

    def close(self) -> None:
        """Close all idle wires, and every wire that is put back later."""
        with self._lock:
            self._closed = True
        self.hang_up()

    def hang_up(self) -> None:
        """Close all idle wires."""
        with self._lock:
            every = [wire for kept in self._idle.values() for wire in kept]
            self._idle.clear()
        for wire in every:
            wire.hang_up()


class ReceiveBuffers:
    """Buffers for reuse. A new one costs a page fault per 4 KiB, more than the copy into it.

    Args:
        most: idle buffers go beyond so many bytes, with those in use.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[memoryview] = []
        self._used = 0  # bytes of those that are in use

    def take(self, size: int) -> memoryview:
        """
        Raises:
            OSError, MemoryError: there is no memory for it, even without idle buffers.
        """
        with self._lock:
            same = (number for number, idle in enumerate(self._idle) if len(idle) == size)
            number = next(same, None)
            buffer = self._new(size) if number is None else self._idle.pop(number)
            self._used += size
            return buffer

    def _new(self, size: int) -> memoryview:
        try:
            return memory.buffer(size)
        except (OSError, MemoryError):
            self._idle.clear()
            return memory.buffer(size)

    def put(self, buffer: memoryview) -> None:
        """Keep `buffer`, and drop those that were idle for longest beyond the most."""
        with self._lock:
            self._used -= len(buffer)
            self._idle.insert(0, buffer)
            while self._idle and self._used + sum(map(len, self._idle)) > self._most:
                self._idle.pop()
