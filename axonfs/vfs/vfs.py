"""The semantics of the file system: names, inodes and attributes, over paths and open files.

Sits between the fuse adapter and {paths, files}. Knows no FUSE type and raises only AxonError.
Trio thread only.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import operator
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from axonfs.ahead.prefetcher import Prefetcher
from axonfs.catalog.tree import Tree
from axonfs.errors import AxonError, NotFoundError
from axonfs.fetch import Fetcher
from axonfs.names import Spec
from axonfs.vfs.error_context import naming_place
from axonfs.vfs.files import Files
from axonfs.vfs.handle import Handle
from axonfs.vfs.hub_view import listings_of
from axonfs.vfs.inodes import Inodes
from axonfs.vfs.journal import Journal
from axonfs.vfs.paths import Paths
from axonfs.vfs.places import (
    ABSENT_TTL,
    DIRECTORY_TTL,
    FOREVER,
    Alias,
    Directory,
    Entry,
    File,
    Folder,
    Place,
    Text,
)
from axonfs.vfs.streams import Log

log = logging.getLogger(__name__)

XATTR_PREFIX = "user.axonfs."
# `st_blocks` grows while a file is fetched, so the kernel may cache it only briefly; a bit longer
# for a file that is not open, which a command might fetch.
FILLING_TTL, IDLE_TTL = 1.0, 10.0
# Programs that copy files take a file without blocks for one hole: tar -S would store only zeros.
LEAST_BLOCKS = 8
# Listings that are kept because a reader has not reached their end.
KEPT_LISTINGS = 64


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes for stat; times in seconds. `inode` 0 means that the entry does not exist."""

    inode: int
    mode: int
    size: int
    blocks: int
    mtime: float
    links: int
    attr_ttl: float
    entry_ttl: float
    private: bool = False  # only for the owner of the mount, and root


