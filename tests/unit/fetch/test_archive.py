"""Tar archives that come in pieces: what tarfile writes is read, everything but files refused."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import MalformedError
from axonfs.fetch.untar import Untar

PATHS = st.lists(st.text("abcdéx", min_size=1, max_size=120), min_size=1, max_size=3).map("/".join)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


class Kept:
    unit = 700

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def write(self, piece: bytes) -> None:
        assert len(piece) <= self.unit
        self.data += piece

    def done(self) -> None:
        self.ended = True


def unpacked(archive: bytes, step: int) -> dict[str, bytes]:
    found: dict[str, Kept] = {}

    def opened(path: str, size: int) -> Kept:
        assert path not in found
        found[path] = Kept()
        return found[path]

    untar = Untar(opened)
    for start in range(0, len(archive), step):
        untar.feed(archive[start : start + step])
    assert all(kept.ended for kept in found.values())
    return {path: kept.data for path, kept in found.items()}


def archive_of(
    members: list[tuple[tarfile.TarInfo, bytes]], kind: int = tarfile.PAX_FORMAT
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for header, data in members:
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@given(st.dictionaries(PATHS, st.binary(max_size=2000), max_size=5), FORMATS, st.integers(1, 3000))
def test_what_tarfile_writes_is_read(files: dict[str, bytes], kind: int, step: int) -> None:
    members = [(tarfile.TarInfo(path), data) for path, data in files.items()]
    assert unpacked(archive_of(members, kind), step) == files


def test_directories_and_a_leading_dot_are_nothing_special() -> None:
    folder = tarfile.TarInfo("./sub")
    folder.type = tarfile.DIRTYPE
    members = [(folder, b""), (tarfile.TarInfo("./sub/a"), b"abc")]
    assert unpacked(archive_of(members), 512) == {"sub/a": b"abc"}


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "sub/../../a", "a//b"])
def test_a_name_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(MalformedError, match="path"):
        unpacked(archive_of([(tarfile.TarInfo(path), b"x")]), 512)


def test_a_file_that_no_directory_can_hold_is_passed_over() -> None:
    odd = ["x" * 256, "gr\udcf6\udcdfe", "/".join(["x" * 100] * 31)]
    names = [odd[0], "a\nb", odd[1], "last", odd[2]]
    members = [(tarfile.TarInfo(name), name.encode(errors="replace")) for name in names]
    assert unpacked(archive_of(members), 700) == {"a\nb": b"a\nb", "last": b"last"}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S"],
)
def test_what_is_no_file_is_refused(kind: bytes) -> None:
    header = tarfile.TarInfo("a")
    header.type, header.linkname = kind, "b"
    with pytest.raises(MalformedError, match="neither a file nor a directory"):
        unpacked(archive_of([(header, b"")], tarfile.USTAR_FORMAT), 512)


def extension(body: bytes) -> bytes:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    return archive_of([(header, body)], tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("body", [b"nonsense", b"0 a=b\n", b"99 path=a\n", b"x" * (65 << 10)])
def test_a_header_that_makes_no_sense_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedError, match="header"):
        unpacked(extension(body), 512)


@given(st.binary(min_size=512, max_size=4000), st.integers(1, 600))
def test_noise_is_refused_or_nothing(noise: bytes, step: int) -> None:
    with pytest.raises(MalformedError):
        unpacked(b"x" + noise, step)
