"""O_DIRECT at any offset, size and address: what the mount asks for, and what the kernel does."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import FILES, MODEL, NAME, Mount, passed_through, settled, source_bytes

pytestmark = pytest.mark.mount
# Offset and size in the file, offset in memory: each is not a multiple of 512 once.
READS = [(1, 512, 0), (0, 10, 0), (4096, 4096, 8), (3 << 20, 777, 3)]


@contextmanager
def direct(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def outcome(descriptor: int, offset: int, size: int, shift: int) -> bytes | int:
    """The bytes that a read gives, or its errno."""
    view = memoryview(mmap.mmap(-1, 1 << 20))[shift : shift + size]
    try:
        return bytes(view[: os.preadv(descriptor, [view], offset)])
    except OSError as exc:
        return exc.errno or 0


def test_unaligned(mount: Mount, tmp_path: Path) -> None:
    """With O_DIRECT a read of any offset, size and address works, until the kernel reads the file
    itself: then the file system of the cache decides, and most give EINVAL."""
    want = source_bytes(tmp_path, 0, NAME)
    with direct(mount.path / MODEL) as descriptor:
        for offset, size, shift in READS:
            assert outcome(descriptor, offset, size, shift) == want[offset : offset + size]
        (mount.path / MODEL).read_bytes()
        for offset, size, shift in READS:  # complete meanwhile, but not for who had it open before
            assert outcome(descriptor, offset, size, shift) == want[offset : offset + size]
    settled(lambda: mount.status()["open"] == [])
    objects = (mount.cache / "objects").rglob("*")
    (backing,) = (path for path in objects if path.is_file() and path.stat().st_size == FILES[NAME])
    with direct(mount.path / MODEL) as descriptor, direct(backing) as plain:
        assert passed_through(mount)[MODEL]
        for read in READS:
            assert outcome(descriptor, *read) == outcome(plain, *read)
        assert outcome(descriptor, 4096, 8192, 0) == want[4096:12288]
