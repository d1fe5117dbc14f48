"""A server that takes uploads, and a client with its token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from axonfs.serve import Access, RegistryServer, Tokens
from tests.integration.serve.test_access import running_with, token
from tests.integration.serve.test_serve import Client, client_of


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "server-tokens.yaml"


@pytest.fixture
def secret(tokens: Path) -> str:
    return token(tokens, "ci", publish="nlp")


@pytest.fixture
def server(registry: Path, tokens: Path, secret: str) -> Iterator[RegistryServer]:
    with running_with(registry, Access(Tokens(tokens))) as server:
        yield server


@pytest.fixture
def client(server: RegistryServer) -> Iterator[Client]:
    with client_of(server.url) as client:
        yield client
