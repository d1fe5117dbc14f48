"""Scrapes while the disk of the cache or the resolver hangs, and at the end of the mount."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from axonfs.observe import observer
from axonfs.observe.listener import Listener
from axonfs.observe.observer import Observer
from tests.support.scraping import free_port

STATE: dict[str, Any] = {"version": "1", "mountpoint": "/models", "handles": 3}


def names(found: Observer) -> set[str]:
    return {one.name for one in found.gather()}


def observing(
    nursery: trio.Nursery, pins: Callable[[], Mapping[str, int]], meters: int
) -> Observer:
    return Observer(nursery, lambda: STATE, pins, Path("/"), meters, failed=False)


async def test_a_disk_that_hangs_holds_up_one_scrape(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "PATIENCE", 0.1)
    hangs = threading.Event()

    def pins() -> Mapping[str, int]:
        hangs.wait(20)
        return {"complete": 1}

    found = observing(nursery, pins, -1)
    with found.watching(None, first=True):
        nursery.start_soon(trio.to_thread.run_sync, found.gather)
        await trio.sleep(0.05)
        second = await trio.to_thread.run_sync(names, found)
        assert "axonfs_open_handles" in second
        assert "axonfs_pins" not in second
    hangs.set()


async def test_after_its_end_nothing_uses_the_store(nursery: trio.Nursery) -> None:
    meters, used = os.memfd_create("meters"), []

    def pins() -> Mapping[str, int]:
        used.append(1)
        return {"complete": 1}

    found = observing(nursery, pins, meters)
    with found.watching(None, first=True):
        assert "axonfs_pins" in await trio.to_thread.run_sync(names, found)
    assert await trio.to_thread.run_sync(names, found) == {
        "axonfs_answering",
        "axonfs_event_loop_silent_seconds",
    }
    assert len(used) == 1
    os.close(meters)
    nursery.cancel_scope.cancel()


class Resolver:
    """In the place of the system's; it answers once `answers` is set."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()
        self._look_up = socket.getaddrinfo

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.asked.set()
        assert self.answers.wait(20)
        return self._look_up(*args, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answers.set()


async def test_the_end_does_not_wait_for_the_name_of_the_address(resolver: Resolver) -> None:
    """Readers of a mount that is restarted would wait for it, too."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            found = observing(nursery, dict, -1)
            with found.watching(f"localhost:{free_port()}", first=False):
                await trio.to_thread.run_sync(resolver.asked.wait, 20)
            nursery.cancel_scope.cancel()


async def test_an_address_that_is_found_late_is_not_served(
    nursery: trio.Nursery, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting has no address by then."""
    closed, close = threading.Event(), Listener.close

    def closing(listener: Listener) -> None:
        close(listener)
        closed.set()

    monkeypatch.setattr(Listener, "close", closing)
    port = free_port()
    found = observing(nursery, dict, -1)
    with found.watching(f"localhost:{port}", first=False):
        await trio.to_thread.run_sync(resolver.asked.wait, 20)
        found.serve_at(None)
        resolver.answers.set()
        assert await trio.to_thread.run_sync(closed.wait, 20)
        assert found.report() == {"address": None, "url": None, "fault": None}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port))
    nursery.cancel_scope.cancel()


async def test_a_bug_in_metrics_ends_no_mount(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observer, "SAVE_SECONDS", 0.01)
    monkeypatch.setattr(Observer, "_watched", True)

    def pins() -> Mapping[str, int]:
        raise RuntimeError("a bug of the test")

    with observing(nursery, pins, -1).watching(None, first=True):
        await trio.sleep(0.2)
    assert "a bug in metrics; please report it" in caplog.messages
    nursery.cancel_scope.cancel()
