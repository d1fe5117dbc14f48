"""What the kernel reads around a page fault, and ahead of a reader, of files that are not local."""

from __future__ import annotations

import itertools
import mmap
import os
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


def test_a_page_fault_fetches_its_chunk(large: Mount, content: bytes) -> None:
    """A page fault at random fetches one chunk, wherever in it it lies."""
    found = mapped(large.path / FILE, PLACES)
    assert found == bytes(content[place] for place in PLACES)
    assert large.fetched() == len(PLACES) * CHUNK


def test_a_mapping_is_read_on_from_a_page_fault(large: Mount, content: bytes) -> None:
    """It costs requests of a page once, for half of the window around the first fault."""
    places, length = [chunk * CHUNK + 300_000 for chunk in (5, 20, 35)], CHUNK
    found = mapped(large.path / FILE, places, length)
    assert found == b"".join(content[place : place + length] for place in places)
    assert large.status()["reads"] < 128 + 64


def test_who_reads_a_whole_window_is_told_once_that_it_is_none(
    large: Mount, content: bytes
) -> None:
    """It costs a request for each page, but for the first window of a descriptor alone."""
    length, page = CHUNK, 4096
    with (large.path / FILE).open("rb", buffering=0) as file:
        counts = [large.status()["reads"]]
        for chunk in (3, 13, 23, 33):
            place = chunk * CHUNK + 5 * page
            assert os.pread(file.fileno(), length, place) == content[place : place + length]
            counts.append(large.status()["reads"])
    first, *others = (after - before for before, after in itertools.pairwise(counts))
    assert first >= length // page
    assert max(others) <= 4


def test_past_the_page_cache_there_is_no_guess(large: Mount, content: bytes) -> None:
    """With O_DIRECT an error would be the reader's, who asked for all of it."""
    buffer = mmap.mmap(-1, CHUNK)
    direct = os.open(large.path / FILE, os.O_RDONLY | os.O_DIRECT)
    try:
        for place in (chunk * CHUNK + 4096 for chunk in (5, 15, 25)):
            assert os.preadv(direct, [buffer], place) == CHUNK
            assert buffer[:] == content[place : place + CHUNK]
    finally:
        os.close(direct)
