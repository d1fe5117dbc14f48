"""Where an upload that was interrupted continues: its URL, in a small file on this machine.

Without the file, or a home directory for it, the upload begins anew. Blocking; any thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from typing import Self

from axonfs.settings.homes import below_home

MAX_URL = 8192


class Unfinished:
    """The upload of one blob to one repository.

    `with` locks the file. A publisher that finds it locked, in this process or in another one,
    begins an upload of its own, and nothing remembers that one.
    """

    def __init__(self, repository: str, digest: str) -> None:
        home = below_home(".cache", "axonfs", "uploads", variable="XDG_CACHE_HOME")
        name = hashlib.sha256(f"{repository} {digest}".encode()).hexdigest()
        self._path = home / name if home else None
        self._file: int | None = None

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._file = self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            if self.url() is None:
                self.forget()
            os.close(self._file)

    def _opened(self) -> int | None:
        if self._path is None:
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The URL may allow to write, so only this user may read it.
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        return file

    def url(self) -> str | None:
        """The URL; None if nothing was interrupted."""
        if self._file is None:
            return None
        try:
            return os.pread(self._file, MAX_URL, 0).decode("ascii") or None
        except (OSError, UnicodeDecodeError):
            return None

    def keep(self, url: str) -> None:
        """Note where to go on."""
        if self._file is None or len(url) > MAX_URL or not url.isascii():
            return
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, url.encode(), 0)

    def forget(self) -> None:
        """The upload is over."""
        if self._file is not None and self._path:
            with suppress(OSError):
                self._path.unlink()
