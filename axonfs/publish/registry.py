"""A registry in a storage: what is in it, and how a version enters it.

A version is published once its manifest is in place. versions.json and index.json follow from the
manifests: if a publisher dies before it writes them, the next publisher completes them. Each list
is read, made anew from the manifests, and replaced only if no other publisher replaced it
meanwhile. Blocking.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    BusyError,
    MalformedError,
    NotFoundError,
    UsageError,
)
from axonfs.formats.chunktable import ChunkTable, decode_table, table_bytes
from axonfs.formats.layout import (
    INDEX,
    MODELS,
    RESERVED,
    manifest_key,
    object_key,
    signatures_key,
    spec_of_manifest,
    table_key,
    version_home,
    versions_key,
    yanked_key,
)
from axonfs.formats.listing import (
    MAX_INDEX_BYTES,
    MAX_VERSIONS_BYTES,
    Listing,
    Versions,
    listing_of,
    parse_index,
    parse_versions,
    parse_yanked,
    render_index,
    render_versions,
)
from axonfs.formats.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    MIN_CHUNK_SIZE,
    ChunkRef,
    FileEntry,
    Manifest,
    parse_manifest,
)
from axonfs.names import HUB_NAMESPACES, Spec, printable
from axonfs.publish.together import pool
from axonfs.publish.webpage import write_page
from axonfs.storage import Storage, Upload

# Seconds. How long a publisher tries to write a list that others write at the same time.
CONTEST_TIMEOUT = 120.0
CONTEST_PAUSE = 1.0  # the longest pause between two tries
CHECKS = 8  # objects that are looked for at the same time
ENTER_ATTEMPTS = 3  # another publisher's manifest may be on its way, or be deleted


class Registry:
    """The registry in `storage`."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def manifest(self, spec: Spec) -> Manifest | None:
        found = self.storage.read(manifest_key(spec), MAX_MANIFEST_BYTES)
        return parse_manifest(found.body, spec) if found else None

    def specs(self) -> dict[Spec, bool]:
        """The published versions, those that have a manifest, and whether each is yanked.

        Raises:
            AccessDeniedError: the storage does not let this user list its files.
        """
        keys = {listed.key for listed in self.storage.list(MODELS)}
        specs = filter(None, map(spec_of_manifest, keys))
        return {spec: yanked_key(spec) in keys for spec in specs}

    def indexed(self) -> set[Spec]:
        """The versions that the index names."""
        found = self.storage.read(INDEX, MAX_INDEX_BYTES)
        listings, yanked = self._listings(found.body) if found else ({}, set[Spec]())
        return listings.keys() | yanked

    def has_object(self, digest: str, size: int) -> bool:
        return self.storage.size(object_key(digest)) == size

    def has(self, entry: FileEntry) -> bool:
        """Whether the object of a file is there, and the chunk table that the manifest names."""
        if not self.has_object(entry.digest, entry.size):
            return False
        if not (entry.size and entry.chunks):
            return True
        return self.storage.size(table_key(entry.digest)) == table_bytes(
            entry.size, entry.chunks.size
        )

    def _check_kept(self, manifest: Manifest) -> None:
        """Check that the objects are still there; see registries/collect.py.

        Raises:
            AxonError: `gc` has removed one of them meanwhile.
        """
        with pool(CHECKS, "look") as threads:
            found = list(threads.map(self.has, manifest.files))
        for entry, kept in zip(manifest.files, found, strict=True):
            if not kept:
                what = f"the registry no longer has the object of '{printable(entry.path)}'"
                raise AxonError(what, source=self.storage.name, hint="run the command again")

    def object(self, digest: str, size: int) -> bytes:
        """The bytes of a small object."""
        found = self.storage.read(object_key(digest), size)
        return found.body if found else b""

    def settle_object(self, new: Upload, digest: str, table: ChunkTable) -> int:
        """Store an uploaded object, unless the registry has it; return the number of new bytes."""
        if self.has_object(digest, table.size):
            return 0
        new.settle(object_key(digest), digest, table)
        return table.size

    def settle_table(self, digest: str, table: ChunkTable) -> ChunkRef:
        """Store the chunk table of an object, unless the registry has one already.

        A table is named after its object, so an object has one table. If an earlier version was
        published with another chunk size, this version uses that table as well.
        """
        key, body = table_key(digest), table.encode()
        if kept := self.kept_table(digest, table.size):
            return kept
        if self.storage.put(key, body):
            return table.ref
        if kept := self.kept_table(digest, table.size):
            return kept
        self.storage.delete(key)  # the existing file is not a table of this object
        self.storage.put(key, body)
        return table.ref

    def kept_table(self, digest: str, size: int) -> ChunkRef | None:
        """The table that the registry has of an object; None if it has no valid one."""
        with contextlib.suppress(MalformedError):
            found = self.storage.read(table_key(digest), table_bytes(size, MIN_CHUNK_SIZE))
            table = decode_table(found.body) if found else None
            return table.ref if table and table.size == size else None
        return None

    def check_spec(self, spec: Spec) -> None:
        """
        Raises:
            AxonError: a segment is reserved, the namespace belongs to a hub, the version would be
                inside another version, or this user may not publish into the namespace.
        """
        if spec.namespace in HUB_NAMESPACES:
            raise UsageError(
                f"mounts look for models below {spec.namespace}/ on that hub, not in a registry",
                spec=str(spec),
                hint="choose another namespace",
            )
        if taken := RESERVED.intersection(spec.segments):
            raise UsageError(f"a model or version may not be called {min(taken)}", spec=str(spec))
        self.storage.check_namespace(spec.namespace)
        for depth in range(1, len(spec.segments)):
            above = "/".join(spec.segments[:depth])
            if self.storage.size(f"{MODELS}{above}/{MANIFEST_NAME}") is not None:
                raise AxonError(
                    f"{above} is a version already, and a version cannot contain another",
                    spec=str(spec),
                )
        if any(found != manifest_key(spec) for found in self._manifests(version_home(spec))):
            raise AxonError("the registry has models below this name already", spec=str(spec))

    def enter(self, manifest: Manifest) -> Manifest | None:
        """Make `manifest` a published version, unless the version is published already; return the
        earlier manifest then. In both cases `mend_lists` has to follow.

        Raises:
            AxonError: `gc` has removed an object meanwhile; the version is not published.
        """
        key = manifest_key(manifest.spec)
        self._check_kept(manifest)
        for _ in range(ENTER_ATTEMPTS):
            if self.storage.replace(key, manifest.raw, None):
                self._check_entered(manifest)
                return None
            if earlier := self.manifest(manifest.spec):
                return earlier
            time.sleep(CONTEST_PAUSE)
        raise self._unreadable(key)

    def _check_entered(self, manifest: Manifest) -> None:
        """Take the version back if `gc`, which looked for manifests before this one was there, has
        removed an object. A storage that keeps lists has checked that itself."""
        if self.storage.keeps_lists:
            return
        try:
            self._check_kept(manifest)
        except AxonError:
            self.remove(manifest.spec)
            raise

    def yank(self, spec: Spec, *, undo: bool = False) -> bool:
        """Have the lists name this version no longer, or again; return whether that is new.

        Raises:
            NotFoundError: the registry does not have this version.
        """
        self._check_published(spec)
        self.storage.prepare()
        key = yanked_key(spec)
        before = self.storage.size(key) is not None
        if undo:
            self.storage.delete(key)
        else:
            self.mark_yanked(spec)
        self.mend_lists(spec)
        return before == undo

    def mark_yanked(self, spec: Spec) -> None:
        """Yank a version that is published, or will be; `mend_lists` has to follow."""
        self.storage.put(yanked_key(spec), b"")

    def remove(self, spec: Spec) -> None:
        """Remove a version. Its objects stay until `gc`."""
        self.storage.prepare()
        self.storage.delete(manifest_key(spec))
        if self.storage.keeps_lists:
            return  # with all that belongs to the version
        self.storage.delete(yanked_key(spec))
        self.storage.delete(signatures_key(spec))
        self.mend_lists(spec)

    def published(self, spec: Spec) -> Manifest:
        """The manifest of a version.

        Raises:
            NotFoundError: the registry does not have this version.
        """
        if found := self.manifest(spec):
            return found
        raise self._lacks(spec)

    def _check_published(self, spec: Spec) -> None:
        if self.storage.size(manifest_key(spec)) is None:
            raise self._lacks(spec)

    def _lacks(self, spec: Spec) -> NotFoundError:
        what = "the registry does not have this version"
        return NotFoundError(what, spec=str(spec), source=self.storage.name)

    def mend_lists(self, *specs: Spec) -> None:
        """Update the versions.json of these versions' models and their entries in index.json from
        the manifests, and the web page.

        Raises:
            BusyError: other publishers were faster for CONTEST_TIMEOUT.
        """
        if self.storage.keeps_lists:
            return

        for spec in specs:
            make = partial(self._versions_of, spec)
            self.update(versions_key(spec.model), MAX_VERSIONS_BYTES, make)
        self.update(INDEX, MAX_INDEX_BYTES, partial(self._index, specs))
        write_page(self.storage)

    def _versions_of(self, spec: Spec, body: bytes) -> bytes:
        return render_versions(self._versions(spec, _listed_versions(body)))

    def update(self, key: str, limit: int, make: Callable[[bytes], bytes]) -> None:
        """Replace a list, or the signatures of a version, by what `make` returns for its content.

        The list is read before `make` looks for manifests. So if another publisher enters a version
        that `make` does not see, that publisher replaces the list later, or it has done so and this
        replacement is refused.
        """
        deadline = time.monotonic() + CONTEST_TIMEOUT
        pause, unread = 0.05, 0
        while True:
            before = self.storage.read(key, limit)
            body = make(before.body if before else b"")
            if before and before.body == body:
                return
            if self.storage.replace(key, body, before):
                return
            unread = 0 if before else unread + 1
            if unread == ENTER_ATTEMPTS:
                raise self._unreadable(key)
            if time.monotonic() > deadline:
                what = f"other publishers replaced {key} again and again"
                raise BusyError(what, source=self.storage.name, hint="publish again later")
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, CONTEST_PAUSE)

    def _unreadable(self, key: str) -> AxonError:
        what = "the file exists, and this account may not read it"
        return AxonError(what, source=f"{self.storage.name}/{key}")

    def _index(self, specs: Iterable[Spec], body: bytes) -> bytes:
        """The index of content `body` with the right entries for the models of `specs`."""
        listings, yanked = self._listings(body)
        for spec in specs:
            yanked = self._relist(spec, listings, yanked)
        return render_index(listings.values(), yanked)

    def _relist(self, spec: Spec, listings: dict[Spec, Listing], yanked: set[Spec]) -> set[Spec]:
        """Replace the entries of one model in `listings`; return all yanked versions."""
        known = {one.version for one in (*listings, *yanked) if one.model == spec.model}
        found = self._versions(spec, known)
        for one in [*listings]:
            if one.model == spec.model and one.version not in found.versions:
                del listings[one]
        for version in found.versions:
            self._list(Spec(spec.namespace, spec.name, version), listings)
        others = {one for one in yanked if one.model != spec.model}
        return others | {Spec(spec.namespace, spec.name, version) for version in found.yanked}

    def _versions(self, spec: Spec, listed: Iterable[str]) -> Versions:
        """The versions of the model that have manifests.

        Some storages list a new file late, and some do not list files at all. So `spec`, and each
        version in `listed` that the storage does not list, is looked up by its name.
        """
        keys = set(self._keys(f"{MODELS}{spec.model}/"))
        specs = filter(None, map(spec_of_manifest, keys))
        seen = {one.version for one in specs if one.model == spec.model}
        unsure = {spec.version} | (set(listed) - seen)

        def has(version: str, key_of: Callable[[Spec], str]) -> bool:
            key = key_of(Spec(spec.namespace, spec.name, version))
            return self.storage.size(key) is not None if version in unsure else key in keys

        found = {version for version in seen | unsure if has(version, manifest_key)}
        yanked = {version for version in found if has(version, yanked_key)}
        return Versions.of(found - yanked, None, yanked)

    def _manifests(self, prefix: str) -> Iterator[str]:
        """The keys of the manifests below `prefix`."""
        return (key for key in self._keys(prefix) if key.endswith(f"/{MANIFEST_NAME}"))

    def _keys(self, prefix: str) -> Iterator[str]:
        """The keys below `prefix`; none where this user may not list files."""
        with contextlib.suppress(AccessDeniedError):
            yield from (listed.key for listed in self.storage.list(prefix))

    def _list(self, spec: Spec, listings: dict[Spec, Listing]) -> None:
        if spec in listings:
            return
        # A manifest that was damaged by hand must not fail the publish of another model.
        with contextlib.suppress(MalformedError):
            if manifest := self.manifest(spec):
                listings[spec] = listing_of(manifest)

    def _listings(self, body: bytes) -> tuple[dict[Spec, Listing], set[Spec]]:
        """The entries of the index and the yanked versions that it names; made anew from all
        manifests if the index is missing or damaged."""
        try:
            listings, _ = parse_index(body)
            return {listing.spec: listing for listing in listings}, parse_yanked(body)
        except MalformedError:
            return self._rebuilt()

    def _rebuilt(self) -> tuple[dict[Spec, Listing], set[Spec]]:
        listings: dict[Spec, Listing] = {}
        specs: dict[Spec, bool] = {}
        with contextlib.suppress(AccessDeniedError):
            specs = self.specs()
        yanked = {spec for spec, hidden in specs.items() if hidden}
        for spec in specs.keys() - yanked:
            self._list(spec, listings)
        return listings, yanked


def _listed_versions(body: bytes) -> set[str]:
    try:
        found = parse_versions(body)
    except MalformedError:
        return set()
    return {*found.versions, *found.yanked}
