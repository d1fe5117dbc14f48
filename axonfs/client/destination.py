"""A directory that files are exported into: which are there, drafts, and renames into place.

Names come from a manifest, and the directory may be anywhere. So no symlink below it is followed,
a file that an export did not write is replaced only on request, and a file appears under its name
once all its bytes are on the disk. A mark in the extended attributes of an exported file says what
it was and when it was written; without the mark, its bytes are read and compared.

Blocking; any thread. One process exports into a directory at a time.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from axonfs.errors import AxonError, BusyError, NoSpaceError, UsageError
from axonfs.names import check_path

_MARK = "user.axonfs.exported"
_DRAFT = re.compile(r"\.axonfs-[0-9a-f]{16}\.part")
_FICLONE = 0x40049409
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """Where one file goes: `name` in the open directory `folder`."""

    def __init__(self, folder: int, path: str, content: str) -> None:
        self.folder = folder
        self.path = path
        self.name = path.rpartition("/")[2]
        self.content = content
        # Not made of the name alone: an export of another version does not go on with its bytes.
        key = hashlib.sha256(f"{path}\0{content}".encode()).hexdigest()
        self.draft = f".axonfs-{key[:16]}.part"

    def status(self) -> os.stat_result | None:
        """What has the name now."""
        with suppress(FileNotFoundError):
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        return None

    def open(self) -> int:
        """The file of that name, to be read."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.name, flags, dir_fd=self.folder)

    def marked(self) -> str | None:
        """What an export of this user wrote here, if nothing has changed it since."""
        with suppress(OSError, ValueError):
            descriptor = self.open()
            try:
                found = os.fstat(descriptor)
                content, *when = os.getxattr(descriptor, _MARK).decode().split(" ")
                # Another user can write any mark to a file of their own.
                mine = found.st_uid == os.geteuid()
                return content if mine and when == _when(found) else None
            finally:
                os.close(descriptor)
        return None

    def mark(self, descriptor: int) -> None:
        """Note what the file has; where that cannot be noted, its bytes are compared next time."""
        found = os.fstat(descriptor)
        if found.st_nlink == 1:
            with suppress(OSError):
                text = " ".join([self.content, *_when(found)])
                os.setxattr(descriptor, _MARK, text.encode())

    def begin(self) -> int:
        """The draft, with what an export before left in it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError):
            descriptor = os.open(self.draft, flags, 0o666, dir_fd=self.folder)
            found = os.fstat(descriptor)
            mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            if mine and found.st_nlink == 1:
                return descriptor
            os.close(descriptor)
        with naming(self.path):
            self.drop_draft()
            return os.open(self.draft, flags | os.O_EXCL, 0o666, dir_fd=self.folder)

    def drop_draft(self) -> None:
        """Remove the draft, if there is one."""
        with suppress(FileNotFoundError):
            os.unlink(self.draft, dir_fd=self.folder)

    def begun(self) -> int:
        """How many bytes the draft has."""
        with suppress(FileNotFoundError):
            return os.stat(self.draft, dir_fd=self.folder, follow_symlinks=False).st_size
        return 0

    def clone(self, descriptor: int, backing: str) -> bool:
        """Have the draft share the blocks of a file until one of them changes; False if the file
        systems cannot, or the file is gone."""
        with suppress(OSError):
            source = os.open(backing, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _FICLONE, source)
                return True
            finally:
                os.close(source)
        return False

    def finish(self, descriptor: int, *, executable: bool = False) -> None:
        """Give the draft the file's name, once it is on the disk."""
        with naming(self.path):
            if executable:
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                with suppress(OSError):  # FAT and some network file systems have no modes
                    os.fchmod(descriptor, mode | (mode & 0o444) >> 2)
            self.mark(descriptor)
            os.fsync(descriptor)
            self.rename()

    def link(self, source: Path) -> None:
        """Give `source` this name as well.

        Raises:
            OSError: it is on another file system, for example.
        """
        self.drop_draft()
        os.link(source, self.draft, dst_dir_fd=self.folder, follow_symlinks=False)
        self.rename()

    def rename(self) -> None:
        """Give the draft the file's name."""
        os.rename(self.draft, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        # Of two names of one file, a rename leaves both.
        self.drop_draft()
        with suppress(OSError):  # some file systems cannot flush a directory
            os.fsync(self.folder)


class Destination:
    """The directory, made if it is missing, and locked until `close`.

    Raises:
        BusyError: another process exports into it.
        UsageError: it is not a directory that can be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise UsageError(f"cannot be written: {exc.strerror}", path=str(root)) from exc
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            what = "another process exports into this directory"
            raise BusyError(what, path=str(root)) from None
        except OSError:  # no locks on this file system
            pass
        self._lock = threading.Lock()
        self._written: dict[tuple[int, int], str] = {}

    def close(self) -> None:
        """Let other processes export into it."""
        descriptor, self._descriptor = self._descriptor, -1  # a thread may still use it
        os.close(descriptor)

    def free(self) -> int:
        """Bytes that are free there for this user."""
        found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize

    @contextmanager
    def place(self, path: str, content: str) -> Iterator[Place]:
        """Where the file `path` goes; its directories are made.

        Raises:
            AxonError: something else is where a directory has to be, or it is named as a draft.
        """
        *folders, name = check_path(path).split("/")
        if _DRAFT.fullmatch(name):
            hint = "leave it out with --exclude"
            raise AxonError("has the name of a draft of an export", path=path, hint=hint)
        with ExitStack() as opened:
            descriptor = self._descriptor
            for number, folder in enumerate(folders, 1):
                descriptor = _entered(descriptor, folder, "/".join(folders[:number]))
                opened.callback(os.close, descriptor)
            yield Place(descriptor, path, content)

    def note(self, place: Place) -> None:
        """Note that a file of this export is there.

        Raises:
            AxonError: another one is the same file, as where `A` and `a` are one name.
        """
        if (found := place.status()) is None or found.st_nlink > 1:
            return
        with self._lock:
            other = self._written.setdefault((found.st_dev, found.st_ino), place.path)
        if other != place.path:
            what = f"has the same name as '{other}' on this file system"
            raise AxonError(what, path=place.path, hint="export into a directory on another one")

    def sweep(self, paths: Iterable[str]) -> None:
        """Remove the drafts of earlier exports beside these files, once all of them are there."""
        for path in {path.rpartition("/")[0]: path for path in paths}.values():
            with self.place(path, "") as place:
                for name in filter(_DRAFT.fullmatch, os.listdir(place.folder)):
                    with suppress(OSError):
                        os.unlink(name, dir_fd=place.folder)


def _entered(parent: int, name: str, path: str) -> int:
    """The directory `name` in `parent`, open."""
    try:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
        return os.open(name, _FOLDER, dir_fd=parent)
    except (NotADirectoryError, FileNotFoundError) as exc:
        what = "is not a directory, or is a symlink, which an export does not follow"
        raise AxonError(what, path=path, hint="move it away") from exc
    except OSError as exc:
        raise writing_failed(exc, path) from exc


def _when(found: os.stat_result) -> list[str]:
    return [str(found.st_size), str(found.st_mtime_ns)]


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name the file whose write failed."""
    try:
        yield
    except OSError as exc:
        raise writing_failed(exc, path) from exc


def writing_failed(exc: OSError, path: str) -> AxonError:
    """The error for a file or directory that cannot be written."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space there; the same command goes on"
        return NoSpaceError("the disk is full", path=path, hint=hint)
    return AxonError(f"cannot be written: {exc.strerror}", path=path)
