"""The listings of all registries as the directories above the versions. Pure; made by `tree`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash

from axonfs.formats.listing import Listing
from axonfs.names import Spec


@dataclass(slots=True)
class ListedDirectory:
    """One directory above the versions; `published` is the time of the newest version below it."""

    children: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    published: float = 0.0


class Catalog:
    """All listed versions, and the directories above them."""

    def __init__(self, listings: Iterable[Listing], local: Iterable[Spec] = ()) -> None:
        merged: dict[Spec, Listing] = {}
        for listing in listings:
            merged.setdefault(listing.spec, listing)
        self.listings = tuple(merged[spec] for spec in sorted(merged))
        self.by_spec = merged
        self.directories: dict[tuple[str, ...], ListedDirectory] = {(): ListedDirectory()}
        for spec in {*merged, *local}:
            self._place(spec.segments, merged[spec].published if spec in merged else 0.0)

    def directory(self, path: tuple[str, ...]) -> ListedDirectory:
        """The directory at `path`; an empty one if nothing below it is listed."""
        return self.directories.get(path, ListedDirectory())

    def _place(self, segments: tuple[str, ...], published: float) -> None:
        for depth in range(len(segments)):
            directory = self.directories.setdefault(segments[:depth], ListedDirectory())
            directory.published = max(directory.published, published)
            below = directory.children if depth < len(segments) - 1 else directory.versions
            below.add(segments[depth])


def names_fraction(names: Iterable[str]) -> float:
    """A fraction of a second that depends on the names: a hash of them, in microseconds."""
    return xxhash.xxh3_64_intdigest("\0".join(sorted(names)).encode()) % 1_000_000 / 1e6
