"""The value of a resolved version, which tree returns and fetch reads from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.names import Spec
from axonfs.sources import Source


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A resolved version: its manifest, and where the objects' URLs start."""

    manifest: Manifest
    base: str
    source: Source | None

    @property
    def spec(self) -> Spec:
        """The version's own name, never `latest`."""
        return self.manifest.spec

    def part(self, entry: FileEntry) -> Version | None:
        """This version with only the package that has `entry`, and its files; None without one."""
        found = self.manifest.part(entry)
        if found is None or found is self.manifest:
            return self if found else None
        return replace(self, manifest=found)

    def holding(self, entry: FileEntry) -> FileEntry:
        """The file of this version with the same content as `entry`, which may be of another."""
        own = self.manifest.file(entry.path)
        if own is not None and own.digest == entry.digest:
            return own
        return next((own for own in self.manifest.files if own.digest == entry.digest), entry)
