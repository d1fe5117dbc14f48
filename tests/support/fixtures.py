"""Fixtures that tests of several folders share. A test file may have its own in place of any."""

from __future__ import annotations

import logging
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.support.dockerregistry import DockerRegistry
from tests.support.dockerregistry import docker_registry as started
from tests.support.faulty_origin import FaultyOrigin
from tests.support.registry import RegistryServer
from tests.support.seaweed import BUCKET, Seaweed, seaweedfs
from tests.support.wiring import Authority


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command of ours that a test runs in this process changes how the package logs."""
    logger = logging.getLogger("axonfs")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """An empty registry. Most test files have one with models in place of it."""
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


@pytest.fixture
def server(registry: Path) -> Iterator[RegistryServer]:
    """The registry behind the built-in server."""
    with RegistryServer(registry) as server:
        yield server


@pytest.fixture
def origin(registry: Path) -> Iterator[FaultyOrigin]:
    """The registry behind a plain web server, which has no search and fails as a test plans."""
    with FaultyOrigin(registry) as origin:
        yield origin


@pytest.fixture
def whole(registry: Path) -> bytes:
    """The bytes of model.safetensors, as `published` wrote them."""
    return (registry.parent / "models/nlp/tiny/1.0.0/model.safetensors").read_bytes()


@pytest.fixture
def clock() -> MockClock:
    """A clock that runs as usual until a test turns it on."""
    return MockClock(rate=1.0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An object store; `bucket_url` is a prefix in it."""
    with seaweedfs(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket_url(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The s3 URL of an empty registry, which this process and its children may write."""
    for name, text in seaweed.environment().items():
        monkeypatch.setenv(name, text)
    return f"s3://{BUCKET}/{secrets.token_hex(4)}/reg"


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """An OCI registry that anybody may read and write."""
    with started(tmp_path_factory.mktemp("docker-registry")) as server:
        yield server


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children obey SIGINT, which a shell has its background processes ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
