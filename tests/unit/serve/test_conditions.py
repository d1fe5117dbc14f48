"""Which bytes a request asks for, by RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.ranges import Range
from axonfs.serve.conditions import holds_etag, range_holds, wanted_range


@pytest.mark.parametrize(
    ("header", "size", "wanted"),
    [
        ("bytes=0-0", 10, Range(0, 1)),
        ("bytes=2-5", 10, Range(2, 6)),
        ("Bytes = 2-5", 10, None),
        ("BYTES=2-5", 10, Range(2, 6)),
        ("bytes= 2 - 5 ", 10, Range(2, 6)),
        ("bytes=2-500", 10, Range(2, 10)),
        ("bytes=9-", 10, Range(9, 10)),
        ("bytes=10-", 10, Range(10, 10)),
        ("bytes=-3", 10, Range(7, 10)),
        ("bytes=-30", 10, Range(0, 10)),
        ("bytes=-0", 10, Range(10, 10)),
        ("bytes=0-", 0, Range(0, 0)),
        ("bytes=5-2", 10, None),
        ("bytes=-", 10, None),
        ("bytes=", 10, None),
        ("bytes=1-2,4-5", 10, None),
        ("bytes=a-b", 10, None),
        ("chunks=1-2", 10, None),
        ("bytes=1-2x", 10, None),
        ("bytes=\u0661-\u0662", 10, None),
        ("bytes=" + "9" * 5000 + "-", 10, None),
        ("", 10, None),
        (None, 10, None),
    ],
)
def test_ranges(header: str | None, size: int, wanted: Range | None) -> None:
    assert wanted_range(header, size) == wanted


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_a_range_is_the_slice_it_names(first: int, last: int, size: int) -> None:
    body = bytes(range(size))
    wanted = wanted_range(f"bytes={first}-{last}", size)
    if wanted is None:
        assert last < first
    else:
        assert body[wanted.start : wanted.stop] == body[first : last + 1]


@pytest.mark.parametrize("header", ['"a"', '"b", "a"', 'W/"a"', "*", ' "b" , W/"a" '])
def test_an_etag_that_is_held(header: str) -> None:
    assert holds_etag(header, '"a"')


@pytest.mark.parametrize("header", [None, "", '"b"', "a", '"ab"'])
def test_an_etag_that_is_not(header: str | None) -> None:
    assert not holds_etag(header, '"a"')


def test_if_range_needs_the_very_etag() -> None:
    assert range_holds(None, '"a"')
    assert range_holds('"a"', '"a"')
    assert not range_holds('W/"a"', '"a"')
    assert not range_holds("Tue, 24 Nov 2026 00:13:51 GMT", '"a"')
