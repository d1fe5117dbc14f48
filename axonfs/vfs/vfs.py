"""The file system's semantics: names, inodes and attributes, over places and open files.

Sits between the fuse adapter and {places, files}. Knows no FUSE type and raises only AxonError.
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
from axonfs.vfs.blame import blaming
from axonfs.vfs.files import Files, Handle
from axonfs.vfs.inodes import Inodes
from axonfs.vfs.journal import Journal
from axonfs.vfs.paths import (
    ABSENT_TTL,
    DIRECTORY_TTL,
    FOREVER,
    Alias,
    Directory,
    Entry,
    File,
    Folder,
    Paths,
    Place,
    Text,
)

log = logging.getLogger(__name__)

XATTR_PREFIX = "user.axonfs."
# `st_blocks` of a file grows while it is fetched, so the kernel may keep that only briefly; and not
# for long of one that another process might fetch.
FILLING_TTL, IDLE_TTL = 1.0, 10.0
# Programs that copy take a file without blocks for one hole: tar -S stores zeros and reads nothing.
LEAST_BLOCKS = 8
# Listings that a reader has not come to the end of.
KEPT_LISTINGS = 64


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat shows; times in seconds. `inode` 0 says that there is no such entry."""

    inode: int
    mode: int
    size: int
    blocks: int
    mtime: float
    links: int
    attr_ttl: float
    entry_ttl: float


