"""Retry-After and backoff."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.http_client.limits import RETRY_AFTER_MAX, Limits, parse_retry_after

NOON = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("3600", RETRY_AFTER_MAX),
        ("9" * 5000, RETRY_AFTER_MAX),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sun, 06 Nov 1994 08:49:47 -0000", 10.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("Sun, 06 Nov 2094 08:00:00 GMT", RETRY_AFTER_MAX),
        ("Sun, 99 Nov 1994 08:00:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOON) == seconds


@given(st.text(), st.floats(0, 1e11))
def test_any_text_is_a_wait_or_none(text: str, now: float) -> None:
    wait = parse_retry_after(text, now)
    assert wait is None or 0 <= wait <= RETRY_AFTER_MAX


def test_the_pause_doubles_to_its_end() -> None:
    limits = Limits(backoff_min=0.2, backoff_max=10)
    spans = [limits.pause(attempt, draw=lambda: 1.0) for attempt in range(1, 9)]
    assert spans == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
    assert limits.pause(100_000, draw=lambda: 1.0) == 10


@given(st.integers(1, 10_000), st.floats(0, 60) | st.none(), st.floats(0, 0.999))
def test_retry_after_is_never_undercut(attempt: int, after: float | None, drawn: float) -> None:
    pause = Limits().pause(attempt, after, draw=lambda: drawn)
    assert (after or 0) <= pause <= (after or 0) + 10


def test_a_short_deadline_leaves_room_for_a_second_attempt() -> None:
    assert Limits.within(60) == Limits()
    limits = Limits.within(2)
    assert (limits.deadline, limits.connect, limits.first_byte, limits.stall) == (2, 1, 1, 1)
