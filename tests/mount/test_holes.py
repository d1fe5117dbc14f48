"""docs/semantics.md on holes: what programs that copy make of a file that is not local, or partly.

They look at `st_blocks`, and where that is less than the size they ask for holes (SEEK_HOLE).
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.conftest import CHUNK, FILES, Mount, settled, source_bytes

pytestmark = pytest.mark.mount

VERSIONS = {
    "cold": "nlp/tiny/1.0.0",
    "partly local": "nlp/tiny/1.1.0",
    "local": "nlp/org/deep/0.1.0",
}


def warm(version: Path, state: str) -> None:
    """Have a version's files cold, partly local or local."""
    for name, size in FILES.items():
        if state != "cold":
            with (version / name).open("rb", buffering=0) as file:
                file.read(size if state == "local" else 1)


def by_tar(version: Path, target: Path) -> dict[str, bytes]:
    """GNU tar takes a file without blocks for one hole."""
    archive = subprocess.run(["tar", "-cSC", version, "."], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        members = {item.name.removeprefix("./"): item for item in opened.getmembers()}
        return {name: bytes(opened.extractfile(members[name]).read()) for name in FILES}  # type: ignore[union-attr]


def by_cp(*options: str) -> Callable[[Path, Path], dict[str, bytes]]:
    def copy(version: Path, target: Path) -> dict[str, bytes]:
        subprocess.run(["cp", "-r", *options, version, target], check=True)
        return {name: (target / name).read_bytes() for name in FILES}

    return copy


def by_holes(version: Path, target: Path) -> dict[str, bytes]:
    """As bsdtar, borg and qemu-img do: only what SEEK_DATA and SEEK_HOLE call data is read."""
    return {name: data_of(version / name) for name in FILES}


def data_of(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        size, at, found = os.fstat(fd).st_size, 0, b""
        while at < size:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found += bytes(start - len(found)) + os.pread(fd, at - start, start)
        return found
    finally:
        os.close(fd)


WAYS = {
    "tar -S": by_tar,
    "cp --sparse=auto": by_cp("--sparse=auto"),
    "cp --sparse=always": by_cp("--sparse=always", "--reflink=never"),
    "SEEK_DATA": by_holes,
}


@pytest.mark.parametrize("way", WAYS)
def test_holes(mount: Mount, tmp_path: Path, way: str) -> None:
    """`tar -S`, `cp --sparse` and other programs that look for holes copy every byte of a file that
    is not or only partly local."""
    for number, (state, spec) in enumerate(VERSIONS.items()):
        version = mount.path / spec
        warm(version, state)
        found = WAYS[way](version, tmp_path / f"copy{number}")
        for name in FILES:
            right = hashlib.sha256(source_bytes(tmp_path, number, name)).hexdigest()
            assert hashlib.sha256(found[name]).hexdigest() == right, (state, name)


def test_every_file_has_blocks(mount: Mount) -> None:
    """Cold files have some, however short, and the manifest; a local file has those of its size."""
    version = mount.path / "nlp/tiny/1.0.0"
    for name in (*FILES, "manifest.yaml"):
        assert (version / name).stat().st_blocks >= 8, name
    (version / "sub/part.bin").read_bytes()
    settled(lambda: (version / "sub/part.bin").stat().st_blocks * 512 > CHUNK, 5)