class Vfs:
    """The tree as inodes and handles.

    Args:
        status: returns the state for status.json.
        journal: the inodes and handles that earlier workers gave the kernel; empty by default.
        prefetcher: notified of files that loaders open, and of files that are streamed.
        access_log: a file of `.axonfs`, if it has one.
    """

    def __init__(
        self,
        tree: Tree,
        fetcher: Fetcher,
        status: Callable[[], dict[str, Any]],
        journal: Journal | None = None,
        *,
        prefetcher: Prefetcher | None = None,
        access_log: Log | None = None,
    ) -> None:
        self._prefetcher = prefetcher
        self._fetcher = fetcher
        self._journal = journal or Journal.new()
        self._paths = Paths(tree, status, access_log)
        self._inodes = Inodes(self._journal)
        self._listings: dict[int, list[Entry]] = {}
        self._odd = itertools.count(self._journal.known.last + 1 | 1, 2)
        self.files = Files(fetcher, self._journal, self._at, prefetcher)

    async def _at(self, inode: int) -> Place:
        """The place of an inode; after a takeover it is found by its path."""
        place = self._inodes.place(inode)
        if place is None:
            place = await self._paths.at(self._inodes.path(inode))
            self._inodes.settle(inode, place)
        return place

    def place(self, inode: int) -> Place | None:
        """The place of an inode, if it is known."""
        return self._inodes.place(inode)

    async def lookup(self, parent: int, name: str) -> Attributes:
        """Look up `name` in a directory and count a reference; inode 0 if it does not exist."""
        directory = await self._at(parent)
        with naming_place(directory, name):
            place = await self._paths.lookup(directory, name)
            if place is None:
                return _absent(directory)
            attributes = await self._attributes(place)
        self._inodes.remember(place)
        return attributes

    async def getattr(self, inode: int) -> Attributes:
        """The attributes of an inode."""
        return await self._attributes(await self._at(inode))

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references to an inode."""
        self._inodes.forget(inode, count)

    async def readlink(self, inode: int) -> str:
        """The current target of a symlink; the kernel does not cache it."""
        place = await self._at(inode)
        if not isinstance(place, Alias):
            raise NotFoundError("not a symlink", path="/".join(place.path))
        try:
            moved = await self._paths.lookup(Directory(place.path[:-1]), place.path[-1])
        except AxonError:
            return place.target
        return moved.target if isinstance(moved, Alias) else place.target

    def _number(self, request: int) -> int:
        """A number for a new handle: that of the request, which is even, or an odd one.

        So a request that is sent again to the next worker gets the handle in the journal, and not
        a second one that the kernel would never release.
        """
        return request or next(self._odd)

    async def readdir(self, inode: int, start: int) -> list[Entry]:
        """The entries of a directory after the position `start`; 0 is before the first.

        Directories have no handles: a position means the same to every reader and worker.
        """
        listing = self._listings.pop(inode, None) if start else None
        if listing is None:
            place = await self._at(inode)
            with naming_place(place):
                listing = await self._paths.listing(place)
        rest = listing[bisect.bisect_right(listing, start, key=operator.itemgetter(0)) :]
        if rest:
            while len(self._listings) >= KEPT_LISTINGS:
                del self._listings[next(iter(self._listings))]
            self._listings[inode] = listing
        return rest

    async def entry(self, place: Place) -> Attributes:
        """The attributes of a listed entry; does not count a reference."""
        return await self._attributes(place)

    def remember(self, place: Place) -> None:
        """Count a reference to a listed entry that the kernel gets."""
        self._inodes.remember(place)

    async def _attributes(self, place: Place) -> Attributes:
        inode = self._inodes.number(place)
        match place:
            case File(entry=entry, version=version):
                local, complete = self._local(place)
                ttl = FOREVER if complete else self._until_it_grows(place)
                mtime, bits = version.manifest.created, 0o555 if entry.executable else 0o444
                blocks = _blocks(entry.size, local)
                return Attributes(
                    inode, stat.S_IFREG | bits, entry.size, blocks, mtime, 1, ttl, FOREVER
                )
            case Text(size=size, mtime=mtime, live=live):
                ttl, blocks = 0.0 if live else FOREVER, _blocks(size, size)
                return Attributes(inode, stat.S_IFREG | 0o444, size, blocks, mtime, 1, ttl, ttl)
            case Log():
                return Attributes(inode, stat.S_IFREG | 0o400, 0, 0, 0.0, 1, 0.0, 0.0, private=True)
            case Alias(target=target):
                mode, ttl = stat.S_IFLNK | 0o777, ABSENT_TTL
                return Attributes(inode, mode, len(target.encode()), 0, 0.0, 1, ttl, ttl)
            case Folder(version=version):
                mtime, ttl = version.manifest.created, FOREVER
            case Directory(certain=False):
                return Attributes(inode, stat.S_IFDIR | 0o555, 0, 0, 0.0, 2, 0.0, 0.0)
            case Directory():
                mtime, ttl = await self._paths.dated(place)
        known_for = max(ttl, DIRECTORY_TTL)
        return Attributes(inode, stat.S_IFDIR | 0o555, 0, 0, mtime, 2, ttl, known_for)

    def _until_it_grows(self, place: File) -> float:
        return FILLING_TTL if self._fetcher.feed(place.entry) else IDLE_TTL

    def _local(self, place: File) -> tuple[int, bool]:
        """The local bytes of a file, and whether it is complete."""
        if feed := self._fetcher.feed(place.entry):
            return feed.local_bytes, feed.object.complete
        info = self._fetcher.store.peek(place.entry.digest)
        return (info.present_bytes, info.complete) if info else (0, place.entry.size == 0)

    async def xattrs(self, inode: int) -> dict[str, str]:
        """The `user.axonfs.*` attributes of an inode."""
        place = await self._at(inode)
        version = getattr(place, "version", None)
        if version is None:
            return {}
        found = {"spec": str(version.spec), "source": version.base}
        if isinstance(place, File):
            found |= place.entry.proof
            found["cached"] = f"{self._local(place)[0]}/{place.entry.size}"
        return {XATTR_PREFIX + key: value for key, value in found.items()}

    async def open(self, inode: int, request: int = 0) -> Handle:
        """Open a file; the caller calls `opened` next. Sends nothing, unless its version has to be
        signed and no signature is known.

        Args:
            request: the number of the kernel's request, 0 if it is not known.

        Raises:
            CorruptError: the file is quarantined.
            UntrustedError: nobody whom one trusts has signed its version.
        """
        place = await self._at(inode)
        with naming_place(place):
            await self._paths.admit(place)
        return await self.files.open(self._number(request), place)

    def foresee(self, handle: Handle, thread: int = 0) -> None:
        """Notify the prefetcher of a file that a thread opened in the way of a loader."""
        if self._prefetcher and handle.feed and isinstance(place := handle.place, File):
            whole = handle.feed.complete
            self._prefetcher.opened(place.version, place.entry.path, thread, whole=whole)

    async def restore(self) -> None:
        """Take over the handles that an earlier worker gave the kernel. Sends nothing.

        A file whose manifest is no longer local stays open; the next read fetches the manifest.
        """
        for number, handle in list(self._journal.known.handles.items()):
            path: tuple[str, ...] = ("inode", str(handle.inode))
            try:
                path = self._inodes.path(handle.inode)
                place = self._inodes.place(handle.inode) or await self._paths.local(path)
                if place is None:
                    # For example, `uninstall` dropped the manifest before the file was opened.
                    log.info("%s is open and not in the cache's index", "/".join(path))
                    continue
                self._inodes.settle(handle.inode, place)
                await self.files.restore({number: handle}, place)
            except (AxonError, OSError) as exc:  # a disk fault may pass before the next read
                log.warning("cannot restore the open file %s: %s", "/".join(path), exc)

    def inodes_above(self, spec: Spec) -> list[int]:
        """The inodes of the directories above a version, and of others that list it, even if the
        kernel does not know them."""
        above = [spec.segments[:depth] for depth in range(len(spec.segments))]
        return [self._inodes.number(Directory(path)) for path in (*above, *listings_of(spec))]

    def inodes_of(self, digests: set[str]) -> list[int]:
        """The inodes that the kernel knows of files whose content is one of these objects."""
        return [inode for digest in digests for inode in self._inodes.files(digest)]


def _blocks(size: int, local: int) -> int:
    """`st_blocks` of a file of `size` bytes, of which `local` are local."""
    return max(-(-local // 512), LEAST_BLOCKS) if size else 0


def _absent(parent: Place) -> Attributes:
    ttl = FOREVER if isinstance(parent, Folder) else ABSENT_TTL
    return Attributes(0, 0, 0, 0, 0.0, 0, ttl, ttl)
