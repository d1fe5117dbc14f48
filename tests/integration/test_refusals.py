"""What the system refuses is no bug: it is reported, and nothing ends because of it."""

from __future__ import annotations

import errno
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from axonfs.ahead.load import Load
from axonfs.engine import open_engine
from axonfs.errors import (
    AxonError,
    NoSpaceError,
    NotFoundError,
    ShortageError,
    fault_of,
    refused,
)
from axonfs.names import parse_spec
from axonfs.service import Service
from axonfs.service.service import OPERATIONS
from axonfs.settings.settings import Settings
from axonfs.store.index import Index
from tests.support.registry import SPEC, RegistryServer, published

REFUSED = [errno.ENOMEM, errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS]
REQUESTS: dict[str, dict[str, Any]] = {
    "info": {"spec": SPEC},
    "versions": {"model": "nlp/tiny"},
    "search": {"query": "tiny"},
    "pin": {"specs": [SPEC]},
    "unpin": {"specs": [SPEC]},
    "verify": {"specs": [SPEC]},
    "lock": {"specs": [SPEC]},
    "pin_lock": {"lock": ""},
}


@pytest.mark.parametrize("number", REFUSED)
@pytest.mark.parametrize("refusing", ["statvfs", "index"])
async def test_no_command_calls_it_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refusing: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with RegistryServer(published(tmp_path)) as server:
        settings = Settings((server.url,), tmp_path / "cache", deadline=2)
        async with open_engine(settings) as engine:
            service = Service(engine)
            await engine.tree.version(parse_spec(SPEC))
            with monkeypatch.context() as patch:
                if refusing == "statvfs":
                    patch.setattr(os, "statvfs", refuse)
                else:
                    patch.setattr(Index, "view", refuse)
                    patch.setattr(Index, "get", refuse)
                for operation in OPERATIONS:
                    request = {"op": operation, **REQUESTS.get(operation, {})}
                    async with aclosing(service.handle(request)) as events:
                        last = [event async for event in events][-1]
                    assert "bug" not in str(last.get("message")), (operation, last)


@pytest.mark.parametrize("number", REFUSED)
async def test_a_load_ends_and_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    caplog.set_level("INFO")

    async def no_room(load: Load) -> int:
        raise OSError(number, os.strerror(number))

    with RegistryServer(published(tmp_path)) as server:
        async with open_engine(Settings((server.url,), tmp_path / "cache")) as engine:
            version = await engine.tree.version(parse_spec(SPEC))
            load = Load(
                version, engine.fetcher, everything=True, width=2, room=no_room, before=None
            )
            load.foresee("config.json")
            await load.run()
            assert load.state == "failed"
            monkeypatch.setattr(os, "statvfs", lambda _: (_ for _ in ()).throw(OSError(number, "")))
            assert await engine.evictor.room(set()) == 0
    assert os.strerror(number) in caplog.text
    assert "bug" not in caplog.text


async def test_a_disk_that_refuses_the_index_ends_no_background_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with RegistryServer(published(tmp_path)) as server:
        async with open_engine(
            Settings((server.url,), tmp_path / "cache", scrub=1 << 20)
        ) as engine:
            with monkeypatch.context() as patch:
                patch.setattr(Index, "view", refuse)
                patch.setattr(Index, "get", refuse)
                with trio.move_on_after(0.1):
                    await engine.scrub.run(lambda: 0)
                engine.tree.request_catalog()
                assert len((await engine.tree.catalog()).listings) == 1
                assert (await engine.tree.version(parse_spec(SPEC))).spec == parse_spec(SPEC)
                engine.evictor.landed()
            assert len((await engine.tree.catalog()).listings) == 1


def test_what_the_system_refused_is_found_in_groups() -> None:
    inner = OSError(errno.EIO, "Input/output error", "/cache/x")
    known = fault_of(ExceptionGroup("", [ValueError("a bug"), ExceptionGroup("", [inner])]))
    assert known is not None
    assert "/cache/x" in str(known)
    assert fault_of(ValueError("a bug")) is None
    assert fault_of(KeyboardInterrupt()) is None
    assert isinstance(fault_of(NotFoundError("x")), NotFoundError)
    assert isinstance(fault_of(MemoryError()), ShortageError)
    kinds = {number: type(refused(OSError(number, os.strerror(number)))) for number in REFUSED}
    assert kinds[errno.ENOSPC] is NoSpaceError
    assert kinds[errno.ENOMEM] is kinds[errno.EMFILE] is ShortageError
    assert kinds[errno.EIO] is kinds[errno.EROFS] is AxonError
