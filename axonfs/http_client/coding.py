"""Content codings: decode a body that a server compressed although it was asked not to.

Pure. Some servers and proxies compress bodies despite `Accept-Encoding: identity`. The caller
chooses the size of the decoded pieces, so a body that unpacks to terabytes needs little memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

# `read(size)` returns at most `size` bytes, and no bytes at the end.
Read = Callable[[int], bytes]

# Words in Content-Encoding that mean no coding: S3 keeps `aws-chunked` from an upload.
NONE = frozenset({"identity", "none", "binary", "utf-8", "aws-chunked"})
GZIP, DEFLATE = frozenset({"gzip", "x-gzip"}), frozenset({"deflate"})
KNOWN = GZIP | DEFLATE
MAX_CODINGS = 4
_PIECE = 64 << 10
_MAGIC = b"\x1f\x8b"


class CodingError(ValueError):
    """The bytes are invalid in the coding that the answer names."""


class CutError(CodingError):
    """The coded bytes end too early."""


def decoded(read: Read, codings: list[str]) -> Read:
    """A function that reads the decoded bytes of `read`.

    Args:
        codings: in the order in which they were applied, each one of KNOWN.
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
            CodingError: the bytes are invalid in the coding, or end too early.
        """
        while not self._done():
            data = self._coded or self._read(_PIECE)
            inflate = self._inflate = self._inflate or zlib.decompressobj(_window(data))
            try:
                plain = inflate.decompress(data, size)
            except zlib.error as exc:
                raise CodingError("the body is invalid in its content encoding") from exc
            self._coded = inflate.unconsumed_tail
            if plain:
                return plain
            if not data and not inflate.eof:
                raise CutError("the compressed body ends too early")
        return b""

    def _done(self) -> bool:
        """Whether the end is reached. A gzip body may have several members, and padding at the
        end."""
        if self._inflate is None or not self._inflate.eof:
            return False
        rest = self._inflate.unused_data
        while self._gzip and len(rest) < len(_MAGIC) and (more := self._read(_PIECE)):
            rest += more
        if not (self._gzip and rest.startswith(_MAGIC)):
            while self._read(_PIECE):  # to the end, so that the connection can be reused
                pass
            return True
        self._inflate, self._coded = zlib.decompressobj(31), rest
        return False


def _window(data: bytes) -> int:
    """zlib's `wbits` for `deflate`: some servers send it without zlib's header."""
    headed = len(data) > 1 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return 15 if headed else -15
