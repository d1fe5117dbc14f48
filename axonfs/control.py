"""The mount's end of the control socket: requests of commands, answered as JSON lines.

One request per connection: the command sends one line, the mount answers with event lines and
closes. Only root and the owner of the mount may connect. The other end is call.py. Trio.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import trio

from axonfs.call import Event, peer
from axonfs.errors import AxonError

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 20

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
    return peer(stream.socket) in (0, os.getuid())
