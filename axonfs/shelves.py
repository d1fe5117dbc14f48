"""What is listed, as the directories above the versions. Pure; below tree, which makes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from axonfs.catalog import Listing
from axonfs.names import Spec


@dataclass(slots=True)
class Shelf:
    """One directory above the versions."""

    children: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)


class Catalog:
    """Everything that is listed: the tree above the versions."""

    def __init__(self, listings: Iterable[Listing], local: Iterable[Spec] = ()) -> None:
        merged: dict[Spec, Listing] = {}
        for listing in listings:
            merged.setdefault(listing.spec, listing)
        self.listings = tuple(merged[spec] for spec in sorted(merged))
        self.by_spec = merged
        self.shelves: dict[tuple[str, ...], Shelf] = {(): Shelf()}
        for spec in {*merged, *local}:
            self._place(spec.segments)

    def _place(self, segments: tuple[str, ...]) -> None:
        for depth in range(len(segments) - 1):
            shelf = self.shelves.setdefault(segments[:depth], Shelf())
            shelf.children.add(segments[depth])
        self.shelves.setdefault(segments[:-1], Shelf()).versions.add(segments[-1])
