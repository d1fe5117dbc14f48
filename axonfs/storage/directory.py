"""A storage in a directory of this machine, which any web server can serve.

Files are written as drafts and renamed into place. Documents are replaced under one lock, which
publishers on all machines that share the directory take. Blocking; any thread.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from axonfs.errors import MalformedError
from axonfs.formats.chunktable import ChunkTable
from axonfs.formats.layout import MODELS
from axonfs.storage.files import Draft, draft, locked, sweep, write_all
from axonfs.storage.storage import Content, Listed
from axonfs.units import size as shown_size

LOCK_NAME = ".axonfs.lock"


class Directory:
    """The storage in the directory `root`; it may not exist yet."""

    keeps_lists = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self._drafts = root / "objects/tmp"

    def __repr__(self) -> str:
        return f"<Directory {self.root}>"

    @property
    def name(self) -> str:
        return str(self.root)

    def prepare(self) -> None:
        self._drafts.mkdir(parents=True, exist_ok=True)
        sweep(self._drafts)

    def check_namespace(self, namespace: str) -> None:
        """Do nothing: who may write may write everything."""

    def size(self, key: str) -> int | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._path(key).stat().st_size
        return None

    def read(self, key: str, limit: int) -> Content | None:
        try:
            with open(self._path(key), "rb", opener=_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise MalformedError("it is not a file", source=str(self._path(key)))
                body = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(body) > limit:
            raise MalformedError(
                f"the file has more than {shown_size(limit)}", source=str(self._path(key))
            )
        return Content(body, hashlib.sha256(body).hexdigest())

    def list(self, prefix: str) -> Iterator[Listed]:
        for folder, _, names in os.walk(self._path(prefix), onerror=_raise_unless_absent):
            for path in (Path(folder, name) for name in names if not self._is_draft(folder)):
                key = path.relative_to(self.root).as_posix()
                with contextlib.suppress(FileNotFoundError):
                    status = _status(path)
                    if key != LOCK_NAME:
                        yield Listed(key, status.st_size, status.st_mtime)

    def now(self) -> float:
        if self._drafts.is_dir():  # a publisher makes it
            with contextlib.suppress(OSError), draft(self._drafts) as new:
                write_all(new.fd, b"x")
                return os.fstat(new.fd).st_mtime
        return time.time()  # nothing can be written here, so nobody publishes

    def _is_draft(self, folder: str) -> bool:
        return Path(folder).is_relative_to(self._drafts)

    @contextlib.contextmanager
    def upload(self, fd: int, sent: Callable[[int], object]) -> Iterator[DirectoryUpload]:
        with draft(self._drafts) as new:
            yield DirectoryUpload(self.root, new, sent)

    def put(self, key: str, body: bytes) -> bool:
        with draft(self._drafts) as new:
            write_all(new.fd, body)
            return new.link_to(self._path(key))

    def replace(self, key: str, body: bytes, before: Content | None) -> bool:
        with locked(self.root / LOCK_NAME):
            limit = len(before.body) if before else 0
            try:
                found = self.read(key, limit)
            except MalformedError:  # longer than it was
                return False
            if found != before:
                return False
            if found is None or found.body != body:
                with draft(self._drafts) as new:
                    write_all(new.fd, body)
                    new.move_to(self._path(key))
            return True

    def delete(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        if key.startswith(MODELS):
            with locked(self.root / LOCK_NAME):  # as whoever makes a file below these directories
                self._prune(path.parent)

    def _prune(self, folder: Path) -> None:
        """Remove this directory and those above it, as far as they are empty."""
        with contextlib.suppress(OSError):
            while folder != self._path(MODELS):
                folder.rmdir()
                folder = folder.parent

    def _path(self, key: str) -> Path:
        return self.root / key


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # otherwise opening a pipe waits for its writer


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        return path.lstat()  # who reads it says so


def _raise_unless_absent(exc: OSError) -> None:
    """Files below a directory that cannot be read must not look as if they were not there."""
    if not isinstance(exc, FileNotFoundError | NotADirectoryError):
        raise exc


class DirectoryUpload:
    """An object that is written as a draft while it is read."""

    def __init__(self, root: Path, new: Draft, sent: Callable[[int], object]) -> None:
        self._root = root
        self._new = new
        self._sent = sent

    def write(self, piece: memoryview) -> None:
        write_all(self._new.fd, piece)
        self._sent(len(piece))

    def settle(self, key: str, digest: str, table: ChunkTable) -> None:
        self._new.move_to(self._root / key)
