"""Where an upload that was interrupted continues: its URL, in a small file on this machine.

Without the file, or a home directory for it, the upload begins anew. Blocking; any thread.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from axonfs.settings.homes import below_home

MAX_URL = 8192


class Unfinished:
    """The upload of one blob to one repository."""

    def __init__(self, repository: str, digest: str) -> None:
        home = below_home(".cache", "axonfs", "uploads", variable="XDG_CACHE_HOME")
        name = hashlib.sha256(f"{repository} {digest}".encode()).hexdigest()
        self._path = home / name if home else None

    def url(self) -> str | None:
        """The URL; None if nothing was interrupted."""
        if self._path is None:
            return None
        try:
            with self._path.open(encoding="ascii") as file:
                return file.read(MAX_URL) or None
        except (OSError, UnicodeDecodeError):
            return None

    def keep(self, url: str) -> None:
        """Note where to go on. The URL may allow to write, so that only this user may read it."""
        if self._path is None or len(url) > MAX_URL or not url.isascii():
            return
        draft = self._path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(draft, "w", opener=_private) as file:
                file.write(url)
            draft.replace(self._path)

    def forget(self) -> None:
        """The upload is over."""
        if self._path:
            with suppress(OSError):
                self._path.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
