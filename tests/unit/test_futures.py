"""The wait for jobs of a thread pool."""

from __future__ import annotations

from concurrent.futures import Future
from threading import Thread
from time import thread_time

import pytest

from axonfs import futures
from axonfs.futures import until_one_fails


def test_a_failure_or_a_cancelled_job_ends_the_wait() -> None:
    jobs = [Future[int]() for _ in range(4)]
    jobs[0].set_result(1)
    jobs[2].set_exception(ValueError())
    until_one_fails(jobs)
    jobs[3].cancel()
    until_one_fails([jobs[0], jobs[1], jobs[3]])
    until_one_fails([])


def test_a_turn_takes_as_long_for_many_jobs_as_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish of many small files hashes them meanwhile."""
    monkeypatch.setattr(futures, "TURN", 0.001)
    jobs = [Future[int]() for _ in range(5000)]
    took = list[float]()

    def wait() -> None:
        until_one_fails(jobs)
        took.append(thread_time())

    waiting = Thread(target=wait)
    waiting.start()
    waiting.join(0.5)  # so long do the jobs take
    for job in jobs:
        job.set_result(1)
    waiting.join()
    assert took[0] < 0.25
