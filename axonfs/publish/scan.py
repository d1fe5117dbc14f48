"""Which files of a directory make up a version.

Follows symlinks, since a Hugging Face snapshot is nothing else. A link may leave the directory
only for a single regular file: a link to a directory elsewhere could pull in a whole home.
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
    """A file to publish: its path in the version, where it lies, its size in bytes."""

    path: str
    source: Path
    size: int


@dataclass(slots=True)
class Scan:
    """What was found; `left_out` are paths that are not published, directories with a `/`."""

    files: list[SourceFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def scan(directory: Path) -> Scan:
    """The files below `directory`, in order of their paths.

    Hidden names at any level (`.git`, `.cache`) and a top-level manifest.yaml, which is the
    registry's own name in a version, are left out.

    Raises:
        AxonError: there is nothing to publish, or something that cannot be: a link that is
            broken, loops, or leads to a directory elsewhere; a name no manifest may have; a
            device, socket or pipe.
    """
    if not directory.is_dir():
        raise AxonError(f"{printable(str(directory))} is not a directory")
    found = Scan()
    _Walk(directory.resolve(), found).enter(directory, "", ())
    if not found.files:
        raise AxonError(f"{printable(str(directory))} holds no file to publish")
    found.files.sort(key=lambda file: file.path)
    found.left_out.sort()
    return found


class _Walk:
    def __init__(self, root: Path, found: Scan) -> None:
        self._root = root
        self._found = found

    def enter(self, directory: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        """Adds what `directory` holds; `above` identifies the directories it was reached by."""
        status = directory.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise _refusal(prefix, "is a link to a directory that it is in")
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
            raise AxonError(f"there are more than {MAX_FILES} files, which no version may have")
        self._found.files.append(file)

    def _check_inside(self, entry: os.DirEntry[str], path: str) -> None:
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(self._root):
            raise _refusal(path, "is a link to a directory outside", "put a copy in its place")


def _status(entry: os.DirEntry[str], path: str) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as exc:
        what = "is a link that leads nowhere" if entry.is_symlink() else "cannot be read"
        raise _refusal(path, f"{what}: {exc.strerror}") from exc


def _refusal(path: str, what: str, hint: str | None = None) -> AxonError:
    return AxonError(f"'{printable(path.rstrip('/'))}' {what}", hint=hint)
