"""Look up host names in separate threads, with a timeout.

`getaddrinfo` has no timeout and cannot be interrupted. Here each call runs in a daemon thread.
Lookups of the same name share a call, and may stop waiting for it. A name has at most `CALLS`
calls at once, so hanging calls take no threads from local work and cannot pile up.

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

from axonfs.http_client.stages import NO_NAME
from axonfs.steps import Cause, Step

# Maximum number of calls in flight for one name.
CALLS = 4
# Seconds. After this time a call may hang, so the next lookup starts another call.
FRESH = 2.0

_Key = tuple[Any, ...]  # the arguments of getaddrinfo
_Addresses = list[Any]  # the result of getaddrinfo
_lock = threading.Lock()
_calls: dict[_Key, list[tuple[float, Future[_Addresses]]]] = {}  # start time and call; newest last


def lookup(host: str, port: int, seconds: float) -> _Addresses:
    """The addresses of `host` for a stream socket, in the format of `getaddrinfo`.

    Raises:
        OSError: the host has no address, or the resolver does not answer within `seconds`.
    """
    try:
        return _call((host, port, 0, socket.SOCK_STREAM, 0, 0)).result(seconds)
    except TimeoutError:
        raise _silent(seconds) from None


class TrioResolver(trio.abc.HostnameResolver):
    """The same lookup for `trio.socket`, whose own resolver uses the threads of local work."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def getaddrinfo(self, host: bytes | None, *rest: Any) -> _Addresses:
        call, over = _call((host, *rest)), trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_call: object) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(over.set)

        call.add_done_callback(tell)
        name = host.decode(errors="replace") if host else ""
        with (
            trio.move_on_after(self._seconds),
            Step(Cause.CONNECTING, f"looking up the name {name}", hint=NO_NAME),
        ):
            await over.wait()
        if not call.done():
            raise _silent(self._seconds)
        return call.result()

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError  # this program never looks up the name of an address


def _silent(seconds: float) -> TimeoutError:
    return TimeoutError(f"the host name does not resolve within {seconds:g} s")


def _call(key: _Key) -> Future[_Addresses]:
    """The newest call, if it is fresh or if CALLS are in flight; else a new call.

    Raises:
        OSError: the process cannot start a thread.
    """
    with _lock:
        running = _calls.setdefault(key, [])
        fresh = bool(running) and time.monotonic() - running[-1][0] < FRESH
        if not fresh and len(running) < CALLS:
            _begin(key, time.monotonic(), Future())
        return running[-1][1]


def _begin(key: _Key, now: float, call: Future[_Addresses]) -> None:
    """Start a call. The caller holds the lock."""
    args, name = (key, now, call), f"resolve {key[0]}"
    _calls[key].append((now, call))
    try:
        threading.Thread(target=_run, args=args, name=name, daemon=True).start()
    except RuntimeError as exc:
        _forget(key, now, call)
        raise OSError(errno.ENOMEM, str(exc)) from exc


def _forget(key: _Key, began: float, call: Future[_Addresses]) -> None:
    """Remove a call. The caller holds the lock."""
    _calls[key].remove((began, call))
    if not _calls[key]:
        del _calls[key]


def _run(key: _Key, began: float, call: Future[_Addresses]) -> None:
    try:
        addresses, error = socket.getaddrinfo(*key), None
    except (OSError, UnicodeError) as exc:  # UnicodeError: a label of the name is too long
        addresses, error = [], exc if isinstance(exc, OSError) else socket.gaierror(str(exc))
    with _lock:
        _forget(key, began, call)
    if error is None:
        call.set_result(addresses)
    else:
        call.set_exception(error)
