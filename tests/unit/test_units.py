"""Sizes as people write and read them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.units import counted, parse_size, share, size, unix_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200G", 200 << 30),
        ("512MiB", 512 << 20),
        ("512 mib", 512 << 20),
        ("1.5T", 3 << 39),
        ("2TB", 2 * 10**12),
        ("10kB", 10_000),
        ("1048576", 1 << 20),
        (1048576, 1 << 20),
        ("77B", 77),
        ("auto", None),
        (" AUTO ", None),
        (None, None),
    ],
)
def test_a_size_is_read_as_gnu_tools_read_it(text: object, expected: int | None) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "G", "-1G", "0", "1X", "1e9", "1GiBs", True, [], "0.0001B", "9999999P", "\u0661G"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_sizes_for_people_are_short() -> None:
    shown = [size(count) for count in (0, 999, 1000, 1 << 20, 13 << 30, 1 << 60)]
    assert shown == ["0 B", "999 B", "1.0 KiB", "1.0 MiB", "13 GiB", "1048576 TiB"]


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_only_what_is_complete_is_a_hundred_percent(part: int, whole: int) -> None:
    assert (share(part, whole) == "100 %") == (part >= whole)


@given(st.integers(1, 1 << 55))
def test_a_shown_size_reads_back_as_about_the_same(count: int) -> None:
    back = parse_size(size(count))
    assert back is not None
    assert abs(back - count) <= max(count * 0.06, 1)


def test_one_is_not_many() -> None:
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("2020-01-01T00:00:00", 1577836800.0),
        ("9999-12-31T23:59:59-12:00", 253402300799),
        ("0001-01-01T00:00:00+14:00", 0.0),
        ("soon", 0.0),
        (2020, 0.0),
    ],
)
def test_a_time_is_one_that_can_be_written_again_on_every_machine(
    text: object, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    assert unix_time(text) == seconds
    monkeypatch.undo()
    time.tzset()
