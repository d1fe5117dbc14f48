"""Sums up what the kernel asks of the mount, for `axonfs profile`. Trio thread only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

import trio

from axonfs.call import Event
from axonfs.fuse.operations import Finished, Operations

STEP = 1.0  # seconds from one event to the next
# Rows of one event; what does not fit is summed up under OTHERS.
MOST_ROWS = 5000
OTHERS = "(others)"

Row = list[Any]  # path, program, pid, operation, count, bytes, seconds, slowest, errors


class Sums:
    """Operations by file, program and kind."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int, str], Row] = {}

    def add(self, finished: Iterable[Finished]) -> None:
        """Count these operations."""
        for one in finished:
            kind = f"{one.operation} ({one.kind.replace('_', ' ')})" if one.kind else one.operation
            key = (one.path, one.program, one.pid, kind)
            row = self._rows.get(key)
            if row is None:
                if len(self._rows) >= MOST_ROWS:
                    key = (OTHERS, OTHERS, 0, kind)
                row = self._rows.setdefault(key, [*key, 0, 0, 0.0, 0.0, 0])
            row[4] += 1
            row[5] += one.size
            row[6] += one.seconds
            row[7] = max(row[7], one.seconds)
            row[8] += one.errno != 0

    def take(self) -> list[Row]:
        """The rows since the last call."""
        rows, self._rows = self._rows, {}
        return list(rows.values())


async def profile(operations: Operations, seconds: float | None) -> AsyncGenerator[Event, None]:
    """An event with the sums of each STEP; ends after `seconds`, or when it is closed."""
    began = trio.current_time()
    until = began + seconds if seconds is not None else float("inf")
    with operations.listen() as listener:
        sums = Sums()
        while (now := trio.current_time()) < until:
            left_out = 0
            with trio.move_on_at(min(now + STEP, until)):
                while True:
                    await listener.wait()
                    finished, missed = listener.take()
                    sums.add(finished)
                    left_out += missed
            yield {
                "event": "profile",
                "seconds": trio.current_time() - began,
                "rows": sums.take(),
                "left_out": left_out,
            }
    yield {"event": "result"}
