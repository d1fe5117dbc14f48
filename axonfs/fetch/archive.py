"""A tar archive that comes in pieces of any length: its files go out as they come.

Pure: what a file is written to is the caller's. tarfile wants a file to read from, and its reader
cannot be handed the bytes of a transfer as they arrive. Plain files and directories are taken, in
ustar, pax and GNU headers; links, devices and names that lead elsewhere are refused.

Not thread-safe; one call at a time, from any thread.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Generator
from typing import Protocol

from axonfs.errors import MalformedError
from axonfs.names import check_path, printable, unusable

_BLOCK = tarfile.BLOCKSIZE
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
MAX_EXTENSION_BYTES = 64 << 10


class Target(Protocol):
    """What a file of the archive is written to, in pieces of `unit` bytes, the last one shorter."""

    unit: int

    def write(self, piece: bytes) -> None: ...

    def done(self) -> None: ...


class _Nothing:
    """The target of a file that no manifest can name."""

    unit = 1 << 20

    def write(self, piece: bytes) -> None:
        pass

    def done(self) -> None:
        pass


class Untar:
    """The files of one archive.

    Args:
        opened: called with path and size of each file; what it raises passes through.
    """

    def __init__(self, opened: Callable[[str, int], Target]) -> None:
        self._opened = opened
        self._buffer = bytearray()
        self._parser = self._parse()
        self._wanted = next(self._parser)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the archive.

        Raises:
            MalformedError: it is no archive of plain files.
        """
        self._buffer += data
        while self._wanted and len(self._buffer) >= self._wanted:
            piece = bytes(self._buffer[: self._wanted])
            del self._buffer[: self._wanted]
            self._wanted = _next_wanted(self._parser, piece)
        if not self._wanted:
            self._buffer.clear()  # what pads the archive to its last record

    def _parse(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it wants next, and is sent exactly these."""
        extended: dict[str, str] = {}
        while any(block := (yield _BLOCK)):
            header = _header(block)
            if header.type in _EXTENSIONS:
                body = yield from self._extension(header)
                extended |= _extended(header, body)
                continue
            path, size = extended.get("path", header.name), _size(header, extended)
            extended = {}
            if header.type == tarfile.DIRTYPE:
                continue
            if header.type not in _FILES:
                raise MalformedError(f"'{printable(path)}' is neither a file nor a directory")
            yield from self._file(path, size)

    def _extension(self, header: tarfile.TarInfo) -> Generator[int, bytes, bytes]:
        if not 0 < header.size <= MAX_EXTENSION_BYTES:
            raise MalformedError(f"a header of {header.size} bytes")
        body = yield header.size + _padding(header.size)
        return body[: header.size]

    def _file(self, path: str, size: int) -> Generator[int, bytes, None]:
        path = path.removeprefix("./")
        # No manifest names a file that no directory can hold, so no reader waits for it.
        target = _Nothing() if unusable(path) else self._opened(check_path(path), size)
        left = size
        while left:
            piece = yield min(left, target.unit)
            left -= len(piece)
            target.write(piece)
        target.done()
        if padding := _padding(size):
            yield padding


def _next_wanted(parser: Generator[int, bytes, None], piece: bytes) -> int:
    """What the parser wants after `piece`; 0 once the archive has ended."""
    try:
        return parser.send(piece)
    except StopIteration:
        return 0


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as exc:
        raise MalformedError(f"it is not a tar archive: {exc}") from exc


def _padding(size: int) -> int:
    return -size % _BLOCK


def _size(header: tarfile.TarInfo, extended: dict[str, str]) -> int:
    text = extended.get("size", "")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else header.size
    if size < 0:
        raise MalformedError(f"'{printable(header.name)}' has a negative size")
    return size


def _extended(header: tarfile.TarInfo, body: bytes) -> dict[str, str]:
    """What an extension header says about the header after it."""
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(body.rstrip(b"\0"))}
    return _records(body) if header.type == tarfile.XHDTYPE else {}


def _records(body: bytes) -> dict[str, str]:
    """pax's `length key=value\\n`, each length counting its own digits."""
    found: dict[str, str] = {}
    while body:
        digits, _, _ = body[:20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        if not len(digits) + 2 < length <= len(body):
            raise MalformedError("a pax header that makes no sense")
        key, _, value = body[len(digits) + 1 : length - 1].partition(b"=")
        found[_text(key)] = _text(value)
        body = body[length:]
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
