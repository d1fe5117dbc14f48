"""Requests that a hostile client sends, byte by byte."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from axonfs.serve import Access, Tokens
from tests.integration.serve.test_access import running_with, token
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


def test_a_client_that_leaves_in_a_body_is_no_fault_of_the_registry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tmp_path / "server-tokens.yaml"
    secret = token(tokens, "ci", publish="nlp")
    path = f"/api/v1/uploads/{'a' * 64}/100000/100000/0"
    head = f"PUT {path} HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nContent-Length: 100000"
    (tmp_path / "registry").mkdir()
    with (
        caplog.at_level(logging.WARNING),
        running_with(tmp_path / "registry", Access(Tokens(tokens))) as server,
        socket.create_connection(("127.0.0.1", urlsplit(server.url).port), 10) as sock,
    ):
        sock.sendall(head.encode() + b"\r\n\r\n" + bytes(1000))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(4096) == b""
    assert caplog.messages == []
