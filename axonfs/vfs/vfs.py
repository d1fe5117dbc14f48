"""The file system's semantics: attributes, handles and reads, over places and feeds.

Sits between the fuse adapter and {places, fetch}. Knows no FUSE type and raises only AxonError.
Trio thread only: bytes that are in the page cache are copied here, everything else in threads.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from axonfs.errors import AxonError, BadHandleError, NotFoundError
from axonfs.fetch import Feed, Fetcher
from axonfs.ranges import Range, chunk_span
from axonfs.tree import Tree
from axonfs.vfs.buffers import Buffers
from axonfs.vfs.nodes import Nodes
from axonfs.vfs.places import (
    ABSENT_TTL,
    FOREVER,
    SHELF_TTL,
    Alias,
    Directory,
    File,
    Folder,
    Place,
    Places,
    Text,
    describe,
)

XATTR_PREFIX = "user.axonfs."
# `st_blocks` of a file grows while it is fetched, so the kernel may keep that only briefly.
FILLING_TTL = 1.0


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


@dataclass(slots=True)
class Handle:
    """An open file: the feed of its object, or the bytes of a made-up file.

    `frozen` says that the backing file is whole and stays so: the kernel may read it itself.
    """

    number: int
    place: File | Text
    feed: Feed | None
    text: bytes = b""
    frozen: bool = False

    @property
    def live(self) -> bool:
        """Whether each open has other bytes, which the kernel must not keep."""
        return isinstance(self.place, Text) and self.place.live

    @property
    def backing(self) -> int | None:
        """Descriptor of the file that the kernel may read itself."""
        return self.feed.object.fd if self.feed and self.frozen else None


class Vfs:
    """The tree as inodes and handles."""

    def __init__(self, tree: Tree, fetcher: Fetcher, status: Callable[[], dict[str, Any]]) -> None:
        self._tree = tree
        self._fetcher = fetcher
        self._places = Places(tree, status)
        self._nodes = Nodes()
        self._handles: dict[int, Handle] = {}
        self._listings: dict[int, list[tuple[str, Place]]] = {}
        self._numbers = itertools.count(1)
        self._buffers = Buffers()
        self.reads = 0  # of objects, that came here rather than to the page cache or a backing file

    # -- names -----------------------------------------------------------------------------

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The entry `name` of a directory, counted as known to the kernel; inode 0 if none."""
        node = self._nodes.get(parent)
        with located(node.place):
            place = await self._places.lookup(node.place, name)
            if place is None:
                return _absent(node.place)
            attributes = await self._attributes(place)
        self._nodes.remember(place)
        return attributes

    async def getattr(self, inode: int) -> Attributes:
        """What stat shows of a known inode."""
        return await self._attributes(self._nodes.get(inode).place)

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references to an inode."""
        self._nodes.forget(inode, count)

    def readlink(self, inode: int) -> str:
        """The target of a symlink."""
        place = self._nodes.get(inode).place
        if not isinstance(place, Alias):
            raise NotFoundError("not a symlink", path="/".join(place.path))
        return place.target

    async def opendir(self, inode: int) -> int:
        """A handle on the listing as it is now."""
        place = self._nodes.get(inode).place
        with located(place):
            listing = await self._places.listing(place)
        handle = next(self._numbers)
        self._listings[handle] = listing
        return handle

    async def readdir(self, handle: int, start: int) -> list[tuple[str, Place]]:
        """The entries of an open listing from the `start`th on."""
        return self._listings[handle][start:]

    async def entry(self, place: Place) -> Attributes:
        """The attributes of a listed entry; does not count as known to the kernel."""
        return await self._attributes(place)

    def remember(self, place: Place) -> None:
        """A listed entry was given to the kernel."""
        self._nodes.remember(place)

    def releasedir(self, handle: int) -> None:
        """Drop a listing."""
        self._listings.pop(handle, None)

    async def _attributes(self, place: Place) -> Attributes:
        inode = self._nodes.number(place)
        match place:
            case File(entry=entry, version=version):
                local, complete = self._local(place)
                ttl = FOREVER if complete else FILLING_TTL
                mode, mtime = stat.S_IFREG | 0o444, version.manifest.created
                return Attributes(inode, mode, entry.size, -(-local // 512), mtime, 1, ttl, FOREVER)
            case Text(size=size, mtime=mtime, live=live):
                ttl, blocks = 0.0 if live else FOREVER, -(-size // 512)
                return Attributes(inode, stat.S_IFREG | 0o444, size, blocks, mtime, 1, ttl, ttl)
            case Alias(target=target):
                mode, ttl = stat.S_IFLNK | 0o777, ABSENT_TTL
                return Attributes(inode, mode, len(target.encode()), 0, 0.0, 1, ttl, ttl)
            case Folder(version=version):
                mtime, ttl = version.manifest.created, FOREVER
            case Directory():
                mtime = self._places.published(place, await self._tree.catalog())
                ttl = FOREVER if mtime else SHELF_TTL
        return Attributes(inode, stat.S_IFDIR | 0o555, 0, 0, mtime, 2, ttl, ttl)

    def _local(self, place: File) -> tuple[int, bool]:
        """Local bytes of a file, and whether that is all of it."""
        if feed := self._fetcher.feed(place.entry):
            return feed.object.present_bytes, feed.object.complete
        info = self._fetcher.store.peek(place.entry.digest)
        return (info.present_bytes, info.complete) if info else (0, place.entry.size == 0)

    # -- extended attributes -----------------------------------------------------------------

    def xattrs(self, inode: int) -> dict[str, str]:
        """The `user.axonfs.*` attributes of an inode."""
        place = self._nodes.get(inode).place
        version = getattr(place, "version", None)
        if version is None:
            return {}
        found = {"spec": str(version.spec), "source": version.base}
        if isinstance(place, File):
            found["sha256"] = place.entry.digest
            found["cached"] = f"{self._local(place)[0]}/{place.entry.size}"
        return {XATTR_PREFIX + key: value for key, value in found.items()}

    # -- files -----------------------------------------------------------------------------

    async def open(self, inode: int) -> Handle:
        """A handle on a file. Sends nothing.

        Raises:
            CorruptError: the file's bytes are known to be wrong.
        """
        place, number = self._nodes.get(inode).place, next(self._numbers)
        if isinstance(place, Text):
            handle = Handle(number, place, None, place.render())
        elif isinstance(place, File):
            handle = await self._open_object(number, place)
        else:
            raise BadHandleError("not a file", path="/".join(place.path))
        self._handles[number] = handle
        return handle

    def opened(self, number: int, *, passed_through: bool) -> None:
        """Whether the kernel reads the backing file itself, whose bytes then stay as they are."""
        handle = self._handles[number]
        if handle.feed is None:
            return
        if handle.frozen and not passed_through:
            handle.feed.object.thaw()
        if passed_through:
            handle.feed.object.touch()
        # The inode's first handle had it frozen; a chunk that was lost since changes nothing.
        handle.frozen = passed_through and (handle.frozen or handle.feed.object.freeze())

    async def _open_object(self, number: int, place: File) -> Handle:
        with located(place):
            feed = self._fetcher.open(place.version, place.entry)
            try:
                await feed.prepare()
            except BaseException:
                feed.close()
                raise
        return Handle(number, place, feed, frozen=feed.freeze())

    async def read(self, number: int, offset: int, size: int) -> bytes | memoryview:
        """Up to `size` bytes at `offset`; short only at the end of the file.

        The view is valid until the next checkpoint of the trio thread.

        Raises:
            AxonError: the bytes cannot be had; names the spec and the path.
        """
        handle = self._handles.get(number)
        if handle is None:
            raise BadHandleError(f"handle {number} is not open")
        if handle.feed is None:
            return handle.text[offset : offset + size]
        size = min(size, handle.feed.entry.size - offset)
        if size <= 0:
            return b""
        self.reads += 1
        with located(handle.place):
            return await self._read(handle.feed, offset, size)

    async def _read(self, feed: Feed, offset: int, size: int) -> memoryview:
        stored = feed.object
        chunks = chunk_span(offset, size, stored.chunk_size)
        if not stored.complete:
            self._read_ahead(feed, chunks, offset, size)
        stored.touch()
        with self._buffers.borrowed(size) as view:
            while True:
                epoch = stored.epoch
                if not feed.present(*chunks):
                    await feed.need(chunks)
                # No thread hop where the page cache has the bytes.
                if read_cached(stored.fd, view, offset) != size:
                    await trio.to_thread.run_sync(read_all, stored.fd, view, offset)
                # Bits go before bytes do: with no chunk given up meanwhile, these are the bytes.
                if stored.epoch == epoch and feed.present(*chunks):
                    return view

    def _read_ahead(self, feed: Feed, chunks: Range, offset: int, size: int) -> None:
        ahead = feed.readahead.on_read(offset, size, absent=feed.absent(chunks.start))
        feed.request(chunks)  # before what is fetched ahead, so that demand is first in line
        if ahead:
            feed.want(chunk_span(ahead.start, ahead.stop - ahead.start, feed.object.chunk_size))

    def release(self, number: int) -> None:
        """Close a handle."""
        handle = self._handles.pop(number, None)
        if handle is None or handle.feed is None:
            return
        if handle.frozen:
            handle.feed.object.thaw()
        handle.feed.close()

    def open_files(self) -> list[dict[str, Any]]:
        """The files that are open, for `status`."""
        files: dict[str, dict[str, Any]] = {}
        for handle in self._handles.values():
            if handle.feed is None:
                continue
            name = "/".join(handle.place.path)
            row = files.setdefault(
                name,
                {
                    "path": name,
                    "size": handle.feed.entry.size,
                    "local": handle.feed.object.present_bytes,
                    "handles": 0,
                    "passed_through": handle.frozen,
                },
            )
            row["handles"] += 1
        return list(files.values())

    def inodes_of(self, digests: set[str]) -> list[int]:
        """The known files whose bytes are one of these objects."""
        return [
            node.inode
            for node in self._nodes.all()
            if isinstance(node.place, File) and node.place.entry.digest in digests
        ]


def _absent(parent: Place) -> Attributes:
    ttl = FOREVER if isinstance(parent, Folder) else ABSENT_TTL
    return Attributes(0, 0, 0, 0, 0.0, 0, ttl, ttl)


class located:  # noqa: N801 - reads as a phrase: `with located(place):`
    """Adds the spec and the path of `place` to an AxonError that leaves the block."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, AxonError):
            spec, path = describe(self._place)
            raise exc.located(spec=spec, path=path) from exc


def read_cached(fd: int, view: memoryview, offset: int) -> int:
    """Bytes of the page cache into `view`; fewer than asked for (or 0) if some are not there."""
    try:
        return os.preadv(fd, [view], offset, os.RWF_NOWAIT)
    except OSError:  # not in the page cache, or a file system without RWF_NOWAIT
        return 0


def read_all(fd: int, view: memoryview, offset: int) -> None:
    """`view` filled from `offset` on.

    Raises:
        OSError: the disk failed.
        AxonError: the backing file is shorter than its index says.
    """
    while view:
        count = os.preadv(fd, [view], offset)
        if count == 0:
            raise AxonError("the backing file is too short", hint="run axonfs verify --repair")
        view, offset = view[count:], offset + count
