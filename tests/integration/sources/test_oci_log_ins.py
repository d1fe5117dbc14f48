"""Log-ins to OCI registries: tokens, their end, and who gets a password."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from axonfs.errors import (
    AccessDeniedError,
    DeadlineError,
    MalformedError,
    UnavailableError,
)
from axonfs.http_client import Answer, Location
from axonfs.oci import OciSigner, tokens
from axonfs.oci.credentials import Credentials
from tests.support.dockerregistry import sha256
from tests.support.faulty import Exchange, Fault, drip, drip_headers, status
from tests.support.ocireader import (
    BODY,
    REPOSITORY,
    Opened,
    log_in,
    model,
    url_of,
)
from tests.support.tinyoci import TinyOci, lay_out


async def test_a_token_is_requested_for_the_repository_and_used_until_it_expires(
    tiny: TinyOci, opened: Opened
) -> None:
    tiny.wants = "bearer"
    reader = opened(url_of(tiny))
    location = await reader.location()
    assert reader.read(location, 0, 50) == BODY[:50]
    asked = {"service": ["tiny"], "scope": [f"repository:{REPOSITORY}:pull"]}
    assert tiny.queries == [asked]
    tiny.token = "second"  # the first one is no longer accepted
    assert reader.read(location, 50, len(BODY)) == BODY[50:]
    assert tiny.queries == [asked, asked]


async def test_a_token_is_renewed_before_its_end(tiny: TinyOci, opened: Opened) -> None:
    tiny.wants, tiny.lifetime = "bearer", 0.001  # type: ignore[assignment]
    reader = opened(url_of(tiny))
    location = await reader.location()
    refused = len(tiny.origin.requests) - len(tiny.seen("/token"))
    reader.read(location, 0, 50)
    reader.read(location, 50, 60)
    requests = len(tiny.origin.requests) - len(tiny.seen("/token")) - refused
    assert requests == 2  # neither was refused first


@pytest.mark.parametrize(
    "lifetime",
    [10**400, math.nan, math.inf, -1, "soon"],
    ids=["huge", "nan", "inf", "past", "text"],
)
async def test_a_token_with_an_odd_lifetime_is_used(
    tiny: TinyOci, opened: Opened, lifetime: float
) -> None:
    tiny.wants, tiny.lifetime = "bearer", lifetime  # type: ignore[assignment]
    reader = opened(url_of(tiny))
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


async def test_readers_that_wait_for_a_token_fail_together(
    tiny: TinyOci, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "SETTLED", 0)
    tiny.wants = "bearer"
    reader = opened(url_of(tiny))
    location = await reader.location()
    tiny.token, asked, readers = "revoked", len(tiny.queries), 4

    def broken(exchange: Exchange, _: str) -> None:
        while len(tiny.seen("/blobs/")) < readers:
            time.sleep(0.01)
        status(503)(exchange)

    def read() -> None:
        with pytest.raises(UnavailableError, match="the server of tokens answered 503"):
            reader.read(location, 0, 50)

    monkeypatch.setattr(tiny, "_give_token", broken)
    with ThreadPoolExecutor(readers) as pool:
        reading = [pool.submit(read) for _ in range(readers)]
        for one in reading:
            one.result()
    assert len(tiny.queries) - asked == tokens.ATTEMPTS


async def test_tokens_for_two_repositories_are_requested_at_once(
    tiny: TinyOci, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path / "site", "other", "1.0", model())
    tiny.wants, give, both = "bearer", tiny._give_token, threading.Barrier(2)

    def together(exchange: Exchange, authorization: str) -> None:
        both.wait(10)
        give(exchange, authorization)

    monkeypatch.setattr(tiny, "_give_token", together)
    reader = opened(url_of(tiny))
    urls = [f"oci://{tiny.host}/v2/{name}/blobs/{sha256(BODY)}" for name in (REPOSITORY, "other")]
    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(reader.read, Location(url, signed=True), 0, 50) for url in urls]
        assert [one.result() for one in reading] == [BODY[:50]] * 2


@pytest.mark.parametrize("slow", [drip(0.01), drip_headers(0.01)], ids=["body", "headers"])
async def test_a_server_of_tokens_that_sends_single_bytes_holds_no_reader(
    tiny: TinyOci, opened: Opened, monkeypatch: pytest.MonkeyPatch, slow: Fault
) -> None:
    monkeypatch.setattr(tokens, "PATIENCE", 0.5)

    def answer(exchange: Exchange, _: str) -> None:
        status(200, Content_Length="1000")(exchange)
        exchange.body = bytes(1000)
        slow(exchange)

    monkeypatch.setattr(tiny, "_give_token", answer)
    tiny.wants = "bearer"
    with pytest.raises(DeadlineError, match=r"no whole answer within 1 s .*/token"):
        await opened(url_of(tiny)).location()


@pytest.mark.parametrize("wants", ["bearer", "basic"])
async def test_the_users_log_in_is_used(
    tiny: TinyOci, opened: Opened, docker: Path, wants: str
) -> None:
    log_in(docker, tiny.host)
    tiny.wants, tiny.open_to_all = wants, False
    reader = opened(url_of(tiny))
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


@pytest.mark.parametrize("wants", ["bearer", "basic"])
async def test_a_wrong_log_in_says_what_to_do(
    tiny: TinyOci, opened: Opened, docker: Path, wants: str
) -> None:
    tiny.wants, tiny.open_to_all = wants, False
    reader = opened(url_of(tiny))
    with pytest.raises(AccessDeniedError, match=rf"log in: docker login {tiny.host}"):
        await reader.location()
    log_in(docker, tiny.host, "wrong")
    with pytest.raises(AccessDeniedError, match=r"use an account that may .*: docker login"):
        await reader.location()
    log_in(docker, tiny.host)  # a mount goes on once the user has logged in again
    assert reader.read(await reader.location(), 0, 50) == BODY[:50]


async def test_blobs_may_be_behind_signed_urls_which_expire_and_get_no_token(
    tiny: TinyOci, opened: Opened, docker: Path
) -> None:
    log_in(docker, tiny.host)
    tiny.wants, tiny.signature = "bearer", "one"
    reader = opened(url_of(tiny))
    location = await reader.location()
    before = len(tiny.seen("/blobs/"))
    for start in range(0, 3000, 1000):
        assert reader.read(location, start, start + 1000) == BODY[start : start + 1000]
    assert len(tiny.seen("/blobs/")) == before + 1
    tiny.signature = "two"
    assert reader.read(location, 3000, len(BODY)) == BODY[3000:]
    assert len(tiny.seen("/blobs/")) == before + 2
    assert tiny.storage.requests
    assert all("authorization" not in seen.headers for seen in tiny.storage.requests)


async def test_a_registry_that_names_no_usable_server_of_tokens_gets_no_password(
    tiny: TinyOci, opened: Opened, docker: Path
) -> None:
    log_in(docker, tiny.host)

    def elsewhere(exchange: Exchange) -> None:
        exchange.status = 401
        exchange.headers["WWW-Authenticate"] = 'Bearer realm="ftp://evil.example.com/"'

    tiny.fault = elsewhere
    with pytest.raises(MalformedError, match="no usable server of tokens"):
        await opened(url_of(tiny)).location()


def test_each_registry_of_a_host_has_its_own_log_in(docker: Path) -> None:
    signer, urls = OciSigner(), ("oci://h?alias=h", "oci://h/a", "oci://h/a/b?alias=b")
    challenge = Answer("https://h/v2/", 401, {"www-authenticate": "Basic realm=x"})

    def used(repository: str) -> str | None:
        scope = f"repository:{repository}:pull"
        signer.host("h").refused(scope, None, challenge, b"")
        return signer.host("h").authorization(scope)

    with pytest.raises(AccessDeniedError):
        used("a/x")
    signer.learn(urls, {urls[1]: "one:1", urls[2]: "two:2"})  # later than the first use
    assert used("a/x") == Credentials("one", "1").basic
    assert used("a/b/x") == Credentials("two", "2").basic
    with pytest.raises(AccessDeniedError):
        used("ab/x")
