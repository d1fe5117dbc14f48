"""A service over a registry on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from axonfs.engine import open_engine
from axonfs.service import Service
from axonfs.settings.settings import Settings
from tests.support.registry import CONFIG, RegistryServer, published

CHUNK = 1 << 16
SIZES = {"model.safetensors": 40 * CHUNK + 123, "part/two.safetensors": 9 * CHUNK, "empty.txt": 0}
TOTAL = sum(SIZES.values()) + len(CONFIG)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    directory = published(tmp_path, SIZES, chunk_size=CHUNK)
    with RegistryServer(directory) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, registry: RegistryServer) -> Settings:
    return Settings((registry.url,), tmp_path / "cache", cache_size=1 << 30, deadline=5)


@asynccontextmanager
async def service(settings: Settings, **live: Any) -> AsyncIterator[Service]:
    async with open_engine(settings) as engine:
        yield Service(engine, (lambda: live) if live else None)
