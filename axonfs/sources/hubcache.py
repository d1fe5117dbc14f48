"""Read objects from Hugging Face's own cache on this machine: <cache>/models--*/blobs.

A blob's name is its sha256 or its git blob id, but the name proves nothing: a download may have
been cut, and other users may write there. So the whole blob is read and compared before it is used.
Each later read is compared with that first pass, chunk by chunk. An object with a chunk table needs
no first pass.

The cache may be a mount of AxonFS, or have symlinks into one. Those are not followed: a mount that
reads from itself waits for itself.

This program never writes there. Threading: any thread; calls block.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from axonfs.formats.manifest import DEFAULT_CHUNK_SIZE, FileEntry
from axonfs.mounttable import leads_into, mountpoints
from axonfs.settings.homes import expanded
from axonfs.sources.blob import Blob, compared, size_of
from axonfs.sources.huggingface import for_readers, home

log = logging.getLogger(__name__)


class HubCache:
    """The cache in `directory`, which may not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"<HubCache {self._directory}>"

    @classmethod
    def configured(cls) -> HubCache | None:
        """The cache of Hugging Face's own client; None for a user without a home directory."""
        named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
        if named and not for_readers():
            return cls(expanded(named))
        own = home()
        return cls(own / "hub") if own else None

    def find(
        self,
        entry: FileEntry,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        cancelled: Callable[[], bool] = bool,
    ) -> Blob | None:
        """A blob with the bytes of `entry`. Without a chunk table it reads the whole blob.

        Args:
            chunk_size: of the table that it makes then.
            cancelled: polled for each chunk. Once it returns true, the result is None.
        """
        for path in self._blobs(entry.git or entry.digest):
            try:
                if size_of(path) == entry.size:
                    blob = compared(path, entry, chunk_size, cancelled)
                    if blob:
                        return blob
            except OSError as exc:
                log.info("ignoring %s: %s", path, exc.strerror)
        return None

    def _blobs(self, name: str) -> Iterator[Path]:
        """The paths that a blob may have here, but for those in a mount of AxonFS."""
        top = os.path.abspath(self._directory)
        try:
            places = mountpoints()
            if leads_into(top, places):
                return
            folders = sorted(folder for folder in os.listdir(top) if folder.startswith("models--"))
        except OSError:  # there is no such cache, or too few descriptors are left for the search
            return
        for folder in folders:
            path = os.path.join(top, folder, "blobs", name)
            if not leads_into(path, places) and os.path.exists(path):
                yield Path(path)
