"""Files that `Client.open` gives beside another process that owns the cache, without a mount."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import axonfs
from axonfs.client import sessions
from axonfs.client.direct import OwnersFile
from axonfs.client.file import CachedFile
from tests.support.registry import SPEC, RegistryServer

MIB = 1 << 20
NAME = "model.safetensors"


HOLDER = """
import sys, axonfs
client = axonfs.Client(registries=sys.argv[1], cache=sys.argv[2])
with client.open("nlp/tiny@1.0.0", "config.json") as file:
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other_owner(registry: RegistryServer, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """A function that has another process own the cache until the test ends."""
    command = [sys.executable, "-c", HOLDER, registry.url, str(tmp_path / "cache")]
    started: list[subprocess.Popen[str]] = []

    def start() -> None:
        sessions.close_all()
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"

    yield start
    sessions.close_all()
    for child in started:
        child.communicate("\n", timeout=60)
        assert child.returncode == 0


def test_what_another_owner_has_whole_is_read_from_its_cache(
    client: axonfs.Client,
    registry: RegistryServer,
    weights: bytes,
    other_owner: Callable[[], None],
) -> None:
    client.pin(SPEC)
    other_owner()
    before = registry.bytes_sent
    with client.open(SPEC, NAME, buffering=0) as file:
        assert isinstance(file, CachedFile)
        assert isinstance(file._opened.direct, OwnersFile)
        file.seek(MIB - 5)
        assert file.read(10) == weights[MIB - 5 :][:10]
        file.seek(0)
        assert file.readall() == weights
    with client.open(SPEC, "manifest.yaml") as small:
        assert b"name: tiny" in small.read()
    assert registry.bytes_sent == before


def test_what_another_owner_does_not_have_is_fetched_past_its_cache(
    client: axonfs.Client, weights: bytes, other_owner: Callable[[], None], tmp_path: Path
) -> None:
    other_owner()
    with client.open(SPEC, NAME, buffering=0) as file:
        assert isinstance(file, CachedFile)
        directory = file._session.settings.cache
        assert directory != tmp_path / "cache"
        assert file.readall() == weights
    assert client.info(SPEC).local < len(weights)
    sessions.close_all()
    assert not directory.exists()


def test_what_changes_in_another_owner_s_cache_is_never_served(
    client: axonfs.Client, weights: bytes, other_owner: Callable[[], None], tmp_path: Path
) -> None:
    client.pin(SPEC)
    other_owner()
    (backing,) = (
        path
        for path in (tmp_path / "cache/objects").rglob("*")
        if path.is_file() and path.stat().st_size == len(weights)
    )
    with client.open(SPEC, NAME) as file:
        assert file.read(10) == weights[:10]
        with backing.open("r+b") as rot:
            rot.seek(2 * MIB)
            rot.write(b"\0" * 100)  # as an eviction leaves it
        assert file.read() == weights[10:]
