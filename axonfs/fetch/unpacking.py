"""The bytes of a package on their way into the store: gzip, tar, then each file's own check.

Below package.py, which fetches them. What a manifest does not declare is refused: members, sizes,
and more bytes than its files can take. Nothing is written but chunks of the declared files'
objects, so no name in a package is ever a path on this machine.

How it is safe: of each object one chunk that was not there is held back until all its bytes were
seen to be right, so an object that is complete is right, whenever a kill comes. The others count
for nothing until then. What the kernel reads itself is not written over before that at all: only
what rot took of it is kept back. An object is filled by one pass at a time (package.py).

For worker threads; one call at a time.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable

from axonfs.errors import MalformedError
from axonfs.fetch.untar import Untar
from axonfs.formats.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, FileEntry, Manifest
from axonfs.names import printable
from axonfs.store import Store, StoredObject

# Bytes of a package, and of what is in it, at a time.
PIECE = 1 << 20
# What the archive may have beside the bytes of a file: its headers and padding.
_FILE_OVERHEAD = 4096
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's word for: gzip, and nothing else


class Unpacking:
    """One pass over the package of `manifest`; `close` it.

    Args:
        unpacked: called with each declared file when its object is complete and right.
        unverified: whether files count of which nothing tells that their bytes are right.
    """

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        unpacked: Callable[[FileEntry], object],
        *,
        unverified: bool = False,
    ) -> None:
        assert manifest.package is not None
        self.taken = 0  # bytes of the package
        self._package = manifest.package
        self._store = store
        self._unpacked = unpacked
        self._unverified = unverified
        self._declared = len(manifest.files)
        self._due = {entry.path: entry for entry in manifest.files}
        self._sum = hashlib.sha256()
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)
        self._allowed = manifest.size + _FILE_OVERHEAD * self._declared + MAX_MANIFEST_BYTES
        self._left = self._allowed
        self._untar = Untar(self._open)
        self._held: list[_Filling] = []

    def take(self, offset: int, view: memoryview) -> int:
        """Take the bytes of the package at `offset`; how many were new.

        A source that ignores ranges begins at 0 again after a fault.

        Raises:
            MalformedError: the package is not what the manifest declares.
            OSError: the cache's disk refused.
        """
        if offset < self.taken:
            return 0
        if offset == 0 and bytes(view[:2]) != _GZIP:
            raise MalformedError(f"it begins with {bytes(view[:2]).hex()}, gzip with 1f8b")
        self._sum.update(view)
        self.taken += len(view)
        self._inflate(view)
        return len(view)

    def _inflate(self, data: memoryview | bytes) -> None:
        if self._inflater.eof:
            raise MalformedError(f"bytes follow the end of its gzip stream, at {self.taken}")
        plain = bytes(PIECE)
        while data or len(plain) == PIECE:  # a full piece may have left some behind in zlib
            try:
                plain = self._inflater.decompress(data, PIECE)
            except zlib.error as exc:
                what = f"its gzip stream is damaged before byte {self.taken}: {exc}"
                raise MalformedError(what) from exc
            data = self._inflater.unconsumed_tail
            self._left -= len(plain)
            if self._left < 0:
                what = f"it holds more than the {self._allowed} bytes that its files can take"
                raise MalformedError(what)
            self._untar.feed(plain)

    def finish(self) -> None:
        """The package was taken to its end: have files that waited for that count.

        Raises:
            MalformedError: as `take`.
        """
        if self.taken != self._package.size:
            raise MalformedError(f"it has {self.taken} bytes, not {self._package.size}")
        if not self._inflater.eof:
            raise MalformedError(f"its gzip stream does not end within its {self.taken} bytes")
        if self._due:
            count, path = self._declared - len(self._due), printable(min(self._due))
            what = f"it holds {count} of {self._declared} declared files; '{path}' is missing"
            raise MalformedError(what)
        if self._package.digest and self._sum.hexdigest() != self._package.digest:
            what = f"its sha256 is {self._sum.hexdigest()}, not {self._package.digest}"
            raise MalformedError(what)
        while self._held:
            self._held.pop().settle()

    def close(self) -> None:
        """Let go of what is not complete; its chunks are written anew by another pass."""
        while self._held:
            self._held.pop().close()

    def _open(self, path: str, size: int) -> _Filling | _Passed:
        entry = self._due.get(path)
        if entry is None and path == MANIFEST_NAME and size <= MAX_MANIFEST_BYTES:
            return _Passed()
        if entry is None:
            raise MalformedError(f"it holds '{printable(path)}', not declared or there twice")
        if size != entry.size:
            what = f"'{printable(path)}' has {size} bytes in it, not {entry.size}"
            raise MalformedError(what)
        if entry.unverified and not self._unverified:
            return _Passed(lambda: self._due.pop(path))
        stored = self._store.object(entry) if size else None
        if stored is None or entry.chunks is not None or _is_right(stored, entry):
            return _Passed(lambda: self._done(entry))
        generation = stored.generation()
        if entry.packed and _is_whole(stored) and stored.mark_verified(generation):
            # A kill came before that was noted.
            return _Passed(lambda: self._done(entry))
        filling = _Filling(entry, stored, self._ready, self._unpacked)
        self._held.append(filling)
        filling.begin()
        return filling

    def _ready(self, filling: _Filling) -> None:
        """All bytes of a file are there. The package vouches for it if nothing else does."""
        del self._due[filling.entry.path]
        if not filling.entry.named:
            filling.check()
            self._held.remove(filling)
            filling.settle()

    def _done(self, entry: FileEntry) -> None:
        del self._due[entry.path]
        self._unpacked(entry)


def refuse(manifest: Manifest, store: Store, cause: str) -> None:
    """Serve nobody from what the package of `manifest` should have held, as from any object whose
    bytes were wrong: `verify` tells, and with `--repair` asks for the package again."""
    for entry in manifest.files:
        if (
            not entry.size
            or entry.chunks is not None
            or _is_right(stored := store.object(entry), entry)
        ):
            continue
        stored.hold()
        try:
            stored.quarantine(cause)
            if stored.present_bytes:
                stored.discard()
        finally:
            stored.release()


def _is_right(stored: StoredObject, entry: FileEntry) -> bool:
    """Whether there is nothing left to do for a file, as far as it can be known."""
    return stored.complete and (stored.verified or (entry.unverified and _is_whole(stored)))


def _is_whole(stored: StoredObject) -> bool:
    """Whether all of it landed: what was only found in its file proves nothing."""
    return stored.complete and not stored.adopted(0, stored.count)


class _Passed:
    """A file whose bytes nobody needs."""

    unit = PIECE

    def __init__(self, done: Callable[[], object] = bool) -> None:
        self._done = done

    def write(self, piece: bytes) -> None:
        pass

    def done(self) -> None:
        self._done()


class _Filling:
    """A file on its way into its object, which is held until `settle` or `close`."""

    def __init__(
        self,
        entry: FileEntry,
        stored: StoredObject,
        ready: Callable[[_Filling], None],
        unpacked: Callable[[FileEntry], object],
    ) -> None:
        self.entry = entry
        self.unit = stored.chunk_size
        self._object = stored
        self._ready = ready
        self._unpacked = unpacked
        self._sum = hashlib.sha256()
        self._chunk = 0
        self._kept: dict[int, bytes] = {}
        self._back: set[int] = set()
        self._generation = stored.generation()
        stored.hold()

    def begin(self) -> None:
        """Choose what is held back until the end.

        Raises:
            OSError: the disk failed.
        """
        stored = self._object
        if stored.complete:  # nothing vouches for it
            stored.discard()
        absent = [chunk for run in stored.missing(0, stored.count) for chunk in range(*run)]
        self._back = set(absent if stored.frozen else absent[-1:])
        self._generation = stored.generation()

    def write(self, piece: bytes) -> None:
        self._sum.update(piece)
        if self._chunk in self._back:
            self._kept[self._chunk] = piece
        elif not self._object.frozen:
            self._land(self._chunk, piece)
        self._chunk += 1

    def _land(self, chunk: int, piece: bytes) -> None:
        self._object.land(chunk, memoryview(piece))
        epoch, writes = self._generation
        self._generation = epoch, writes + 1  # ours; others' show when it is compared

    def done(self) -> None:
        self._ready(self)

    def check(self) -> None:
        """
        Raises:
            MalformedError: the bytes are not the ones that the manifest names; they are dropped.
        """
        if self._sum.hexdigest() != self.entry.digest:
            path = printable(self.entry.path)
            what = f"'{path}' in it has the sha256 {self._sum.hexdigest()}, not {self.entry.digest}"
            self._object.discard()
            raise MalformedError(what)

    def settle(self) -> None:
        """Have the object count: its bytes are right."""
        try:
            for chunk, piece in self._kept.items():
                self._land(chunk, piece)
            if self._kept and not self.entry.unverified:
                self._object.mark_verified(self._generation)
            if self._object.quarantined:  # by a package before this one
                self._object.quarantine(None)
        finally:
            self.close()
        self._unpacked(self.entry)

    def close(self) -> None:
        self._object.release()
