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
        self._rows: dict[tuple[str, str, int, str, str], Row] = {}

    def add(self, finished: Iterable[Finished]) -> None:
        """Count these operations."""
        for one in finished:
            _, operation, path, _, size, seconds, error, pid, program, kind, _ = one
            row = self._rows.get((path, program, pid, operation, kind))
            if row is None:
                row = self._new(path, program, pid, operation, kind)
            row[4] += 1
            row[5] += size
            row[6] += seconds
            if seconds > row[7]:
                row[7] = seconds
            if error:
                row[8] += 1

    def _new(self, path: str, program: str, pid: int, operation: str, kind: str) -> Row:
        if len(self._rows) >= MOST_ROWS:
            path = program = OTHERS
            pid = 0
        name = f"{operation} ({kind.replace('_', ' ')})" if kind else operation
        row: Row = [path, program, pid, name, 0, 0, 0.0, 0.0, 0]
        return self._rows.setdefault((path, program, pid, operation, kind), row)

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
