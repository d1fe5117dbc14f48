"""TLS connections, with the C extension and without: what a call receives, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from axonfs.http_client import channel
from axonfs.http_client.channel import BUFFER_SIZE, Secure, secured
from tests.support.wiring import Authority

BODY = bytes(range(256)) * 1024  # 16 records
TICK = 0.1


class Peer:
    """The server's side of a TLS connection, which sends records as a test wants them."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._received, self._made = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._made, server_side=True)

    def shake_hands(self) -> None:
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self._made.read())
                self._received.write(self._sock.recv(65536))
            finally:
                self.send(self._made.read())

    def records(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._made.read()

    def goodbye(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._made.read()

    def send(self, sealed: bytes) -> None:
        self._sock.sendall(sealed)

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=["extension", "python"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(channel, "_extension", None)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def pair(
    request: pytest.FixtureRequest, authority: Authority, by: None
) -> Iterator[tuple[Secure, Peer]]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.settimeout(10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(BODY))
    server = authority.server_context()
    server.minimum_version = server.maximum_version = request.param
    peer = Peer(theirs, server)
    context = ssl.create_default_context(cafile=authority.bundle)
    shaking = threading.Thread(target=peer.shake_hands)
    shaking.start()
    client = secured(ours, context, "localhost")
    shaking.join()
    client.pace(TICK, 1.0)
    yield client, peer
    client.close()
    peer.close()


Pair = tuple[Secure, Peer]


def test_the_extension_knows_the_connection(authority: Authority) -> None:
    assert channel._extension is not None, "not built: install the project again"
    ours, theirs = socket.socketpair()
    with theirs:
        peer = Peer(theirs, authority.server_context())
        shaking = threading.Thread(target=peer.shake_hands)
        shaking.start()
        context = ssl.create_default_context(cafile=authority.bundle)
        client = secured(ours, context, "localhost")
        shaking.join()
        assert client._records is not None
        client.close()


def test_a_body_is_received_in_one_call(pair: Pair) -> None:
    client, peer = pair
    peer.send(peer.records(BODY))
    buffer = memoryview(bytearray(len(BODY)))
    assert client.receive(buffer) == len(BODY)
    assert buffer == BODY


def test_what_came_before_a_fault_is_given(pair: Pair) -> None:
    client, peer = pair
    peer.send(peer.records(BODY) + b"\x17\x03\x03\x00\x20" + bytes(32))
    buffer = memoryview(bytearray(2 * len(BODY)))
    assert client.receive(buffer) == len(BODY)
    assert buffer[: len(BODY)] == BODY
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            client.receive(buffer)


def test_a_head_does_not_wait_for_more(pair: Pair) -> None:
    client, peer = pair
    peer.send(peer.records(b"HTTP/1.1 200 OK\r\n"))
    buffer = memoryview(bytearray(BUFFER_SIZE))
    assert bytes(buffer[: client.receive(buffer)]) == b"HTTP/1.1 200 OK\r\n"


def test_a_tick_ends_with_what_arrived(pair: Pair) -> None:
    client, peer = pair
    sealed = peer.records(BODY)
    peer.send(sealed[:100_000])  # five records, and a part of the sixth
    buffer = memoryview(bytearray(len(BODY)))
    first = client.receive(buffer)
    assert 0 < first < 100_000
    with pytest.raises(TimeoutError):
        client.receive(buffer[first:])
    peer.send(sealed[100_000:])
    assert client.receive(buffer[first:]) == len(BODY) - first
    assert buffer == BODY


@pytest.mark.parametrize("says_so", [True, False])
def test_an_end_in_the_middle(pair: Pair, says_so: bool) -> None:
    client, peer = pair
    peer.send(peer.records(BODY[:1000]) + (peer.goodbye() if says_so else b""))
    peer.close()
    buffer = memoryview(bytearray(len(BODY)))
    assert client.receive(buffer) == 1000
    assert client.receive(buffer) == 0
    assert client.surplus()


def test_a_cut_record_is_an_end(pair: Pair) -> None:
    client, peer = pair
    peer.send(peer.records(BODY[:1000])[:-1])
    peer.close()
    assert client.receive(memoryview(bytearray(len(BODY)))) == 0


def test_a_damaged_record_is_refused(pair: Pair) -> None:
    client, peer = pair
    sealed = bytearray(peer.records(BODY[:1000]))
    sealed[-1] ^= 1
    peer.send(bytes(sealed))
    with pytest.raises(ssl.SSLError, match="decryption failed or bad record mac"):
        client.receive(memoryview(bytearray(len(BODY))))


def test_what_was_read_ahead_is_surplus(pair: Pair) -> None:
    client, peer = pair
    peer.send(peer.records(b"one"))
    buffer = memoryview(bytearray(3))
    assert client.receive(buffer) == 3
    assert not client.surplus()
    peer.send(peer.records(b"two") + peer.records(b"three"))
    assert client.receive(buffer) == 3
    assert client.surplus()


def test_nothing_is_written_behind_the_view(pair: Pair) -> None:
    client, peer = pair
    peer.send(peer.records(BODY))
    buffer = memoryview(bytearray(len(BODY)))
    assert client.receive(buffer[: BUFFER_SIZE + 1]) == BUFFER_SIZE + 1
    assert bytes(buffer) == BODY[: BUFFER_SIZE + 1].ljust(len(BODY), b"\0")


def test_a_signal_does_not_end_a_call(pair: Pair) -> None:
    client, peer = pair
    client.pace(10.0, 1.0)
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        seen.append(number)
        peer.send(peer.records(BODY))

    with _alarm(handle):
        assert client.receive(memoryview(bytearray(len(BODY)))) == len(BODY)
    assert seen == [signal.SIGALRM]


def test_the_error_of_a_signal_ends_a_call(pair: Pair) -> None:
    client, _ = pair
    client.pace(10.0, 1.0)

    def handle(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with _alarm(handle), pytest.raises(KeyboardInterrupt):
        client.receive(memoryview(bytearray(len(BODY))))
    assert time.monotonic() - began < 10


def test_other_threads_run_meanwhile(pair: Pair) -> None:
    client, peer = pair
    client.pace(10.0, 1.0)
    sending = threading.Timer(0.05, lambda: peer.send(peer.records(BODY)))
    sending.start()  # would never run if the call held the lock
    assert client.receive(memoryview(bytearray(len(BODY)))) == len(BODY)
    sending.join()


@contextlib.contextmanager
def _alarm(handle: object) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handle)  # type: ignore[arg-type]
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
