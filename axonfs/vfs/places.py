"""What can be at a path of the mount, as values: directories, files, symlinks.

Below paths.py, which finds them. A place has its path and its content; inodes, attributes and
handles are in vfs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import xxhash

from axonfs.catalog.tree import Version
from axonfs.formats.manifest import FileEntry
from axonfs.vfs.streams import Log

# Seconds for which the kernel may cache an answer. A version never changes. The directories above
# versions do; the kernel drops their cached listings when their mtime changes.
FOREVER = 3600.0
DIRECTORY_TTL = 60.0
LISTING_TTL = 1.0
ABSENT_TTL = 10.0


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory above the versions.

    `certain` is false if it may not exist, because a source that could have it does not answer.
    Then a lookup in it raises that source's error, which can name a whole model.
    """

    path: tuple[str, ...]
    certain: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Folder:
    """A version's own directory (`inner` is empty) or one below it."""

    path: tuple[str, ...]
    version: Version
    inner: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of a version; its bytes are an object."""

    path: tuple[str, ...]
    version: Version
    entry: FileEntry


@dataclass(frozen=True, slots=True)
class Alias:
    """A symlink to a name in the same directory."""

    path: tuple[str, ...]
    target: str


@dataclass(frozen=True, slots=True)
class Text:
    """A small generated file; its content is fixed, or made at each open if `live`."""

    path: tuple[str, ...]
    render: Callable[[], bytes] = field(compare=False)
    size: int
    mtime: float
    live: bool = False
    version: Version | None = None


Place = Directory | Folder | File | Alias | Text | Log


class Entry(NamedTuple):
    """A name in a listing. Readers continue after a position, even if names came or went."""

    position: int
    name: str
    place: Place


def hashed(text: str) -> int:
    """A hash of 63 bits, since some programs read inode numbers as signed; never 0."""
    return xxhash.xxh3_64_intdigest(text.encode()) >> 1 or 1


def manifest_file(path: tuple[str, ...], version: Version) -> Text:
    """The version's manifest as a file."""
    raw = version.manifest.raw
    return Text(path, lambda: raw, len(raw), version.manifest.created, version=version)
