"""Packages through site caches."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from axonfs.fetch import package_body
from axonfs.http_client import Origin, Pauses, caches
from tests.integration.fetch.conftest import site
from tests.support import faulty
from tests.support.faulty import Fault
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK, FAST, on_packages, rig
from tests.support.packages import add_package

SLICE = CHUNK  # each cache has several, whatever its URL
PACKAGED = "vision/resnet50@1.0.0"
BIG = random.Random(5).randbytes(11 * CHUNK)


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "SLICE", SLICE)
    monkeypatch.setattr(package_body, "SLICE", SLICE)


@pytest.mark.complains
@pytest.mark.parametrize("fault", [None, faulty.flip, faulty.status(502), faulty.status(404)])
async def test_a_package_comes_through_caches(
    registry: Path,
    tmp_path: Path,
    origin: FaultyOrigin,
    three: list[FaultyOrigin],
    fault: Fault | None,
) -> None:
    """By slices, and from the origin where caches had wrong bytes of it."""
    size = len(add_package(registry, PACKAGED, {"big.bin": BIG}))
    if fault:
        three[0].always(on_packages(fault))
    async with rig(tmp_path / "cache", origin.url, sites=[site(origin, *three)]) as parts:
        assert await parts.content("big.bin", PACKAGED) == BIG
    asked = [seen for one in three for seen in one.requests if "/packages/" in seen.path]
    assert size > 2 * SLICE
    assert len(asked) >= size // SLICE
    direct = [seen for seen in origin.requests if "/packages/" in seen.path]
    assert bool(direct) is (fault is faulty.flip)


@pytest.mark.complains
@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_a_package_of_which_a_cache_has_wrong_bytes_comes_from_another_one(
    registry: Path, tmp_path: Path, origin: FaultyOrigin, three: list[FaultyOrigin], bad: int
) -> None:
    """Though no slice of it can be compared, and the origin may not be asked."""
    add_package(registry, PACKAGED, {"big.bin": BIG})
    three[bad].always(on_packages(faulty.flip))
    sites = [site(origin, *three, fallback=False)]
    async with rig(tmp_path / "cache", origin.url, sites=sites) as parts:
        assert await parts.content("big.bin", PACKAGED) == BIG
    assert not any("/packages/" in seen.path for seen in origin.requests)


@pytest.mark.parametrize("through", [True, False], ids=["cache", "origin"])
async def test_only_the_source_itself_has_all_requests_to_it_wait(
    registry: Path,
    tmp_path: Path,
    origin: FaultyOrigin,
    three: list[FaultyOrigin],
    monkeypatch: pytest.MonkeyPatch,
    through: bool,
) -> None:
    """What a cache says of too many requests holds up the package, and nothing else."""
    told: list[Origin] = []
    monkeypatch.setattr(Pauses, "asked", lambda self, origin, seconds: told.append(origin))
    add_package(registry, PACKAGED, {"big.bin": BIG})
    for one in (*three, origin):
        one.plan(faulty.status(429, Retry_After="1"), of="/packages/")
    sites = [site(origin, *three, fallback=False)] if through else []
    patient = replace(FAST, deadline=20)
    async with rig(tmp_path / "cache", origin.url, sites=sites, limits=patient) as parts:
        assert await parts.content("big.bin", PACKAGED) == BIG
    assert len(told) == (0 if through else 1)
