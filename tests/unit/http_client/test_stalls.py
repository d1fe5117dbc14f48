"""How much patience a source has that made no progress for a deadline; times are the test's."""

from __future__ import annotations

import math

from axonfs.errors import DeadlineError
from axonfs.http_client.stalls import AGAIN, BRIEF, FLOOR, LEAST, Stall

DEADLINE = 60.0
ERROR = DeadlineError("no progress")


def stalled(deadline: float = DEADLINE) -> Stall:
    """A stall that opened at 0."""
    stall = Stall(deadline)
    stall.began(-deadline)
    assert stall.overdue(0.0)
    stall.failed(0.0, ERROR)
    return stall


def test_a_source_that_does_well_has_full_patience() -> None:
    stall = Stall(DEADLINE)
    stall.began(0.0)
    assert not stall.open
    assert stall.patience(0.0) is None


def test_a_source_that_progresses_now_and_then_is_never_overdue() -> None:
    """However many requests wait for it, and however long each does."""
    stall = Stall(DEADLINE)
    for _ in range(40):
        stall.began(0.0)
    for now in range(50, 1000, 50):
        stall.progressed(now)
        assert not stall.overdue(now + DEADLINE - 1)


def test_a_pause_is_no_silence() -> None:
    stall = Stall(DEADLINE)
    stall.began(0.0)
    stall.progressed(1.0)
    stall.ended()
    stall.began(1000.0)
    assert not stall.overdue(1001.0)


def test_patience_grows_with_the_time_since_the_last_patient_request() -> None:
    stall = stalled()
    assert stall.patience(0.0) == FLOOR
    assert stall.patience(3.0) == 3.0
    assert stall.patience(20.0) == BRIEF
    stall.failed(20.0, ERROR, BRIEF)
    assert stall.patience(22.0) == 2.0


def test_requests_in_a_burst_are_brief_and_soon_one_is_patient() -> None:
    stall, now, waits = stalled(), 0.0, list[float]()
    while now < AGAIN / 2:
        patience = stall.patience(now)
        assert patience is not None
        waits.append(patience)
        now += patience
        stall.failed(now, ERROR, patience)
    assert waits[:2] == [FLOOR, FLOOR]
    assert BRIEF in waits
    assert sum(waits) / len(waits) < BRIEF / 2


def test_a_source_that_refuses_is_not_waited_for_and_may_come_back_slow() -> None:
    """Also when it falls silent, or begins to refuse, within a stall."""
    stall = Stall(DEADLINE)
    stall.failed(0.0, ERROR, asked=0.0)
    assert stall.patience(0.1) == math.inf
    stall.failed(30.1, ERROR, math.inf, asked=0.1)
    assert stall.patience(30.2) == FLOOR
    stall.failed(31.2, ERROR, FLOOR, asked=31.1)
    assert stall.patience(31.3) == math.inf


def test_want_of_patience_is_no_refusal() -> None:
    stall = Stall(6.0)
    stall.failed(0.0, ERROR)
    patience = stall.patience(0.0)
    assert patience == LEAST
    stall.failed(patience, ERROR, patience, asked=0.0)
    assert stall.patience(patience) == LEAST


def test_now_and_then_one_request_has_full_patience() -> None:
    """Else a source that answers, but slowly, would never be found to be back."""
    stall = stalled()
    assert stall.patience(DEADLINE - 1) is not None
    assert stall.patience(DEADLINE) is None
    assert stall.patience(DEADLINE) is not None
    assert stall.patience(2 * DEADLINE) is None


def test_little_is_paid_on_top_of_a_short_deadline() -> None:
    assert stalled(8.0).patience(8.0) == 1.0


def test_progress_ends_it() -> None:
    stall = stalled()
    stall.progressed(0.1)
    assert not stall.open
    assert stall.patience(0.1) is None
    assert not stall.silent(0.0)
