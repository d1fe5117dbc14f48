"""The files of a directory that make up a version.

Follows symlinks, because a snapshot in Hugging Face's cache consists of symlinks. A link may lead
out of the directory to a regular file, but not to a directory, which could be a whole home.
Reads names only, never content. Blocking.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from axonfs.errors import AxonError, MalformedError
from axonfs.formats.manifest import MANIFEST_NAME, MAX_FILES
from axonfs.names import check_path, printable


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to publish: `path` is its path in the version, `source` its path on this machine."""

    path: str
    source: Path
    size: int


@dataclass(slots=True)
class Scan:
    """The result of `scan`; `left_out` are the skipped paths, directories with a `/` at the end."""

    files: list[SourceFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def scan(directory: Path) -> Scan:
    """The files below `directory`, in the order of their paths.

    Skips hidden names at any level (`.git`, `.cache`) and a top-level manifest.yaml, a name that
    the registry itself uses in each version.

    Raises:
        AxonError: the directory has no files, or one that cannot be published: a link that is
            broken, loops, or leads to a directory elsewhere; a name that is invalid in a manifest;
            a device, socket or pipe.
    """
    if not directory.is_dir():
        raise AxonError(f"{printable(str(directory))} is not a directory")
    found = Scan()
    _Walk(directory.resolve(), found).enter(directory, "", ())
    if not found.files:
        raise AxonError(f"{printable(str(directory))} has no files to publish")
    found.files.sort(key=lambda file: file.path)
    found.left_out.sort()
    return found


class _Walk:
    def __init__(self, root: Path, found: Scan) -> None:
        self._root = root
        self._found = found

    def enter(self, directory: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        """Add the content of `directory`; `above` has device and inode of each parent directory."""
        status = directory.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise _refusal(prefix, "is a link to a directory that contains it")
        with os.scandir(directory) as entries:
            for entry in entries:
                self._take(entry, f"{prefix}{entry.name}", (*above, identity))

    def _take(self, entry: os.DirEntry[str], path: str, above: tuple[tuple[int, int], ...]) -> None:
        if entry.name.startswith(".") or path == MANIFEST_NAME:
            self._found.left_out.append(path + "/" * entry.is_dir(follow_symlinks=False))
            return
        try:
            check_path(path)
        except MalformedError as exc:
            raise AxonError(exc.what, hint="rename the file") from exc
        status = _status(entry, path)
        if stat.S_ISDIR(status.st_mode):
            self._check_inside(entry, path)
            self.enter(Path(entry.path), f"{path}/", above)
        elif stat.S_ISREG(status.st_mode):
            self._add(SourceFile(path, Path(entry.path), status.st_size))
        else:
            raise _refusal(path, "is neither a file nor a directory")

    def _add(self, file: SourceFile) -> None:
        if len(self._found.files) >= MAX_FILES:
            raise AxonError(
                f"the directory has more than {MAX_FILES:,} files, the limit of a version"
            )
        self._found.files.append(file)

    def _check_inside(self, entry: os.DirEntry[str], path: str) -> None:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(self._root):
            raise _refusal(path, "is a link to a directory outside", "replace it with a copy")


def _status(entry: os.DirEntry[str], path: str) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as exc:
        what = "is a broken link" if entry.is_symlink() else "cannot be read"
        raise _refusal(path, f"{what}: {exc.strerror}") from exc


def _refusal(path: str, what: str, hint: str | None = None) -> AxonError:
    return AxonError(f"'{printable(path.rstrip('/'))}' {what}", hint=hint)
