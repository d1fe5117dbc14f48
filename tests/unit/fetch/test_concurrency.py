"""How many streams are used: climbing while it pays, giving way to 429 and 503."""

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from axonfs.fetch.concurrency import FIRST, PATIENCE_MAX, PERIOD, Streams

TICK = 0.05
MIB = 1 << 20


def run(
    streams: Streams,
    rate: Callable[[int], float],
    seconds: float,
    *,
    start: float = 100.0,
    short: bool = True,
) -> list[int]:
    """The limits over time on a line that gives `rate(limit)` bytes per second."""
    limits = []
    for tick in range(int(seconds / TICK)):
        count = int(rate(streams.limit) * TICK)
        streams.landed(count, start + tick * TICK, short=short)
        limits.append(streams.limit)
    return limits


def per_stream(limit: int) -> float:
    """A line that is limited per connection."""
    return limit * 10.0 * MIB


def shared(limit: int) -> float:
    """A line that one connection fills."""
    return 100.0 * MIB


def test_it_begins_with_few() -> None:
    assert Streams(30).limit == FIRST
    assert Streams(2).limit == 2
    assert Streams(-1).limit == 1


def test_more_streams_while_that_brings_more() -> None:
    streams = Streams(16)
    assert run(streams, per_stream, 10)[-1] == 16


def test_a_fast_source_gets_more_streams_within_a_second() -> None:
    streams = Streams(16)
    assert run(streams, lambda limit: limit * 1024.0 * MIB, 1.0)[-1] == 16


def test_a_step_that_brings_nothing_is_taken_back_and_rarely_tried_again() -> None:
    streams = Streams(16)
    limits = run(streams, shared, 200)
    assert max(limits) == 2 * FIRST
    tries = sum(1 for one, two in pairwise(limits) if two > one)
    assert 2 <= tries <= 7
    assert limits.count(FIRST) > 0.9 * len(limits)


def test_where_no_job_waits_no_stream_is_added() -> None:
    streams = Streams(16)
    assert set(run(streams, per_stream, 10, short=False)) == {FIRST}


def test_a_refusal_halves_and_the_way_back_is_slow() -> None:
    streams = Streams(16)
    run(streams, per_stream, 10)
    streams.refused(200.0)
    assert streams.limit == 8
    limits = run(streams, per_stream, 60, start=200.0)
    steps = [two - one for one, two in pairwise([8, *limits])]
    assert set(steps) == {0, 1}
    assert limits[-1] == 16


def test_refusals_of_one_moment_count_once() -> None:
    streams = Streams(16)
    run(streams, per_stream, 10)
    for number in range(8):
        streams.refused(200.0 + number / 100)
    assert streams.limit == 8


def test_refusal_after_refusal_leaves_one() -> None:
    streams = Streams(16)
    for number in range(10):
        streams.refused(200.0 + 2 * number)
    assert streams.limit == 1


def test_a_pause_is_no_slow_period() -> None:
    """What landed before it is not compared with what lands after."""
    streams = Streams(16)
    run(streams, per_stream, 2 * PERIOD)
    limit = streams.limit
    run(streams, per_stream, PERIOD / 2, start=1000.0)
    assert streams.limit == limit


def test_the_rate_is_that_of_late() -> None:
    streams = Streams(4)
    run(streams, shared, 10)
    assert abs(streams.current_rate(110.0) - 100 * MIB) < 10 * MIB
    assert streams.current_rate(110.0 + 10) == 0


@given(
    st.lists(
        st.tuples(st.floats(0, PATIENCE_MAX), st.integers(0, 1 << 30), st.booleans()), max_size=100
    ),
    st.integers(1, 40),
)
def test_the_number_stays_between_one_and_the_most(
    events: list[tuple[float, int, bool]], most: int
) -> None:
    streams, now = Streams(most), 0.0
    for pause, count, flag in events:
        now += pause
        if count % 5 == 0:
            streams.refused(now)
        else:
            streams.landed(count, now, short=flag)
        assert 1 <= streams.limit <= most
