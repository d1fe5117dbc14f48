"""A TCP relay of which each connection may be slow: a line with one bad path, or a bad line."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

# What the kernel may hold of a connection, so that a slow one also slows its server.
_BUFFER = 64 << 10
_PIECE = 16 << 10


class Relay:
    """Relays connections to the server at `url`; `carried` counts what the server sent.

    Args:
        rate: asked before each piece of an answer, with the number of the connection (from 0) and
            the bytes that it carried; bytes per second, or None for as fast as it goes.
    """

    def __init__(self, url: str, rate: Callable[[int, int], float | None]) -> None:
        self._target = urlsplit(url)
        self._rate = rate
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.carried = self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{self._target.scheme}://127.0.0.1:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
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
