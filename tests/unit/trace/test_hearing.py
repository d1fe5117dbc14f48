"""What is heard of opens and reads, as records of a trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import cast

import pytest
import trio

from axonfs.fuse.operations import Finished
from axonfs.trace.events import Events
from axonfs.trace.hearing import Hearing
from axonfs.vfs.files import Files


class Closed:
    """Files of which none is open."""

    def download(self, path: str) -> None:
        return None


def finished(operation: str, offset: int = 0, error: int = 0) -> Finished:
    kind = "cold" if operation == "read" else "served"
    return Finished(
        time.time(), operation, "a/b/1/w.bin", offset, 10, 0.25, error, 7, "cat", kind, 1
    )


async def test_a_clock_that_is_set_moves_no_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a host gets the time from the network while it loads its first model."""
    clock, events = time.time, Events(trio.current_time() - 5.0)
    hearing = Hearing(events, cast(Files, Closed()))
    for ahead in (0.0, 10_800.0, -10_800.0):
        monkeypatch.setattr(time, "time", partial(set_ahead, clock, ahead))
        hearing.hear([finished("open"), finished("read", error=5), finished("read")], 0)
    records = events.take(trio.current_time())
    for kind in ("open", "fail", "read"):
        times = [record[1] for record in records if record[0] == kind]
        assert len(times) == 3
        assert all(4.0 < at < 60.0 for at in times), times


def set_ahead(clock: Callable[[], float], seconds: float) -> float:
    return clock() + seconds
