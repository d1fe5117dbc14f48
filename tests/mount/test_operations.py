"""What the mount knows of the kernel's requests: those under way, and how long each kind took."""

from __future__ import annotations

import os

import pytest

from tests.mount.conftest import CHUNK, FILES, MODEL, NAME, Mount, read_and_closed

pytestmark = pytest.mark.mount


def test_reads_and_opens_are_counted_by_kind(mount: Mount) -> None:
    """Status counts reads by whether they waited for bytes, and opens by whether the kernel reads
    the file itself, with buckets of latency; and what was read of each open file."""
    with (mount.path / MODEL).open("rb") as file:
        cold = os.pread(file.fileno(), CHUNK, 0)
        assert len(cold) == CHUNK
        (row,) = mount.status()["open"]
        found = mount.status()["operations"]
    assert 0 < row["reads"] < found["read"]["count"]  # others were of status.json
    assert CHUNK <= row["bytes_read"] <= FILES[NAME]
    kinds = found["read"]["kinds"]
    assert kinds["cold"]["count"] > 0
    assert sum(kinds["cold"]["buckets"].values()) == kinds["cold"]["count"]
    assert found["lookup"]["count"] >= 4
    assert found["open"]["kinds"]["served"]["count"] >= 1
    read_and_closed(mount)
    before = mount.status()["operations"]["read"]["kinds"]
    (mount.path / MODEL).read_bytes()  # by the kernel itself
    found = mount.status()["operations"]
    assert found["open"]["kinds"]["passed_through"]["count"] == 1
    # Two reads were of status.json, and a thread may be late to count its last one.
    assert found["read"]["count"] <= before["cold"]["count"] + before["cache"]["count"] + 3
