"""Copies a version into a plain directory: `axonfs export`.

Above destination, which has the directory, and beside api, whose `open` gives the bytes, fetched
and verified, with or without a mount. What is whole in the cache is cloned where the file systems
share blocks (btrfs, XFS, bcachefs): that takes no space, and neither file changes with the other.
Every file is compared with its digest as it lies in the directory, before it gets its name there.

Hard links are made on request only, of a pinned version's read-only files (store/links.py).

Blocking.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from io import RawIOBase
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from axonfs.call import Event
from axonfs.client.destination import Destination, Place, naming
from axonfs.errors import AxonError, CorruptError, NoSpaceError, NotFoundError, UnsupportedError
from axonfs.names import printable
from axonfs.store import LINKED_MODE
from axonfs.units import counted, size

T = TypeVar("T")

# Files that are copied at a time. Each is read in its order, and fetched ahead of that.
AT_ONCE = 4
_PIECE = 4 << 20
_PROGRESS_PAUSE = 0.1
_MANY = 5  # files that a message names at most


class _Sum(Protocol):
    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class File:
    """One file of an `export_plan`."""

    path: str
    size: int
    kind: str  # of its proof
    digest: str
    executable: bool
    backing: str | None

    @classmethod
    def of(cls, item: Event, spec: str) -> File:
        """The file that an item describes."""
        ((kind, digest),) = item["proof"].items()
        if kind == "unverified":  # of no other version is anything known to be the same
            digest = spec
        return cls(item["path"], item["size"], kind, digest, item["executable"], item["backing"])

    @property
    def content(self) -> str:
        """What names the bytes."""
        return f"{self.kind}:{self.digest}"

    def sum(self) -> _Sum | None:
        """What its bytes are compared with; None if the file has no digest of its own."""
        if self.kind == "sha256":
            return hashlib.sha256()
        if self.kind == "git":
            return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        return None


@dataclass(frozen=True, slots=True)
class Way:
    """How files get there.

    Args:
        linked: the directory of a pinned version whose files get another name; None copies.
        force: replace files that no export wrote.
    """

    linked: Path | None = None
    force: bool = False


class Export:
    """One export.

    Args:
        plan: the answer to `export_plan`.
        open_file: a file of that version, from its first byte.
        progress: called in this thread with the bytes that are there, several times a second.
    """

    def __init__(
        self,
        plan: Event,
        there: Destination,
        way: Way,
        open_file: Callable[[str], RawIOBase],
        progress: Callable[[Event], object],
    ) -> None:
        self.spec = str(plan["spec"])
        self._files = [File.of(item, self.spec) for item in plan["files"]]
        self._there = there
        self._way = way
        self._open = open_file
        self._progress = progress
        self._total = sum(file.size for file in self._files)
        self._clones = True  # until the file systems refuse
        self._stop = threading.Event()
        self._lock = threading.Lock()  # guards what is below
        self._bytes = Counter[str]()  # by how they got there
        self._done = 0
        self._path = ""

    def run(self) -> dict[str, Any]:
        """Have every file in the directory; the figures, in bytes by how they got there.

        Raises:
            NoSpaceError: the files do not fit there. Nothing was fetched.
            AxonError: a file cannot be had or written; the same export goes on later.
        """
        found = dict(zip(self._files, self._each(self._look, self._files), strict=True))
        if others := [file.path for file, state in found.items() if state == "other"]:
            raise _others(self.spec, others)
        missing = [file for file, state in found.items() if state == "missing"]
        if self._way.linked is not None:
            self._each(self._link, missing)
        else:
            cloned = self._each(self._clone, missing)
            left = [file for file, done in zip(missing, cloned, strict=True) if not done]
            self._check_room(left)
            self._each(self._copy, left)
        self._there.sweep(file.path for file in self._files)
        self._tell()
        return {
            "spec": self.spec,
            "path": str(self._there.root),
            "files": len(self._files),
            "size": self._total,
            **{name: self._bytes[name] for name in ("copied", "cloned", "linked", "kept")},
            "unverified": sum(file.kind == "unverified" for file in self._files),
        }

    def _each(self, work: Callable[[File], T], files: Sequence[File]) -> list[T]:
        """Do `work` for each file, some at a time; the first error ends it."""
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="export")
        todo, pending, found = iter(enumerate(files)), dict[Future[T], int](), dict[int, T]()
        try:
            while len(found) < len(files):
                for number, file in islice(todo, 2 * AT_ONCE - len(pending)):
                    pending[pool.submit(work, file)] = number
                done, _ = wait(pending, _PROGRESS_PAUSE, FIRST_COMPLETED)
                self._tell()
                for future in done:
                    found[pending.pop(future)] = future.result()
        finally:  # a thread whose read hangs is left behind
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        self._stop.clear()
        return [found[number] for number in range(len(files))]

    def _tell(self) -> None:
        event = {"event": "progress", "spec": self.spec, "path": self._path}
        self._progress(event | {"done": self._done, "total": self._total})

    def _there_now(self, file: File, how: str) -> None:
        """Count a file whose bytes were not counted while they came."""
        with self._lock:
            self._bytes[how] += file.size
            self._done += file.size
            self._path = file.path

    def _look(self, file: File) -> str:
        """What is in the file's place: `missing`, `same`, or `other`, which is another program's.

        What an earlier export wrote, of this version or of another one, is to be replaced.
        """
        with self._there.place(file.path, file.content) as place:
            if (found := place.status()) is None:
                return "missing"
            if stat.S_ISDIR(found.st_mode):
                raise AxonError("is a directory there", spec=self.spec, path=file.path)
            state = self._compare(file, place, found)
            if state == "same":
                self._there.note(place)
                self._there_now(file, "kept")
            return "missing" if state == "other" and self._way.force else state

    def _compare(self, file: File, place: Place, found: os.stat_result) -> str:
        source = self._source(file)
        if source and (same := _status(source)) and os.path.samestat(found, same):
            return "same" if self._way.linked else "missing"  # a copy takes the place of a link
        if not stat.S_ISREG(found.st_mode):
            return "other"
        if found.st_nlink > 1 and stat.S_IMODE(found.st_mode) == LINKED_MODE:
            return "missing"  # a link of an earlier export; its bytes have another name
        if (marked := place.marked()) is not None:
            return "same" if marked == file.content and not self._way.linked else "missing"
        if found.st_size != file.size or (check := file.sum()) is None:
            return "other"
        descriptor = place.open()
        try:
            if not self._is_right(file, check, descriptor):
                return "other"
            place.mark(descriptor)
        finally:
            os.close(descriptor)
        return "missing" if self._way.linked else "same"

    def _source(self, file: File) -> Path | None:
        """The file on the disk that has its bytes."""
        if self._way.linked is not None:
            return self._way.linked / file.path
        return Path(file.backing) if file.backing else None

    def _link(self, file: File) -> None:
        assert self._way.linked is not None
        with self._there.place(file.path, file.content) as place:
            try:
                place.link(self._way.linked / file.path)
            except FileNotFoundError as exc:
                hint = f"axonfs pin {self.spec} pins all files; --include chooses some"
                what = "is not part of the pin"
                raise NotFoundError(what, spec=self.spec, path=file.path, hint=hint) from exc
            except OSError as exc:
                what = f"cannot be linked from {self._way.linked}: {exc.strerror}"
                hint = "leave out --link to copy the files"
                raise UnsupportedError(what, spec=self.spec, path=file.path, hint=hint) from exc
        self._there_now(file, "linked")

    def _clone(self, file: File) -> bool:
        """Have the file share the blocks of the cache's, if that can be."""
        check = file.sum()
        if not (self._clones and file.backing and check):
            return False
        with self._there.place(file.path, file.content) as place:
            descriptor = place.begin()
            try:
                if not place.clone(descriptor, file.backing):
                    self._clones = False
                    return False
                # The cache may have given up some of it meanwhile.
                if not self._is_right(file, check, descriptor):
                    os.ftruncate(descriptor, 0)
                    return False
                place.finish(descriptor, executable=file.executable)
            finally:
                os.close(descriptor)
            self._there.note(place)
        self._there_now(file, "cloned")
        return True

    def _check_room(self, files: Sequence[File]) -> None:
        """Refuse what does not fit, before a byte of it is fetched."""
        needed, free = sum(file.size for file in files), self._there.free()
        needed -= sum(self._begun(file) for file in files)
        if needed > free:
            what = f"needs {size(needed)} in {self._there.root}, but only {size(free)} is free"
            hint = "free some space there, or choose a directory on another disk"
            raise NoSpaceError(what, spec=self.spec, hint=hint)

    def _begun(self, file: File) -> int:
        """Bytes of it that an earlier export left."""
        with self._there.place(file.path, file.content) as place:
            return min(place.begun(), file.size)

    def _copy(self, file: File) -> None:
        with self._there.place(file.path, file.content) as place:
            descriptor = place.begin()
            try:
                if not self._fill(file, descriptor, again=True):  # what was there was wrong
                    self._fill(file, descriptor, again=False)
                place.finish(descriptor, executable=file.executable)
            except CorruptError:
                place.drop_draft()
                raise
            finally:
                os.close(descriptor)
            self._there.note(place)

    def _fill(self, file: File, descriptor: int, *, again: bool) -> bool:
        """Write the bytes that the draft does not have; False if those that it had are wrong."""
        check, begun = file.sum(), 0
        if again and check is not None:
            begun = min(os.fstat(descriptor).st_size, file.size)
            self._add(file, check, descriptor, begun)
        with naming(file.path):
            os.ftruncate(descriptor, begun)
        self._stream(file, check, descriptor, begun)
        if check is None or check.hexdigest() == file.digest:
            with self._lock:
                self._bytes["copied"] += file.size
            return True
        if not begun:
            hint = f"axonfs verify --repair {self.spec} looks at the cache"
            what = "has the wrong digest"
            raise CorruptError(what, spec=self.spec, path=file.path, hint=hint)
        self._count(file, -file.size)
        return False

    def _stream(self, file: File, check: _Sum | None, descriptor: int, begun: int) -> None:
        if begun >= file.size:
            return
        buffer = memoryview(bytearray(min(_PIECE, file.size - begun)))
        with self._open(file.path) as source:
            source.seek(begun)
            while begun < file.size:
                self._raise_if_stopped()
                count = source.readinto(buffer[: file.size - begun])
                if not count:
                    what = f"ended after {begun} of {file.size} bytes"
                    raise CorruptError(what, spec=self.spec, path=file.path)
                part = buffer[:count]
                if check is not None:
                    check.update(part)
                with naming(file.path):
                    _write(descriptor, part, begun)
                begun += count
                self._count(file, count)

    def _is_right(self, file: File, check: _Sum, descriptor: int) -> bool:
        """Whether an open file has the bytes."""
        if os.fstat(descriptor).st_size != file.size:
            return False
        self._add(file, check, descriptor, file.size, count=False)
        return check.hexdigest() == file.digest

    def _add(
        self, file: File, check: _Sum, descriptor: int, stop: int, *, count: bool = True
    ) -> None:
        """Have the sum read an open file up to `stop`."""
        buffer, start = memoryview(bytearray(min(_PIECE, max(stop, 1)))), 0
        while start < stop:
            self._raise_if_stopped()
            got = os.preadv(descriptor, [buffer[: stop - start]], start)
            if not got:
                return
            check.update(buffer[:got])
            start += got
            if count:
                self._count(file, got)

    def _count(self, file: File, count: int) -> None:
        with self._lock:
            self._done += count
            self._path = file.path

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise AxonError("interrupted", spec=self.spec)


def _others(spec: str, paths: Sequence[str]) -> AxonError:
    more = f" and {len(paths) - _MANY} more" if len(paths) > _MANY else ""
    named = printable(", ".join(paths[:_MANY]))
    verb, was, them = ("is", "was", "it") if len(paths) == 1 else ("are", "were", "them")
    what = f"{counted(len(paths), 'file')} there {verb} not an export's, or {was} changed since"
    hint = f"move {them} away, or add --force to replace {them}"
    return AxonError(f"{what}: {named}{more}", spec=spec, hint=hint)


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except OSError:
        return None


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
