"""A server that answers with bytes as a test wrote them: nothing between test and socket."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Self

from tests.support.wiring import Authority


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its target, and the half-open range that it asks for."""

    target: str
    head: str
    start: int
    stop: int


# Makes the bytes of an answer; the connection is closed behind them where they say so or must.
Answer = Callable[[Asked], bytes]


class RawServer:
    """Answers each request on a loopback port by `answer`; `with` runs it.

    Args:
        authority: whose certificate it has; without one it speaks no TLS.
    """

    def __init__(
        self, answer: Answer, *, closes: bool = False, authority: Authority | None = None
    ) -> None:
        self._answer = answer
        self._tls = authority and authority.server_context()
        self._closes = closes
        self.asked: list[Asked] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._open.append(sock)
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._speak(self._tls.wrap_socket(sock, server_side=True) if self._tls else sock)

    def _speak(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as reader, contextlib.suppress(OSError):
            while head := _head(reader):
                asked = _asked(head.decode("latin-1"))
                self.asked.append(asked)
                sock.sendall(self._answer(asked))
                if self._closes:
                    return


def _head(reader: BinaryIO) -> bytes:
    head = b""
    while (line := reader.readline()) not in (b"", b"\r\n"):
        head += line
    return head


def _asked(head: str) -> Asked:
    found = re.search(r"^range: bytes=(\d+)-(\d+)", head, re.IGNORECASE | re.MULTILINE)
    start, stop = (int(found[1]), int(found[2]) + 1) if found else (0, 1 << 62)
    return Asked(head.split(" ")[1], head, start, stop)
