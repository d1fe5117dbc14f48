"""The control socket: commands ask the running mount, JSON lines over a Unix socket.

One request per connection: the client sends one line, the mount answers with event lines and
closes. Only root and the owner of the mount may connect. `serve` is trio, `call` blocks.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import trio

from axonfs.errors import AxonError
from axonfs.rundir import SOCKET, reachable

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 20
MAX_EVENT_BYTES = 256 << 20

Event = dict[str, Any]
Handler = Callable[[Event], AsyncIterator[Event]]


async def serve(
    listening: socket.socket,
    handle: Handler,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until cancelled; the socket stays open, for the next one to go on."""
    accepting = trio.socket.from_stdlib_socket(listening)
    async with trio.open_nursery() as nursery:
        task_status.started()
        while True:
            connection, _ = await accepting.accept()
            nursery.start_soon(_answer, trio.SocketStream(connection), handle)


async def _answer(stream: trio.SocketStream, handle: Handler) -> None:
    async with stream:
        try:
            if not _allowed(stream):
                return
            request = _parsed(await _line(stream))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_leave_with_client, stream, nursery.cancel_scope)
                await _send_events(stream, handle(request))
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ValueError) as group:
            log.debug("a command left: %s", group.exceptions[0])


async def _send_events(stream: trio.SocketStream, events: AsyncIterator[Event]) -> None:
    async with aclosing(events) as answers:  # type: ignore[type-var]
        try:
            async for event in answers:
                await stream.send_all(json.dumps(event).encode() + b"\n")
        except AxonError as exc:
            await stream.send_all(json.dumps(error_event(exc)).encode() + b"\n")
        except Exception as exc:
            if isinstance(exc, trio.BrokenResourceError | trio.ClosedResourceError):
                raise
            log.exception("a bug in a command; please report it")
            event = {"event": "error", "message": f"a bug: {exc!r}; see the log", "exit_code": 1}
            await stream.send_all(json.dumps(event).encode() + b"\n")


def error_event(exc: AxonError) -> Event:
    """The last event of a request that failed."""
    return {"event": "error", "message": str(exc), "exit_code": exc.exit_code}


async def _leave_with_client(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """A command that was interrupted must not go on in the mount."""
    await stream.receive_some(1)
    scope.cancel()


async def _line(stream: trio.SocketStream) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        data = await stream.receive_some(65536)
        received += data
        if not data or len(received) > MAX_REQUEST_BYTES:
            raise ValueError("not one line of JSON")
    return received


def _parsed(line: bytes) -> Event:
    try:
        request = json.loads(line)
    except RecursionError as exc:
        raise ValueError("brackets without end") from exc
    if not isinstance(request, dict):
        raise ValueError("not a JSON object")
    return request


def _allowed(stream: trio.SocketStream) -> bool:
    return _peer(stream.socket) in (0, os.getuid())


def _peer(connected: socket.socket | trio.socket.SocketType) -> int:
    """Whose process is at the other end, as the kernel says: a user id."""
    size = struct.calcsize("3i")
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def call(cache: Path, request: Event) -> Iterator[Event]:
    """The events a running mount answers `request` with.

    Raises:
        OSError: no mount answers for this cache (FileNotFoundError, ConnectionRefusedError), or
            it is another user's (PermissionError).
        AxonError: it does not speak as a mount does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        with reachable(cache / SOCKET) as address:
            connection.connect(address)
        if os.geteuid() != 0 and _peer(connection) not in (0, os.geteuid()):
            raise PermissionError("another user listens there")
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            while line := lines.readline(MAX_EVENT_BYTES):
                if not line.endswith(b"\n"):
                    raise AxonError("the mount's answer is too long", source=str(cache))
                yield json.loads(line)
