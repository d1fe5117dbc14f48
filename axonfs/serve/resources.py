"""The files behind the paths of a registry's URLs.

Opens files; knows no HTTP. Only files of the registry's layout are visible: no hidden names, no
drafts, no file outside the directory that a symlink points to. Any thread may call it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from axonfs.errors import MalformedError, UnavailableError
from axonfs.formats.layout import INDEX
from axonfs.formats.listing import (
    Listing,
    listing_json,
    parse_index,
    parse_yanked,
    render_index,
    search,
)

IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"
MAX_RESULTS = 1000
# For these errors of `open` the answer is 404. All other errors are temporary: 503.
_MISSING = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.ENXIO,
}

_BYTES = "application/octet-stream"
_TYPES = {
    ".yaml": "application/yaml",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
}
_LAYOUT = re.compile(r"/(?:api/v1|(objects|chunks)/sha256)(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)+")


@dataclass(frozen=True, slots=True)
class Resource:
    """An open file with the headers of its answer; `etag` includes the quotes."""

    file: BinaryIO
    size: int
    etag: str
    content_type: str
    cache_control: str


class Resources:
    """The files and the search of the registry in the directory `root`."""

    def __init__(self, root: Path) -> None:
        self._root = str(root.resolve()).rstrip("/")
        self._lock = threading.Lock()
        self._listings: tuple[str, list[Listing]] = ("", [])

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[Resource | None]:
        """Open the file that `path`, an unquoted URL path, names; None if it does not exist.

        Raises:
            UnavailableError: the file cannot be read now, so whether it exists is unknown.
        """
        match = _LAYOUT.fullmatch(path)
        file = self._open(path) if match else None
        if match is None or file is None:
            yield None
            return
        with file:
            yield self._resource(file, path, match.group(1))

    def _open(self, path: str) -> BinaryIO | None:
        try:
            return self._open_regular(f"{self._root}{path}")
        except OSError as exc:
            if exc.errno in _MISSING:
                return None
            raise UnavailableError(f"cannot read the file: {exc.strerror}", path=path) from exc

    def _open_regular(self, path: str) -> BinaryIO | None:
        # O_NONBLOCK: opening a pipe must not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, fd)
            # Check the open file, not its name, which may change between open and check.
            inside = os.readlink(f"/proc/self/fd/{fd}").startswith(f"{self._root}/")
            if inside and stat.S_ISREG(os.fstat(fd).st_mode):
                stack.pop_all()
                return os.fdopen(fd, "rb", buffering=0)
        return None

    def _resource(self, file: BinaryIO, path: str, kind: str | None) -> Resource:
        status = os.fstat(file.fileno())
        name = path.rpartition("/")[2]
        # An object's name is its digest. Any other file is replaced by rename, which changes the
        # inode.
        version = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
        return Resource(
            file=file,
            size=status.st_size,
            etag=f'"{name if kind == "objects" else version}"',
            content_type=_BYTES if kind else _TYPES.get(os.path.splitext(name)[1], _BYTES),
            cache_control=IMMUTABLE if kind else REVALIDATE,
        )

    @property
    def present(self) -> bool:
        """Whether the registry's directory can be read now."""
        return os.access(self._root or "/", os.R_OK | os.X_OK)

    def index(self, readable: Callable[[str], bool]) -> bytes | None:
        """The index with the namespaces that are `readable` only; None if there is no index."""
        with self.open(f"/{INDEX}") as resource:
            if resource is None:
                return None
            raw = resource.file.read()
        try:
            listings, yanked = parse_index(raw)[0], parse_yanked(raw)
        except MalformedError:
            return None
        return render_index(
            (one for one in listings if readable(one.spec.namespace)),
            (spec for spec in yanked if readable(spec.namespace)),
        )

    def search(self, query: str, readable: Callable[[str], bool] = bool) -> bytes:
        """Axon's search: a JSON array of the versions that match `query`, the best first; of
        namespaces that are `readable`."""
        shown = (one for one in self.listings() if readable(one.spec.namespace))
        found = search(shown, query)[:MAX_RESULTS]
        return json.dumps([listing_json(listing) for listing in found]).encode()

    def listings(self) -> list[Listing]:
        """The index, read again when its file changes; empty if it is missing or malformed."""
        with self.open(f"/{INDEX}") as resource, self._lock:
            if resource is None:
                return []
            if resource.etag != self._listings[0]:
                self._listings = (resource.etag, _parsed(resource.file.read()))
            return self._listings[1]


def _parsed(raw: bytes) -> list[Listing]:
    try:
        return parse_index(raw)[0]
    except MalformedError:
        return []
