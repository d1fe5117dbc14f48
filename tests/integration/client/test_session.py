"""Sessions: an engine in a thread, its end, and what its callers hear of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from axonfs.client import sessions
from axonfs.client.session import ClosedError, Session
from axonfs.errors import AxonError, BusyError
from axonfs.names import parse_spec
from axonfs.ranges import Range
from axonfs.settings.settings import Settings
from tests.support.registry import SPEC, RegistryServer, published


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(cache=tmp_path / "cache")
    sessions.close_all()


@pytest.fixture
def session(settings: Settings) -> Iterator[Session]:
    made = Session(settings, owner=True)
    yield made
    made.close()


async def wait_for_ever(began: threading.Event) -> None:
    began.set()
    await trio.sleep_forever()


def waiting(session: Session) -> tuple[threading.Thread, list[BaseException]]:
    """A thread that waits for work without an end, and the error that it gets."""
    began, errors = threading.Event(), list[BaseException]()

    def call() -> None:
        try:
            session.call(lambda: wait_for_ever(began))
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    assert began.wait(30)
    return thread, errors


def test_work_is_done_in_the_session_s_thread(session: Session) -> None:
    async def work() -> tuple[str, bool]:
        await trio.lowlevel.checkpoint()
        return threading.current_thread().name, session.engine.store.writable

    assert session.call(work) == ("axonfs", True)


def test_errors_of_work_are_its_caller_s(session: Session) -> None:
    async def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        session.call(fail)
    with pytest.raises(TypeError):
        session.call(lambda: None)  # type: ignore[arg-type,return-value]
    assert session.alive


def test_closing_ends_the_work_that_waits(session: Session) -> None:
    thread, errors = waiting(session)
    session.close()
    thread.join(30)
    assert isinstance(errors[0], ClosedError)
    assert not session.alive
    assert not session.lease()
    with pytest.raises(ClosedError):
        session.call(trio.lowlevel.checkpoint)
    session.close()
    session.post(lambda: None)


def test_work_under_way_keeps_a_session_that_has_no_user(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a read has in one thread while another one closes the file."""
    monkeypatch.setattr("axonfs.client.session.LINGER", 0.05)
    made = Session(settings, owner=True, shared=True)
    made.lease()
    thread, _ = waiting(made)
    made.give_back()
    time.sleep(0.5)
    assert made.alive
    made.close()
    thread.join(30)


def test_an_engine_that_fails_is_logged_and_replaced(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    session = sessions.lease(settings, writes=True)
    thread, errors = waiting(session)

    async def bug() -> None:
        raise ZeroDivisionError

    session.post(lambda: session.engine.nursery.start_soon(bug))
    thread.join(30)
    assert isinstance(errors[0], ClosedError)
    session.close()
    (record,) = (item for item in caplog.records if item.levelname == "ERROR")
    assert record.getMessage() == "the engine of this process failed"
    assert record.exc_info
    with sessions.leased(settings, writes=True) as another:
        assert another is not session
        assert another.alive


def test_a_session_that_cannot_open_says_why(session: Session, settings: Settings) -> None:
    with pytest.raises(BusyError):
        Session(settings, owner=True)
    session.close()
    with pytest.raises(AxonError, match="the cache directory cannot be used"):
        Session(Settings(cache=Path("/proc/none")), owner=True)


def test_what_does_not_own_the_cache_fetches_nothing(tmp_path: Path) -> None:
    """Such a session keeps no state of chunks, so a read would wait for them without an end."""
    with RegistryServer(published(tmp_path)) as registry:
        settings = Settings(cache=tmp_path / "cache", registries=(registry.url,))
        with closing(Session(settings, owner=True)) as owner:
            assert list(owner.events({"op": "pin", "specs": [SPEC]}))
        with closing(Session(settings, owner=False)) as beside:

            async def read() -> None:
                engine = beside.engine
                version = await engine.tree.version(parse_spec(SPEC))
                entry = version.manifest.file("config.json")
                assert entry is not None
                with closing(await engine.fetcher.open(version, entry)) as feed:
                    feed.want(Range(0, 1))
                    with trio.fail_after(10):
                        await feed.need(Range(0, 1))

            with pytest.raises(BusyError, match="another process owns the cache"):
                beside.call(read)


def test_sessions_are_shared_by_those_who_agree(settings: Settings) -> None:
    one = sessions.lease(settings, writes=True)
    two = sessions.lease(settings, writes=False)
    assert one is two
    assert one.leases == 2
    with pytest.raises(BusyError, match="with other settings"):
        sessions.lease(Settings(cache=settings.cache, offline=True), writes=False)
    one.give_back()
    two.give_back()
    with sessions.leased(Settings(cache=settings.cache, offline=True), writes=False) as three:
        assert three is not one
        assert not one.alive


def test_a_temporary_cache_goes_with_its_session(settings: Settings) -> None:
    session = sessions.lease(settings, writes=False, temporary=True)
    directory = session.settings.cache
    assert (directory / "index.lmdb").exists()
    assert directory != settings.cache
    session.give_back()
    sessions.close_all()
    assert not directory.exists()
