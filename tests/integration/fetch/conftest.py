"""The model that most tests of the fetch path read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fetching import CHUNK
from tests.support.registry import published


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with a model of 21 chunks, the last of which is short."""
    return published(tmp_path, {"model.safetensors": 20 * CHUNK + 123}, chunk_size=CHUNK)
