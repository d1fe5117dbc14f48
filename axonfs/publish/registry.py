"""A registry directory: the paths of its files, and how a version enters it.

A version is published once its manifest is in place. versions.json and index.json follow from the
manifests: if a publisher dies before it writes them, the next publisher completes them. Manifests
and lists are written under one lock. Blocking.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from axonfs.errors import AxonError, MalformedError, UsageError
from axonfs.formats.chunktable import ChunkTable, decode_table
from axonfs.formats.listing import (
    Listing,
    Versions,
    parse_index,
    render_index,
    render_versions,
)
from axonfs.formats.manifest import MANIFEST_NAME, ChunkRef, Manifest, parse_manifest
from axonfs.names import HUBS, LATEST, Spec, newest, spec_of, valid_segment
from axonfs.publish.files import draft, locked, replace, sweep, write_all

VERSIONS_NAME = "versions.json"
# Names of the layout: no segment of a spec may be one of them.
RESERVED = frozenset({LATEST, MANIFEST_NAME, VERSIONS_NAME})


class Registry:
    """The registry in the directory `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = root / "api/v1/models"
        self.index = root / "api/v1/index.json"
        self.drafts = root / "objects/tmp"

    def object(self, digest: str) -> Path:
        return self.root / "objects/sha256" / digest[:2] / digest

    def table(self, digest: str) -> Path:
        return self.root / "chunks/sha256" / digest[:2] / digest

    def manifest_path(self, spec: Spec) -> Path:
        return self.models.joinpath(*spec.segments) / MANIFEST_NAME

    def prepare(self) -> None:
        """Create the directory if needed, and remove the drafts of dead publishers."""
        self.drafts.mkdir(parents=True, exist_ok=True)
        sweep(self.drafts)

    def manifest(self, spec: Spec) -> Manifest | None:
        try:
            return parse_manifest(self.manifest_path(spec).read_bytes(), spec)
        except FileNotFoundError:
            return None

    def has_object(self, digest: str, size: int) -> bool:
        return _size_of(self.object(digest)) == size

    def settle_table(self, digest: str, table: ChunkTable) -> ChunkRef:
        """Store the chunk table of an object, unless the registry has one already.

        A table is named after its object, so an object has one table. If an earlier version was
        published with another chunk size, this version uses that table as well.
        """
        path = self.table(digest)
        if kept := self._kept_table(path, table.size):
            return kept
        with draft(self.drafts) as new:
            write_all(new.fd, table.encode())
            if new.link_to(path):
                return table.ref
            if kept := self._kept_table(path, table.size):
                return kept
            new.move_to(path)  # the existing file is not a table of this object
        return table.ref

    def _kept_table(self, path: Path, size: int) -> ChunkRef | None:
        try:
            table = decode_table(path.read_bytes())
        except (FileNotFoundError, MalformedError):
            return None
        return table.ref if table.size == size else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other publishers from manifests and lists."""
        with locked(self.root / ".axonfs.lock"):
            yield

    def check_spec(self, spec: Spec) -> None:
        """
        Raises:
            AxonError: a segment is reserved, the namespace belongs to a hub, or the version would
                be inside another version.
        """
        if spec.namespace in HUBS:
            raise UsageError(
                f"mounts look for models below {spec.namespace}/ on that hub, not in a registry",
                spec=str(spec),
                hint="choose another namespace",
            )
        if taken := RESERVED.intersection(spec.segments):
            raise UsageError(f"a model or version may not be called {min(taken)}", spec=str(spec))
        home = self.models.joinpath(*spec.segments)
        for parent in home.parents[: len(spec.segments) - 1]:
            if (parent / MANIFEST_NAME).exists():
                raise AxonError(
                    f"{'/'.join(parent.relative_to(self.models).parts)} is a version already,"
                    " and a version cannot contain another",
                    spec=str(spec),
                )
        if any(path.parent != home for path in home.rglob(MANIFEST_NAME)):
            raise AxonError("the registry has models below this name already", spec=str(spec))

    def enter(self, manifest: Manifest) -> None:
        """Make `manifest` a published version. Call only while `locked`."""
        replace(self.manifest_path(manifest.spec), manifest.raw, self.drafts)
        self.mend_lists(manifest.spec)

    def mend_lists(self, spec: Spec) -> None:
        """Update the model's versions.json and its entries in index.json from the manifests."""
        versions = self._versions(spec)
        self._write_versions(spec, versions)
        listings = self._listings()
        of_model = {Spec(spec.namespace, spec.name, version) for version in versions}
        for listed in [*listings]:
            if listed == spec or (listed.model == spec.model and listed not in of_model):
                del listings[listed]
        for published in of_model:
            self._list(published, listings)
        replace(self.index, render_index(listings.values()), self.drafts)

    def _write_versions(self, spec: Spec, versions: list[str]) -> None:
        document = render_versions(Versions(tuple(versions), newest(versions)))
        path = self.models.joinpath(*spec.segments[:-1]) / VERSIONS_NAME
        replace(path, document, self.drafts)

    def _versions(self, spec: Spec) -> list[str]:
        home = self.models.joinpath(*spec.segments[:-1])
        return [
            path.parent.name
            for path in home.glob(f"*/{MANIFEST_NAME}")
            if valid_segment(path.parent.name)
        ]

    def _list(self, spec: Spec, listings: dict[Spec, Listing]) -> None:
        if spec in listings:
            return
        # A manifest that was damaged by hand must not fail the publish of another model.
        with contextlib.suppress(MalformedError):
            if manifest := self.manifest(spec):
                listings[spec] = listing_of(manifest)

    def _listings(self) -> dict[Spec, Listing]:
        """The index, made anew from all manifests if it is missing or damaged."""
        try:
            listings, _ = parse_index(self.index.read_bytes())
            return {listing.spec: listing for listing in listings}
        except (FileNotFoundError, MalformedError):
            return self._rebuilt()

    def _rebuilt(self) -> dict[Spec, Listing]:
        listings: dict[Spec, Listing] = {}
        for path in self.models.rglob(MANIFEST_NAME):
            if spec := spec_of(path.parent.relative_to(self.models).parts):
                self._list(spec, listings)
        return listings


def listing_of(manifest: Manifest) -> Listing:
    """The entry of index.json for a version."""
    return Listing(
        spec=manifest.spec,
        description=manifest.description,
        framework=manifest.framework,
        license=manifest.license,
        tags=manifest.tags,
        size=manifest.size,
        published=manifest.created,
    )


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
