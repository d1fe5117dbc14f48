"""The model that most tests of the fetch path read, and site caches that have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.http_client import SiteCaches
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import CHUNK
from tests.support.registry import published


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with a model of 21 chunks, the last of which is short."""
    return published(tmp_path, {"model.safetensors": 20 * CHUNK + 123}, chunk_size=CHUNK)


@pytest.fixture
def three(registry: Path) -> Iterator[list[FaultyOrigin]]:
    """Three servers with the registry's files, as caches that have everything."""
    with FaultyOrigin(registry) as a, FaultyOrigin(registry) as b, FaultyOrigin(registry) as c:
        yield [a, b, c]


def site(origin: FaultyOrigin, *members: FaultyOrigin, fallback: bool = True) -> SiteCaches:
    return SiteCaches(origin.url, [one.url for one in members], fallback=fallback)
