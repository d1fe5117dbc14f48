"""A tar or tar.gz as a stream: its plain bytes, and which files they are.

Pure: the caller says where the compressed bytes come from, and reads the bytes of the files.
Plain files and directories are taken, in ustar, pax and GNU headers; links, devices, sparse files
and paths that lead elsewhere are refused. Everything is read forward and in pieces, so memory does
not grow with the archive.

`tarfile.open` in stream mode was rejected, because an archive may be hostile. In Python 3.11.7 and
3.12.1 it searches each pax header by a regular expression whose time grows with the square of the
header's length: 64 KiB hold the GIL for 2.5 s, and the mount stands still. It also ignores
malformed pax headers there. In 3.13.0 too it takes a damaged header for the archive's end,
decompresses a piece without a limit, and checks neither the sum nor the end of a gzip stream. With
pieces of 10 KiB it takes 1.1 s more per GiB; with 1 MiB, seven times as long for small files.

Not thread-safe; for any thread.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from axonfs.errors import MalformedError
from axonfs.names import check_path, printable, unusable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_EXTENSION_BYTES = 64 << 10
_SKIP_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
# The records of pax headers that are used; no others are kept.
_KNOWN = (b"path", b"size")
_SIZE_DIGITS = 19
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's value for a gzip header and no other


class Plain(io.RawIOBase):
    """The bytes in one gzip stream, for an `io.BufferedReader`.

    Args:
        more: returns the next bytes of the gzip stream, none at its end. They are used before
            `more` is called again.
        most: how many plain bytes the stream may have.
    """

    def __init__(self, more: Callable[[], memoryview], most: int) -> None:
        self._more = more
        self._allowed = self._left = most
        self._taken = 0  # bytes of the gzip stream
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)
        self._full = False  # zlib filled the last buffer, so it may hold bytes back

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """
        Raises:
            MalformedError: the stream is damaged, or ends too early.
        """
        view = memoryview(buffer)
        while not self._inflater.eof:
            full, data = self._full, memoryview(self._inflater.unconsumed_tail)
            if not (data or full):
                data = self._next()
            plain = self._inflate(data, len(view))
            if plain:
                view[: len(plain)] = plain
                return len(plain)
            if not (data or full or self._inflater.eof):
                raise MalformedError(f"its gzip stream does not end within its {self._taken} bytes")
        return 0

    def _next(self) -> memoryview:
        data = self._more()
        if not self._taken and not _GZIP.startswith(data[:2].tobytes()):
            raise MalformedError(f"it begins with {data[:2].hex()}, gzip with {_GZIP.hex()}")
        self._taken += len(data)
        return data

    def _inflate(self, data: memoryview, most: int) -> bytes:
        try:
            plain = self._inflater.decompress(data, most)
        except zlib.error as exc:
            what = f"its gzip stream is damaged before byte {self._taken}: {exc}"
            raise MalformedError(what) from exc
        self._full = len(plain) == most
        self._left -= len(plain)
        if self._left < 0:
            what = f"it holds more than the {self._allowed} bytes that its files can take"
            raise MalformedError(what)
        return plain


class Unpacked(io.RawIOBase):
    """The bytes of an archive that is not compressed; takes the same arguments as `Plain`."""

    def __init__(self, more: Callable[[], memoryview], most: int) -> None:
        self._more = more
        self._left = most
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """
        Raises:
            MalformedError: the archive is longer than its files need.
        """
        if not self._rest:
            self._rest = self._more()
        view = memoryview(buffer)
        piece, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(piece)] = piece
        self._left -= len(piece)
        if self._left < 0:
            raise MalformedError("it holds more bytes than its files can take")
        return len(piece)


def files(stream: io.BufferedReader[Any]) -> Iterator[tuple[str, int]]:
    """Path and size of each file of a tar archive, whose bytes are next in `stream`.

    The caller reads these bytes before it goes on. A cut archive ends at the cut.

    Raises:
        MalformedError: it is no archive of plain files.
    """
    extended: dict[bytes, str] = {}
    while any(block := stream.read(_BLOCK)) and len(block) == _BLOCK:
        header = _header(block)
        if header.type in _EXTENSIONS:
            extended |= _extended(header, stream)
            continue
        path, size = extended.get(b"path", header.name), _size(header, extended)
        extended = {}
        if header.type == tarfile.DIRTYPE:
            continue
        if header.type not in _FILES:
            raise MalformedError(f"'{printable(path)}' is neither a file nor a directory")
        path = path.removeprefix("./")
        if unusable(path):  # no manifest names a file that no directory can hold
            _skip(stream, size)
        else:
            yield check_path(path), size
        stream.read(_padding(size))


def _skip(stream: io.BufferedReader[Any], size: int) -> None:
    while size and (piece := stream.read(min(size, _SKIP_BYTES))):
        size -= len(piece)


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as exc:
        raise MalformedError(f"it is not a tar archive: {exc}") from exc


def _padding(size: int) -> int:
    return -size % _BLOCK


def _size(header: tarfile.TarInfo, extended: dict[bytes, str]) -> int:
    text = extended.get(b"size", "")
    digits = text.isascii() and text.isdigit() and len(text) <= _SIZE_DIGITS
    size = int(text) if digits else header.size
    if size < 0:
        raise MalformedError(f"'{printable(header.name)}' has a negative size")
    return size


def _extended(header: tarfile.TarInfo, stream: io.BufferedReader[Any]) -> dict[bytes, str]:
    """What an extension header says about the header after it."""
    if not 0 < header.size <= MAX_EXTENSION_BYTES:
        raise MalformedError(f"it has an extension header of {header.size} bytes")
    body = stream.read(header.size + _padding(header.size))[: header.size]
    if len(body) < header.size:  # the archive is cut
        return {}
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {b"path": _text(body.rstrip(b"\0"))}
    return dict(_records(body)) if header.type == tarfile.XHDTYPE else {}


def _records(body: bytes) -> Iterator[tuple[bytes, str]]:
    """Those of pax's `length key=value\\n` that count; each length counts its own digits."""
    start = 0
    while start < len(body):
        digits, _, _ = body[start : start + 20].partition(b" ")
        stop = start + (int(digits) if digits.isdigit() else 0)
        if not start + len(digits) + 2 < stop <= len(body):
            raise MalformedError("it has an invalid pax header")
        key, _, value = body[start + len(digits) + 1 : stop - 1].partition(b"=")
        if key in _KNOWN:
            yield key, _text(value)
        start = stop


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
