"""What no manifest of a registry names: it is counted, and `gc` removes it.

A publisher stores objects, chunk tables and signatures first, and the manifest that they belong to
last. So a file that no manifest names may belong to a publish that is under way:

* `gc` keeps files that were written less than MIN_AGE ago, by the storage's clock.
* It looks for new manifests right before it removes files.
* A publisher may have found an older object in the registry, and so not stored it again, or need
  longer than MIN_AGE. It looks right before and right after it enters its manifest whether all
  objects are still there.

Blocking.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from axonfs.errors import AccessDeniedError, MalformedError, NotFoundError
from axonfs.formats.layout import (
    INDEX,
    MODELS,
    SIGNATURES_NAME,
    digest_of,
    manifest_key,
    spec_of_manifest,
    version_home,
    versions_key,
)
from axonfs.formats.manifest import Manifest
from axonfs.names import Spec
from axonfs.publish.registry import Registry
from axonfs.publish.together import pool
from axonfs.storage import Listed

MIN_AGE = 24 * 3600.0  # seconds
READS = 16  # manifests that are read at the same time: a store answers each after a while


@dataclass(slots=True)
class Collected:
    """What `gc` removed, or would remove: files by their kind, and all their bytes. `young` files
    are too new to be removed."""

    objects: int = 0
    tables: int = 0
    signatures: int = 0
    bytes: int = 0
    young: int = 0


@dataclass(frozen=True, slots=True)
class Removal:
    """What the removal of a version means; `freed` are the bytes that no other version has."""

    spec: Spec
    files: int
    bytes: int
    freed: int


class Names:
    """What the manifests of a registry name, by digest; `but` leaves one version out."""

    def __init__(self, registry: Registry, but: Spec | None = None) -> None:
        self._registry = registry
        self._but = but
        self._read: set[Listed] = set()
        self.digests: set[str] = set()
        self._versions: set[Spec] = set()
        self._due = 0.0  # on the monotonic clock: when to look again

    def has(self, key: str) -> bool:
        """Whether the file belongs to a version: its object, chunk table, or signatures."""
        if signed := spec_of_manifest(key, SIGNATURES_NAME):
            return signed in self._versions
        return digest_of(key) in self.digests

    def look(self) -> None:
        """Read the manifests that are new since the last look.

        Raises:
            AxonError: a manifest cannot be read, so what it names is not known.
        """
        first, specs = not self._read, set[Spec]()
        for listed in list(self._registry.storage.list(MODELS)):
            if (spec := spec_of_manifest(listed.key)) and listed not in self._read:
                specs.add(spec)
                self._read.add(listed)
        if first:  # some storages list a new file late
            self.look_in_index()
        self._take(specs, listed=True)

    def look_again(self) -> None:
        """Look, unless less time than a look takes has passed since the last one: to look before
        each of thousands of files would take hours in a large registry."""
        started = time.monotonic()
        if started >= self._due:
            self.look()
            ended = time.monotonic()
            self._due = ended + (ended - started)

    def look_in_index(self) -> None:
        """Read the manifests of the versions in the index."""
        self._take(self._registry.indexed())

    def _take(self, specs: set[Spec], *, listed: bool = False) -> None:
        self._versions |= specs
        wanted = sorted(specs - {self._but})
        with pool(READS, "manifest") as threads:
            for spec, found in zip(wanted, threads.map(self._manifest, wanted), strict=True):
                if found:
                    self.digests.update(entry.digest for entry in found.files)
                elif listed:
                    self._check_removed(spec)

    def _manifest(self, spec: Spec) -> Manifest | None:
        try:
            return self._registry.manifest(spec)
        except MalformedError as exc:
            exc.hint = "repair or remove this version first (axonfs registry check, remove-version)"
            raise

    def _check_removed(self, spec: Spec) -> None:
        """A store may refuse to read a file in the way that it says that there is none."""
        storage, key = self._registry.storage, manifest_key(spec)
        if any(listed.key == key for listed in storage.list(version_home(spec))):
            what = "its manifest is there, and this account may not read it"
            raise AccessDeniedError(what, spec=str(spec), source=storage.name)


def gc(
    registry: Registry,
    *,
    dry_run: bool = False,
    removed: Callable[[Listed], object] = bool,
) -> Collected:
    """Remove the objects and chunk tables that no manifest names, and signatures without one.

    Args:
        dry_run: only count them.
        removed: called with each file that is, or would be, removed.

    Raises:
        NotFoundError: there is no registry, or only a part of one.
    """
    latest = registry.storage.now() - MIN_AGE  # fails if there is no bucket
    if registry.storage.size(INDEX) is None:
        what = "the registry has no index.json, so nothing is removed"
        hint = "check the path; axonfs registry check --repair, or a publish, writes it anew"
        raise NotFoundError(what, source=registry.storage.name, hint=hint)
    names, found = Names(registry), Collected()
    files = unnamed(registry, names)
    for listed in files:
        if listed.modified > latest:
            found.young += 1
            continue
        if not dry_run:
            names.look_again()
            if names.has(listed.key):
                continue
            registry.storage.delete(listed.key)
        found.tables += listed.key.startswith("chunks/")
        found.objects += listed.key.startswith("objects/")
        found.signatures += listed.key.startswith(MODELS)
        found.bytes += listed.size
        removed(listed)
    return found


def unnamed(registry: Registry, names: Names) -> list[Listed]:
    """The objects and chunk tables that no manifest names, and the signatures of versions that have
    none, whatever their age."""
    storage = registry.storage
    files = [
        listed
        for prefix in ("objects/", "chunks/", MODELS)
        for listed in storage.list(prefix)
        if digest_of(listed.key) or spec_of_manifest(listed.key, SIGNATURES_NAME)
    ]
    names.look()
    return [listed for listed in files if not names.has(listed.key)]


def removal(registry: Registry, spec: Spec) -> Removal:
    """What the removal of `spec` means; nothing is known of the files of a malformed manifest.

    Raises:
        NotFoundError: the registry does not have this version.
    """
    try:
        manifest = registry.manifest(spec)
    except MalformedError:
        return Removal(spec, 0, 0, 0)
    if manifest is None:
        what = "the registry does not have this version"
        raise NotFoundError(what, spec=str(spec), source=registry.storage.name)
    others = Names(registry, but=spec)
    try:
        others.look()
    except AccessDeniedError:  # this user may not list files
        others.look_in_index()
    own = {entry.digest: entry.size for entry in manifest.files}
    freed = sum(size for digest, size in own.items() if digest not in others.digests)
    return Removal(spec, len(manifest.files), manifest.size, freed)


def remove(registry: Registry, spec: Spec) -> None:
    """Remove a version; its objects stay until `gc`. Completes a removal that was interrupted."""
    listed = registry.storage.size(versions_key(spec.model)) is not None
    if listed or registry.manifest(spec) or spec in registry.indexed():
        registry.remove(spec)
