"""Inode numbers: which place each stands for, for as long as the kernel knows it.

A number is derived from the path, so it is the same after a remount and in the next worker
without being written anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from axonfs.errors import NotFoundError
from axonfs.vfs.places import Directory, Place

ROOT = 1
# Numbers below this are the kernel's and ours; 2^63 and above upset programs with signed inodes.
_RESERVED = 16


@dataclass(slots=True)
class Node:
    """A place the kernel holds `lookups` references to."""

    inode: int
    place: Place
    lookups: int = 0


class Nodes:
    """All nodes the kernel may name."""

    def __init__(self) -> None:
        self._nodes = {ROOT: Node(ROOT, Directory(()), lookups=1)}

    def get(self, inode: int) -> Node:
        """The node of a number the kernel was given.

        Raises:
            NotFoundError: it was forgotten, or never given.
        """
        node = self._nodes.get(inode)
        if node is None:
            raise NotFoundError(f"inode {inode} is not known")
        return node

    def all(self) -> list[Node]:
        """Every node."""
        return list(self._nodes.values())

    def number(self, place: Place) -> int:
        """The number for `place`, the same each time."""
        if place.path == ():
            return ROOT
        key = "\0".join(place.path)
        inode = _hash(key)
        # Two paths with one hash: about 1e-8 likely at a million files, so probing may be plain.
        while inode in self._nodes and self._nodes[inode].place.path != place.path:
            inode = _hash(f"{key}\0{inode}")
        return inode

    def remember(self, place: Place) -> Node:
        """The node for `place`, with one kernel reference more."""
        inode = self.number(place)
        node = self._nodes.setdefault(inode, Node(inode, place))
        node.place = place
        node.lookups += 1
        return node

    def forget(self, inode: int, count: int) -> None:
        """The kernel dropped `count` references."""
        node = self._nodes.get(inode)
        if node is None or inode == ROOT:
            return
        node.lookups -= count
        if node.lookups <= 0:
            del self._nodes[inode]


def _hash(key: str) -> int:
    return max(xxhash.xxh3_64_intdigest(key.encode()) >> 1, _RESERVED)
