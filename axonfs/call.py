"""The command's side of the control socket: sends one request to a mount and yields its events.

Blocking. Imports no trio, since that import would take half the time of a short command. The other
side is daemon/control.py, which describes the protocol.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from axonfs import errors
from axonfs.errors import AxonError
from axonfs.rundir import SOCKET, reachable

if TYPE_CHECKING:
    import trio

MAX_EVENT_BYTES = 256 << 20
# A request may run for hours without an event. After SILENCE seconds without one the mount is asked
# whether it is alive. A worker answers in milliseconds, but one that is starting needs seconds.
SILENCE = 3.0
ALIVE = 10.0

Event: TypeAlias = dict[str, Any]


def call(cache: Path, request: Event) -> Iterator[Event]:
    """Send `request` to the running mount and yield its events.

    The request's `tokens` are left out where the mount is another user's.

    Raises:
        OSError: no mount answers for this cache (FileNotFoundError, ConnectionRefusedError), it is
            another user's (PermissionError), or its worker is stopped or stuck (TimeoutError).
        AxonError: the answer is too long.
    """
    with _connected(cache, request) as connection:
        for line in _lines(connection, cache):
            yield json.loads(line)


def error_event(error: AxonError) -> Event:
    """The last event of a request that failed."""
    return {
        "event": "error",
        "kind": type(error).__name__,
        "message": str(error),
        "exit_code": error.exit_code,
        "facts": error.facts(),
    }


def error_of(event: Event) -> AxonError:
    """The error of such an event; a worker of an earlier version sends only the message."""
    facts = event.get("facts") or {"message": event.get("message", "failed without a cause")}
    parts = {name: facts.get(name) for name in ("spec", "path", "source", "hint")}
    found = getattr(errors, str(event.get("kind")), None)
    kind = found if isinstance(found, type) and issubclass(found, AxonError) else AxonError
    error = kind(str(facts.get("message")), **parts)
    error.exit_code = int(event.get("exit_code", 1))
    return error


def alive(cache: Path) -> None:
    """Return if the mount of this cache answers.

    Raises:
        OSError: it does not answer; TimeoutError if its worker is stopped or stuck.
    """
    with _connected(cache, {"op": "ping"}) as connection:
        connection.recv(1)  # an error event is an answer as well


def _connected(cache: Path, request: Event) -> socket.socket:
    """A connection over which `request` was sent."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ALIVE)
        with reachable(cache / SOCKET) as address:
            _connect(connection, address)
        other = peer(connection) != os.geteuid()
        if os.geteuid() != 0 and other and peer(connection) != 0:
            raise PermissionError("another user listens there")
        if other:  # root calls a user's mount, which uses that user's tokens
            request = {name: value for name, value in request.items() if name != "tokens"}
        connection.sendall(json.dumps(request).encode() + b"\n")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, address: str) -> None:
    """Connect; retry while the backlog is full, as that of a stuck worker may be."""
    deadline = time.monotonic() + ALIVE
    while True:
        try:
            return connection.connect(address)
        except BlockingIOError as exc:  # a socket with a timeout does not wait for the backlog
            if time.monotonic() > deadline:
                raise TimeoutError("the mount accepts no command") from exc
        time.sleep(0.1)


def _lines(connection: socket.socket, cache: Path) -> Iterator[bytes]:
    pieces: list[bytes] = []
    while data := _received(connection, cache):
        pieces.append(data)
        if b"\n" in data:
            *lines, rest = b"".join(pieces).split(b"\n")
            yield from lines
            pieces = [rest]
        elif sum(map(len, pieces)) > MAX_EVENT_BYTES:
            raise AxonError("the mount's answer is too long", source=str(cache))


def _received(connection: socket.socket, cache: Path) -> bytes:
    """The next bytes, b"" at the end; waits for as long as the mount is alive."""
    waiting = select.poll()  # a program may have more descriptors than select takes
    waiting.register(connection, select.POLLIN)
    while not waiting.poll(SILENCE * 1000):
        alive(cache)
    return connection.recv(1 << 20)


def peer(connected: socket.socket | trio.socket.SocketType) -> int:
    """The user id of the process at the other end, from the kernel."""
    size = struct.calcsize("3i")
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = struct.unpack("3i", credentials)[1]
    return uid
