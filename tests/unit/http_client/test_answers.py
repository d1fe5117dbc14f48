"""What an answer's status and headers mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    ChangedError,
    EtagError,
    NotFoundError,
    UnavailableError,
    VanishedError,
)
from axonfs.http_client.answers import (
    Answer,
    body_range,
    check_status,
    content_range,
    range_headers,
)
from axonfs.ranges import Range

URL = "http://h/x?token=secret"
OK = frozenset({200})


def answer(status: int, **headers: str) -> Answer:
    return Answer(URL, status, {name.replace("_", "-"): text for name, text in headers.items()})


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (204, UnavailableError, True),
        (206, UnavailableError, True),
        (300, UnavailableError, False),
        (304, UnavailableError, False),
        (400, UnavailableError, False),
        (401, AccessDeniedError, False),
        (403, AccessDeniedError, False),
        (404, VanishedError, False),
        (407, UnavailableError, False),
        (408, UnavailableError, True),
        (410, VanishedError, False),
        (416, ChangedError, False),
        (425, UnavailableError, True),
        (429, UnavailableError, True),
        (451, UnavailableError, False),
        (500, UnavailableError, True),
        (502, UnavailableError, True),
        (503, UnavailableError, True),
        (504, UnavailableError, True),
    ],
)
def test_a_status_is_an_error(status: int, kind: type[AxonError], transient: bool) -> None:
    with pytest.raises(AxonError) as caught:
        check_status(answer(status, retry_after="9"), OK, VanishedError)
    error = caught.value
    assert type(error) is kind
    assert error.transient is transient
    assert error.retry_after == (9 if transient else None)
    assert str(status) in str(error)
    assert "http://h/x" in str(error)
    assert "secret" not in str(error)


def test_missing_is_what_the_caller_calls_it() -> None:
    with pytest.raises(NotFoundError):
        check_status(answer(404), OK, NotFoundError)


@pytest.mark.parametrize(
    "coding", ["br", "identity, zstd", "gzip, br", "\x1b[2J", "gzip, gzip, gzip, gzip, gzip"]
)
def test_a_coding_that_is_not_known_is_refused(coding: str) -> None:
    with pytest.raises(UnavailableError, match="content encoding") as caught:
        check_status(answer(200, content_encoding=coding), OK, VanishedError)
    assert "\x1b" not in str(caught.value)


def test_identity_is_no_encoding() -> None:
    check_status(answer(200, content_encoding="Identity"), OK, VanishedError)
    check_status(answer(200), OK, VanishedError)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("bytes 0-9/100", (Range(0, 10), 100)),
        ("bytes 5-5/*", (Range(5, 6), None)),
        ("Bytes\t 0 - 9 / 100", (Range(0, 10), 100)),
        ("bytes 5-4/10", None),
        ("bytes */10", None),
        ("bytes 0-9", None),
        ("0-9/10", None),
        ("bytes -1-9/10", None),
        ("bytes 0-٩/10", None),
        ("", None),
        (None, None),
    ],
)
def test_content_range(text: str | None, parsed: tuple[Range, int | None] | None) -> None:
    assert content_range(text) == parsed


@given(st.text())
def test_any_content_range_is_parsed_or_none(text: str) -> None:
    content_range(text)
    content_range("bytes " + text)


def test_the_body_is_what_was_asked_for_or_the_whole() -> None:
    asked = Range(10, 20)
    partial = answer(206, content_range="bytes 10-19/100", content_length="10", etag='W/"e"')
    assert body_range(partial, asked, 100, '"e"') == asked
    assert body_range(answer(206, content_range="bytes 10-19/*"), asked, 100, None) == asked
    assert body_range(answer(200, content_length="100"), asked, 100, None) == Range(0, 100)
    assert body_range(answer(200, etag='"e"'), asked, 100, '"e"') == Range(0, 100)
    less, more = "bytes 10-18/100", "bytes 8-20/100"
    assert body_range(answer(206, content_range=less), asked, 100, None) == Range(10, 19)
    assert body_range(answer(206, content_range=more), asked, 100, None) == Range(8, 21)


@pytest.mark.parametrize(
    ("reply", "kind", "transient"),
    [
        (answer(206, content_range="bytes 10-19/101"), ChangedError, False),
        (answer(206, content_range="bytes 10-19/100", etag='"f"'), EtagError, False),
        (answer(206, content_range="bytes 10-19/100"), EtagError, False),
        (answer(200), EtagError, False),
        (answer(200, content_length="99"), ChangedError, False),
        (answer(200, content_length="100", etag='"f"'), EtagError, False),
        (answer(206, content_range="bytes 11-20/100"), UnavailableError, True),
        (answer(206, content_range="bytes 0-9/100"), UnavailableError, True),
        (answer(206, content_range="bytes 10-100/*"), UnavailableError, True),
        (answer(206, content_range="bytes x"), UnavailableError, True),
        (answer(206), UnavailableError, True),
        (
            answer(206, content_range="bytes 10-19/100", content_length="9"),
            UnavailableError,
            True,
        ),
    ],
)
def test_another_body_is_an_error(reply: Answer, kind: type[AxonError], transient: bool) -> None:
    with pytest.raises(AxonError) as caught:
        body_range(reply, Range(10, 20), 100, '"e"')
    assert type(caught.value) is kind
    assert caught.value.transient is transient


def test_a_range_is_written_inclusive_and_bound_to_a_strong_etag() -> None:
    assert range_headers(Range(0, 1), None) == {"Range": "bytes=0-0"}
    assert range_headers(Range(10, 20), '"e"') == {"Range": "bytes=10-19", "If-Range": '"e"'}
    assert "If-Range" not in range_headers(Range(10, 20), 'W/"e"')
