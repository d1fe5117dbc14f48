"""Ranges and bitmaps against the sets of numbers they stand for."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.ranges import Bitmap, Range, aligned, chunk_range, chunk_span, runs, split

NUMBERS = st.sets(st.integers(0, 60))
SIZE = 61


def bitmap_of(numbers: set[int]) -> Bitmap:
    bitmap = Bitmap(SIZE)
    for number in numbers:
        bitmap.set(number)
    return bitmap


def members(found: list[Range]) -> list[int]:
    return [number for start, stop in found for number in range(start, stop)]


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 700))
def test_chunk_span_covers_exactly_the_bytes_asked_for(offset: int, size: int, chunk: int) -> None:
    span = chunk_span(offset, size, chunk)
    assert list(range(*span)) == sorted({at // chunk for at in range(offset, offset + size)})


@given(st.integers(0, 5000), st.integers(1, 700))
def test_the_chunk_ranges_of_an_object_tile_it(size: int, chunk: int) -> None:
    pieces = [chunk_range(number, chunk, size) for number in range(*chunk_span(0, size, chunk))]
    assert members(pieces) == list(range(size))
    assert all(piece.size == chunk for piece in pieces[:-1])


def test_chunk_range_past_the_end_is_empty() -> None:
    assert chunk_range(7, 100, 250) == Range(250, 250)


@given(st.lists(st.integers(0, 60)))
def test_runs_are_maximal_and_hold_each_number_once(numbers: list[int]) -> None:
    found = runs(numbers)
    assert members(found) == sorted(set(numbers))
    assert all(left.stop < right.start for left, right in itertools.pairwise(found))


@given(st.integers(0, 50), st.integers(0, 300), st.integers(1, 40))
def test_split_tiles_in_order_within_the_limit(start: int, size: int, limit: int) -> None:
    pieces = split(Range(start, start + size), limit)
    assert members(pieces) == list(range(start, start + size))
    assert all(0 < piece.size <= limit for piece in pieces)


@given(st.integers(0, 50), st.integers(0, 300), st.integers(1, 40))
def test_aligned_pieces_tile_and_end_at_the_unit(start: int, size: int, unit: int) -> None:
    pieces = list(aligned(Range(start, start + size), unit))
    assert members(pieces) == list(range(start, start + size))
    assert all(piece.stop % unit == 0 for piece in pieces[:-1])
    assert all(0 < piece.size <= unit for piece in pieces)


@given(NUMBERS, st.integers(0, SIZE), st.integers(0, SIZE))
def test_bitmap_answers_as_a_set_would(numbers: set[int], start: int, stop: int) -> None:
    bitmap = bitmap_of(numbers)
    window = set(range(start, stop))
    assert bitmap.count == len(numbers)
    assert bitmap.all_set(start, stop) == (window <= numbers)
    assert bitmap.missing(start, stop) == runs(window - numbers)
    assert bitmap.extents(start, stop) == runs(window & numbers)
    assert bitmap.next_clear(start, stop) == min(window - numbers, default=stop)
    assert bitmap.next_set(start, stop) == min(window & numbers, default=stop)


@given(NUMBERS, NUMBERS)
def test_bitmap_counts_each_change_once(to_set: set[int], to_clear: set[int]) -> None:
    bitmap = bitmap_of(to_set)
    for number in [*to_clear, *to_clear]:
        bitmap.clear(number)
    assert {number for number in range(SIZE) if bitmap.test(number)} == to_set - to_clear
    assert bitmap.count == len(to_set - to_clear)
    bitmap.load(bytes(SIZE))
    assert (bitmap.count, len(bitmap), bitmap.missing(0, SIZE)) == (0, SIZE, [Range(0, SIZE)])


@pytest.mark.parametrize("operation", [Bitmap.set, Bitmap.clear, Bitmap.test])
def test_a_number_past_the_end_is_a_bug(operation: object) -> None:
    assert callable(operation)
    with pytest.raises(IndexError):
        operation(Bitmap(3), 3)
