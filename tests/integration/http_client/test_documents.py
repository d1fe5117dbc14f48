"""Documents against an origin that lies, stalls and hangs up. Waits pass on a clock that jumps."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    DeadlineError,
    MalformedError,
    NotFoundError,
    UnavailableError,
)
from axonfs.http_client import Documents, Limits, Routes
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.files import write_files

DATA = random.Random(7).randbytes(300_000)
LIMIT = 400_000


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(write_files(tmp_path / "www", {"doc": DATA})) as origin:
        yield origin


@pytest.fixture
def clock() -> MockClock:
    # The origin answers in real time, in microseconds; a clock that jumped at once would not
    # wait for it. After this much real silence only time can bring something new.
    return MockClock(autojump_threshold=0.15)


def documents(limits: Limits | None = None) -> Documents:
    return Documents(limits, routes=Routes({}), draw=lambda: 1.0)


async def body_of(client: Documents, url: str, **kwargs: str) -> bytes:
    fetched = await client.get(url, limit=LIMIT, **kwargs)  # type: ignore[arg-type]
    assert fetched is not None
    return fetched.body


async def test_a_document_and_its_validator(origin: FaultyOrigin) -> None:
    async with documents() as client:
        fetched = await client.get(origin.url + "doc", limit=LIMIT)
        assert fetched is not None
        assert fetched.body == DATA
        assert fetched.final_url == origin.url + "doc"
        assert fetched.etag is not None
        assert await client.get(origin.url + "doc", limit=LIMIT, etag=fetched.etag) is None
        assert await client.get(origin.url + "doc", limit=LIMIT, etag='"old"') == fetched
    first = origin.requests[0].headers
    assert first["accept-encoding"] == "identity"
    assert first["user-agent"].startswith("axonfs/")
    assert {seen.connection for seen in origin.requests} == {1}


@pytest.mark.parametrize("fault", [faulty.chunked, faulty.without_length])
async def test_every_framing(origin: FaultyOrigin, fault: faulty.Fault) -> None:
    origin.plan(fault)
    async with documents() as client:
        assert await body_of(client, origin.url + "doc") == DATA


async def test_no_cookie_is_kept(origin: FaultyOrigin) -> None:
    def cookie(exchange: faulty.Exchange) -> None:
        exchange.headers["Set-Cookie"] = "id=1; Path=/"

    origin.always(cookie)
    async with documents() as client:
        for _ in range(2):
            await body_of(client, origin.url + "doc")
    assert "cookie" not in origin.requests[1].headers


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faulty.status(401), AccessDeniedError),
        (faulty.status(403), AccessDeniedError),
        (faulty.status(404), NotFoundError),
        (faulty.status(410), NotFoundError),
        (faulty.status(400), UnavailableError),
        (faulty.status(304), UnavailableError),
        (faulty.status(302), UnavailableError),
        (faulty.redirect("file:///etc/passwd"), UnavailableError),
        (faulty.coded("br"), UnavailableError),
        (faulty.endless, MalformedError),
    ],
)
async def test_a_final_answer_is_not_asked_for_again(
    origin: FaultyOrigin, fault: faulty.Fault, kind: type[AxonError]
) -> None:
    origin.plan(fault)
    async with documents() as client:
        with pytest.raises(AxonError) as caught:
            await body_of(client, f"{origin.url}doc?key=secret")
        assert type(caught.value) is kind
        assert not caught.value.transient
        assert f"(from {origin.url}doc?…)" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert len(origin.requests) == 1
        assert await body_of(client, origin.url + "doc") == DATA


async def test_a_document_that_says_it_is_too_large_is_not_read(origin: FaultyOrigin) -> None:
    async with documents() as client:
        with pytest.raises(MalformedError, match=r"larger than 1\.0 KiB"):
            await client.get(origin.url + "doc", limit=1000)
        exact = await client.get(origin.url + "doc", limit=len(DATA))
        assert exact is not None


async def test_a_refusal_leaves_the_connection_usable(origin: FaultyOrigin) -> None:
    origin.plan(faulty.status(404), faulty.redirect("/doc"), faulty.behave, faulty.endless)
    async with documents() as client:
        with pytest.raises(NotFoundError):
            await body_of(client, origin.url + "none")
        assert await body_of(client, origin.url + "doc") == DATA
    assert {seen.connection for seen in origin.requests} == {1}


async def test_an_endless_error_page_is_not_read(origin: FaultyOrigin) -> None:
    def fault(exchange: faulty.Exchange) -> None:
        exchange.status = 404
        faulty.endless(exchange)

    origin.plan(fault)
    async with documents() as client:
        with trio.fail_after(5), pytest.raises(NotFoundError):
            await body_of(client, origin.url + "doc")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://", "nothing"])
async def test_what_is_no_http_url_is_refused(url: str) -> None:
    async with documents() as client:
        with pytest.raises(UnavailableError, match="invalid URL"):
            await body_of(client, url)


PASSING = [
    faulty.status(204),
    faulty.status(206),
    faulty.status(408),
    faulty.status(429),
    faulty.status(500),
    faulty.status(502),
    faulty.status(503),
    faulty.short,
    faulty.reset_before,
    faulty.reset_within,
    faulty.hang_up_before,
    faulty.garbage,
    faulty.stall_before,
    faulty.stall_within,
]


@pytest.mark.parametrize("fault", PASSING)
async def test_what_passes_is_tried_again(
    origin: FaultyOrigin, clock: MockClock, fault: faulty.Fault
) -> None:
    origin.plan(fault)
    async with documents() as client:
        assert await body_of(client, origin.url + "doc") == DATA
    assert len(origin.requests) == 2


async def test_pauses_double_until_the_attempts_are_spent(
    origin: FaultyOrigin, clock: MockClock
) -> None:
    origin.always(faulty.status(500))
    limits = Limits(attempts=5, backoff_min=1, backoff_max=4)
    async with documents(limits) as client:
        started = trio.current_time()
        with pytest.raises(UnavailableError, match="answered 500") as caught:
            await body_of(client, origin.url + "doc")
        assert trio.current_time() - started == pytest.approx(1 + 2 + 4 + 4, abs=1)
    assert len(origin.requests) == 5
    assert caught.value.transient


async def test_retry_after_is_waited_for(origin: FaultyOrigin, clock: MockClock) -> None:
    origin.plan(faulty.status(429, Retry_After="20"), faulty.status(503, Retry_After="20"))
    async with documents() as client:
        started = trio.current_time()
        assert await body_of(client, origin.url + "doc") == DATA
        assert trio.current_time() - started >= 40


async def test_a_pause_is_of_all_that_ask_an_origin(origin: FaultyOrigin, clock: MockClock) -> None:
    async with documents() as client:
        origin.plan(faulty.status(503, Retry_After="20"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body_of, client, origin.url + "doc")
            await trio.sleep(1)
            started = trio.current_time()
            assert await body_of(client, origin.url + "doc") == DATA
            assert trio.current_time() - started >= 18


async def test_a_retry_beyond_the_deadline_is_not_waited_for(
    origin: FaultyOrigin, clock: MockClock
) -> None:
    origin.always(faulty.status(503, Retry_After="3600"))
    async with documents() as client:
        started = trio.current_time()
        with pytest.raises(UnavailableError) as caught:
            await body_of(client, origin.url + "doc")
        assert trio.current_time() - started < 1
    assert caught.value.retry_after == 60
    assert len(origin.requests) == 1


@pytest.mark.parametrize("fault", [faulty.stall_before, faulty.stall_within])
async def test_silence_ends_at_the_deadline(
    origin: FaultyOrigin, clock: MockClock, fault: faulty.Fault
) -> None:
    origin.always(fault)
    limits = Limits(first_byte=25, stall=25, deadline=60)
    async with documents(limits) as client:
        started = trio.current_time()
        with pytest.raises(
            DeadlineError, match="no progress for 60 s; the last attempt failed: received nothing"
        ):
            await body_of(client, origin.url + "doc")
        assert trio.current_time() - started == pytest.approx(60, abs=1)
    assert len(origin.requests) == 3


async def test_silence_is_a_deadline_for_those_who_waited_for_their_turn(
    origin: FaultyOrigin, clock: MockClock
) -> None:
    """Their last attempt ends too late for another one."""
    origin.always(faulty.stall_before)
    async with documents(Limits(first_byte=25, stall=25, deadline=60, attempts=1)) as client:
        with pytest.raises(DeadlineError, match="received nothing for 25 s"):
            await body_of(client, origin.url + "doc")


@pytest.mark.parametrize("fault", [faulty.drip(0.01), faulty.drip_headers(0.01)])
async def test_dripping_is_no_progress(origin: FaultyOrigin, fault: faulty.Fault) -> None:
    origin.always(fault)
    async with documents(Limits(deadline=0.5)) as client:
        with pytest.raises(DeadlineError):
            await body_of(client, origin.url + "doc")


async def test_a_refused_connection_is_retried_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with documents(Limits(attempts=2, backoff_min=0.01)) as client:
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}") as caught:
            await body_of(client, f"http://127.0.0.1:{port}/doc")
    assert caught.value.transient


async def test_a_name_that_does_not_resolve_is_named() -> None:
    async with documents(Limits(attempts=1)) as client:
        with pytest.raises(UnavailableError, match="does not resolve"):
            await body_of(client, "http://nowhere.invalid/doc")


async def test_many_askers_of_a_stalling_origin_leave_the_client_usable(
    origin: FaultyOrigin,
) -> None:
    """Cancelled while they wait for an answer or for a slot, they give both back."""
    origin.plan(*[faulty.stall_before] * 32)
    async with documents() as client:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(body_of, client, origin.url + "doc")
            with trio.fail_after(20):
                while len(origin.requests) < 32:  # noqa: ASYNC110 (the origin is a thread)
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert len(origin.requests) == 32
        with trio.fail_after(5):
            assert await body_of(client, origin.url + "doc") == DATA


async def test_a_redirect_loop_ends(origin: FaultyOrigin) -> None:
    origin.always(faulty.redirect("/doc"))
    async with documents() as client:
        with pytest.raises(UnavailableError, match="redirects"):
            await body_of(client, origin.url + "doc")
    assert len(origin.requests) == 6


async def test_credentials_do_not_cross_origins(origin: FaultyOrigin, tmp_path: Path) -> None:
    with FaultyOrigin(tmp_path / "www") as other:
        origin.plan(faulty.redirect("/here"), faulty.redirect(other.url + "there"))
        other.plan(faulty.redirect(origin.url + "doc"))
        async with documents() as client:
            fetched = await client.get(
                origin.url + "start", limit=LIMIT, headers={"Authorization": "Bearer secret"}
            )
        assert fetched is not None
        assert fetched.final_url == origin.url + "doc"
        sent = ["authorization" in seen.headers for seen in origin.requests]
        assert sent == [True, True, False]
        assert ["authorization" in seen.headers for seen in other.requests] == [False]


async def test_every_attempt_has_the_credentials(origin: FaultyOrigin) -> None:
    origin.plan(faulty.status(500), faulty.redirect("/doc"))
    async with documents(Limits(backoff_min=0.01)) as client:
        url = origin.url.replace("//", "//me:pw@") + "start"
        assert await body_of(client, url) == DATA
    sent = [seen.headers.get("authorization") for seen in origin.requests]
    assert sent == ["Basic bWU6cHc="] * 3
