"""Whether a process owns a cache, as its lock says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axonfs.errors import BusyError
from axonfs.rundir import take_lock


@contextmanager
def owned(cache: Path) -> Iterator[None]:
    """Own the cache, as another process does, until the block is left."""
    lock = take_lock(cache)
    try:
        yield
    finally:
        os.close(lock)


def is_free(cache: Path) -> bool:
    """Whether no process owns the cache."""
    try:
        with owned(cache):
            return True
    except BusyError:
        return False


def wait_until_free(cache: Path, seconds: float = 60) -> None:
    """Return once no process owns the cache."""
    deadline = time.monotonic() + seconds
    while not is_free(cache):
        assert time.monotonic() < deadline, "the cache stays in use"
        time.sleep(0.1)
