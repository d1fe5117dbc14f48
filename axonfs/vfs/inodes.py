"""Inode numbers: which place each stands for, for as long as the kernel knows it.

A number is derived from the path, so it is the same after a remount and in the next worker. Which
numbers the kernel knows is in the journal; a worker that took over has the paths of those before
it has their places.
"""

from __future__ import annotations

from axonfs.errors import NotFoundError
from axonfs.vfs.journal import Journal, Kind
from axonfs.vfs.paths import Directory, File, Place, hashed

ROOT = 1
# Numbers below this are the kernel's and ours.
_RESERVED = 16


class Inodes:
    """All inodes the kernel may name."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known = journal.known
        self._places: dict[int, Place] = {ROOT: Directory(())}
        self._files: dict[str, set[int]] = {}  # by the digest of their object

    def path(self, inode: int) -> tuple[str, ...]:
        """The path of a number the kernel was given.

        Raises:
            NotFoundError: it was forgotten, or never given.
        """
        if inode == ROOT:
            return ()
        node = self._known.nodes.get(inode)
        if node is None:
            raise NotFoundError(f"inode {inode} is not known")
        return node.path

    def place(self, inode: int) -> Place | None:
        """The place of a number, None where only its path is known yet."""
        return self._places.get(inode)

    def settle(self, inode: int, place: Place) -> None:
        """`place` is what is at the path of `inode`."""
        self._places[inode] = place
        if isinstance(place, File):
            self._files.setdefault(place.entry.digest, set()).add(inode)

    def files(self, digest: str) -> set[int]:
        """Every inode of a file whose bytes are that object."""
        return self._files.get(digest, set())

    def number(self, place: Place) -> int:
        """The number for `place`, the same each time."""
        if place.path == ():
            return ROOT
        key = "\0".join(place.path)
        inode = max(hashed(key), _RESERVED)
        # Two paths with one hash: about 1e-8 likely at a million files, so probing may be plain.
        while (node := self._known.nodes.get(inode)) and node.path != place.path:
            inode = max(hashed(f"{key}\0{inode}"), _RESERVED)
        return inode

    def remember(self, place: Place) -> None:
        """The kernel is about to be given one reference more to `place`."""
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
