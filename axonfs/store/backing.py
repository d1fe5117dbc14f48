"""The backing files in the cache directory.

Bottom of the store, beside index. Knows paths and descriptors, but not which bytes are valid.

To drop a backing file, it is renamed into `objects/trash` and unlinked there: unlinking 100 GiB
takes long, and no lock may be held meanwhile. Files that a crash left in the trash are removed when
the cache is opened next.

A file that has, or had, names elsewhere (links.py) is read-only. Its bytes are never cut.

Threading: any thread; callers make sure that no two threads create and drop the same name.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from axonfs import rundir
from axonfs.errors import NoSpaceError
from axonfs.formats.manifest import chunk_count
from axonfs.ranges import Range
from axonfs.store.openfiles import Descriptor

T = TypeVar("T")

# Space that is kept for the index. A full disk counts as usable again once this much is free.
RESERVE_BYTES = 1 << 20
_TRASH = "trash"
_OTHERS = {_TRASH, "lost+found"}
_HEX = frozenset("0123456789abcdef")
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # fallocate(2)
_PAST_THE_END = 1 << 20
LINKED_MODE = 0o444  # of a file that has, or had, names elsewhere


class Directory:
    """The paths in one cache directory.

    Backing files are opened relative to a descriptor of `objects/`. So if the directory is removed
    while in use, opens fail, and this process never uses files of a new directory at that path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = root / "index.lmdb"
        self.objects = root / rundir.OBJECTS
        self.pinned = root / rundir.PINNED
        self._trash = self.objects / _TRASH
        self._descriptor = -1

    def enter(self, *, owner: bool) -> None:
        """Open `objects/`, before the first backing file is opened; `leave` closes it.

        Raises:
            BusyError: another process is the owner, and its run/lock was removed.
        """
        if owner:
            self._descriptor = rundir.claim_objects(self.root)
            return
        with suppress(FileNotFoundError):  # a new cache has no objects/ yet
            self._descriptor = os.open(self.objects, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def leave(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def prepare(self) -> None:
        """Create missing directories, readable by the owner only.

        Raises:
            UnsupportedError: the directory cannot be written.
            NoSpaceError: the disk is full.
        """
        rundir.prepare(self.root)
        try:
            for path in (self.objects, self._trash, self.pinned):
                rundir.make_private(path)
        except OSError as exc:
            raise rundir.unusable(exc, self.root) from exc

    def backing(self, digest: str) -> str:
        """The path of an object's backing file."""
        return f"{self.objects}/{_name(digest)}"

    def open_backing(self, digest: str, *, writable: bool, create: bool = True) -> Descriptor:
        """Open a backing file; with `writable` and `create` create it if it is missing.

        Raises:
            NoSpaceError: the disk is full.
            OSError: the disk failed, or the directory is gone.
        """
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        if not writable:
            return self._open(digest, flags | os.O_RDONLY)
        if not create:
            return self._open(digest, flags | os.O_RDWR)
        flags |= os.O_RDWR | os.O_CREAT
        with no_space():
            try:
                return self._open(digest, flags)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(digest[:2], 0o700, dir_fd=self._descriptor)
                return self._open(digest, flags)

    def _open(self, digest: str, flags: int) -> Descriptor:
        name = _name(digest)
        try:
            return Descriptor(os.open(name, flags, 0o600, dir_fd=self._descriptor))
        except PermissionError:
            if not flags & os.O_RDWR or self.status(digest) is None:
                raise
        # It is linked, and this is not root: only its owner can make it writable for a moment.
        os.chmod(name, 0o600, dir_fd=self._descriptor)
        try:
            return Descriptor(os.open(name, flags, dir_fd=self._descriptor))
        finally:
            os.chmod(name, LINKED_MODE, dir_fd=self._descriptor)

    def link(self, digest: str, target: Path) -> None:
        """Give a backing file another name; it stays read-only.

        Raises:
            OSError: the file system has no hard links, or the disk failed.
        """
        name = _name(digest)
        os.chmod(name, LINKED_MODE, dir_fd=self._descriptor)
        os.link(name, target, src_dir_fd=self._descriptor, follow_symlinks=False)

    def status(self, digest: str) -> os.stat_result | None:
        """The status of the backing file; None if it cannot be read."""
        try:
            return os.stat(_name(digest), dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return None

    def length(self, digest: str) -> int:
        """The backing file's length; -1 if it cannot be read."""
        found = self.status(digest)
        return -1 if found is None else found.st_size

    def discard(self, digest: str) -> str | None:
        """Move a backing file into the trash; return the name for `unlink`."""
        target = f"{_TRASH}/{digest}.{os.urandom(4).hex()}"
        try:
            self._rename(_name(digest), target)
        except FileNotFoundError:
            if self.length(digest) < 0:
                return None
            os.mkdir(_TRASH, 0o700, dir_fd=self._descriptor)
            self._rename(_name(digest), target)
        return target

    def _rename(self, name: str, target: str) -> None:
        os.rename(name, target, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def unlink(self, name: str | None) -> None:
        """Remove a file that `discard` moved into the trash."""
        if name is not None:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)

    def probe(self) -> None:
        """Test the disk: write a file and remove it, then write the reserve.

        Raises:
            NoSpaceError: the disk is full.
            OSError: the disk failed, or the directory is gone.
        """
        try:
            self._write("probe")
        finally:
            self.unlink(f"{_TRASH}/probe")
        self.reserve()

    def reserve(self) -> None:
        """Reserve space for the index, which needs it to evict anything on a full disk.

        Raises:
            NoSpaceError, OSError: the disk is full or failed.
        """
        try:
            self._write("reserve")
        except (OSError, NoSpaceError):
            self.spend_reserve()
            raise

    def in_reserve(self, write: Callable[[], T]) -> T:
        """Call `write`, which frees space; if the disk is full, once more in the reserve."""
        try:
            return write()
        except NoSpaceError:
            self.spend_reserve()
            return write()

    def spend_reserve(self) -> None:
        with suppress(OSError):
            self.unlink(f"{_TRASH}/reserve")

    def _write(self, name: str) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        with no_space():
            descriptor = os.open(f"{_TRASH}/{name}", flags, 0o600, dir_fd=self._descriptor)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)

    def empty_trash(self) -> None:
        for path in self._trash.iterdir():
            with suppress(OSError):
                path.unlink()

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Each backing file's digest and status."""
        for _, digest in sorted(self.names()):
            if digest is not None and (found := self.status(digest)):
                yield digest, found

    def names(self) -> Iterator[tuple[str, str | None]]:
        """Each path below `objects/` except the trash, with its digest; None for foreign files."""
        for folder in _entries(self.objects):
            if folder.name in _OTHERS:
                continue
            if len(folder.name) != 2 or not folder.is_dir(follow_symlinks=False):
                yield folder.path, None
                continue
            for entry in _entries(folder.path):
                ours = entry.is_file(follow_symlinks=False) and _is_backing(entry.name, folder.name)
                yield entry.path, entry.name if ours else None


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _is_backing(name: str, folder: str) -> bool:
    return len(name) == 64 and name[:2] == folder and _HEX.issuperset(name)


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}"


def in_memory(path: Path) -> bool:
    """Whether the files there are in memory. Then no read blocks, and RWF_NOWAIT is refused."""
    return file_system(path) in ("tmpfs", "ramfs")


def file_system(path: Path) -> str | None:
    """The type of the file system of a path, None if it is unknown."""
    device = path.stat().st_dev
    place = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
            if line.split(b" ")[2:3] == [place.encode()]:
                return os.fsdecode(line.partition(b" - ")[2].split(b" ")[0])
    return None


def extend(descriptor: int, size: int) -> None:
    """Extend the file to its length as a hole. If that fails, it grows as it is written."""
    with suppress(OSError):
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)


