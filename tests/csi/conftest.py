"""One node for the tests of a module, on a registry of three versions; or one for a single test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.csi.node import Node, shared_directory
from tests.support.registry import RegistryServer, make_model

CHUNK = 1 << 20
FILES = {f"part{number}.bin": CHUNK + number for number in range(8)}
SPECS = ("nlp/tiny@1.0.0", "nlp/tiny@1.1.0", "nlp/org/deep@0.1.0")

NodeFactory: TypeAlias = Callable[..., Node]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/csi/" in str(item.path):
            item.add_marker(pytest.mark.mount)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry, and below `models/SPEC` what was published."""
    place = tmp_path_factory.mktemp("sources")
    for number, spec in enumerate(SPECS):
        model = make_model(place / "models" / spec, FILES, seed=number)
        publish(model, parse_spec(spec), place / "registry", chunk_size=CHUNK)
    return place


@pytest.fixture(scope="module")
def server(sources: Path) -> Iterator[RegistryServer]:
    with RegistryServer(sources / "registry") as server:
        yield server


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, server: RegistryServer
) -> Iterator[NodeFactory]:
    """A function that makes nodes, whose containers are not started."""
    with ExitStack() as stack:

        def make(url: str = "", **options: Any) -> Node:
            place = tmp_path_factory.mktemp("node")
            host = stack.enter_context(shared_directory(place / "host"))
            node = Node(host, place / "cache", url or server.url, place, **options)
            stack.callback(node.close)
            return node

        yield make


@pytest.fixture(scope="module")
def node(nodes: NodeFactory) -> Node:
    """A node that is up."""
    node = nodes()
    node.start()
    return node


def digest(sources: Path, name: str, spec: str = SPECS[0]) -> str:
    """The sha256 of a published file."""
    return hashlib.sha256((sources / "models" / spec / name).read_bytes()).hexdigest()


def refused(code: str, call: Callable[[], object]) -> str:
    """The message of a call that fails with this code."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code().name == code, caught.value.details()
    return str(caught.value.details())
