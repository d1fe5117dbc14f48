"""Requests that a hostile client sends, byte by byte."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from tests.support.registry import RegistryServer

LENGTH = b"Content-Length: 27"
NEXT = b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length : 27",
        b"Transfer-Encoding : chunked",
        b"\x0c" + LENGTH,
        b" " + LENGTH,
        b"X: a\r\n " + LENGTH,
        b"what\r\n" + LENGTH,
        b"X: a\r\r\n" + LENGTH,
    ],
)
def test_a_length_that_only_a_proxy_may_see_ends_the_connection(
    server: RegistryServer, line: bytes
) -> None:
    """Otherwise what the proxy forwards as a body would be a request of its own here."""
    address = ("127.0.0.1", urlsplit(server.url).port)
    with socket.create_connection(address, 10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n" + line + b"\r\nHost: x\r\n\r\n" + NEXT)
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
