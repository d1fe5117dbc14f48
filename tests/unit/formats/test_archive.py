"""Archives read as a stream: what tarfile writes is read, all but files is refused.

Nothing that is cut or damaged looks whole, and nothing takes much memory or time.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.errors import MalformedError
from axonfs.formats.archive import MAX_EXTENSION_BYTES, Plain, files

PATHS = st.lists(st.text("abcdéx", min_size=1, max_size=120), min_size=1, max_size=3).map("/".join)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
MOST = 1 << 30


def plain(packed: bytes, step: int, most: int = MOST, buffer: int = 4096) -> io.BufferedReader:
    """The plain bytes of a gzip stream that comes `step` bytes at a time."""
    pieces = (memoryview(packed)[at : at + step] for at in range(0, len(packed), step))
    return io.BufferedReader(Plain(lambda: next(pieces, memoryview(b"")), most), buffer)


def unpacked(archive: bytes, step: int) -> dict[str, bytes]:
    """The files that an archive has whole."""
    stream = plain(gzip.compress(archive, 1), step)
    found: dict[str, bytes] = {}
    for path, size in files(stream):
        assert path not in found
        data = stream.read(size)
        if len(data) == size:
            found[path] = data
    drain(stream)
    return found


def drain(stream: io.BufferedReader) -> None:
    while stream.read(777):
        pass


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
def test_an_invalid_extension_header_is_refused(body: bytes) -> None:
    """Also by the Pythons whose tarfile takes the first one for no header at all."""
    with pytest.raises(MalformedError, match="header"):
        unpacked(extension(body), 512)


def test_an_empty_extension_header_is_refused() -> None:
    with pytest.raises(MalformedError, match="an extension header of 0 bytes"):
        unpacked(extension(b""), 512)


def headers(body: bytes, count: int) -> bytes:
    """A file after `count` extension headers."""
    one, file = extension(body), archive_of([(tarfile.TarInfo("a"), b"abc")])
    return one[: 512 + len(body) + -len(body) % 512] * count + file


def test_an_extension_header_takes_little_time() -> None:
    """The one of 64 KiB for which tarfile needs seconds, in Pythons that are in use."""
    record = b" comment=" + b"9" * (MAX_EXTENSION_BYTES - 15) + b"\n"
    body = str(len(record) + 5).encode() + record
    began = time.thread_time()
    assert unpacked(headers(body, 8), 65536) == {"a": b"abc"}
    assert time.thread_time() - began < 1


def test_extension_headers_without_end_take_no_memory() -> None:
    """Neither what they say, nor a frame of the stack for each."""
    record = b"%05d k%07d=%s\n"
    bodies = [record % (1024, number, b"x" * 1008) for number in range(8000)]
    archive = b"".join(headers(body, 1)[:1536] for body in bodies) + headers(b"", 0)
    stream = plain(gzip.compress(archive, 1), 65536)
    tracemalloc.start()
    try:
        assert list(files(stream)) == [("a", 3)]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_no_manifest_takes_no_memory() -> None:
    """It is skipped."""
    members = [(tarfile.TarInfo("x" * 256), bytes(64 << 20)), (tarfile.TarInfo("a"), b"abc")]
    stream = plain(gzip.compress(archive_of(members), 1), 65536)
    tracemalloc.start()
    try:
        assert list(files(stream)) == [("a", 3)]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# What every way to cut or damage an archive is tried on.
FILES = {"first": b"1" * 700, "sub/" + "n" * 120: random.Random(3).randbytes(1024), "last": b"3"}
WHOLE = archive_of([(tarfile.TarInfo(path), data) for path, data in FILES.items()])


@given(st.integers(0, len(WHOLE)), st.integers(1, 3000))
def test_a_cut_archive_has_no_file_but_whole_ones(stop: int, step: int) -> None:
    found = unpacked(WHOLE[:stop], step)
    assert found == {path: FILES[path] for path in list(FILES)[: len(found)]}
    if stop < WHOLE.index(b"last"):
        assert len(found) < len(FILES)


def test_a_damaged_header_is_not_the_end() -> None:
    """For tarfile it is, unless it is the first."""
    at = WHOLE.index(b"last")
    with pytest.raises(MalformedError, match="not a tar archive: bad checksum"):
        unpacked(WHOLE[:at] + b"p" + WHOLE[at + 1 :], 512)


@given(st.integers(0, 10_000), st.integers(1, 3000), st.integers(1, 5000))
def test_a_cut_gzip_stream_is_refused(stop: int, step: int, buffer: int) -> None:
    packed = gzip.compress(WHOLE, 6)
    stream = plain(packed[: stop % len(packed)], step, buffer=buffer)
    with pytest.raises(MalformedError, match=r"does not end within its \d+ bytes|it begins with"):
        drain(stream)


@given(st.integers(10, 10_000), st.integers(1, 255), st.integers(1, 3000))
def test_a_damaged_gzip_stream_is_refused(at: int, flip: int, step: int) -> None:
    """By its own sum, if by nothing before that. Some streams that differ hold the same: a run of
    zeros may be copied from any zeros before it."""
    packed = bytearray(gzip.compress(WHOLE, 6))
    packed[10 + at % (len(packed) - 10)] ^= flip
    with suppress(MalformedError):
        assert plain(bytes(packed), step).read() == WHOLE


def test_a_gzip_stream_with_a_wrong_sum_is_refused() -> None:
    packed = gzip.compress(WHOLE, 6)
    for at in range(-8, 0):  # the sum, and the length
        damaged = bytearray(packed)
        damaged[at] ^= 1
        with pytest.raises(MalformedError, match="its gzip stream is damaged before byte"):
            plain(bytes(damaged), 512).read()


@given(st.binary(max_size=9000), st.integers(0, 9), st.integers(1, 3000), st.integers(1, 5000))
def test_the_plain_bytes_of_a_gzip_stream(data: bytes, level: int, step: int, buffer: int) -> None:
    assert plain(gzip.compress(data, level), step, len(data), buffer).read() == data


def test_plain_bytes_come_before_more_is_asked_for() -> None:
    """zlib holds back what it has no room for: a reader does not wait for the next piece."""
    data = bytes(100_000)
    packed = memoryview(gzip.compress(data))[:-8]

    def more() -> memoryview:
        assert pieces, "nothing came, and the plain bytes were not all read"
        return pieces.pop()

    pieces = [packed]
    stream = io.BufferedReader(Plain(more, MOST), 1000)
    assert stream.read(len(data)) == data


def test_a_gzip_stream_has_no_more_than_it_may() -> None:
    stream = plain(gzip.compress(bytes(50 << 20)), 65536, most=1 << 20)
    with pytest.raises(MalformedError, match="it holds more than the 1048576 bytes"):
        drain(stream)


@given(st.binary(min_size=512, max_size=4000), st.integers(1, 600))
def test_noise_is_refused_or_nothing(noise: bytes, step: int) -> None:
    with pytest.raises(MalformedError):
        unpacked(b"x" + noise, step)
