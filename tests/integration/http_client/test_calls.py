"""Single requests: the answer as it is, or an error that says what happened."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator

import pytest

from axonfs.errors import AxonError, DeadlineError, MalformedError, UnavailableError
from axonfs.http_client import Calls, Ends, Trust, split_url
from axonfs.http_client.urls import Url
from tests.integration.http_client.conftest import DATA, FAST
from tests.support import faulty
from tests.support.faulty import Exchange
from tests.support.faulty_origin import FaultyOrigin
from tests.support.wiring import Authority


@pytest.fixture
def calls() -> Iterator[Calls]:
    with Calls(FAST) as calls:
        yield calls


def url_of(origin: FaultyOrigin, path: str = "object") -> Url:
    return split_url(origin.url + path)


def test_the_answer_is_returned_whatever_its_status_is(calls: Calls, origin: FaultyOrigin) -> None:
    assert calls.send("GET", url_of(origin)).body == DATA
    origin.plan(faulty.status(401, WWW_Authenticate="Basic"), faulty.redirect("/elsewhere"))
    refused, redirected = (calls.send("GET", url_of(origin)).answer for _ in range(2))
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Basic")
    assert (redirected.status, redirected.headers["location"]) == (302, "/elsewhere")
    assert len(origin.requests) == 3


def test_a_request_may_wait_longer_than_usual(calls: Calls, origin: FaultyOrigin) -> None:
    def late(exchange: Exchange) -> None:
        exchange.hang(2 * FAST.stall)

    origin.always(late)
    with pytest.raises(DeadlineError):
        calls.send("GET", url_of(origin))
    assert calls.send("GET", url_of(origin), wait=20 * FAST.stall).body == DATA


@pytest.mark.parametrize("slow", [faulty.drip(0.05), faulty.drip_headers(0.05)])
def test_single_bytes_hold_nobody(origin: FaultyOrigin, slow: faulty.Fault) -> None:
    """The time begins with the end of each request, also over a connection that is used again."""
    with Calls(FAST, ends=Ends(answer=0.5)) as calls:
        assert calls.send("GET", url_of(origin)).body == DATA
        time.sleep(0.6)
        assert calls.send("GET", url_of(origin)).body == DATA
        origin.plan(slow)
        with pytest.raises(DeadlineError, match=r"no whole answer within 0.5 s"):
            calls.send("GET", url_of(origin))


def test_the_end_of_a_client_closes_its_connections(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    unclosed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unclosed.append)
    calls = Calls(FAST)
    calls.send("GET", url_of(origin))
    del calls
    gc.collect()
    assert not unclosed


@pytest.mark.parametrize(
    ("fault", "kind", "transient"),
    [
        (faulty.reset_before, UnavailableError, True),
        (faulty.stall_before, DeadlineError, True),
        (faulty.garbage, UnavailableError, True),
        (faulty.endless, MalformedError, False),
    ],
)
def test_what_is_no_answer_is_an_error(
    calls: Calls,
    origin: FaultyOrigin,
    fault: faulty.Fault,
    kind: type[AxonError],
    transient: bool,
) -> None:
    origin.plan(fault)
    with pytest.raises(kind) as caught:
        calls.send("GET", url_of(origin))
    assert caught.value.transient is transient
    assert caught.value.source == origin.url + "object"
    assert calls.send("GET", url_of(origin)).body == DATA


def test_a_proxy_is_used_as_the_variables_say(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", origin.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Calls(FAST) as calls:
        assert calls.send("GET", split_url("http://registry.invalid/object")).body == DATA
    assert [seen.path for seen in origin.requests] == ["http://registry.invalid/object"]


def test_certificates_are_verified(origin: FaultyOrigin, authority: Authority) -> None:
    with FaultyOrigin(origin.directory, authority) as secure:
        with Calls(FAST) as calls, pytest.raises(UnavailableError, match="not trusted"):
            calls.send("GET", url_of(secure))
        with Calls(FAST, Trust(authority.bundle)) as calls:
            assert calls.send("GET", url_of(secure)).body == DATA
