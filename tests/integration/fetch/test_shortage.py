"""A process without a free descriptor: what waits, what is tried again, and who is not blamed."""

from __future__ import annotations

import errno
import http.client
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from axonfs import descriptors
from axonfs.daemon import control
from axonfs.errors import AxonError, ShortageError
from axonfs.fetch import hashing
from axonfs.fetch.transfer import Transfer
from axonfs.names import parse_spec
from axonfs.rundir import SOCKET, listen, prepare, reachable
from tests.support.fetching import rig, without_tables
from tests.support.registry import SPEC, RegistryServer, published


@contextmanager
def exhausted() -> Iterator[None]:
    """No descriptor is left to this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(0))
        yield


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was said of a shortage yet."""
    monkeypatch.setattr(descriptors, "_warned", float("-inf"))
    caplog.set_level(logging.INFO)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def echo(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request


async def test_a_command_waits_until_the_mount_can_accept_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(tmp_path)
    command = trio.socket.socket(socket.AF_UNIX)
    with listen(tmp_path) as listening, command:
        async with trio.open_nursery() as nursery:
            await nursery.start(control.serve, listening, echo, control.UnderWay())
            with reachable(tmp_path / SOCKET) as address, exhausted():
                await command.connect(address)
                await command.send(b'{"op": "status"}\n')
                with trio.move_on_after(3 * descriptors.PAUSE) as waiting:
                    await command.recv(100)
                assert waiting.cancelled_caught
            assert await command.recv(100) == b'{"op": "status"}\n'
            nursery.cancel_scope.cancel()
    (said,) = complaints(caplog)
    assert "Too many open files" in said
    assert "ulimit -n" in said


def test_a_registry_waits_until_it_can_accept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RegistryServer(published(tmp_path)) as server:
        port = int(server.url.rpartition(":")[2])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.sock = socket.socket()
        with exhausted():
            client.sock.connect(("127.0.0.1", port))
            client.request("GET", "/api/v1/index.json")
            client.sock.settimeout(3 * descriptors.PAUSE)
            with pytest.raises(TimeoutError):
                client.sock.recv(1)
        client.sock.settimeout(20)
        assert client.getresponse().status == 200
        client.close()
    assert len(complaints(caplog)) == 1


def test_a_registry_that_cannot_open_a_file_does_not_say_that_it_is_not_there(
    tmp_path: Path,
) -> None:
    with RegistryServer(published(tmp_path)) as server:
        port = int(server.url.rpartition(":")[2])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.request("GET", "/")
        client.getresponse().read()
        with exhausted():
            client.request("GET", "/api/v1/index.json")
            answer = client.getresponse()
            answer.read()
        assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
        client.close()


async def test_a_source_is_not_blamed_for_a_socket_that_could_not_be_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RegistryServer(published(tmp_path)) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            with exhausted(), pytest.raises(ShortageError):
                await parts.tree.version(parse_spec(SPEC))
            async with trio.open_nursery() as reading:
                feed = await parts.open()
                with exhausted():
                    reading.start_soon(parts.read, feed)
                    await trio.sleep(0.3)
            feed.close()
            assert parts.tree.outages.errors == []
            assert parts.store.health.fault is None
    (said,) = complaints(caplog)
    assert os.strerror(errno.EMFILE) in said


async def test_a_thread_that_could_not_be_started_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker goes on: the limit of its control group may be for all of a container."""
    monkeypatch.setattr(hashing, "SMALLEST", 0)
    run_sync, refused = trio.to_thread.run_sync, list[str]()

    async def first_refused(call: Any, *args: Any, **options: Any) -> Any:
        name = getattr(call, "func", call).__qualname__
        if name in ("Transfer.run", "Hashing._advance") and name not in refused:
            refused.append(name)
            raise RuntimeError(descriptors.NO_THREAD)
        return await run_sync(call, *args, **options)

    registry = published(tmp_path)
    without_tables(registry)
    with RegistryServer(registry) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            with closing(await parts.open()) as feed:
                monkeypatch.setattr(trio.to_thread, "run_sync", first_refused)
                await parts.read(feed)
                assert feed.object.verified
    assert refused == ["Transfer.run", "Hashing._advance"]
    assert "no further thread could be started" in complaints(caplog)[0]


async def test_a_reader_that_waited_in_vain_learns_what_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(transfer: Transfer) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(Transfer, "run", short)
    with RegistryServer(published(tmp_path)) as server:
        async with rig(tmp_path / "cache", server.url) as parts:
            told = pytest.raises(AxonError, match=r"no progress for 1 s.*free some memory")
            with closing(await parts.open()) as feed, told:
                await parts.read(feed)
