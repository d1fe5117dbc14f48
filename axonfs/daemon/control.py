"""The mount's end of the control socket: requests of commands, answered as JSON lines.

One request per connection: the command sends one line, the mount answers with event lines and
closes. Only root and the owner of the mount may connect. The other end is call.py. Trio.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager

import trio

from axonfs import descriptors
from axonfs.call import Event, error_event, peer
from axonfs.errors import AxonError, find, refused

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 20
# Commands that are answered at a time, which leave descriptors for the mount; others wait.
MAX_CONNECTIONS = 128
# A command sends its request at once; one that was stopped before that holds nothing for ever.
REQUEST_SECONDS = 60.0

Handler = Callable[[Event], AsyncIterator[Event]]
_LEFT = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


class UnderWay:
    """What commands are being answered."""

    def __init__(self) -> None:
        self._requests: dict[object, str] = {}
        self._ended = trio.Event()

    @property
    def names(self) -> list[str]:
        """The names of their requests, each once."""
        return list(dict.fromkeys(self._requests.values()))

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Have a request count as under way in the block."""
        key = object()
        self._requests[key] = name
        try:
            yield
        finally:
            del self._requests[key]
            if not self._requests:
                self._ended.set()
                self._ended = trio.Event()

    async def idle(self) -> None:
        """Return when no request is under way."""
        while self._requests:
            await self._ended.wait()


async def serve(
    listening: socket.socket,
    handle: Handler,
    under_way: UnderWay,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until cancelled; the socket stays open, for the next one to go on."""
    accepting = trio.socket.from_stdlib_socket(listening)
    room = trio.Semaphore(min(MAX_CONNECTIONS, max(descriptors.limit() // 8, 4)))
    async with trio.open_nursery() as nursery:
        task_status.started()
        while True:
            await room.acquire()
            connection = await _accepted(accepting)
            nursery.start_soon(_admitted, trio.SocketStream(connection), handle, under_way, room)


async def _admitted(
    stream: trio.SocketStream, handle: Handler, under_way: UnderWay, room: trio.Semaphore
) -> None:
    try:
        await _answer(stream, handle, under_way)
    finally:
        room.release()


async def _accepted(listening: trio.socket.SocketType) -> trio.socket.SocketType:
    """The next connection; waits while the process has no descriptor for one."""
    while True:
        try:
            return (await listening.accept())[0]
        except OSError as exc:
            if exc.errno == errno.ECONNABORTED:  # the command left before it was answered
                continue
            if not descriptors.is_shortage(exc):
                raise
            descriptors.complain(exc)
            await trio.sleep(descriptors.PAUSE)


async def _answer(stream: trio.SocketStream, handle: Handler, under_way: UnderWay) -> None:
    async with stream:
        try:
            if not _allowed(stream):
                return
            with trio.fail_after(REQUEST_SECONDS):
                request = _parsed(await _line(stream))
            with under_way.noting(str(request.get("op"))):
                await _answer_one(stream, handle(request))
        except* (*_LEFT, ValueError) as group:
            log.debug("a command left: %s", find(group, Exception))


async def _answer_one(stream: trio.SocketStream, events: AsyncIterator[Event]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_leave_with_client, stream, nursery.cancel_scope)
        await _send_events(stream, events)
        nursery.cancel_scope.cancel()


async def _send_events(stream: trio.SocketStream, events: AsyncIterator[Event]) -> None:
    async with aclosing(events) as answers:  # type: ignore[type-var]
        try:
            async for event in answers:
                await stream.send_all(json.dumps(event).encode() + b"\n")
        except (AxonError, OSError) as exc:
            error = refused(exc) if isinstance(exc, OSError) else exc
            await stream.send_all(json.dumps(error_event(error)).encode() + b"\n")
        except Exception as exc:
            if isinstance(exc, trio.BrokenResourceError | trio.ClosedResourceError):
                raise
            log.exception("a bug in a command; please report it")
            error = AxonError(f"this is a bug: {type(exc).__name__}: {exc}", hint="see the log")
            await stream.send_all(json.dumps(error_event(error)).encode() + b"\n")


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
