"""A registry with ten thousand versions: what it costs to list and to hold."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import MountFactory
from tests.support.registry import RegistryServer

pytestmark = pytest.mark.mount

NAMESPACES = 40
MODELS = 2000
VERSIONS = 5
MEMORY = 300 << 20
WARM_SECONDS = 0.1


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An index alone, with the texts that a real one has."""
    words = random.Random(1)
    models = [
        {
            "namespace": f"team{number % NAMESPACES}",
            "name": f"model-{number}",
            "version": f"{version}.0.0",
            "description": " ".join(f"word{words.randrange(2000)}" for _ in range(12)),
            "framework": "pytorch",
            "license": "apache-2.0",
            "tags": ["text-generation", f"tag{number % 7}"],
            "size": 1 << 30,
            "published": 1.7e9 + number,
        }
        for number in range(MODELS)
        for version in range(VERSIONS)
    ]
    path = tmp_path / "registry/api/v1/index.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"apiVersion": "axonfs/v1", "models": models}))
    return tmp_path / "registry"


def resident(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def fastest(call: Callable[[], object], times: int = 5) -> float:
    """Seconds that it takes when nothing else gets in between."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def test_ten_thousand_versions(large: Path, start_mount: MountFactory) -> None:
    """Ten thousand versions are listed in a moment, and held in less than 300 MB."""
    with RegistryServer(large) as server:
        mount = start_mount(server.url)
        names = set(os.listdir(mount.path)) - {".axonfs"}
        assert len(names) == NAMESPACES
        assert fastest(lambda: os.listdir(mount.path)) < WARM_SECONDS
        models = 0
        for name in names:
            models += len(list(os.scandir(mount.path / name)))
        assert models == MODELS
        folder = mount.path / "team7/model-7"
        assert sorted(os.listdir(folder)) == [f"{n}.0.0" for n in range(VERSIONS)] + ["latest"]
        assert os.readlink(folder / "latest") == f"{VERSIONS - 1}.0.0"
        everything = fastest(lambda: [os.listdir(mount.path / name) for name in names], 2)
        assert everything < 40 * WARM_SECONDS
        assert resident(mount.process.pid) < MEMORY
        # The index once, and what the one model was asked for.
        assert len(server.paths("/api/v1/index.json")) == 1
        assert len(server.requests) < 10
