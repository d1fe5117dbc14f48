"""Files of the cache that a program reads in its own process, where nothing is mounted.

The same handles as in a mount (`axonfs.vfs.files`), with the program in the kernel's place: it
gets the descriptor of a file that is whole and verified, and asks for the bytes of any other.
Trio thread only, but for `Opened`, a value.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import trio

from axonfs.catalog.tree import Version
from axonfs.client.direct import Direct, FrozenFile, OwnersFile
from axonfs.engine import Engine
from axonfs.errors import BadHandleError, NotFoundError
from axonfs.formats.manifest import MANIFEST_NAME
from axonfs.service import Service
from axonfs.store import Descriptor, StoredObject
from axonfs.vfs.buffers import BUFFER_SIZE
from axonfs.vfs.files import Files
from axonfs.vfs.handle import Handle
from axonfs.vfs.journal import Journal
from axonfs.vfs.places import File, Text, manifest_file


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file. `spec` names its version; `direct` reads it without the session's thread, where
    that can be, for as long as the file is open."""

    number: int
    spec: str
    size: int
    direct: Direct | None


class CachedFiles:
    """The files that one engine has open for the programs of its process."""

    def __init__(self, engine: Engine) -> None:
        self._service = Service(engine)
        self._store = engine.store
        journal = Descriptor(os.memfd_create("axonfs-journal", os.MFD_CLOEXEC))
        self._journal = journal  # closed with the last reference to it
        self._files = Files(engine.fetcher, Journal(journal), _unknown)
        self._numbers = itertools.count(1)
        self._reading: dict[int, int] = {}  # by the number of an open file: reads under way
        self._closing: set[int] = set()
        self._beside: dict[int, StoredObject] = {}  # in use beside the owner of the cache

    async def open(self, spec: str, path: str) -> Opened | None:
        """Open a file; only its manifest may have to be fetched.

        None says that another process owns the cache, and the file is not whole there.

        Raises:
            AxonError: there is no such version or file, or its bytes are known to be wrong.
        """
        version = await self._service.version({"spec": spec})
        place = _place(version, path)
        number = next(self._numbers)
        if isinstance(place, File) and not self._store.writable:
            return await self._open_beside(number, place)
        handle = await self._files.open(number, place)
        direct = _frozen(handle.backing)
        self._files.opened(number, number, backing_id=int(direct is not None))
        self._reading[number] = 0
        return Opened(number, str(version.spec), _size(handle), direct)

    async def _open_beside(self, number: int, place: File) -> Opened | None:
        entry = place.entry
        stored = await trio.to_thread.run_sync(self._store.object, entry)
        compared = partial(self._store.compared, stored, entry)
        if not (stored.complete and compared()):
            return None
        await trio.to_thread.run_sync(stored.hold)
        self._beside[number] = stored
        return Opened(number, str(place.version.spec), entry.size, OwnersFile(stored, compared))

    async def read_into(self, number: int, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset` on; the count is short only at the end of the file.

        Raises:
            AxonError: the bytes cannot be had; names the spec and the path.
            ValueError: the file is closed.
        """
        if number not in self._reading or number in self._closing:
            raise ValueError("I/O operation on closed file")
        done = 0
        self._reading[number] += 1
        try:
            while done < len(view):
                size = min(len(view) - done, BUFFER_SIZE)
                part = await self._files.read(number, offset + done, size)
                if not part:
                    break
                view[done : done + len(part)] = part
                done += len(part)
        finally:
            self._reading[number] -= 1
            self._release_unused(number)
        return done

    def release(self, number: int) -> None:
        """Close a file once the reads under way have ended."""
        if stored := self._beside.pop(number, None):
            stored.release()
            return
        self._closing.add(number)
        self._release_unused(number)

    def _release_unused(self, number: int) -> None:
        if number in self._closing and not self._reading[number]:
            self._closing.discard(number)
            del self._reading[number]
            self._files.release(number)


def _frozen(backing: int | None) -> FrozenFile | None:
    """None if there is no backing file, or no descriptor is left: then the session reads it."""
    with suppress(OSError):
        return FrozenFile(backing) if backing is not None else None
    return None


async def _unknown(inode: int) -> NoReturn:
    raise BadHandleError(f"file {inode} is not open")


def _place(version: Version, path: str) -> File | Text:
    where = (*version.spec.segments, *path.split("/"))
    if path == MANIFEST_NAME and version.manifest.shown:
        return manifest_file(where, version)
    entry = version.manifest.file(path)
    if entry is None:
        raise NotFoundError("no such file", spec=str(version.spec), path=path)
    return File(where, version, entry)


def _size(handle: Handle) -> int:
    return len(handle.text) if handle.feed is None else handle.feed.entry.size
