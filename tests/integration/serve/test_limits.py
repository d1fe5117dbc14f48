"""The embedded server's limits: how long and how many connections are kept, where it listens."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import axonfs.serve
from axonfs.errors import AxonError
from axonfs.formats.manifest import parse_manifest
from axonfs.serve import serving
from tests.integration.serve.test_serve import MANIFEST, client_of, no_warnings, registry
from tests.support.registry import published

__all__ = ["no_warnings", "registry"]


@contextlib.contextmanager
def running(registry: Path, **limits: float) -> Iterator[axonfs.serve.RegistryServer]:
    server = axonfs.serve.RegistryServer(
        registry,
        "127.0.0.1",
        0,
        axonfs.serve.RegistryHandler,
        **limits,  # type: ignore[arg-type]
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def connect(server: axonfs.serve.RegistryServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10)


def test_an_idle_connection_is_ended(registry: Path) -> None:
    with running(registry, request_seconds=0.2) as server, connect(server) as sock:
        assert sock.recv(1) == b""


def test_headers_that_trickle_are_ended(registry: Path) -> None:
    with running(registry, request_seconds=0.4) as server, connect(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        begin = time.monotonic()
        sock.settimeout(0.05)
        ended = False
        while not ended and time.monotonic() - begin < 8:
            with contextlib.suppress(TimeoutError):
                try:
                    sock.sendall(b"X")
                    ended = sock.recv(1) == b""
                except ConnectionError:
                    ended = True
        assert ended


def test_a_slow_answer_is_no_idle_connection(tmp_path: Path) -> None:
    """The deadline is the request's: a client may take longer than it to read the answer."""
    registry = published(tmp_path, {"big.safetensors": 24 << 20})
    with running(registry, request_seconds=0.3) as server, connect(server) as sock:
        manifest = parse_manifest((registry / MANIFEST[1:]).read_bytes())
        entry = manifest.file("big.safetensors")
        assert entry
        sock.sendall(
            f"GET /objects/sha256/{entry.digest[:2]}/{entry.digest} HTTP/1.0\r\n\r\n".encode()
        )
        time.sleep(1)  # three deadlines pass while nothing is read
        with sock.makefile("rb") as file:
            assert len(file.read()) > entry.size


def answered(sock: socket.socket) -> bytes:
    """Send a request, and read the head of its answer."""
    sock.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1) or b"ended\r\n\r\n"
    return head


def test_a_client_over_the_limit_gets_a_503_at_once(registry: Path) -> None:
    with running(registry, max_connections=2) as server:
        busy = [connect(server) for _ in range(2)]
        for sock in busy:
            sock.sendall(b"GET / HTTP/1.1\r\n")  # has begun, so it is not idle
        with connect(server) as third:
            head = answered(third)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in head
            assert third.recv(1) == b""
        for sock in busy:
            sock.sendall(b"Host: x\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
            sock.close()


def test_the_connection_that_is_idle_for_longest_gives_way(registry: Path) -> None:
    with running(registry, max_connections=2) as server:
        first, second = connect(server), connect(server)
        with first, second:
            for sock, idle in ((first, 1), (second, 2), (first, 2)):
                assert answered(sock).startswith(b"HTTP/1.1 200")
                while len(server.connections._idle()) < idle:
                    time.sleep(0.01)  # the answer comes a moment before that
            with connect(server) as third:
                assert answered(third).startswith(b"HTTP/1.1 200")
                assert second.recv(1) == b""
                assert answered(first).startswith(b"HTTP/1.1 200")


def test_answers_may_end_when_the_server_stops(tmp_path: Path) -> None:
    registry = published(tmp_path, {"big.safetensors": 24 << 20})
    entry = parse_manifest((registry / MANIFEST[1:]).read_bytes()).file("big.safetensors")
    assert entry
    request = f"GET /objects/sha256/{entry.digest[:2]}/{entry.digest} HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(registry) as server, connect(server) as sock, connect(server) as idle:
        sock.sendall(request.encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        assert answered(idle).startswith(b"HTTP/1.1 200")
        closing = threading.Thread(target=server.close, args=(20.0,))
        closing.start()
        assert idle.recv(1) == b""
        with sock.makefile("rb") as file:
            assert len(file.read()) > entry.size
        closing.join()


def test_close_ends_connections_and_threads(registry: Path) -> None:
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        with running(registry) as server:
            socks = [stack.enter_context(connect(server)) for _ in range(3)]
            for sock in socks:
                sock.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert sock.recv(4096).endswith(b"\r\n\r\n")
        assert [sock.recv(1) for sock in socks] == [b"", b"", b""]
    for thread in set(threading.enumerate()) - before:
        thread.join(5)  # past its last line, if it is there at all
        assert not thread.is_alive()


def test_it_serves_until_the_end_of_the_block(registry: Path) -> None:
    with serving(registry, "127.0.0.1", 0) as server, client_of(server.url) as client:
        assert client.ask(MANIFEST)[0] == 200
    with pytest.raises(ConnectionRefusedError), client_of(server.url) as client:
        client.ask("/")


@pytest.mark.parametrize("host", ["::1", "::", "0.0.0.0", "localhost"])
def test_any_kind_of_host_will_do(registry: Path, host: str) -> None:
    with serving(registry, host, 0) as server, client_of(server.url) as client:
        assert client.ask(MANIFEST)[0] == 200


def test_an_address_that_cannot_be_had_is_named(registry: Path, tmp_path: Path) -> None:
    def check(directory: Path, host: str, port: int, said: str) -> None:
        with pytest.raises(AxonError, match=said), serving(directory, host, port):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check(registry, "127.0.0.1", port, f"port {port}")
    check(registry, "no.such.host.invalid", 0, r"cannot listen on 'no\.such\.host\.invalid'")
    check(tmp_path / "none", "127.0.0.1", 0, "not a directory")
