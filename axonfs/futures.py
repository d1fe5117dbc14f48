"""Waits for jobs of a thread pool in such a way that Ctrl-C ends the wait. Any thread; blocking."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

# Seconds. CPython may begin to wait for a lock although a signal came just before; its handler then
# runs at the next turn of the interpreter.
TURN = 0.2


def until_one_fails(jobs: Collection[Future[Any]]) -> None:
    """Return when all jobs have ended, or one of them with an exception."""
    ended = SimpleQueue[Future[Any]]()  # concurrent.futures.wait looks at every job each turn
    for job in jobs:
        job.add_done_callback(ended.put)
    for _ in jobs:
        job = _next(ended)
        if job.cancelled() or job.exception():
            return


def _next(ended: SimpleQueue[Future[Any]]) -> Future[Any]:
    while True:
        with suppress(Empty):
            return ended.get(timeout=TURN)
