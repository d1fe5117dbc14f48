"""Which files are in the layers of a model that are archives.

Of a plain tar only the headers are read, by ranges. A tar.gz is read to its end; nothing of it is
kept, so its files are fetched again when they are read. What is found here is no proof: the layer
is compared with its digest when it is unpacked. Blocking, for worker threads.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from axonfs.errors import AxonError, MalformedError, naming
from axonfs.formats.archive import Plain, files
from axonfs.formats.manifest import MAX_FILES
from axonfs.http_client import Bodies, Location, Reading
from axonfs.names import printable
from axonfs.oci.manifest import Layer
from axonfs.sources.near import read_near

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

T = TypeVar("T")

HEADERS_BYTES = 64 << 10  # of a tar that are read at a time, at first
# Bytes. What is between two headers takes about as long as a request if it is no more than NEAR.
NEAR, MAX_RANGE = 1 << 20, 8 << 20
PIECE = 1 << 20
# A tar.gz may be a thousandth of what it holds.
MOST_PLAIN = 1 << 53


def files_of(
    layer: Layer, location: Location, bodies: Bodies, cancelled: Callable[[], bool] = bool
) -> list[tuple[str, int]]:
    """Path and size of each file in a layer.

    Args:
        cancelled: polled; once it returns true, the listing is incomplete, or ends with a
            CancelledReadError.

    Raises:
        MalformedError: it is no archive of plain files.
        AxonError: the registry does not send it.
    """
    if layer.packing not in ("tar", "tar+gzip"):
        what = f"the layer {layer.path or layer.blob.digest[:12]} is packed as {layer.packing}"
        hint = "tar, tar+gzip and raw layers can be mounted; pack the model again, best as raw"
        raise MalformedError(what, hint=hint)
    log.info("listing the files of layer %s (%s)", layer.path, layer.packing)
    with naming(path=layer.path or None):
        if not layer.blob.size:
            raise MalformedError("the layer is empty, and so no archive")
        if layer.packing == "tar":
            stream = io.BufferedReader(_Ranges(layer, location, bodies, cancelled), HEADERS_BYTES)
            return list(_listed(stream, lambda size: _seek(stream, size, layer.blob.size)))
        if bodies.caches.of(location.url):
            return _unpacked(_Ranges(layer, location, bodies, cancelled).more)
        return _retried(lambda: _in_one_answer(layer, location, bodies, cancelled), bodies)


def _in_one_answer(
    layer: Layer, location: Location, bodies: Bodies, cancelled: Callable[[], bool]
) -> list[tuple[str, int]]:
    with bodies.open(location, 0, layer.blob.size, cancelled=cancelled) as reading:
        return _unpacked(_Slices(reading, layer.blob.size).more)


def _unpacked(more: Callable[[], memoryview]) -> list[tuple[str, int]]:
    plain = io.BufferedReader(Plain(more, MOST_PLAIN), PIECE)
    return list(_listed(plain, lambda size: _skip(plain, size)))


def _retried(call: Callable[[], T], bodies: Bodies) -> T:
    """The result of `call`, which is called again after a fault that may pass."""
    limits = bodies.limits
    for attempt in range(1, limits.attempts):
        try:
            return call()
        except AxonError as exc:
            if not exc.transient:
                raise
            time.sleep(limits.pause(attempt, exc.retry_after))
    return call()


def _listed(
    stream: io.BufferedReader[Any], skip: Callable[[int], int]
) -> Iterator[tuple[str, int]]:
    """
    Args:
        skip: goes on behind the bytes of a file; returns how many are missing, if more than none.
    """
    for count, (path, size) in enumerate(files(stream)):
        if count >= MAX_FILES:
            raise MalformedError(f"the layer has more than {MAX_FILES:,} files")
        yield path, size
        if skip(size) > 0:
            raise MalformedError(f"the archive ends within '{printable(path)}'")


def _seek(stream: io.BufferedReader[Any], size: int, end: int) -> int:
    missing = stream.tell() + size - end
    if missing <= 0:  # a header may say more than a seek takes
        stream.seek(size, io.SEEK_CUR)
    return missing


def _skip(stream: io.BufferedReader[Any], size: int) -> int:
    while size and (piece := stream.read(min(size, PIECE))):
        size -= len(piece)
    return size


class _Ranges(io.RawIOBase):
    """A blob as a file, which is read by ranges. A range grows while the next one is near: then the
    archive has small files, and a request for each header would take longer than their bytes."""

    def __init__(
        self, layer: Layer, location: Location, bodies: Bodies, cancelled: Callable[[], bool]
    ) -> None:
        self._size = layer.blob.size
        self._digest = layer.blob.digest
        self._location = location
        self._bodies = bodies
        self._cancelled = cancelled
        self._at = 0
        self._held = bytearray()
        self._base = 0  # of what is held
        self._length = HEADERS_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not 0 <= self._at < self._size:
            return 0
        if not self._base <= self._at < self._base + len(self._held):
            self._next()
        view, start = memoryview(buffer), self._at - self._base
        piece = self._held[start : start + len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def more(self) -> memoryview:
        """What follows, for `Plain`."""
        buffer = memoryview(bytearray(HEADERS_BYTES))
        return buffer[: self.readinto(buffer)]

    def _next(self) -> None:
        """Hold the range at the current position."""
        gap = self._at - self._base - len(self._held)
        near = bool(self._held) and 0 <= gap <= NEAR
        self._length = min(2 * self._length, MAX_RANGE) if near else HEADERS_BYTES
        self._held, self._base = bytearray(), self._at
        _retried(self._receive, self._bodies)

    def _receive(self) -> None:
        """Request what is missing of the range; an earlier attempt may have brought some of it."""
        start = self._base + len(self._held)
        stop = min(self._base + self._length, self._size)

        def take(offset: int, piece: memoryview) -> None:
            low, high = max(offset, start), min(offset + len(piece), stop)
            if low < high:  # a server may send all of the blob
                self._held += piece[low - offset : high - offset]

        place, parts = (self._bodies, self._location, self._digest), (start, stop, self._size)
        read_near(*place, *parts, take, unit=PIECE, cancelled=self._cancelled)


class _Slices:
    """The bytes of an answer, for `Plain`."""

    def __init__(self, reading: Reading, size: int) -> None:
        self._reading = reading
        self._size = size
        self._at = 0
        self._buffer = memoryview(bytearray(64 << 10))

    def more(self) -> memoryview:
        view = self._buffer[: min(len(self._buffer), self._size - self._at)]
        if view:
            self._reading.fill(view, self._at)
            self._at += len(view)
        return view
