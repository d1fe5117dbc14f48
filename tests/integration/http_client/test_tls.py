"""Both clients over TLS and through proxies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from axonfs.errors import AxonError, UnavailableError
from axonfs.http_client import Bodies, Documents, Limits, Location, Routes, Trust
from tests.support import faulty
from tests.support.faulty_origin import FaultyOrigin
from tests.support.files import write_files
from tests.support.wiring import Authority

DATA = random.Random(7).randbytes(200_000)
FAST = Limits(connect=2, first_byte=2, stall=2, deadline=2, attempts=1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_files(tmp_path / "www", {"object": DATA})


@pytest.fixture
def secure(directory: Path, authority: Authority) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(directory, authority) as origin:
        yield origin


@pytest.fixture
def plain(directory: Path) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(directory) as origin:
        yield origin


Get = Callable[[str, Path | None, dict[str, str]], bytes]


def by_documents(url: str, bundle: Path | None, proxies: dict[str, str]) -> bytes:
    async def get() -> bytes:
        async with Documents(FAST, Trust(bundle), routes=Routes(proxies)) as documents:
            fetched = await documents.get(url, limit=len(DATA))
            assert fetched is not None
            return fetched.body

    return trio.run(get)


def by_bodies(url: str, bundle: Path | None, proxies: dict[str, str]) -> bytes:
    taken = bytearray()
    with Bodies(FAST, Trust(bundle), routes=Routes(proxies)) as bodies:
        for _ in range(2):  # the second time on a kept connection
            taken.clear()
            bodies.read(
                Location(url), 0, len(DATA), len(DATA), lambda _, view: taken.extend(view),
                unit=65536,
            )  # fmt: skip
    return bytes(taken)


@pytest.fixture(params=[by_documents, by_bodies])
def get(request: pytest.FixtureRequest) -> Get:
    client: Get = request.param
    return client


def test_a_private_authority_is_trusted(
    get: Get, secure: FaultyOrigin, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get(secure.url + "object", authority.bundle, {}) == DATA
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    assert get(secure.url + "object", None, {}) == DATA


def test_nobody_else_s_certificate_is_trusted(get: Get, secure: FaultyOrigin) -> None:
    with pytest.raises(UnavailableError, match="not trusted") as caught:
        get(secure.url + "object", None, {})
    assert not caught.value.transient
    assert "SSL_CERT_FILE" in str(caught.value)
    assert secure.requests == []


def test_a_certificate_is_for_its_host(
    get: Get, secure: FaultyOrigin, authority: Authority
) -> None:
    url = secure.url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.2"):
        get(url + "object", authority.bundle, {})


def test_tls_to_a_plain_server_and_back(
    get: Get, plain: FaultyOrigin, secure: FaultyOrigin, authority: Authority
) -> None:
    for url in (plain.url.replace("http:", "https:"), secure.url.replace("https:", "http:")):
        with pytest.raises(UnavailableError):
            get(url + "object", authority.bundle, {})


def test_a_redirect_never_leaves_https(
    get: Get, plain: FaultyOrigin, secure: FaultyOrigin, authority: Authority
) -> None:
    secure.always(faulty.redirect(plain.url + "object"))
    with pytest.raises(UnavailableError, match="from https") as caught:
        get(secure.url + "object", authority.bundle, {})
    assert not caught.value.transient
    assert plain.requests == []
    plain.always(faulty.redirect(secure.url + "object"))
    secure.always(None)
    assert get(plain.url + "object", authority.bundle, {}) == DATA


def test_http_through_a_proxy(get: Get, plain: FaultyOrigin) -> None:
    proxy = plain.url.replace("//", "//me:pw@")
    assert get("http://registry.invalid/object", None, {"http_proxy": proxy}) == DATA
    seen = plain.requests[0]
    assert seen.path == "http://registry.invalid/object"
    assert seen.headers["host"] == "registry.invalid"
    assert seen.headers["proxy-authorization"] == "Basic bWU6cHc="


def test_https_through_a_proxy(
    get: Get, plain: FaultyOrigin, secure: FaultyOrigin, authority: Authority
) -> None:
    proxy = plain.url.replace("//", "//me:pw@")
    assert get(secure.url + "object", authority.bundle, {"https_proxy": proxy}) == DATA
    (tunnel,) = plain.requests
    assert tunnel.method == "CONNECT"
    assert f"https://{tunnel.path}/" == secure.url
    assert tunnel.headers["proxy-authorization"] == "Basic bWU6cHc="
    # What the proxy is told is not for the origin.
    assert all("proxy-authorization" not in seen.headers for seen in secure.requests)


def test_no_proxy_is_direct(get: Get, plain: FaultyOrigin) -> None:
    proxies = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}
    assert get(plain.url + "object", None, proxies) == DATA


@pytest.mark.parametrize("fault", [faulty.status(407), faulty.status(502), faulty.garbage])
def test_a_proxy_that_refuses_is_named(
    get: Get,
    plain: FaultyOrigin,
    secure: FaultyOrigin,
    authority: Authority,
    fault: faulty.Fault,
) -> None:
    plain.always(fault)
    with pytest.raises(AxonError) as caught:
        get(secure.url + "object", authority.bundle, {"https_proxy": plain.url})
    assert isinstance(caught.value, UnavailableError)
    assert secure.requests == []


def test_a_dead_proxy_is_an_error(get: Get) -> None:
    with pytest.raises(UnavailableError, match="refused"):
        get("http://registry.invalid/x", None, {"http_proxy": "http://127.0.0.1:1"})


@pytest.mark.parametrize("unit", [65536, 1 << 20])
def test_a_body_over_tls_meets_the_same_faults(
    secure: FaultyOrigin, authority: Authority, unit: int
) -> None:
    limits = Limits(connect=2, first_byte=0.3, stall=0.3, deadline=0.8)
    with Bodies(limits, Trust(authority.bundle), routes=Routes({})) as bodies:
        faults = [faulty.stall_within, faulty.short, faulty.reset_within, faulty.drip(0.02)]
        secure.plan(*faults)
        for _ in faults:
            with pytest.raises(AxonError) as caught:
                bodies.read(
                    Location(secure.url + "object"), 0, len(DATA), len(DATA),
                    lambda _offset, _view: None, unit=unit,
                )  # fmt: skip
            assert caught.value.transient
    assert len(secure.requests) == len(faults)
