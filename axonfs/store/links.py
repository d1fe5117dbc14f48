"""The directories of hard links: the files of pinned versions, for programs beside the mount.

Beside store, above objects. `pinned/<namespace>/<name>@<version>/` in the cache directory exists
from the first `make` until the version's pin is dropped.

Why hard links, not symlinks: the directory is complete in itself, so a container can bind it alone;
a path that a program resolves keeps the file's name and extension; and when an object is dropped,
an open or mapped file keeps its bytes. Texts without a backing file are written.

A linked backing file is read-only for good (backing.py), which keeps users other than root from
writing to it through a link. This also marks it: its bytes are never cut, not even after the links
are gone, because a program may still map the file.

Threading: any thread; blocking.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from axonfs import rundir
from axonfs.errors import BusyError
from axonfs.names import Spec
from axonfs.store.backing import LINKED_MODE, Directory, no_space
from axonfs.store.objects import StoredObject

# Only the owner can enter `pinned/`. What is below it can be read by all: a container that binds a
# directory may have another user.
_FOLDER_MODE = 0o755
# The name in `pinned/` of a file that is being made; a namespace has no such name.
_DRAFT = ".draft"


class Links:
    """The directories of one cache.

    Args:
        pinned: returns the versions that are pinned now.
    """

    def __init__(self, directory: Directory, pinned: Callable[[], Iterable[Spec]]) -> None:
        self._directory = directory
        self._root = directory.pinned
        self._pinned = pinned
        self._lock = threading.Lock()  # held while a directory is made or removed

    def make(self, spec: Spec, files: Mapping[str, StoredObject | bytes]) -> Path | None:
        """Make the directory of `spec`, or bring it up to date in place; return its path.

        None if the version is not pinned any more.

        Args:
            files: by path: the object, which the caller holds, or the text to write.

        Raises:
            BusyError: an object is not complete.
            NoSpaceError: the disk is full.
            OSError: the file system has no hard links, or the disk failed.
        """
        with self._lock, no_space():
            place = self._place(spec)
            rundir.make_private(self._root)
            for folder in self._folders(place, files):
                _make_folder(folder)
            for other in _others(place, files.keys()):
                _remove_all(other)
            for path, content in files.items():
                self._put(place / path, content)
            if spec in self._pinned():
                return place
            self._remove(place)
            return None

    def find(self, spec: Spec, files: Mapping[str, StoredObject | bytes]) -> Path | None:
        """The path of the directory of `spec`, for a process beside the owner of the cache.

        None if `make` has something to do.
        """
        place = self._place(spec)
        try:
            right = all(_is_folder(folder) for folder in self._folders(place, files))
        except FileNotFoundError:
            return None
        if not right or next(_others(place, files.keys()), None):
            return None
        right = all(self._holds(place / path, content) for path, content in files.items())
        return place if right else None

    def remove(self, spec: Spec) -> None:
        """Remove the directory of a version that is no longer pinned."""
        with self._lock:
            self._remove(self._place(spec))

    def sweep(self) -> None:
        """Remove what a kill may leave: a draft, and directories whose pins are gone."""
        with self._lock:
            with suppress(OSError):  # else `make` says what is wrong
                _remove_all(self._root / _DRAFT)
            kept = {self._place(spec) for spec in self._pinned()}
            for place in [place for place in _places(self._root) if place not in kept]:
                self._remove(place)

    def _place(self, spec: Spec) -> Path:
        # No name of a model has an `@`, so the directory of a version is never inside another one.
        return self._root / str(spec)

    def _put(self, target: Path, content: StoredObject | bytes) -> None:
        """Have the file in the directory, unless it is there."""
        if self._holds(target, content):
            return
        draft = self._root / _DRAFT
        _remove_all(draft)
        if isinstance(content, bytes):
            draft.write_bytes(content)
            draft.chmod(LINKED_MODE)
        else:
            self._link(content, draft)
        os.replace(draft, target)

    def _holds(self, target: Path, content: StoredObject | bytes) -> bool:
        try:
            found = target.lstat()
            if found.st_mode != stat.S_IFREG | LINKED_MODE:  # a kill may leave it writable
                return False
            if isinstance(content, bytes):
                return target.read_bytes() == content
            return os.path.samestat(found, os.stat(self._directory.backing(content.key)))
        except FileNotFoundError:
            return False

    def _link(self, stored: StoredObject, draft: Path) -> None:
        if not stored.freeze():  # so that no cut begins before the file is marked
            raise _changing(stored)
        try:
            if not stored.present(0, stored.count):
                raise _changing(stored)
            self._directory.link(stored.key, draft)
        finally:
            stored.thaw()

    def _folders(self, place: Path, paths: Iterable[str]) -> list[Path]:
        """The folders below `pinned/` of all files, each after those that it is in."""
        files = (place / path for path in paths)
        found = {folder for file in files for folder in file.parents}
        return sorted(folder for folder in found if self._root in folder.parents)

    def _remove(self, place: Path) -> None:
        with suppress(OSError):
            for folder in (*reversed(place.parents), place):
                if self._root in folder.parents and folder.is_symlink():
                    folder.unlink()  # what it leads to is another program's
            shutil.rmtree(place, ignore_errors=True)
        for parent in place.parents:
            if self._root in parent.parents:
                with suppress(OSError):  # it has other versions, or does not exist
                    parent.rmdir()


def _changing(stored: StoredObject) -> BusyError:
    what = f"chunks of object {stored.digest[:12]} were dropped meanwhile"
    return BusyError(what, hint="run the command again")


def _places(root: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(root):
        yield from (Path(folder, name) for name in names if "@" in name)
        names[:] = [name for name in names if "@" not in name]


def _others(place: Path, paths: Iterable[str]) -> Iterator[Path]:
    """What an earlier pin of the version, or another program, left in the directory; a file where
    a directory has to be, and a directory where a file has to be, too."""
    kept = {place / path for path in paths}
    folders = {parent for path in kept for parent in path.parents}
    for folder, names, files in os.walk(place):
        for path in (Path(folder, name) for name in names):
            if path not in folders or path.is_symlink():
                yield path
        yield from {Path(folder, name) for name in files} - kept


def _remove_all(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Have a directory that all can read, in place of what another program put there, so nothing
    outside `pinned/` is changed wherever that leads."""
    with suppress(FileNotFoundError):
        if _is_folder(folder):
            return
        if not stat.S_ISDIR(folder.lstat().st_mode):
            folder.unlink()
    folder.mkdir(exist_ok=True)
    folder.chmod(_FOLDER_MODE)


def _is_folder(path: Path) -> bool:
    return path.lstat().st_mode == stat.S_IFDIR | _FOLDER_MODE
