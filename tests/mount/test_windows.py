"""What the kernel reads around a page fault, and ahead of a reader, of files that are not local."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import CHUNK, Mount, MountFactory
from tests.support.registry import RegistryServer, make_model, published

pytestmark = pytest.mark.mount
NAME = "large.bin"
SIZE = 40 * CHUNK
FILE = f"nlp/large/1.0.0/{NAME}"
# Eight chunks apart, so that none follows another; at either end of a chunk, and inside.
PLACES = [chunk * CHUNK + at for chunk, at in ((8, 0), (16, CHUNK - 1), (24, 77_777), (32, 4096))]


@pytest.fixture
def large(start_mount: MountFactory, tmp_path: Path) -> Iterator[Mount]:
    """A mount with a file of many chunks, of which nothing is local."""
    root = published(tmp_path, {NAME: SIZE}, spec="nlp/large@1.0.0", chunk_size=CHUNK)
    with RegistryServer(root) as registry:
        yield start_mount(registry.url)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return (make_model(tmp_path / "again", {NAME: SIZE}) / NAME).read_bytes()


def mapped(path: Path, places: list[int], length: int = 1) -> bytes:
    """Bytes of a mapping, in a process of its own (a page fault keeps the interpreter lock)."""
    program = """
import mmap, sys
path, length, *places = sys.argv[1:]
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
    for place in map(int, places):
        sys.stdout.buffer.write(mapping[place : place + int(length)])
"""
    command = [sys.executable, "-c", program, str(path), str(length), *map(str, places)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_a_page_fault_fetches_its_window(large: Mount, content: bytes) -> None:
    """A page fault at random fetches the chunks of the 1 MiB around it, which are two at most."""
    found = mapped(large.path / FILE, PLACES)
    assert found == bytes(content[place] for place in PLACES)
    assert len(PLACES) <= large.fetched() / CHUNK <= 2 * len(PLACES)


def test_rows_at_random_are_no_stream(large: Mount, content: bytes) -> None:
    """Rows of many pages cost no more than single ones: the kernel asks for all pages at once."""
    length = 64 << 10
    places = [chunk * CHUNK + 300_000 for chunk in (35, 5, 20, 12)]
    found = mapped(large.path / FILE, places, length)
    assert found == b"".join(content[place : place + length] for place in places)
    assert large.fetched() / CHUNK <= 2 * len(places)
