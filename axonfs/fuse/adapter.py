"""pyfuse3's Operations over a Vfs: translates types, and turns every exception into an errno.

Thin on purpose: vfs decides what the tree looks like and how files are read. An exception other
than FUSEError that leaves a handler would leave the request unanswered and end the mount, so each
handler is wrapped in `answered`. Trio thread only.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import pyfuse3
import trio

from axonfs.fuse import openreply
from axonfs.fuse.failures import Failures
from axonfs.fuse.interrupts import Interrupts
from axonfs.fuse.operations import CACHE, COLD, PASSED_THROUGH, SERVED, Operations
from axonfs.fuse.pages import Pages
from axonfs.fuse.passthrough import Passthrough
from axonfs.fuse.reads import NativeReads
from axonfs.vfs import Attributes, Vfs
from axonfs.vfs.streams import Stream

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
_BILLION = 1_000_000_000
# Loaders set neither flag; `file`, `grep -r`, tar, backup and desktop indexers set one of them.
_GLANCE = os.O_NONBLOCK | os.O_NOATIME
# What the kernel reads at a time, ahead of a reader and around a page fault: its largest request,
# since a request costs as much as copying its bytes.
WINDOW = 1 << 20
# A stream has no position. Without this flag a reader that waits holds the lock of its position:
# a program that shares the open file waits for that lock, and cannot be killed.
_FOPEN_DIRECT_IO, _FOPEN_STREAM = 1 << 0, 1 << 4
NAME_MAX = 255  # bytes, as statfs says
BLOCK_SIZE = 128 << 10  # the kernel's default request; readers choose their buffer size by it


@dataclass(frozen=True, slots=True)
class Access:
    """The owner of all files, and their permission bits, which never allow writing."""

    uid: int
    gid: int
    bits: int = 0o444

    def mode_of(self, mode: int) -> int:
        """`mode` with these bits. Each read bit also allows to enter a directory, and to execute a
        file that is executable."""
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return mode
        search = (self.bits & 0o444) >> 2 if mode & 0o111 else 0
        return stat.S_IFMT(mode) | self.bits | search


def answered(
    handler: Callable[Concatenate[Adapter, P], Awaitable[T]],
) -> Callable[Concatenate[Adapter, P], Coroutine[Any, Any, T]]:
    """Turn every exception of a request handler into a FUSEError, and note how long it took."""
    name = handler.__name__

    @functools.wraps(handler)
    async def wrapper(self: Adapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        request = self.operations.begin(name, args)
        try:
            answer = await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError as exc:
            self.operations.end(request, exc.errno)
            raise
        except Exception as exc:
            error = self.failures.errno_of(exc, name, self.operations.path_of(request))
            self.operations.end(request, error)
            raise pyfuse3.FUSEError(error) from exc
        except BaseException:
            self.operations.drop(request)
            raise
        self.operations.end(request)
        return answer

    return wrapper


def interruptible(
    handler: Callable[Concatenate[Adapter, P], Awaitable[T]],
) -> Callable[Concatenate[Adapter, P], Coroutine[Any, Any, T]]:
    """Answer EINTR when the reader gets a signal.

    A handler must be safe to cancel at each of its checkpoints: it counts what the kernel is told
    behind the last one, and leaves nothing open before.
    """

    @functools.wraps(handler)
    async def wrapper(self: Adapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.interrupts.heeded(lambda: handler(self, *args, **kwargs))

    return wrapper


class Adapter(pyfuse3.Operations):
    """One mounted Vfs.

    Args:
        access: the owner of the files, and who may read them.
        disk: the cache directory; `statfs` describes its file system.
        passthrough, pages: those of the session.
        native: the threads that answer reads of attached handles.
        operations: notes each request.
        keeps_listings: whether the kernel can use directories without opening them; it then caches
            their listings.
    """

    def __init__(
        self,
        vfs: Vfs,
        failures: Failures,
        access: Access,
        disk: str,
        passthrough: Passthrough,
        pages: Pages,
        native: NativeReads,
        operations: Operations,
        *,
        keeps_listings: bool,
    ) -> None:
        super().__init__()
        self.failures = failures
        self.interrupts = Interrupts(native)
        self.operations = operations
        self._vfs = vfs
        self._access = access
        self._disk = disk
        self._passthrough = passthrough
        self._pages = pages
        self._keeps_listings = keeps_listings

    @answered
    @interruptible
    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        if len(name) > NAME_MAX:  # the kernel lets FUSE have up to 1024 bytes
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None
        return self._entry(await self._vfs.lookup(parent_inode, text))

    @answered
    @interruptible
    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        return self._entry(await self._vfs.getattr(inode))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for inode, count in inode_list:
            self._vfs.forget(inode, count)

    @answered
    @interruptible
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        return (await self._vfs.readlink(inode)).encode()

    @answered
    async def opendir(self, inode: int, ctx: Any) -> int:
        """Use the inode as the handle; or answer ENOSYS, after which the kernel opens no directory,
        and caches each listing until the directory's time changes."""
        if self._keeps_listings and openreply.inode() == inode:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        return inode

    @answered
    @interruptible
    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        inode = openreply.inode() or fh  # a directory that was not opened has no handle
        told = []
        for position, name, place in await self._vfs.readdir(inode, start_id):
            attributes = self._entry(await self._vfs.entry(place))
            if not pyfuse3.readdir_reply(token, name.encode(), attributes, position):
                break
            told.append(place)
        # No checkpoint until the answer: from a listing that failed the kernel learns no inode.
        for place in told:
            self._vfs.remember(place)

    @answered
    async def releasedir(self, fh: int) -> None:
        pass

    @answered
    @interruptible
    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise pyfuse3.FUSEError(errno.EROFS)
        noted = self.operations.latest
        noted.kind = SERVED
        request = openreply.request()
        if self._vfs.files.noted(request):  # an earlier worker ended before it answered
            self._release(request)
        handle = await self._vfs.open(inode, request)
        try:
            await self._pages.settled(inode)
        except trio.Cancelled:
            self._vfs.files.release(handle.number)
            raise
        if not flags & _GLANCE:
            self._vfs.foresee(handle, ctx.pid)
        # No checkpoint until the answer: the handle is counted exactly if the kernel is told of it.
        backing_id = self._passthrough.opened(inode, handle.number, handle.backing)
        self._vfs.files.opened(handle.number, inode, backing_id)
        noted.kind = PASSED_THROUGH if backing_id else SERVED
        if handle.stream is not None:
            openreply.arm(handle.number, _FOPEN_DIRECT_IO | _FOPEN_STREAM)
        return pyfuse3.FileInfo(
            fh=handle.number,
            keep_cache=handle.keeps_pages,
            direct_io=handle.live,
            nonseekable=handle.stream is not None,
        )

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        if (stream := self._vfs.files.stream(fh)) is not None:
            return await self._follow(stream, size)
        noted = self.operations.latest
        waits = self._vfs.files.waits(fh, off, size)
        noted.kind = COLD if waits else CACHE
        read = functools.partial(self._vfs.files.read, fh, off, size)
        # A local read does not wait; to make it interruptible would add a tenth to its time.
        data = await (self.interrupts.read(off, read) if waits else read())
        noted.size = len(data)
        # pyfuse3 takes any contiguous buffer, which saves a copy; it is annotated as bytes alone.
        return cast(bytes, data)

    async def _follow(self, stream: Stream, size: int) -> bytes:
        """Read the access log, which has no end."""
        if openreply.flags() & os.O_NONBLOCK and not stream:
            raise pyfuse3.FUSEError(errno.EAGAIN)
        return await self.interrupts.heeded(lambda: stream.read(size), endless=True)

    @answered
    async def release(self, fh: int) -> None:
        self._release(fh)

    def _release(self, fh: int) -> None:
        # The journal first: with a closed backing id in it, the next worker's opens would fail.
        whole = self._vfs.files.release(fh)
        inode = self._passthrough.released(fh)
        if inode and whole and self._passthrough.why_not is None:
            self._pages.drop_soon(inode)

    @answered
    @interruptible
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        if not name.startswith(b"user."):  # after ENOTSUP `ls -l` does not ask for further files
            raise pyfuse3.FUSEError(errno.ENOTSUP)
        value = (await self._vfs.xattrs(inode)).get(name.decode(errors="replace"))
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value.encode()

    @answered
    @interruptible
    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        return [name.encode() for name in await self._vfs.xattrs(inode)]

    @answered
    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        disk = os.statvfs(self._disk)
        reply = pyfuse3.StatvfsData()
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files"):
            setattr(reply, field, getattr(disk, field))
        reply.f_namemax = NAME_MAX
        return reply

    def _entry(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = attributes.inode
        entry.entry_timeout = attributes.entry_ttl
        entry.attr_timeout = attributes.attr_ttl
        if attributes.inode:
            entry.generation = 0
            entry.st_mode = self._access.mode_of(attributes.mode)
            entry.st_nlink = attributes.links
            entry.st_uid, entry.st_gid = self._access.uid, self._access.gid
            if attributes.private:
                entry.st_mode = attributes.mode
                entry.st_uid, entry.st_gid = os.geteuid(), os.getegid()
            entry.st_size = attributes.size
            entry.st_blocks = attributes.blocks
            entry.st_blksize = BLOCK_SIZE
            when = int(attributes.mtime * _BILLION)
            entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = when
        return entry
