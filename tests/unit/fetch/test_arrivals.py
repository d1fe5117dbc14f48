"""When the trio thread learns of landings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from axonfs.fetch import arrivals
from axonfs.fetch.arrivals import Arrivals
from axonfs.ranges import Range


class Taken:
    """Landings of one job, for whose chunks from `urgent` on a reader waits."""

    def __init__(self, urgent: int) -> None:
        self.chunks: list[int] = []
        self.arrivals = Arrivals(lambda job, chunks, size, data: self.chunks.append(chunks.start))
        download = SimpleNamespace(urgent=lambda chunks: chunks.stop > urgent)
        self._job: Any = SimpleNamespace(download=download)

    async def put(self, chunk: int, data: bytes | None = None) -> list[int]:
        """Report a chunk as a worker thread does; what was taken until now."""
        await trio.to_thread.run_sync(
            self.arrivals.put, self._job, Range(chunk, chunk + 1), 1, data
        )
        await wait_all_tasks_blocked()
        return self.chunks


@pytest.fixture
def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOMENT", 3600.0)


async def test_a_landing_that_nobody_waits_for_comes_with_the_next_one(never_late: None) -> None:
    taken = Taken(urgent=2)
    assert await taken.put(0) == []
    assert await taken.put(1) == []
    assert await taken.put(2) == [0, 1, 2]
    assert await taken.put(0) == [0, 1, 2]
    taken.arrivals.take()
    assert taken.chunks == [0, 1, 2, 0]


async def test_bytes_that_the_disk_did_not_take_come_at_once(never_late: None) -> None:
    assert await Taken(urgent=8).put(0, b"x") == [0]


async def test_landings_do_not_wait_for_more_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOMENT", 0.0)
    assert await Taken(urgent=8).put(0) == [0]
