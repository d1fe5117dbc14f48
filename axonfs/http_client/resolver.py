"""Look up host names in a few threads of their own, and wait for no longer than asked.

`getaddrinfo` has no limit in time and cannot be interrupted. Here each call runs in a daemon
thread; those who wait for the same name share it, and may leave. A name whose calls hang has at
most `CALLS` of them, so they neither take the threads of local work nor grow without end.

`lookup` is for worker threads, `TrioResolver` for the event loop; both share the calls.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import trio

# Calls under way for one name, at the most.
CALLS = 4
# A call that has taken this many seconds may never end: the next asker begins another.
FRESH = 2.0

_Key = tuple[Any, ...]  # the arguments of getaddrinfo
_Found = list[Any]  # what it returns
_lock = threading.Lock()
_calls: dict[_Key, list[tuple[float, Future[_Found]]]] = {}  # the newest is the last


def lookup(host: str, port: int, seconds: float) -> _Found:
    """The addresses of `host` for a stream socket, as `getaddrinfo` has them.

    Raises:
        OSError: it has none, or the resolver does not answer within `seconds`.
    """
    try:
        return _call((host, port, 0, socket.SOCK_STREAM, 0, 0)).result(seconds)
    except TimeoutError:
        raise _silent(seconds) from None


class TrioResolver(trio.abc.HostnameResolver):
    """The same for `trio.socket`, which else would use the threads of local work."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def getaddrinfo(self, host: bytes | None, *rest: Any) -> _Found:
        call, over = _call((host, *rest)), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_call: object) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(over.set)

        call.add_done_callback(tell)
        with trio.move_on_after(self._seconds):
            await over.wait()
        if not call.done():
            raise _silent(self._seconds)
        return call.result()

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError  # nothing here asks for the name of an address


def _silent(seconds: float) -> TimeoutError:
    return TimeoutError(f"its host name does not resolve within {seconds:g} s")


def _call(key: _Key) -> Future[_Found]:
    """A call that began a moment ago, or a new one unless too many hang.

    Raises:
        OSError: the process has no thread left for one.
    """
    with _lock:
        running = _calls.setdefault(key, [])
        fresh = bool(running) and time.monotonic() - running[-1][0] < FRESH
        if not fresh and len(running) < CALLS:
            _begin(key, time.monotonic(), Future())
        return running[-1][1]


def _begin(key: _Key, now: float, call: Future[_Found]) -> None:
    """Start a call; the lock is held."""
    args, name = (key, now, call), f"resolve {key[0]!r}"
    _calls[key].append((now, call))
    try:
        threading.Thread(target=_run, args=args, name=name, daemon=True).start()
    except RuntimeError as exc:
        _forget(key, now, call)
        raise OSError(errno.ENOMEM, str(exc)) from exc


def _forget(key: _Key, began: float, call: Future[_Found]) -> None:
    """The lock is held."""
    _calls[key].remove((began, call))
    if not _calls[key]:
        del _calls[key]


def _run(key: _Key, began: float, call: Future[_Found]) -> None:
    try:
        found, error = socket.getaddrinfo(*key), None
    except (OSError, UnicodeError) as exc:  # the latter: a label that is too long
        found, error = [], exc if isinstance(exc, OSError) else socket.gaierror(str(exc))
    with _lock:
        _forget(key, began, call)
    if error is None:
        call.set_result(found)
    else:
        call.set_exception(error)
