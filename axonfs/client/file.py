"""The files that `Client.open` gives: through a mount, or from the cache in this process.

Both are raw binary files as Python's own are, and are mostly used through io.BufferedReader. A
read that fails raises `ReadError`, which is an AxonError and an OSError. Any thread; two threads
that read one raw file get different bytes, each once.
"""

from __future__ import annotations

import errno
import io
import operator
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from axonfs.errors import AxonError, NotFoundError, ReadError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from axonfs.client.cached import Opened
    from axonfs.client.session import Session

_NOT_FILES = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.EISDIR: "it is a directory, not a file",
}


class MountedFile(io.FileIO):
    """A file in a mount; the kernel reads it, and `fileno` and mmap work."""

    def __init__(self, where: str, spec: str, path: str) -> None:
        self._spec = spec
        self._path = path
        try:
            super().__init__(where, "rb")
        except OSError as exc:
            if what := _NOT_FILES.get(exc.errno or 0):
                raise NotFoundError(what, spec=spec, path=path) from exc
            raise self._fault(exc, "opened") from exc

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As io.RawIOBase; raises ReadError."""
        with self._naming():
            return super().readinto(buffer) or 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As io.RawIOBase; raises ReadError."""
        with self._naming():
            return super().read(-1 if size is None else size) or b""

    def readall(self) -> bytes:
        """As io.RawIOBase; raises ReadError."""
        with self._naming():
            return super().readall() or b""

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except io.UnsupportedOperation:
            raise
        except OSError as exc:
            raise self._fault(exc, "read") from exc

    def _fault(self, exc: OSError, verb: str) -> ReadError:
        what = f"cannot be {verb}: {exc.strerror}"
        hint = "axonfs status and the mount's log say why"
        fault = AxonError(what, spec=self._spec, path=self._path, hint=hint)
        fault.errno = exc.errno or errno.EIO
        return ReadError.of(fault)


class CachedFile(io.RawIOBase):
    """A file of the cache in this process; what is read and not local is fetched and verified.

    Args:
        opener: opens the file, in a session that is leased for it. It is called again where the
            session has ended, as in a forked process; with True where the file turned out not to
            be whole in the cache of another process.
    """

    name: str
    mode = "rb"

    def __init__(self, opener: Callable[[bool], tuple[Session, Opened]], name: str) -> None:
        self.name = name
        self._opener = opener
        self._position = 0
        self._lock = threading.Lock()  # guards the position; held for an instant
        self._opening = threading.Lock()  # held while it is opened again
        self._session, self._opened = opener(False)

    def readable(self) -> bool:
        """True, as long as the file is open."""
        self._check()
        return True

    def seekable(self) -> bool:
        """True, as long as the file is open."""
        self._check()
        return True

    def tell(self) -> int:
        """The position, in bytes from the start."""
        self._check()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position, also beyond the end; returns it."""
        self._check()
        with self._lock:
            bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._opened.size}
            if whence not in bases:
                raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
            if (position := bases[whence] + operator.index(offset)) < 0:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._position = position
            return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer`; the count is short only at the end of the file.

        Raises:
            ReadError: the bytes cannot be had. The position stays.
        """
        self._check()
        view = memoryview(buffer).cast("B")
        with self._lock:
            start = self._position
            count = max(min(len(view), self._opened.size - start), 0)
            self._position = start + count
        try:
            return self._fill(view[:count], start) if count else 0
        except BaseException as exc:
            with self._lock:
                self._position = start
            if isinstance(exc, AxonError):
                raise ReadError.of(exc) from exc
            raise

    def read(self, size: int | None = -1, /) -> bytes:
        """As io.RawIOBase, and None means all, as for io.FileIO; raises ReadError."""
        return super().read(-1 if size is None else size) or b""

    def readall(self) -> bytes:
        """The bytes from the position to the end, in one piece."""
        self._check()
        size = self._opened.size - self._position
        if size <= 0:
            return b""
        made = io.BytesIO()  # its buffer becomes the bytes without a copy
        made.seek(size - 1)
        made.write(b"\0")
        with made.getbuffer() as view:
            count = self.readinto(view)
        made.truncate(count)
        return made.getvalue()

    def write(self, buffer: ReadableBuffer, /) -> int:
        """Refused: what is read is never written."""
        self._check()
        raise io.UnsupportedOperation("not writable")

    def close(self) -> None:
        """Let go of the file; reads under way in other threads end first."""
        if self.closed:
            return
        super().close()
        if hasattr(self, "_opened"):  # else it was never opened
            self._let_go()

    def _let_go(self) -> None:
        session, number = self._session, self._opened.number
        self._opened = replace(self._opened, direct=None)
        session.post(lambda: session.files.release(number))
        session.give_back()

    def __del__(self) -> None:
        if not self.closed and hasattr(self, "_opened"):
            self._dealloc_warn(self)
        with suppress(AttributeError):  # at the end of the interpreter
            self.close()

    def _dealloc_warn(self, source: Any) -> None:
        # io.BufferedReader calls this one, as that of FileIO, when it was not closed.
        warnings.warn(f"unclosed file {source!r}", ResourceWarning, source=source, stacklevel=2)

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _fill(self, view: memoryview, start: int) -> int:
        if not self._session.alive:
            self._open_again(self._opened, elsewhere=False)
        session, opened = self._session, self._opened
        if opened.direct is not None:
            with suppress(OSError):
                opened.direct.read_into(start, view)
                return len(view)
            if not session.owner:  # the cache's owner has dropped some of it
                self._open_again(opened, elsewhere=True)
                return self._fill(view, start)
        return session.call(lambda: session.files.read_into(opened.number, start, view))

    def _open_again(self, opened: Opened, *, elsewhere: bool) -> None:
        with self._opening:
            if self._opened is opened:  # else another thread was first
                self._let_go()
                self._session, self._opened = self._opener(elsewhere)
