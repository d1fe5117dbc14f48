"""Waits for jobs of a thread pool in such a way that Ctrl-C ends the wait. Any thread; blocking."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, wait
from typing import Any

# Seconds. CPython may begin to wait for a lock although a signal came just before; its handler then
# runs at the next turn of the interpreter.
TURN = 0.2


def until_one_fails(jobs: Collection[Future[Any]]) -> None:
    """Return when all jobs have ended, or one of them with an exception."""
    while True:
        done, left = wait(jobs, timeout=TURN, return_when="FIRST_EXCEPTION")
        if not left or any(job.cancelled() or job.exception() for job in done):
            return
