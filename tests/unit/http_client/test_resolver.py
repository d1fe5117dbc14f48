"""Host names that do not resolve in time: a limit, few threads, and none of local work.

`getaddrinfo` is replaced: that it hangs cannot be caused.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from axonfs.descriptors import is_shortage
from axonfs.http_client import resolver
from axonfs.http_client.resolver import CALLS, TrioResolver, lookup

HOST = "registry.example"
FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]


class Hanging:
    """A resolver that does not answer until `go` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.go = threading.Event()

    def __call__(self, host: Any, port: Any, *rest: int) -> list[Any]:
        if rest[-1] & socket.AI_NUMERICHOST:  # trio tries that first, without a resolver
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        self.calls += 1
        assert self.go.wait(20)
        return FOUND


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    hanging = Hanging()
    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    monkeypatch.setattr(resolver, "FRESH", 0.01)
    yield hanging
    hanging.go.set()
    while resolver._calls:
        time.sleep(0.01)


def test_a_lookup_has_a_limit_and_a_name_few_threads(hanging: Hanging) -> None:
    for _ in range(3 * CALLS):
        with pytest.raises(TimeoutError, match="does not resolve within"):
            lookup(HOST, 80, 0.02)
    assert hanging.calls == CALLS
    hanging.go.set()
    assert lookup(HOST, 80, 10) == FOUND


def test_those_who_wait_for_one_name_share_a_call(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "FRESH", 60.0)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(lookup, HOST, 80, 10) for _ in range(8)]
        while not hanging.calls:
            time.sleep(0.01)
        hanging.go.set()
        assert [one.result() for one in found] == 8 * [FOUND]
    assert hanging.calls <= 2  # the last of them may have come after the first was answered


def test_a_name_that_hangs_holds_up_no_other(hanging: Hanging) -> None:
    with pytest.raises(TimeoutError):
        lookup(HOST, 80, 0.01)
    real = [call for calls in resolver._calls.values() for call in calls]
    assert real
    hanging.go.set()
    assert lookup("another.example", 80, 10) == FOUND


def test_what_the_resolver_refuses_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(socket.gaierror, match="unknown"):
        lookup(HOST, 80, 10)


def test_a_call_that_could_not_begin_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no thread left for a moment; the name resolves when there is one again."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", refuse)
        for _ in range(CALLS):
            with pytest.raises(OSError, match="new thread") as caught:
                lookup("127.0.0.1", 80, 0.1)
            assert is_shortage(caught.value)
    assert lookup("127.0.0.1", 80, 10)[0][4] == ("127.0.0.1", 80)


async def test_on_the_event_loop_it_takes_no_thread_of_local_work(hanging: Hanging) -> None:
    trio.socket.set_custom_hostname_resolver(TrioResolver(0.05))
    with pytest.raises(TimeoutError, match="does not resolve within"):
        await trio.socket.getaddrinfo(HOST, 80, type=socket.SOCK_STREAM)
    limiter = trio.to_thread.current_default_thread_limiter()
    assert limiter.borrowed_tokens == 0
    trio.socket.set_custom_hostname_resolver(TrioResolver(10))
    hanging.go.set()
    assert await trio.socket.getaddrinfo(HOST, 80, type=socket.SOCK_STREAM) == FOUND