def is_linked(descriptor: int) -> bool:
    """Whether the file has, or had, names elsewhere."""
    found = os.fstat(descriptor)
    return found.st_nlink > 1 or not found.st_mode & 0o222


def clear(descriptor: int, size: int) -> None:
    """Free all blocks of a file that is not linked, and cut it to at most `size` bytes."""
    found = os.fstat(descriptor)
    if is_linked(descriptor):
        return
    if found.st_size > size:
        os.ftruncate(descriptor, size)
    if found.st_blocks:
        cut(descriptor, Range(0, size), size)


def write_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Write every byte of `view` at `offset`.

    Raises:
        NoSpaceError: the disk or the quota is full.
        OSError: the disk failed.
    """
    with no_space():
        written = 0
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)


def read_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Fill `view` from `offset`.

    Raises:
        OSError: the disk failed, or the file is shorter than its index says.
    """
    while view:
        count = os.preadv(descriptor, [view], offset)
        if count == 0:
            raise OSError(errno.EIO, "a backing file is too short")
        view, offset = view[count:], offset + count


def data_extents(descriptor: int) -> list[Range]:
    """The ranges of the file that have data; the whole file if the file system has no holes."""
    size = os.fstat(descriptor).st_size
    found = []
    position = 0
    try:
        while position < size:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            found.append(Range(start, position))
    except OSError as exc:
        if exc.errno != errno.ENXIO:  # ENXIO: no data after `position`
            return [Range(0, size)]
    return found


def whole_chunks(extents: list[Range], chunk_size: int, size: int) -> list[int]:
    """The chunks of an object of `size` bytes that lie completely in one of `extents`."""
    found: list[int] = []
    for start, stop in extents:
        stop = chunk_count(size, chunk_size) if stop >= size else stop // chunk_size
        found += range(-(-start // chunk_size), stop)
    return found


def cut(descriptor: int, bounds: Range, size: int) -> None:
    """Free the blocks of `bounds`, as far as the file system can, unless the file is linked.

    The file keeps its length, `size`. It is truncated to nothing only if it cannot have holes,
    because ext4 and XFS flush a file on close that was truncated so and written again.
    """
    if is_linked(descriptor):
        return
    # The last block, which is used in part, is freed only if the hole reaches to its end.
    length = bounds.size if bounds.stop < size else bounds.size + _PAST_THE_END
    failed = _libc.fallocate(
        descriptor,
        _KEEP_SIZE | _PUNCH_HOLE,
        ctypes.c_longlong(bounds.start),
        ctypes.c_longlong(length),
    )
    if failed and bounds == (0, size):
        os.ftruncate(descriptor, 0)
        extend(descriptor, size)


_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def no_space() -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into NoSpaceError."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError("the cache's disk is full", hint=rundir.FREE_SPACE) from exc
        raise
