"""A registry on loopback and clients of it, where nothing is mounted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import axonfs
from axonfs.client import sessions
from tests.support.registry import RegistryServer, published

MakeClient: TypeAlias = Callable[..., axonfs.Client]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(published(tmp_path)) as server:
        yield server


@pytest.fixture
def make_client(registry: RegistryServer, tmp_path: Path) -> Iterator[MakeClient]:
    """A function that makes clients of the registry on the test's cache."""
    made: list[axonfs.Client] = []

    def make(**settings: Any) -> axonfs.Client:
        given = {"registries": registry.url, "cache": tmp_path / "cache", **settings}
        made.append(axonfs.Client(**given))
        return made[-1]

    yield make
    for client in made:
        client.close()
    sessions.close_all()


@pytest.fixture
def client(make_client: MakeClient) -> axonfs.Client:
    return make_client()


@pytest.fixture
def weights(registry: RegistryServer, tmp_path: Path) -> bytes:
    """What was published as the weights of `nlp/tiny@1.0.0`."""
    return (tmp_path / "models/nlp/tiny/1.0.0/model.safetensors").read_bytes()
