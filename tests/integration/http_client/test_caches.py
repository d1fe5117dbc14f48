"""Documents through site caches, of which some lie, stall, refuse and come back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from axonfs.errors import (
    AccessDeniedError,
    CorruptError,
    MalformedError,
    NotFoundError,
    UnavailableError,
)
from axonfs.http_client import (
    Caches,
    Documents,
    Limits,
    Routes,
    SiteCaches,
)
from axonfs.http_client.caches import FIRST_PAUSE
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.files import write_files

DATA = random.Random(7).randbytes(300_000)
LIMIT = 400_000
TOKEN = {"Authorization": "Bearer s3cret"}


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.15)


class Site:
    """A source and its caches, which are servers of the same files below /m/."""

    def __init__(self, source: FaultyOrigin, servers: list[FaultyOrigin], **options: bool) -> None:
        self.source, self.servers = source, servers
        self.url = source.url + "reg/doc"
        self.caches = SiteCaches(source.url + "reg", [f"{one.url}m" for one in servers], **options)
        self.by_cache = {
            cache: server
            for cache in self.caches
            for server in servers
            if str(cache.url).startswith(server.url)
        }

    @property
    def ordered(self) -> list[FaultyOrigin]:
        """The servers in the order of the document."""
        return [self.by_cache[cache] for cache in self.caches.order(self.url)]

    def documents(self) -> Documents:
        caches = Caches([self.caches])
        return Documents(Limits(), routes=Routes({}), caches=caches, draw=lambda: 0.1)

    async def body(self, client: Documents, **options: object) -> bytes:
        fetched = await client.get(self.url, limit=LIMIT, headers=TOKEN, **options)  # type: ignore[arg-type]
        assert fetched is not None
        assert fetched.final_url == self.url
        return fetched.body


Make = Callable[..., Site]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(count: int = 3, **options: bool) -> Site:
            files = write_files(tmp_path / "www", {"m/doc": DATA, "reg/doc": DATA})
            servers = [stack.enter_context(FaultyOrigin(files)) for _ in range(count + 1)]
            return Site(servers[0], servers[1:], **options)

        yield make


def counts(servers: list[FaultyOrigin]) -> list[int]:
    return [len(server.requests) for server in servers]


async def test_a_document_comes_from_the_first_cache_with_its_validator_and_the_token(
    make: Make,
) -> None:
    site = make()
    async with site.documents() as client:
        fetched = await client.get(site.url, limit=LIMIT, headers=TOKEN)
        assert fetched is not None
        assert (fetched.body, fetched.final_url) == (DATA, site.url)
        assert await client.get(site.url, limit=LIMIT, etag=fetched.etag) is None
    assert counts([*site.ordered, site.source]) == [2, 0, 0, 0]
    (first, _) = site.ordered[0].requests
    assert (first.path, first.headers["authorization"]) == ("/m/doc", "Bearer s3cret")
    assert first.headers["host"] == site.ordered[0].url.split("/")[2]
    state = site.caches.order(site.url)[0].state
    assert (state.requests, state.bytes, state.fault) == (2, len(DATA), None)


@pytest.mark.parametrize(
    "fault",
    [faulty.status(503), faulty.reset_before, faulty.hang_up_before, faulty.garbage, faulty.short,
     faulty.reset_within, faulty.endless, faulty.redirect("ftp://x/")],
)  # fmt: skip
async def test_the_next_cache_is_asked_at_once_where_one_fails(
    make: Make, fault: faulty.Fault
) -> None:
    site = make()
    site.ordered[0].always(fault)
    async with site.documents() as client:
        began = trio.current_time()
        assert await site.body(client) == DATA
        assert trio.current_time() - began < FIRST_PAUSE
        assert await site.body(client) == DATA, "the cache is set aside, so it is not asked"
    assert counts([*site.ordered, site.source]) == [1, 2, 0, 0]


async def test_a_cache_that_is_back_is_used_again(make: Make) -> None:
    site = make()
    first, second, _ = site.ordered
    first.plan(faulty.status(503))
    async with site.documents() as client:
        assert await site.body(client) == DATA
        site.caches.order(site.url)[0]._again = 0.0  # its pause is over
        assert await site.body(client) == DATA
    assert counts([first, second]) == [2, 1]
    assert site.caches.order(site.url)[0].state.fault is None


async def test_a_cache_that_stalls_is_passed_over_and_delays_no_one_again(
    make: Make, clock: MockClock
) -> None:
    site = make()
    site.ordered[0].always(faulty.stall_before)
    async with site.documents() as client:
        began = trio.current_time()
        assert await site.body(client) == DATA
        assert 2.5 < trio.current_time() - began < 4
        site.caches.order(site.url)[0]._again = 0.0
        began = trio.current_time()
        assert await site.body(client) == DATA, "tried again beside the next one"
        assert trio.current_time() - began < 1
    assert counts([*site.ordered, site.source]) == [2, 2, 0, 0]
    assert "did not answer for 3 s" in str(site.caches.order(site.url)[0].state.fault)


async def test_a_document_that_the_source_cannot_have_sent_counts_against_the_cache(
    make: Make,
) -> None:
    site = make()
    site.ordered[0].always(faulty.flip)

    async with site.documents() as client:
        assert await site.body(client, check=is_data) == DATA
    assert counts([*site.ordered, site.source]) == [1, 1, 0, 0]
    assert site.caches.order(site.url)[0].state.fault == "it does not match its digest"


def is_data(body: bytes) -> None:
    if body != DATA:
        raise CorruptError("it does not match its digest")


def garbled(exchange: faulty.Exchange) -> None:
    exchange.body = bytes(len(exchange.body))


async def test_a_url_with_a_digest_says_what_a_cache_may_send(tmp_path: Path) -> None:
    path = f"v2/nlp/tiny/manifests/sha256:{hashlib.sha256(DATA).hexdigest()}"
    files = write_files(tmp_path / "www", {path: DATA})
    with FaultyOrigin(files) as one, FaultyOrigin(files) as other:
        site = SiteCaches("http://r.example/", [one.url, other.url], fallback=False)
        first = site.order(f"http://r.example/{path}")[0]
        for server in (one, other):
            server.always(garbled if str(first.url) in server.url else None)
        async with Documents(routes=Routes({}), caches=Caches([site])) as client:
            fetched = await client.get(f"http://r.example/{path}", limit=LIMIT)
    assert fetched is not None
    assert fetched.body == DATA
    assert "do not match the digest in its URL" in str(first.state.fault)


async def test_a_document_that_two_send_alike_is_the_sources_fault_and_no_caches(
    make: Make,
) -> None:
    """A registry with one malformed manifest costs it none of its caches."""
    site = make()
    for server in (*site.servers, site.source):
        server.always(garbled)
    async with site.documents() as client:
        with pytest.raises(CorruptError) as caught:
            await site.body(client, check=is_data)
    assert caught.value.source == site.url
    assert counts([*site.ordered, site.source]) == [1, 1, 0, 0]
    assert [state.fault for state in site.caches.states()] == [None] * 3


async def test_a_document_that_is_too_large_everywhere_is_no_fault_of_the_caches(
    make: Make,
) -> None:
    site = make()
    async with site.documents() as client:
        with pytest.raises(MalformedError, match="larger than") as caught:
            await client.get(site.url, limit=1000, headers=TOKEN)
    assert caught.value.source == site.url
    assert counts([*site.ordered, site.source]) == [1, 1, 0, 0]
    assert [state.fault for state in site.caches.states()] == [None] * 3


async def test_the_source_confirms_what_its_only_cache_sends(make: Make) -> None:
    site = make(1)
    for server in (*site.servers, site.source):
        server.always(garbled)
    async with site.documents() as client:
        assert await site.body(client, check=is_data) == bytes(len(DATA)), "the caller checks it"
    assert [state.fault for state in site.caches.states()] == [None]


async def test_the_only_cache_is_named_where_it_sends_what_is_wrong(
    make: Make, clock: MockClock
) -> None:
    site = make(1, fallback=False)
    site.servers[0].always(garbled)
    async with site.documents() as client:
        with pytest.raises(CorruptError) as caught:
            await site.body(client, check=is_data)
    assert caught.value.source == f"{site.servers[0].url}m"


@pytest.mark.parametrize("status", [502, 504])
async def test_a_gateway_whose_source_does_not_answer_is_well_itself(
    make: Make, clock: MockClock, status: int
) -> None:
    """It has other things of the source, and is asked for them."""
    site = make(fallback=False)
    for server in site.servers:
        server.always(faulty.status(status))
    async with site.documents() as client:
        with pytest.raises(UnavailableError, match=f"the server answered {status}"):
            await site.body(client)
    assert [state.fault for state in site.caches.states()] == [None] * 3


async def test_a_fault_of_the_source_is_not_asked_for_at_every_cache(make: Make) -> None:
    site = make(6)
    for server in site.servers:
        server.always(faulty.status(502))
    async with site.documents() as client:
        assert await site.body(client) == DATA
    assert counts([*site.ordered, site.source]) == [1, 1, 1, 0, 0, 0, 1]


async def test_what_the_source_answers_as_well_is_no_fault_of_the_caches(
    make: Make, clock: MockClock
) -> None:
    site = make()
    for server in (*site.servers, site.source):
        server.always(faulty.status(500))
    async with site.documents() as client:
        with pytest.raises(UnavailableError, match="the server answered 500"):
            await site.body(client)
    assert [state.fault for state in site.caches.states()] == [None] * 3


async def test_the_source_is_asked_when_all_caches_fail(make: Make) -> None:
    site = make()
    for server in site.servers:
        server.always(faulty.status(500))
    async with site.documents() as client:
        assert await site.body(client) == DATA
    assert counts([*site.ordered, site.source]) == [1, 1, 1, 1]


async def test_with_fallback_never_the_source_is_not_asked(make: Make, clock: MockClock) -> None:
    site = make(fallback=False)
    for server in site.servers:
        server.always(faulty.status(500))
    async with site.documents() as client:
        with pytest.raises(UnavailableError) as caught:
            await site.body(client)
    said = str(caught.value)
    assert f"no site cache of {site.source.url}reg answers" in said
    assert f"{site.servers[0].url}m: the server answered 500" in said
    assert "s3cret" not in said
    assert site.source.requests == []


async def test_a_reader_waits_once_for_caches_that_are_all_down(
    make: Make, clock: MockClock
) -> None:
    site = make(fallback=False)
    for server in site.servers:
        server.always(faulty.status(502))
    async with site.documents() as client:
        with pytest.raises(UnavailableError):
            await site.body(client)
        before = counts(site.ordered)
        with pytest.raises(UnavailableError):
            await site.body(client)
        assert counts(site.ordered) == [count + 1 for count in before], "no retry"
        for server in site.servers:
            server.always(None)
        assert await site.body(client) == DATA


async def test_a_missing_document_is_missing_when_two_say_so(make: Make) -> None:
    site = make()
    site.ordered[0].always(faulty.status(404))
    async with site.documents() as client:
        assert await site.body(client) == DATA, "the next cache has it"
        site.ordered[1].always(faulty.status(404))
        with pytest.raises(NotFoundError):
            await site.body(client)
    assert counts([*site.ordered, site.source]) == [2, 2, 0, 0]
    assert site.caches.choose(site.url) is site.caches.order(site.url)[0]


async def test_the_source_decides_where_the_only_cache_lacks_a_document(make: Make) -> None:
    site = make(1)
    site.servers[0].always(faulty.status(404))
    async with site.documents() as client:
        assert await site.body(client) == DATA


@pytest.mark.parametrize(("status", "kind"), [(401, AccessDeniedError), (403, AccessDeniedError)])
async def test_a_refusal_that_a_cache_passes_on_is_the_answer(
    make: Make, status: int, kind: type[Exception]
) -> None:
    site = make()
    site.ordered[0].always(faulty.status(status))
    async with site.documents() as client:
        with pytest.raises(kind):
            await site.body(client)
    assert counts([*site.ordered, site.source]) == [1, 0, 0, 0]


async def test_a_cache_that_passes_on_429_is_asked_again_after_the_pause(
    make: Make, clock: MockClock
) -> None:
    site = make()
    site.ordered[0].plan(faulty.status(429, **{"Retry-After": "7"}))
    async with site.documents() as client:
        began = trio.current_time()
        assert await site.body(client) == DATA
        assert trio.current_time() - began >= 7
    assert counts([*site.ordered, site.source]) == [2, 0, 0, 0]


async def test_a_redirect_to_the_source_stays_with_the_cache_and_one_elsewhere_gets_no_token(
    make: Make,
) -> None:
    site = make(1)
    (server,) = site.servers
    server.plan(faulty.redirect(f"{site.source.url}reg/doc"))
    elsewhere = site.source.url.replace("127.0.0.1", "localhost")
    async with site.documents() as client:
        assert await site.body(client) == DATA
        assert counts([server, site.source]) == [2, 0]
        assert server.requests[1].headers["authorization"] == "Bearer s3cret"
        server.plan(faulty.redirect(f"{elsewhere}m/doc"))
        fetched = await client.get(site.url, limit=LIMIT, headers=TOKEN)
        assert fetched is not None
    (seen,) = site.source.requests
    assert "authorization" not in seen.headers
    assert fetched.final_url == f"{elsewhere}m/doc"


async def test_a_redirect_away_is_not_followed_with_fallback_never(make: Make) -> None:
    site = make(1, fallback=False)
    site.servers[0].always(faulty.redirect(site.source.url + "m/doc"))
    async with site.documents() as client:
        with pytest.raises(UnavailableError, match="which it should follow itself"):
            await site.body(client)
    assert site.source.requests == []
