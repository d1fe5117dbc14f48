"""Which job is a straggler, and which is as slow as the others."""

import pytest

from axonfs.fetch.lane import EXTRA, FREE_EXTRA, MOST_EXTRA, Lane
from axonfs.fetch.pace import (
    FIRST_FACTOR,
    FIRST_WINDOW,
    REMEMBERED,
    SAMPLE_BYTES,
    SAMPLE_SECONDS,
    WINDOW,
    Pace,
    Sample,
    compared,
)
from axonfs.http_client import Pauses

MIB = 1 << 20


def others(rate: float = 100 * MIB, first: float = 0.05) -> list[Sample]:
    """Three jobs that do alike; one more that does nothing, and one much better, change nothing."""
    alike = [Sample(0.0, rate, first)] * 3
    return [*alike, Sample(0.0, 0.0, 5.0), Sample(0.0, 100 * rate, 0.0)]


def steady(rate: float, *, unit: int = MIB, until: float = 10.0) -> Pace:
    """A job that lands `rate` bytes per second from 0 on."""
    pace, now = Pace(unit, 0.0), unit / rate
    while now <= until:
        pace.landed(unit, now)
        now += unit / rate
    return pace


@pytest.mark.parametrize("usual", [MIB / 4, 10 * MIB, 50 * MIB])
@pytest.mark.parametrize(("part", "straggles"), [(1.0, False), (0.5, False), (0.1, True)])
def test_a_fourth_of_what_is_usual_is_slow(usual: float, part: float, straggles: bool) -> None:
    moments = [350 + 5 * number / 7 for number in range(50)]
    behind = [steady(usual * part, until=now).behind(now, others(usual)) for now in moments]
    assert any(behind) is straggles


def test_a_connection_that_stalls_within_an_answer_is_slow_after_a_moment() -> None:
    pace = steady(100 * MIB, until=1.0)
    assert not pace.behind(1.0 + WINDOW * 0.6, others())
    assert pace.behind(1.0 + WINDOW, others())


def test_the_first_bytes_may_take_the_round_trips_of_a_new_connection() -> None:
    pace = Pace(MIB, 0.0)
    assert not pace.behind(FIRST_WINDOW - 0.01, others())
    assert pace.behind(FIRST_WINDOW, others())
    far = others(first=0.5)
    assert not pace.behind(FIRST_FACTOR * 0.5 - 0.01, far)
    assert pace.behind(FIRST_FACTOR * 0.5, far)


def test_a_window_begins_with_the_first_bytes() -> None:
    pace = Pace(MIB, 0.0)
    pace.landed(MIB, 0.9)
    assert not pace.behind(0.9 + WINDOW - 0.01, others())
    assert pace.behind(0.9 + WINDOW + 0.01, others())


def test_time_in_which_nothing_was_received_on_purpose_does_not_count() -> None:
    pace = steady(100 * MIB, until=1.0)
    pace.held_up(5.0)
    assert not pace.behind(6.0 + WINDOW * 0.6, others())
    unheld = steady(100 * MIB, until=1.0).sample(1.0)
    sample = pace.sample(6.0)
    assert sample
    assert unheld
    assert sample.rate == pytest.approx(unheld.rate, rel=0.05)


def test_a_sample_is_of_late() -> None:
    pace = steady(MIB, until=8.0)
    for number in range(100):
        pace.landed(MIB, 8.01 + number / 100)
    sample = pace.sample(9.0)
    assert sample
    assert sample.rate == pytest.approx(100 * MIB, rel=0.05)
    assert sample.first == 1.0


def test_little_says_nothing_until_time_has_passed() -> None:
    pace = Pace(SAMPLE_BYTES // 2, 0.0)
    pace.landed(SAMPLE_BYTES // 2, 0.1)
    assert pace.sample(WINDOW - 0.01) is None
    assert pace.sample(WINDOW) == Sample(WINDOW, SAMPLE_BYTES / 2 / WINDOW, 0.1)


def test_jobs_that_ended_stand_in_where_few_run() -> None:
    now = 100.0
    running, ended = Sample(now, 1.0, 0.0), Sample(now - 1, 2.0, 0.0)
    old = Sample(now - SAMPLE_SECONDS, 3.0, 0.0)
    assert compared([running] * 5, [ended], now) == [running] * 5
    assert compared([running], [old, ended, ended], now) == [running, ended, ended]
    assert compared([running], [old, ended], now) == []


def test_hedges_may_cost_a_small_part_of_what_came() -> None:
    lane = Lane(None, 16, 60.0, Pauses())
    assert lane.may_hedge(FREE_EXTRA)
    assert not lane.may_hedge(1)
    lane.landed(100 * MIB, 1.0)
    assert lane.may_hedge(int(100 * MIB * EXTRA))
    assert not lane.may_hedge(1)
    lane.landed(1 << 50, 2.0)
    assert lane.may_hedge(MOST_EXTRA)
    assert not lane.may_hedge(1)


def test_an_answer_without_an_end_takes_no_memory_for_it() -> None:
    pace, usual = steady(100 * MIB, unit=MIB >> 4, until=60.0), others()
    assert len(pace._landings) == REMEMBERED
    assert pace.size == pytest.approx(60 * 100 * MIB, rel=0.01)
    sample = pace.sample(60.0)
    assert sample is not None
    assert sample.rate == pytest.approx(100 * MIB, rel=0.05)
    assert not pace.behind(60.0, usual)
    pace.held_up(1.0)
    assert not pace.behind(61.0, usual)
    assert pace.behind(62.0, usual)


def test_a_fast_source_brings_more_bytes_per_request() -> None:
    lane = Lane(None, 16, 60.0, Pauses())
    for rate, speed in ((100, 1), (200, 2), (400, 4), (50, 1)):
        lane.note(steady(rate * MIB, until=1.0), 1.0)
        assert lane.speed == speed
    lane.note(steady(400 * MIB, until=0.01), 0.01)
    assert lane.speed == 1, "so few bytes say little of the rate"
