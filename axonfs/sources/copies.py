"""Copies of objects on this machine: in registry directories, and in Hugging Face's own cache.

They are looked for before anything is sent, and read instead of a source. So a registry directory
needs no server, and also spares other registries with the same objects. Any thread; calls block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from axonfs.formats.layout import object_key
from axonfs.formats.manifest import FileEntry
from axonfs.http_client import path_of
from axonfs.sources.blob import Blob, compared, size_of
from axonfs.sources.hubcache import HubCache

log = logging.getLogger(__name__)


class Copies:
    """The places where copies are looked for; false while there is none.

    Args:
        hub: Hugging Face's own cache, if it is used.
    """

    def __init__(self, hub: HubCache | None) -> None:
        self._hub = hub
        self._directories: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._directories) or self._hub is not None

    def learn(self, registries: Iterable[str]) -> None:
        """Look into those of these registries that are directories."""
        found = (Path(path_of(url)) for url in registries if url.startswith("file:"))
        self._directories = tuple(dict.fromkeys([*self._directories, *found]))

    def find(
        self, entry: FileEntry, chunk_size: int, cancelled: Callable[[], bool] = bool
    ) -> Blob | None:
        """A file with the bytes of `entry`; reads all of it if `entry` has no chunk table.

        Args:
            chunk_size: of the table that is then made.
            cancelled: polled for each chunk. Once it returns true, the result is None.
        """
        for directory in self._directories if entry.digest else ():
            path = directory / object_key(entry.digest)
            try:
                if size_of(path) == entry.size and (
                    blob := compared(path, entry, chunk_size, cancelled)
                ):
                    return blob
            except OSError as exc:
                log.debug("%s is not used: %s", path, exc.strerror)
        return self._hub.find(entry, chunk_size, cancelled) if self._hub else None
