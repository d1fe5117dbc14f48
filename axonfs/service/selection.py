"""Selects the files of a pin, and computes what is missing and whether there is room for it.

Pure, except for `measure`, which reads the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from axonfs.catalog.tree import Version
from axonfs.errors import NoSpaceError, NotFoundError
from axonfs.formats.manifest import FileEntry
from axonfs.names import Spec, printable
from axonfs.store import ObjectInfo, Store
from axonfs.units import size


@dataclass(frozen=True, slots=True)
class Selection:
    """Files of one version."""

    version: Version
    entries: tuple[FileEntry, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """The objects, each once, in the files' order."""
        return tuple(dict.fromkeys(entry.digest for entry in self.entries))

    @property
    def objects(self) -> list[FileEntry]:
        """One file per object."""
        return list({entry.digest: entry for entry in reversed(self.entries)}.values())[::-1]

    @property
    def size(self) -> int:
        """Bytes of the objects; files with the same content count once."""
        return sum(entry.size for entry in self.objects)


def select(version: Version, include: Sequence[str], exclude: Sequence[str]) -> Selection:
    """The files whose path matches a glob of `include`, if there is one, and none of `exclude`.

    `*` matches `/` too, and `dir/` means everything in it, as in `huggingface-cli download`.

    Raises:
        NotFoundError: no file is left.
    """
    files = version.manifest.files
    entries = tuple(entry for entry in files if chosen(entry.path, include, exclude))
    if not entries:
        raise nothing_matches(version.spec, include, exclude)
    return Selection(version, entries)


def chosen(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the globs leave the file at `path`."""
    return (not include or _matches(path, include)) and not _matches(path, exclude)


def nothing_matches(spec: Spec, include: Sequence[str], exclude: Sequence[str]) -> NotFoundError:
    """The error that no file is left."""
    globs = printable(" ".join([*include, *(f"not {glob}" for glob in exclude)]))
    return NotFoundError(f"no file matches {globs or 'it'}", spec=str(spec))


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(path, f"{glob}*" if glob.endswith("/") else glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class Room:
    """The space for a pin, in bytes; it needs `missing`.

    `limit` is the size limit of the cache, and `kept` the part of it that cannot be evicted
    (pinned, open, or the pin's own). `disk` is free on the disk, and eviction can free `evictable`.
    """

    missing: int
    limit: int
    kept: int
    disk: int
    evictable: int

    def check(self, spec: str) -> None:
        """Refuse a pin that does not fit, before a byte is fetched.

        Raises:
            NoSpaceError: the message says how much space it lacks.
        """
        within_limit = self.limit - self.kept
        on_disk = self.disk + self.evictable
        if self.missing > 0 and self.missing > min(within_limit, on_disk):
            where, room, hint = (
                ("on the disk", on_disk, "free some disk space")
                if on_disk <= within_limit
                else (f"within the cache limit of {size(self.limit)}", within_limit, _LIMIT_HINT)
            )
            room = max(room, 0)
            raise NoSpaceError(
                f"needs {size(self.missing)} more, but only {size(room)} is available {where},"
                f" short by {size(self.missing - room)}",
                spec=spec,
                hint=hint,
            )


_LIMIT_HINT = "unpin something or raise --cache-size"


def measure(
    store: Store, selections: Sequence[Selection], open_digests: set[str], limit: int, disk: int
) -> Room:
    """Measure the room for `selections`; blocks while it scans the index."""
    own = {entry.digest: entry for item in selections for entry in item.objects}
    infos = {info.digest: info for info in store.infos()}
    keep = store.pinned_digests() | open_digests | set(own)
    kept = sum(info.present_bytes for info in infos.values() if info.digest in keep)
    total = sum(info.present_bytes for info in infos.values())
    missing = sum(missing_bytes(entry, infos.get(digest)) for digest, entry in own.items())
    return Room(missing, limit, kept, disk, total - kept)


def missing_bytes(entry: FileEntry, info: ObjectInfo | None) -> int:
    """Bytes of the file that are not local."""
    return entry.size - (info.present_bytes if info is not None else 0)
