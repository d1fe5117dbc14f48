"""Objects on their way into the registry: parts in a draft, until all are there and compared.

A draft is a sparse file below `objects/tmp/uploads`: the object's bytes, and behind them one byte
for each part, which is 1 once the part is there. So an interrupted upload goes on where it was,
also after a restart of the server. What a crash tears is found at the end of the upload: the whole
is compared with its digests before it becomes an object.

A part holds a shared lock on the draft while it is written, and the end of an upload an exclusive
one: nothing is written to an object that was compared. Each token has drafts of its own. Blocking;
any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from axonfs.errors import NoSpaceError
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.layout import object_key
from axonfs.publish.registry import Registry
from axonfs.ranges import Range
from axonfs.serve.refused import RefusedError
from axonfs.storage.files import Draft
from axonfs.units import counted

log = logging.getLogger(__name__)

MAX_UNFINISHED = 256  # drafts of a token
EXPIRY_SECONDS = 24 * 3600.0  # after the last part
MIN_PART, MAX_PART = 64 << 10, 64 << 20
MAX_PARTS = 1 << 20
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """The upload of an object, in parts of `part` bytes; the last one may be short."""

    digest: str
    size: int
    part: int

    @property
    def name(self) -> str:
        return f"{self.digest}-{self.size}-{self.part}"

    @property
    def count(self) -> int:
        return -(-self.size // self.part)

    def range(self, number: int) -> Range:
        """The bytes of part `number`, from 0."""
        return Range(number * self.part, min((number + 1) * self.part, self.size))


class Uploads:
    """The unfinished uploads of the registry in the directory `root`.

    Once `stopping`, no more objects are compared with their digests.

    Args:
        registry: the same registry.
    """

    def __init__(self, root: Path, registry: Registry) -> None:
        self._root = root
        self._drafts = root / "objects/tmp/uploads"
        self._registry = registry
        self.stopping = False

    def parts(self, owner: str, upload: Upload) -> list[int]:
        """The numbers of the parts that are there."""
        with contextlib.suppress(FileNotFoundError), self._opened(owner, upload) as fd:
            return [number for number, flag in enumerate(_flags(fd, upload)) if flag]
        return []

    def receive(
        self,
        owner: str,
        upload: Upload,
        number: int,
        readinto: Callable[[memoryview], int],
    ) -> None:
        """Write a part, whose bytes `readinto` gives.

        Do nothing if the object is there, or is being compared: a client with the same token has
        sent all parts.

        Raises:
            RefusedError: there are too many unfinished uploads.
            NoSpaceError: the disk is full.
        """
        if self._has(upload):
            return
        wanted = upload.range(number)
        with self._made(owner, upload) as fd:
            if not _locked(fd, fcntl.LOCK_SH) or not self._is_draft(fd, owner, upload):
                return
            os.ftruncate(fd, upload.size + upload.count)
            buffer, at = memoryview(bytearray(min(_BUFFER, wanted.size))), wanted.start
            while at < wanted.stop:
                count = readinto(buffer[: wanted.stop - at])
                _write(fd, buffer[:count], at)
                at += count
            _write(fd, memoryview(b"\1"), upload.size + number)

    def settle(self, owner: str, upload: Upload, table: ChunkTable) -> bool:
        """Let the object appear, and its chunk table; return whether that table is now the
        object's, which may have another one already.

        Raises:
            RefusedError: parts are missing, or the bytes do not match.
        """
        try:
            with self._opened(owner, upload) as fd:
                if not _locked(fd, fcntl.LOCK_EX):
                    raise _busy()
                if self._is_draft(fd, owner, upload):
                    self._settle_draft(fd, owner, upload, table)
        except FileNotFoundError:
            if not upload.size and not self._has(upload):
                self._settle_empty(owner, upload)
        if not self._has(upload):
            raise RefusedError(HTTPStatus.CONFLICT, "no part of the object is there")
        return self._settle_table(upload, table)

    def _settle_draft(self, fd: int, owner: str, upload: Upload, table: ChunkTable) -> None:
        path, missing = self._path(owner, upload), _flags(fd, upload).count(0)
        if missing and self._has(upload):  # by another publisher
            path.unlink()
            return
        if missing:
            what = f"the object lacks {counted(missing, 'part')}"
            raise RefusedError(HTTPStatus.CONFLICT, what)
        try:
            self._compare(fd, upload, table)
        except RefusedError as exc:
            if exc.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                path.unlink()
            raise
        os.ftruncate(fd, upload.size)
        Draft(path, fd).move_to(self._root / object_key(upload.digest))

    def _settle_empty(self, owner: str, upload: Upload) -> None:
        if upload.digest != hashlib.sha256().hexdigest():
            raise _mismatch("the object does not match its sha256")
        with self._made(owner, upload) as fd:
            target = self._root / object_key(upload.digest)
            Draft(self._path(owner, upload), fd).move_to(target)

    def _settle_table(self, upload: Upload, table: ChunkTable) -> bool:
        if not upload.size:
            return True
        kept = self._registry.kept_table(upload.digest, upload.size)
        if kept is None:
            # The server ended between the object and its table, or something removed the table.
            with (self._root / object_key(upload.digest)).open("rb") as file:
                self._compare(file.fileno(), upload, table)
            kept = self._registry.settle_table(upload.digest, table)
        return kept == table.ref

    def _has(self, upload: Upload) -> bool:
        return self._registry.has_object(upload.digest, upload.size)

    def _compare(self, fd: int, upload: Upload, table: ChunkTable) -> None:
        """Compare an object with its digest and its chunk table.

        Raises:
            RefusedError: it does not match, or the server ends.
        """
        if table.size != upload.size:
            what = f"the chunk table is of {table.size:,} bytes, the object of {upload.size:,}"
            raise _mismatch(what)
        whole, buffer = hashlib.sha256(), memoryview(bytearray(min(_BUFFER, table.chunk_size)))
        for number in range(table.count):
            chunk = table.hash.hasher()
            for piece in _pieces(fd, table, number, buffer):
                whole.update(piece)
                chunk.update(piece)
            if chunk.digest() != table.digest_of(number):
                raise _mismatch(f"chunk {number} of the object does not match the chunk table")
            if self.stopping:
                raise _busy()
        if whole.hexdigest() != upload.digest:
            raise _mismatch("the object does not match its sha256")

    def expire(self) -> None:
        """Remove the drafts that got no part for EXPIRY_SECONDS."""
        for path in self._drafts.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > EXPIRY_SECONDS:
                    path.unlink()
                    log.info("an unfinished upload of %s is given up", path.parent.name)

    def _path(self, owner: str, upload: Upload) -> Path:
        return self._drafts / owner / upload.name

    @contextlib.contextmanager
    def _opened(self, owner: str, upload: Upload, flags: int = 0) -> Iterator[int]:
        path = self._path(owner, upload)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o666)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _made(self, owner: str, upload: Upload) -> Iterator[int]:
        """The draft, which is made if it is missing."""
        path = self._path(owner, upload)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._check_room(path.parent, upload)
        with self._opened(owner, upload, os.O_CREAT) as fd:
            yield fd

    def _check_room(self, home: Path, upload: Upload) -> None:
        if len(os.listdir(home)) >= MAX_UNFINISHED:
            what = f"this token has {MAX_UNFINISHED} unfinished uploads; each ends after a day"
            raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS, what, retry_after=60)
        disk = os.statvfs(home)
        if upload.size > disk.f_bavail * disk.f_frsize:
            raise NoSpaceError("the registry's disk has no room for the object")

    def _is_draft(self, fd: int, owner: str, upload: Upload) -> bool:
        """Whether the open file is still the draft, and not an object or a draft that is gone."""
        try:
            now = self._path(owner, upload).stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(fd)
        return (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino)


def _flags(fd: int, upload: Upload) -> bytes:
    return os.pread(fd, upload.count, upload.size).ljust(upload.count, b"\0")


def _locked(fd: int, kind: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    return False


def _busy() -> RefusedError:
    what = "another request for this object is under way"
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, what, retry_after=1)


def _mismatch(what: str) -> RefusedError:
    return RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{what}; upload it again")


def _write(fd: int, piece: memoryview, at: int) -> None:
    while piece:
        count = os.pwrite(fd, piece, at)
        piece, at = piece[count:], at + count


def _pieces(fd: int, table: ChunkTable, number: int, buffer: memoryview) -> Iterator[memoryview]:
    """The bytes of a chunk; fewer if the file is too short."""
    at = number * table.chunk_size
    stop = min(at + table.chunk_size, table.size)
    while at < stop and (count := os.preadv(fd, [buffer[: stop - at]], at)):
        yield buffer[:count]
        at += count
