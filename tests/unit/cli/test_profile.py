"""What `axonfs profile` adds up of the events of workers."""

from __future__ import annotations

from typing import Any

import pytest

from axonfs.cli import profile
from axonfs.cli.profile import Profile
from axonfs.daemon.profile import OTHERS


def event(seconds: float, *paths: str) -> dict[str, Any]:
    rows = [[path, "cat", 7, "lookup", 1, 0, 0.5, 0.5, 0] for path in paths]
    return {"event": "profile", "seconds": seconds, "rows": rows, "left_out": 1}


def test_a_worker_that_is_replaced_counts_once_however_often_the_next_one_is_asked() -> None:
    found = Profile()
    found.add(event(1.0, "a"))
    for _ in range(3):
        found.next_worker()
    found.add(event(2.0, "a"))
    assert (found.workers, found.seconds, found.left_out) == (1, 3.0, 2)
    found.next_worker()
    assert found.workers == 2
    assert found.report(("file",))["by_file"][0] | {"processes": 1} == {
        "file": "a",
        "count": 2,
        "bytes": 0,
        "seconds": 1.0,
        "slowest": 0.5,
        "errors": 0,
        "processes": 1,
    }


def test_names_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "MOST_NAMES", 3)
    found = Profile()
    for number in range(9):
        found.add(event(1.0, str(number)))
    counts = {name: each.count for name, each in found.rows("file")}
    assert counts == {"0": 1, "1": 1, "2": 1, OTHERS: 6}