class Vfs:
    """The tree as inodes and handles.

    Args:
        status: makes the live state.
        journal: what an earlier worker told the kernel; a new one where there was none.
        prefetcher: told of files that are opened as loaders do, and of those that are streamed.
    """

    def __init__(
        self,
        tree: Tree,
        fetcher: Fetcher,
        status: Callable[[], dict[str, Any]],
        journal: Journal | None = None,
        *,
        prefetcher: Prefetcher | None = None,
    ) -> None:
        self._prefetcher = prefetcher
        self._fetcher = fetcher
        self._journal = journal or Journal.new()
        self._paths = Paths(tree, status)
        self._inodes = Inodes(self._journal)
        self._listings: dict[int, list[Entry]] = {}
        self._odd = itertools.count(self._journal.known.last + 1 | 1, 2)
        self.files = Files(fetcher, self._journal, self._at, prefetcher)

    async def _at(self, inode: int) -> Place:
        """What is at a known inode; after a takeover found by its path."""
        place = self._inodes.place(inode)
        if place is None:
            place = await self._paths.at(self._inodes.path(inode))
            self._inodes.settle(inode, place)
        return place

    # -- names -----------------------------------------------------------------------------

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The entry `name` of a directory, counted as known to the kernel; inode 0 if none."""
        directory = await self._at(parent)
        with blaming(directory, name):
            place = await self._paths.lookup(directory, name)
            if place is None:
                return _absent(directory)
            attributes = await self._attributes(place)
        self._inodes.remember(place)
        return attributes

    async def getattr(self, inode: int) -> Attributes:
        """What stat shows of a known inode."""
        return await self._attributes(await self._at(inode))

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references to an inode."""
        self._inodes.forget(inode, count)

    async def readlink(self, inode: int) -> str:
        """The target of a symlink, as it is now: the kernel asks for it each time."""
        place = await self._at(inode)
        if not isinstance(place, Alias):
            raise NotFoundError("not a symlink", path="/".join(place.path))
        try:
            moved = await self._paths.lookup(Directory(place.path[:-1]), place.path[-1])
        except AxonError:
            return place.target
        return moved.target if isinstance(moved, Alias) else place.target

    def _number(self, request: int) -> int:
        """A number for a new handle: that of the request, which is even, or one of our own.

        A request that is sent to the next worker again so has the handle that was noted for it,
        and not a second one that nobody would ever release.
        """
        return request or next(self._odd)

    async def readdir(self, inode: int, start: int) -> list[Entry]:
        """The entries of a directory behind the position `start`; 0 is before the first.

        There are no handles of directories: positions mean the same to every reader, and to the
        next worker.
        """
        listing = self._listings.pop(inode, None) if start else None
        if listing is None:
            place = await self._at(inode)
            with blaming(place):
                listing = await self._paths.listing(place)
        rest = listing[bisect.bisect_right(listing, start, key=operator.itemgetter(0)) :]
        if rest:
            while len(self._listings) >= KEPT_LISTINGS:
                del self._listings[next(iter(self._listings))]
            self._listings[inode] = listing
        return rest

    async def entry(self, place: Place) -> Attributes:
        """The attributes of a listed entry; does not count as known to the kernel."""
        return await self._attributes(place)

    def remember(self, place: Place) -> None:
        """A listed entry was given to the kernel."""
        self._inodes.remember(place)

    async def _attributes(self, place: Place) -> Attributes:
        inode = self._inodes.number(place)
        match place:
            case File(entry=entry, version=version):
                local, complete = self._local(place)
                ttl = FOREVER if complete else self._until_it_grows(place)
                mode, mtime = stat.S_IFREG | 0o444, version.manifest.created
                blocks = _blocks(entry.size, local)
                return Attributes(inode, mode, entry.size, blocks, mtime, 1, ttl, FOREVER)
            case Text(size=size, mtime=mtime, live=live):
                ttl, blocks = 0.0 if live else FOREVER, _blocks(size, size)
                return Attributes(inode, stat.S_IFREG | 0o444, size, blocks, mtime, 1, ttl, ttl)
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
        """Local bytes of a file, and whether that is all of it."""
        if feed := self._fetcher.feed(place.entry):
            return feed.object.present_bytes, feed.object.complete
        info = self._fetcher.store.peek(place.entry.digest)
        return (info.present_bytes, info.complete) if info else (0, place.entry.size == 0)

    # -- extended attributes -----------------------------------------------------------------

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

    # -- files -----------------------------------------------------------------------------

    async def open(self, inode: int, request: int = 0) -> Handle:
        """A handle on a file; `opened` has to follow. Sends nothing.

        Args:
            request: the kernel's number for it, 0 where it is not known.

        Raises:
            CorruptError: the file's bytes are known to be wrong.
        """
        return await self.files.open(self._number(request), await self._at(inode))

    def foresee(self, handle: Handle, thread: int = 0) -> None:
        """Tell of a file that a thread opened the way loaders do."""
        if self._prefetcher and isinstance(place := handle.place, File):
            self._prefetcher.opened(place.version, place.entry.path, thread)

    async def restore(self) -> None:
        """Take over the handles that an earlier worker gave the kernel. Sends nothing.

        A file whose manifest is no longer local stays open: its source is asked when it is read.
        """
        for number, handle in list(self._journal.known.handles.items()):
            try:
                path = self._inodes.path(handle.inode)
                place = self._inodes.place(handle.inode) or await self._paths.local(path)
                if place is None:
                    # `unpin --drop` took its manifest before it was opened, say.
                    log.info("%s is open and not in the cache's index", "/".join(path))
                    continue
                self._inodes.settle(handle.inode, place)
                await self.files.restore({number: handle}, place)
            except (AxonError, OSError) as exc:  # the disk's, too: its reads may fare better
                log.warning("an open file is not restored: %s", exc)

    def inodes_above(self, spec: Spec) -> list[int]:
        """The directories above a version, known or not."""
        path = spec.segments
        return [self._inodes.number(Directory(path[:depth])) for depth in range(len(path))]

    def inodes_of(self, digests: set[str]) -> list[int]:
        """The known files whose bytes are one of these objects."""
        return [inode for digest in digests for inode in self._inodes.files(digest)]


def _blocks(size: int, local: int) -> int:
    """`st_blocks` of a file of `size` bytes, of which `local` are local."""
    return max(-(-local // 512), LEAST_BLOCKS) if size else 0


def _absent(parent: Place) -> Attributes:
    ttl = FOREVER if isinstance(parent, Folder) else ABSENT_TTL
    return Attributes(0, 0, 0, 0, 0.0, 0, ttl, ttl)
