"""The mount's side of the control socket: answers the requests of commands with JSON lines.

One request per connection: the command sends one line; the mount sends event lines and closes. Only
root and the owner of the mount are answered. The other side is call.py. Trio thread only.
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
# The most commands that are answered at a time, so that descriptors are left; others wait.
MAX_CONNECTIONS = 128
# A command sends its request at once. One that does not, because it was stopped, is disconnected.
REQUEST_SECONDS = 60.0

# These go on for as long as their commands like, which ask the next worker again: no end of this
# worker waits for them.
CUT_OFF = frozenset({"profile"})

Handler = Callable[[Event], AsyncIterator[Event]]
_LEFT = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


class UnderWay:
    """The requests that are being answered."""

    def __init__(self) -> None:
        self._requests: dict[object, str] = {}
        self._ended = trio.Event()

    @property
    def names(self) -> list[str]:
        """The names of these requests, each once."""
        return list(dict.fromkeys(self._requests.values()))

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Count a request as under way while the block runs, if it may not be cut off."""
        if name in CUT_OFF:
            yield
            return
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
    """Answer requests until cancelled; the socket stays open for the next worker."""
    accepting = trio.socket.from_stdlib_socket(listening)
    room = trio.Semaphore(min(MAX_CONNECTIONS, max(descriptors.limit() // 8, 4)))
    async with trio.open_nursery() as nursery:
        task_status.started()
        while True:
            await room.acquire()
            connection = await _accepted(accepting)
            nursery.start_soon(
                _answer_and_release, trio.SocketStream(connection), handle, under_way, room
            )


async def _answer_and_release(
    stream: trio.SocketStream, handle: Handler, under_way: UnderWay, room: trio.Semaphore
) -> None:
    try:
        await _answer(stream, handle, under_way)
    finally:
        room.release()


async def _accepted(listening: trio.socket.SocketType) -> trio.socket.SocketType:
    """The next connection; waits while the process has no free descriptor."""
    while True:
        try:
            return (await listening.accept())[0]
        except OSError as exc:
            if exc.errno == errno.ECONNABORTED:  # the command disconnected
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
            log.debug("a command disconnected: %s", find(group, Exception))


async def _answer_one(stream: trio.SocketStream, events: AsyncIterator[Event]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_disconnect, stream, nursery.cancel_scope)
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


async def _cancel_at_disconnect(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel the request of a command that was interrupted."""
    await stream.receive_some(1)
    scope.cancel()


async def _line(stream: trio.SocketStream) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        data = await stream.receive_some(65536)
        received += data
        if not data or len(received) > MAX_REQUEST_BYTES:
            raise ValueError("the request is not one line of JSON")
    return received


def _parsed(line: bytes) -> Event:
    try:
        request = json.loads(line)
    except RecursionError as exc:
        raise ValueError("the request is nested too deeply") from exc
    if not isinstance(request, dict):
        raise ValueError("the request is not a JSON object")
    return request


def _allowed(stream: trio.SocketStream) -> bool:
    return peer(stream.socket) in (0, os.getuid())
