"""Readahead: which reads start a stream, and how far ahead of it is fetched."""

from hypothesis import given
from hypothesis import strategies as st

from axonfs.fetch.readahead import (
    FIRST_WINDOW,
    LARGEST_WINDOW,
    MAX_CURSORS,
    RECENT_READS,
    REFILL,
    SMALLEST_SHARE,
    Readahead,
)
from axonfs.ranges import Range

MIB, GIB = 1 << 20, 1 << 30
KIB = 1 << 10


def test_a_first_read_fetches_nothing_ahead() -> None:
    assert Readahead(1 << 30).on_read(0, 128 * KIB) is None


def test_the_window_slides_in_parts() -> None:
    readahead = Readahead(1 << 40)
    refills = [readahead.on_read(at, MIB) for at in range(0, 1 << 30, MIB)]
    sizes = {refill.size for refill in refills[512:] if refill}
    assert sizes == {LARGEST_WINDOW // REFILL}


def test_the_second_read_in_a_row_starts_a_window() -> None:
    readahead = Readahead(1 << 30)
    readahead.on_read(0, 128 * KIB)
    assert readahead.on_read(128 * KIB, 128 * KIB) == Range(256 * KIB, 256 * KIB + FIRST_WINDOW)


def test_a_stream_has_a_fast_line_full_after_five_reads() -> None:
    readahead = Readahead(1 << 40)
    refills = [readahead.on_read(at * MIB, MIB) for at in range(6)]
    asked = [refill.stop // MIB if refill else 0 for refill in refills]
    assert asked == [0, 3, 7, 20, 69, 262]


def test_a_stream_that_jumps_starts_with_a_larger_window() -> None:
    readahead = Readahead(1 << 40)
    for at in range(8):
        readahead.on_read(at * MIB, MIB)
    assert readahead.on_read(GIB, MIB) is None
    assert readahead.on_read(GIB + MIB, MIB) == Range(GIB + 2 * MIB, GIB + 2 * MIB + SMALLEST_SHARE)


def test_the_window_grows_up_to_the_largest() -> None:
    readahead = Readahead(1 << 40)
    longest = 0
    for offset in range(0, 1 << 30, MIB):
        if ahead := readahead.on_read(offset, MIB):
            longest = max(longest, ahead.stop - offset - MIB)
    assert longest == LARGEST_WINDOW


def test_random_reads_fetch_nothing_ahead() -> None:
    readahead = Readahead(1 << 40)
    offsets = [number * 977 * MIB % (1 << 40) for number in range(1, 200)]
    assert [readahead.on_read(offset, 4 * KIB) for offset in offsets] == [None] * len(offsets)


def test_two_readers_keep_two_streams() -> None:
    readahead = Readahead(1 << 40)
    for step in range(64):
        for base in (0, 1 << 35):
            readahead.on_read(base + step * MIB, MIB)
    assert [cursor.position for cursor in readahead.cursors] == [64 * MIB, (1 << 35) + 64 * MIB]
    assert all(cursor.window == LARGEST_WINDOW // 2 for cursor in readahead.cursors)


def test_a_reader_that_left_gives_its_share_back() -> None:
    readahead = Readahead(1 << 40)
    for step in range(64):
        readahead.on_read(step * MIB, MIB)
    for step in range(2 * RECENT_READS):
        readahead.on_read((1 << 35) + step * MIB, MIB)
    assert readahead.cursors[1].window == LARGEST_WINDOW


def test_many_readers_keep_a_stream_each_and_share_the_window() -> None:
    readahead = Readahead(1 << 40)
    for step in range(256):
        for reader in range(MAX_CURSORS):
            readahead.on_read(reader * GIB + step * MIB, MIB)
    assert len(readahead.cursors) == MAX_CURSORS
    ahead = [cursor.issued - cursor.position for cursor in readahead.cursors]
    assert min(ahead) >= SMALLEST_SHARE - SMALLEST_SHARE // REFILL
    assert max(ahead) <= SMALLEST_SHARE


def test_however_many_share_the_window_a_refill_is_worth_a_request() -> None:
    readahead = Readahead(1 << 40)
    refills: list[int] = []
    for step in range(256):
        for reader in range(MAX_CURSORS):
            ahead = readahead.on_read(reader * GIB + step * MIB, MIB)
            if ahead and step >= 64:
                refills.append(ahead.size)
    assert min(refills) >= SMALLEST_SHARE // REFILL


def test_requests_of_one_stream_may_come_out_of_order() -> None:
    readahead = Readahead(1 << 30)
    for offset in (0, 256 * KIB, 128 * KIB, 512 * KIB, 384 * KIB):
        readahead.on_read(offset, 128 * KIB)
    assert len(readahead.cursors) == 1


def test_what_was_evicted_is_asked_for_again() -> None:
    readahead = Readahead(1 << 30)
    for offset in range(0, 8 * MIB, MIB):
        readahead.on_read(offset, MIB)
    ahead = readahead.on_read(8 * MIB, MIB, absent=True)
    assert ahead is not None
    assert ahead.start == 9 * MIB


@given(st.lists(st.tuples(st.integers(0, 1 << 32), st.integers(1, MIB)), max_size=200))
def test_ranges_stay_inside_the_object(reads: list[tuple[int, int]]) -> None:
    size = (1 << 32) + 5
    readahead = Readahead(size)
    for offset, length in reads:
        if ahead := readahead.on_read(offset, length):
            assert offset < ahead.start < ahead.stop <= size
            assert ahead.stop - ahead.start <= 2 * LARGEST_WINDOW
    assert len(readahead.cursors) <= MAX_CURSORS


def test_readers_of_one_place_are_no_stream() -> None:
    readahead = Readahead(1 << 30)
    assert [readahead.on_read(8 * MIB, 4 * KIB) for _ in range(16)] == [None] * 16


def test_what_is_near_a_reader() -> None:
    readahead = Readahead(100 * MIB)
    readahead.on_read(10 * MIB, MIB)
    readahead.on_read(50 * MIB, MIB)
    readahead.on_read(51 * MIB, MIB)  # a stream: its window lies ahead of it
    near = readahead.near(MIB, 2 * MIB)
    assert {9, 10, 11, 50, 51, 52, 53} <= near
    assert near.isdisjoint({0, 7, 13, 40, 49, 90})


def test_reads_told_together_are_a_stream_from_the_first_time_on() -> None:
    readahead = Readahead(1 << 30)
    assert readahead.on_read(0, 4 * MIB, reads=4) == Range(4 * MIB, 4 * MIB + FIRST_WINDOW)


def test_reads_at_two_places_are_scattered_and_counted() -> None:
    readahead, scattered = Readahead(1 << 30), []
    for start, count in ((0, 4), (500, 1), (501, 1)):  # the second one may be random
        readahead.on_read(start * MIB, count * MIB, reads=count)
        scattered.append(readahead.scattered)
    assert scattered == [False, False, True]
    assert readahead.read == 5 * MIB
