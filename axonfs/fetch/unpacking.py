"""The bytes of a package on their way into the store: gzip, tar, then each file's own check.

Below package.py, which fetches them. What a manifest does not declare is refused: members, sizes,
and more bytes than its files can take. Nothing is written but chunks of the declared files'
objects, so no name in a package is ever a path on this machine.

For worker threads: an `Unpacking` is used by one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

from axonfs import memory
from axonfs.errors import MalformedError
from axonfs.fetch.filling import Filling, is_right, is_whole
from axonfs.formats.archive import Plain, Unpacked, files
from axonfs.formats.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, FileEntry, Manifest
from axonfs.formats.package import TAR_GZIP
from axonfs.names import printable
from axonfs.store import Store

# Bytes of a package, and of what is in it, at a time.
PIECE = 1 << 20
# As many of its bytes go to zlib at a time: it copies what it does not use at once.
_SLICE = 64 << 10
# What the archive may have beside the bytes of a file: its headers and padding.
_FILE_OVERHEAD = 4096


class Unpacking:
    """One pass over the package of `manifest`.

    Args:
        readinto: fills a view with the next bytes of the package, or as much of it as is left.
        unpacked: called with each declared file when its object is complete and right.
        unverified: whether files that neither a sha256 of their own nor one of the package verifies
            may be served.
    """

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        readinto: Callable[[memoryview], int],
        unpacked: Callable[[FileEntry], object],
        *,
        unverified: bool = False,
    ) -> None:
        assert manifest.package is not None
        self._package = manifest.package
        self._store = store
        self._readinto = readinto
        self._unpacked = unpacked
        self._unverified = unverified
        self._declared = len(manifest.files)
        self._due = {entry.path: entry for entry in manifest.files}
        self._sum = hashlib.sha256()
        self._taken = 0  # bytes of the package
        self._buffer = memory.buffer(PIECE)
        self._piece = self._buffer[:0]  # what of it was not used yet
        self._allowed = manifest.size + _FILE_OVERHEAD * self._declared + MAX_MANIFEST_BYTES
        self._held: list[Filling] = []

    def run(self) -> None:
        """Unpack it from its first byte to its last.

        Raises:
            MalformedError: the package is not what the manifest declares.
            OSError: the cache's disk refused.
            Exception: what `readinto` raises.
        """
        try:
            plain = Plain if self._package.packing == TAR_GZIP else Unpacked
            self._run(io.BufferedReader(plain(self._next_slice, self._allowed), PIECE))
        finally:  # what is not complete; another pass writes its chunks anew
            while self._held:
                self._held.pop().close()

    def _run(self, plain: io.BufferedReader[Any]) -> None:
        for path, size in files(plain):
            self._unpack(path, size, plain)
        while plain.read(PIECE):  # what pads the archive to its last record
            pass
        if self._next_piece():
            raise MalformedError(f"bytes follow its end, at {self._taken}")
        self._finish()

    def _next_slice(self) -> memoryview:
        """The next bytes of the package; empty at its end."""
        if not self._piece:
            self._piece = self._next_piece()
        data, self._piece = self._piece[:_SLICE], self._piece[_SLICE:]
        return data

    def _next_piece(self) -> memoryview:
        piece = self._buffer[: self._readinto(self._buffer)]
        self._sum.update(piece)
        self._taken += len(piece)
        return piece

    def _unpack(self, path: str, size: int, plain: io.BufferedReader[Any]) -> None:
        """Read one file, up to its end if the archive has it."""
        entry = self._entry(path, size)
        filling = self._filling(entry) if entry else None
        unit, left = filling.unit if filling else PIECE, size
        while left:
            piece = plain.read(min(left, unit))
            if len(piece) < min(left, unit):
                return  # `_finish` says what is missing
            left -= len(piece)
            if filling:
                filling.write(piece)
        if entry:
            self._done(entry, filling)

    def _entry(self, path: str, size: int) -> FileEntry | None:
        """What the manifest declares of a file; None for the manifest itself."""
        entry = self._due.get(path)
        if entry is None and path == MANIFEST_NAME and size <= MAX_MANIFEST_BYTES:
            return None
        if entry is None:
            raise MalformedError(f"it holds '{printable(path)}', not declared or there twice")
        if size != entry.size:
            what = f"'{printable(path)}' has {size} bytes in it, not {entry.size}"
            raise MalformedError(what)
        return entry

    def _filling(self, entry: FileEntry) -> Filling | None:
        """Where the bytes of a file go; None if they are not needed."""
        if not entry.size or entry.chunks is not None or not self._counts(entry):
            return None
        stored = self._store.object(entry)
        if is_right(stored, entry):
            return None
        generation = stored.generation()
        if entry.packed and is_whole(stored) and stored.mark_verified(generation):
            return None  # a kill came before the index had that
        filling = Filling(entry, stored)
        self._held.append(filling)
        filling.begin()
        return filling

    def _counts(self, entry: FileEntry) -> bool:
        return self._unverified or not entry.unverified

    def _done(self, entry: FileEntry, filling: Filling | None) -> None:
        """All bytes of a file came. One without a sha256 waits for that of the package."""
        del self._due[entry.path]
        if filling is None:
            if self._counts(entry):
                self._unpacked(entry)
        elif not entry.named:
            filling.check()
            self._settle(filling)

    def _settle(self, filling: Filling) -> None:
        filling.settle()
        self._held.remove(filling)
        filling.close()
        self._unpacked(filling.entry)

    def _finish(self) -> None:
        """Check the package as a whole, and serve the files that waited for that."""
        if self._due:
            count, path = self._declared - len(self._due), printable(min(self._due))
            what = f"it holds {count} of {self._declared} declared files; '{path}' is missing"
            raise MalformedError(what)
        if self._package.digest and self._sum.hexdigest() != self._package.digest:
            what = f"its sha256 is {self._sum.hexdigest()}, not {self._package.digest}"
            raise MalformedError(what)
        while self._held:
            self._settle(self._held[-1])


def refuse(manifest: Manifest, store: Store, cause: str) -> None:
    """Quarantine what the package of `manifest` should have held, as any object with wrong bytes:
    `verify` reports it, and `verify --repair` asks for the package again."""
    for entry in manifest.files:
        if (
            not entry.size
            or entry.chunks is not None
            or is_right(stored := store.object(entry), entry)
        ):
            continue
        stored.hold()
        try:
            stored.quarantine(cause)
            if stored.present_bytes:
                stored.discard()
        finally:
            stored.release()
