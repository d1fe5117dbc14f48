"""The connections that the jobs of one object use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from axonfs.fetch import ways
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK, rig, without_tables
from tests.support.registry import published
from tests.support.relay import HOST, several

JOBS = 16
FILE = "model.safetensors"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return published(tmp_path, {FILE: JOBS * 8 * CHUNK}, chunk_size=CHUNK)


@pytest.fixture(autouse=True)
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "JOB_BYTES", 8 * CHUNK)


async def test_jobs_of_one_object_share_several_kept_connections(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    async with rig(tmp_path / "cache", origin.url) as parts:
        assert await parts.content(FILE) == whole
    used = Counter(seen.connection for seen in origin.requests if "/objects/" in seen.path)
    assert sum(used.values()) == JOBS
    assert 1 < len(used) <= 8


async def test_jobs_of_one_object_are_spread_over_the_addresses_of_a_host(
    tmp_path: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    with several(origin.url) as relays:
        url = f"http://{HOST}:{relays[0].port}/"
        async with rig(tmp_path / "cache", url) as parts:
            assert await parts.content(FILE) == whole
    assert min(relay.carried for relay in relays) > 8 * CHUNK


async def test_an_object_that_only_an_etag_ties_together_comes_from_one_address(
    tmp_path: Path, registry: Path, origin: FaultyOrigin, whole: bytes
) -> None:
    without_tables(registry)
    with several(origin.url) as relays:
        url = f"http://{HOST}:{relays[0].port}/"
        async with rig(tmp_path / "cache", url) as parts:
            assert await parts.content(FILE) == whole
    assert [relay.carried for relay in relays[1:]] == [0, 0]
