"""Content codings: undo what a server did to a body although it was asked for the plain bytes.

Pure. Some servers and proxies compress whatever Accept-Encoding says. What is decoded comes in
pieces of a size that the caller chooses, so a body that unpacks to terabytes costs no memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

# `read(size)`: at most so many bytes, empty at the end.
Read = Callable[[int], bytes]

# Words that stand in Content-Encoding without a coding: S3 keeps `aws-chunked` of an upload.
NONE = frozenset({"identity", "none", "binary", "utf-8", "aws-chunked"})
GZIP, DEFLATE = frozenset({"gzip", "x-gzip"}), frozenset({"deflate"})
KNOWN = GZIP | DEFLATE
MAX_CODINGS = 4
_PIECE = 64 << 10
_MAGIC = b"\x1f\x8b"


class CodingError(ValueError):
    """The bytes are not in the coding that the answer names."""


class CutError(CodingError):
    """The coded bytes end too early."""


def decoded(read: Read, codings: list[str]) -> Read:
    """A reader of the plain bytes of what `read` brings.

    Args:
        codings: as they were applied: the last one is undone first. Each is one of KNOWN.
    """
    for coding in reversed(codings):
        read = _Inflating(read, gzip=coding in GZIP).read
    return read


class _Inflating:
    def __init__(self, read: Read, *, gzip: bool) -> None:
        self._read = read
        self._gzip = gzip
        self._coded = b""
        self._inflate = zlib.decompressobj(31) if gzip else None

    def read(self, size: int) -> bytes:
        """
        Raises:
            CodingError: the bytes are not in the coding, or end too early.
        """
        while not self._done():
            data = self._coded or self._read(_PIECE)
            inflate = self._inflate = self._inflate or zlib.decompressobj(_window(data))
            try:
                plain = inflate.decompress(data, size)
            except zlib.error as exc:
                raise CodingError("the body is not in the coding that the answer names") from exc
            self._coded = inflate.unconsumed_tail
            if plain:
                return plain
            if not data and not inflate.eof:
                raise CutError("the coded body ends too early")
        return b""

    def _done(self) -> bool:
        """Whether nothing follows: gzip may have several members, and padding behind them."""
        if self._inflate is None or not self._inflate.eof:
            return False
        rest = self._inflate.unused_data
        while self._gzip and len(rest) < len(_MAGIC) and (more := self._read(_PIECE)):
            rest += more
        if not (self._gzip and rest.startswith(_MAGIC)):
            while self._read(_PIECE):  # so that its connection can be used again
                pass
            return True
        self._inflate, self._coded = zlib.decompressobj(31), rest
        return False


def _window(data: bytes) -> int:
    """How zlib takes `deflate`: with zlib's header, or without it, as some servers send it."""
    headed = len(data) > 1 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return 15 if headed else -15
