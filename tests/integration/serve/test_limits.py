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
from tests.integration.serve.test_serve import MANIFEST, client_of, no_warnings, registry
from tests.support.registry import published

__all__ = ["no_warnings", "registry"]


@contextlib.contextmanager
def running(registry: Path, **limits: float) -> Iterator[axonfs.serve.RegistryServer]:
    server = axonfs.serve.RegistryServer(registry, "127.0.0.1", 0, **limits)  # type: ignore[arg-type]
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


def test_a_client_over_the_limit_waits_for_its_turn(registry: Path) -> None:
    with running(registry, max_connections=2) as server:
        first, second, third = (connect(server) for _ in range(3))
        with first, second, third:
            third.sendall(b"GET / HTTP/1.0\r\n\r\n")
            third.settimeout(0.5)
            with pytest.raises(TimeoutError):
                third.recv(1)
            first.close()
            third.settimeout(10)
            assert third.recv(8) == b"HTTP/1.1"


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


def test_serve_says_when_it_is_ready_and_stops_when_told(registry: Path) -> None:
    stop, urls = threading.Event(), []

    def ready(url: str) -> None:
        urls.append(url)
        with client_of(url) as client:
            assert client.ask(MANIFEST)[0] == 200
        stop.set()

    axonfs.serve.serve(registry, "127.0.0.1", 0, ready=ready, stop=stop)
    with pytest.raises(ConnectionRefusedError), client_of(urls[0]) as client:
        client.ask("/")


@pytest.mark.parametrize("host", ["::1", "::", "0.0.0.0", "localhost"])
def test_any_kind_of_host_will_do(registry: Path, host: str) -> None:
    stop = threading.Event()

    def ready(url: str) -> None:
        with client_of(url) as client:
            assert client.ask(MANIFEST)[0] == 200
        stop.set()

    axonfs.serve.serve(registry, host, 0, ready=ready, stop=stop)
    assert stop.is_set()


def test_an_address_that_cannot_be_had_is_named(registry: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AxonError, match=f"port {port}"):
            axonfs.serve.serve(registry, "127.0.0.1", port, stop=stop)
    with pytest.raises(AxonError, match=r"cannot listen on 'no\.such\.host\.invalid'"):
        axonfs.serve.serve(registry, "no.such.host.invalid", 0, stop=stop)
    with pytest.raises(AxonError, match="not a directory"):
        axonfs.serve.serve(tmp_path / "none", "127.0.0.1", 0, stop=stop)
