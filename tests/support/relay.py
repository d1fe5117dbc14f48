"""A TCP relay of which each connection may be slow: a line with one bad path, or a bad line."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

HOST = "models.test"

# What the kernel may hold of a connection, so that a slow one also slows its server.
_BUFFER = 64 << 10
_PIECE = 16 << 10


class Relay:
    """Relays connections to the server at `url`; `carried` counts what the server sent.

    Args:
        rate: asked before each piece of an answer, with the number of the connection (from 0) and
            the bytes that it carried; bytes per second, or None for as fast as it goes.
        at: address and port to listen at.
    """

    def __init__(
        self,
        url: str,
        rate: Callable[[int, int], float | None] = lambda _number, _carried: None,
        *,
        at: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self._target = urlsplit(url)
        self._rate = rate
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.carried = self.connections = 0
        self._listener = socket.create_server(at)
        self.port = self._listener.getsockname()[1]
        self.url = f"{self._target.scheme}://{at[0]}:{self.port}/"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and refuse more."""
        self._closing.set()
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, function: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=function, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                server = socket.socket()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
                server.connect((self._target.hostname, self._target.port))
                self._sockets += [client, server]
                self._start(self._pump, client, server, None)
                self._start(self._pump, server, client, self.connections)
                self.connections += 1

    def _pump(self, source: socket.socket, sink: socket.socket, number: int | None) -> None:
        done = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                done += len(data)
                if number is not None:
                    self._pace(number, done, len(data))
                sink.sendall(data)
        for one in (source, sink):  # the server ends an answer that nobody takes
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _pace(self, number: int, done: int, size: int) -> None:
        with self._lock:
            self.carried += size
            rate = self._rate(number, done)
        if rate is not None:
            self._closing.wait(size / rate)


@contextlib.contextmanager
def several(url: str) -> Iterator[list[Relay]]:
    """Relays to one server at three addresses and one port; `HOST` resolves to all of them."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Relay(url))
        others = [
            stack.enter_context(Relay(url, at=(f"127.0.0.{number}", first.port)))
            for number in (2, 3)
        ]
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(socket, "getaddrinfo", _resolve)
        yield [first, *others]


_real = socket.getaddrinfo


def _resolve(host: str | bytes, port: int, *rest: int) -> list[Any]:
    if host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        return _real(host, port, *rest)
    if host not in (HOST, HOST.encode()) or rest[-1] & socket.AI_NUMERICHOST:
        raise socket.gaierror(socket.EAI_NONAME, "there is no such name")
    kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
    return [(*kind, (f"127.0.0.{number}", port)) for number in (1, 2, 3)]
