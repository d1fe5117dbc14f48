"""A model to publish, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from axonfs.names import parse_spec
from tests.support.registry import make_model

SPEC = parse_spec("nlp/tiny@1.0.0")
CHUNK = 64 << 10


@pytest.fixture
def model(tmp_path: Path) -> Path:
    sizes = {"a.safetensors": 3 * CHUNK + 7, "b.safetensors": 2 * CHUNK, "sub/empty.txt": 0}
    return make_model(tmp_path / "model", sizes)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def contents(registry: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(registry)): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file()
    }
