"""Inode numbers, and the place that each stands for while the kernel knows it.

A number is a hash of the path, so it is the same after a remount and in the next worker. The
journal records which numbers the kernel knows. A worker that takes over knows their paths first,
and finds their places later.
"""

from __future__ import annotations

from axonfs.errors import NotFoundError
from axonfs.vfs.journal import Journal, Kind
from axonfs.vfs.places import Directory, File, Place, hashed

ROOT = 1
# Numbers below this are reserved.
_RESERVED = 16


def usual_number(path: tuple[str, ...]) -> int:
    """The number of a path, unless another path has it by chance."""
    return max(hashed("\0".join(path)), _RESERVED)


class Inodes:
    """All inodes that the kernel may use in requests."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known = journal.known
        self._places: dict[int, Place] = {ROOT: Directory(())}
        self._files: dict[str, set[int]] = {}  # by the digest of their object

    def path(self, inode: int) -> tuple[str, ...]:
        """The path of an inode that the kernel knows.

        Raises:
            NotFoundError: the kernel forgot it, or never had it.
        """
        if inode == ROOT:
            return ()
        node = self._known.nodes.get(inode)
        if node is None:
            raise NotFoundError(f"inode {inode} is not known")
        return node.path

    def place(self, inode: int) -> Place | None:
        """The place of an inode, None if only its path is known yet."""
        return self._places.get(inode)

    def settle(self, inode: int, place: Place) -> None:
        """Record that `place` is at the path of `inode`."""
        self._places[inode] = place
        if isinstance(place, File):
            self._files.setdefault(place.entry.digest, set()).add(inode)

    def files(self, digest: str) -> set[int]:
        """The inodes of the files whose content is that object."""
        return self._files.get(digest, set())

    def number(self, place: Place) -> int:
        """The inode number of `place`, always the same."""
        if place.path == ():
            return ROOT
        inode = usual_number(place.path)
        # Collisions are rare (probability 1e-8 for a million files), so simple probing will do.
        while (node := self._known.nodes.get(inode)) and node.path != place.path:
            inode = max(hashed("\0".join((*place.path, str(inode)))), _RESERVED)
        return inode

    def remember(self, place: Place) -> None:
        """Count one more reference to `place`, just before the kernel gets it."""
        inode = self.number(place)
        if inode == ROOT:
            return
        if inode not in self._known.nodes:
            self._journal.note(Kind.NODE, inode, 1, "\0".join(place.path).encode())
        else:
            self._journal.note(Kind.LOOKUP, inode, 1)
        self.settle(inode, place)

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references."""
        if inode not in self._known.nodes:
            return
        self._journal.note(Kind.FORGET, inode, count)
        if inode not in self._known.nodes:
            self._drop(inode)

    def _drop(self, inode: int) -> None:
        place = self._places.pop(inode, None)
        if isinstance(place, File):
            self.files(place.entry.digest).discard(inode)
            if not self.files(place.entry.digest):
                self._files.pop(place.entry.digest, None)
