"""A registry of files, Debian's docker-registry, and the line between both."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from axonfs.names import parse_spec
from axonfs.publish.registry import Registry
from axonfs.storage import Directory
from tests.integration.registries.oci.copying import (
    NEW,
    OLD,
    OTHER,
    SIZES,
    Line,
    signed,
)
from tests.support.dockerregistry import DockerRegistry
from tests.support.registry import published


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No log-ins, and no uploads that were interrupted."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "uploads"))


@pytest.fixture
def prefix(docker_registry: DockerRegistry) -> str:
    """The prefix of repositories that no other test has."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def oci(docker_registry: DockerRegistry, prefix: str) -> str:
    return f"oci://{docker_registry.host}/{prefix}"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Three versions: one is signed and has small chunks, one is yanked and has a `+`."""
    published(tmp_path, SIZES, spec=OLD, chunk_size=64 << 10)
    for seed, spec in enumerate((NEW, OTHER), 1):
        made = published(tmp_path, SIZES, spec=spec, seed=seed)
    signed(made, OLD, "one")
    Registry(Directory(made)).yank(parse_spec(NEW))
    return made


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)
