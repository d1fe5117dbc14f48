"""The pool of chunks that the disk did not take."""

from __future__ import annotations

from typing import Any

from axonfs.fetch.overflow import Overflow

ONE: Any = "a download"
TWO: Any = "another"


def test_the_oldest_chunks_make_room() -> None:
    pool = Overflow(10)
    for chunk in range(4):
        pool.put(ONE, chunk, bytes(4))
    assert [pool.get(ONE, chunk) is not None for chunk in range(4)] == [False, False, True, True]
    assert pool.statistics() == {"bytes": 8, "passed": 16}


def test_one_that_is_larger_than_the_budget_is_kept_alone() -> None:
    pool = Overflow(10)
    pool.put(ONE, 0, bytes(4))
    pool.put(TWO, 0, bytes(40))
    assert pool.get(ONE, 0) is None
    assert pool.get(TWO, 0) == bytes(40)


def test_one_that_comes_twice_counts_once() -> None:
    pool = Overflow(10)
    pool.put(ONE, 0, b"old")
    pool.put(ONE, 0, b"newer")
    assert pool.get(ONE, 0) == b"newer"
    assert pool.statistics()["bytes"] == 5


def test_a_download_that_is_over_takes_its_own_along() -> None:
    pool = Overflow(10)
    pool.put(ONE, 0, b"1")
    pool.put(TWO, 0, b"2")
    pool.forget(ONE)
    assert pool.get(ONE, 0) is None
    assert pool.get(TWO, 0) == b"2"
    assert pool.statistics()["bytes"] == 1
