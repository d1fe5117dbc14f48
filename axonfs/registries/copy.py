"""`copy`: bring versions from one registry into another, of any kinds.

A version is copied like one is published: its objects, chunk tables and signatures first, then its
manifest, byte for byte, then the lists. So its digest stays, and a reader of the target sees whole
versions only. What the target has is not sent again; so a copy that was interrupted goes on where
it was, file by file. Blocking; a few threads read the objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    BusyError,
    ChangedError,
    DeadlineError,
    NoSpaceError,
    NotFoundError,
    StoppedError,
    UnavailableError,
    UnsupportedError,
    naming,
)
from axonfs.formats.chunktable import table_bytes
from axonfs.formats.layout import table_key
from axonfs.formats.manifest import MIN_CHUNK_SIZE, FileEntry, Manifest
from axonfs.names import LATEST, Spec
from axonfs.publish.registry import Registry
from axonfs.publish.signatures import add, checked, drop_others
from axonfs.registries.objects import bring, check_named, put_table
from axonfs.registries.reader import Listed, Origin, Reader
from axonfs.registries.transfer import Transfer
from axonfs.versions import Wanted

# After these the next version would fail, too.
ENDS = (
    AccessDeniedError,
    BusyError,
    DeadlineError,
    NoSpaceError,
    StoppedError,
    UnavailableError,
    UnsupportedError,
)
# A server that answers so refuses one document or object.
REFUSED = frozenset({400, 404, 409, 413, 415, 422})
# A server may deny one repository, or have one broken file; so many refusals in a row are of all.
REFUSALS = 3

LISTS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Copied:
    """One version that the target has now; `objects` and `bytes` are what it did not have."""

    spec: Spec
    new: bool
    objects: int
    bytes: int


Progress = Callable[[Spec, int, int], object]


def wanted_specs(reader: Listed, wanted: Iterable[Wanted]) -> list[Spec]:
    """The versions of a registry that these mean; without any, all of them.

    Raises:
        NotFoundError: there is no such version.
    """
    found = [_resolved(reader, one) for one in wanted]
    return found or sorted(reader.specs())


def _resolved(reader: Listed, wanted: Wanted) -> Spec:
    if wanted.exact:
        return wanted.spec
    model = wanted.spec.model
    listed = reader.versions(model)
    version = listed.latest if listed else None
    if listed and wanted.constraint:
        version = wanted.constraint.highest(listed.usable)
    if version is None:
        what = f"the registry has no version of it that {wanted} allows"
        if listed is None:
            what = "the registry does not have this model"
        raise NotFoundError(what, spec=model, source=reader.name)
    assert version != LATEST  # the parser of lists drops it
    return Spec(wanted.spec.namespace, wanted.spec.name, version)


def copy(
    reader: Reader,
    target: Registry,
    specs: Iterable[Spec],
    *,
    copied: Callable[[Copied], object],
    failed: Callable[[AxonError], object],
    progress: Progress = lambda spec, done, total: None,
) -> None:
    """Copy versions from the registry of `reader` into `target`.

    Args:
        copied: called after each version.
        failed: called for each version that cannot be copied; the others are.
        progress: called with the version, and its bytes that came, and that will.

    Raises:
        AxonError: a registry does not answer, or `target` cannot be written.
    """
    hidden = yanked(reader)
    target.storage.prepare()

    def one(spec: Spec) -> Copied:
        return VersionCopy(reader, target, spec, progress).run(yanked=spec in hidden)

    with listing(target) as entered:
        each(specs, one, copied=lambda done: (entered(done.spec), copied(done)), failed=failed)


def each(
    specs: Iterable[Spec],
    one: Callable[[Spec], Copied],
    *,
    copied: Callable[[Copied], object],
    failed: Callable[[AxonError], object],
) -> None:
    """Copy versions by `one`; the rest is as for `copy`."""
    in_a_row = 0
    for spec in specs:
        try:
            with naming(spec=str(spec)):
                copied(one(spec))
            in_a_row = 0
        except AxonError as exc:
            if isinstance(exc, ENDS) and exc.status not in REFUSED:
                in_a_row += 1
                if exc.status is None or in_a_row == REFUSALS:
                    raise
            failed(exc)


@contextlib.contextmanager
def listing(target: Registry) -> Iterator[Callable[[Spec], None]]:
    """Have the lists of `target` name the versions that the block tells."""
    lists = _Lists(target)
    try:
        yield lists.entered
    finally:
        lists.mend()


class _Lists:
    """Has the lists of `target` name what was copied: once in a while, since the index is rewritten
    as a whole, and at the end."""

    def __init__(self, target: Registry) -> None:
        self._target = target
        self._waiting: list[Spec] = []
        self._mended = time.monotonic()

    def entered(self, spec: Spec) -> None:
        """Note that a version is in the target."""
        self._waiting.append(spec)
        if time.monotonic() - self._mended > LISTS_SECONDS:
            self.mend()

    def mend(self) -> None:
        """Have the lists name all versions of which they do not know."""
        if self._waiting:
            self._target.mend_lists(*self._waiting)
            self._waiting.clear()
        self._mended = time.monotonic()


def yanked(reader: Reader) -> set[Spec]:
    """The versions that are yanked."""
    try:
        return {spec for spec, yanked in reader.specs().items() if yanked}
    except NotFoundError:  # no index, so no yanks
        return set()


def found(reader: Origin, spec: Spec) -> tuple[Manifest, str]:
    """The manifest of a version, and the URL that its objects are below.

    Raises:
        NotFoundError: the registry does not have it.
    """
    manifest = reader.manifest(spec)
    if manifest is None:
        raise NotFoundError("the registry does not have this version", source=reader.name)
    return manifest


class VersionCopy:
    """The copy of one version from `reader`."""

    def __init__(self, reader: Origin, target: Registry, spec: Spec, progress: Progress) -> None:
        self._reader = reader
        self._target = target
        self._spec = spec
        self._progress = progress

    def run(self, *, yanked: bool) -> Copied:
        manifest, base = found(self._reader, self._spec)
        new = self._check(manifest)
        objects = {entry.digest: entry for entry in manifest.files}
        lacking = [entry for entry in objects.values() if not self._has(entry)]
        total = sum(entry.size for entry in lacking)
        work = Transfer(total, partial(self._progress, self._spec))
        work.run([partial(self._bring, base, entry, work) for entry in lacking])
        signed = self._sign(manifest, base)
        self._enter(manifest, yanked=yanked)
        if signed:
            drop_others(self._target, manifest)
        return Copied(self._spec, new, len(lacking), total)

    def _check(self, manifest: Manifest) -> bool:
        """Whether the target does not have this version yet.

        Raises:
            AxonError: it may not have it, or has another one.
        """
        for entry in manifest.files:
            with naming(path=entry.path):
                check_named(entry)
        earlier = self._target.manifest(self._spec)
        if earlier is None:
            self._target.check_spec(self._spec)
            return True
        self._check_same(manifest, earlier)
        return False

    def _check_same(self, manifest: Manifest, earlier: Manifest) -> None:
        if earlier.digest != manifest.digest:
            what = "this version is there with another manifest"
            hint = "a published version never changes; remove it there first if it is wrong"
            raise ChangedError(what, source=self._target.storage.name, hint=hint)

    def _has(self, entry: FileEntry) -> bool:
        """Whether the target has the object and the very chunk table that the manifest names.

        Raises:
            ChangedError: it has another table of the object. A table is named after its object, and
                versions in the target may name that one.
        """
        if entry.chunks is None or not entry.size:
            return self._target.has_object(entry.digest, entry.size)
        limit = table_bytes(entry.size, MIN_CHUNK_SIZE)
        found = self._target.storage.read(table_key(entry.digest), limit)
        if found and hashlib.sha256(found.body).hexdigest() != entry.chunks.digest:
            if other := self._target.kept_table(entry.digest, entry.size):
                what = f"the object is there with another chunk table (of {other.size:,} bytes)"
                hint = "copy this version into another registry"
                source = self._target.storage.name
                raise ChangedError(what, path=entry.path, source=source, hint=hint)
            return False
        return found is not None and self._target.has_object(entry.digest, entry.size)

    def _bring(self, base: str, entry: FileEntry, work: Transfer) -> None:
        with naming(path=entry.path):
            table = self._reader.table(base, entry) if entry.size else None
            if self._target.has_object(entry.digest, entry.size):
                work.moved(entry.size)
            else:
                bring(self._reader, base, entry, table, self._target, work)
            if table:
                put_table(self._target, entry.digest, table)

    def _sign(self, manifest: Manifest, base: str) -> bool:
        """Bring the signatures that the target does not have; return whether there are any."""
        body = self._reader.signatures(base, manifest)
        with naming(source=self._reader.name):
            signatures = checked(body, manifest) if body else []
        if signatures:
            add(self._target, manifest, signatures)
        return bool(signatures)

    def _enter(self, manifest: Manifest, *, yanked: bool) -> None:
        # First, so that no list names it; a server that keeps lists yanks what is published.
        early = yanked and not self._target.storage.keeps_lists
        if early:
            self._target.mark_yanked(self._spec)
        if earlier := self._target.enter(manifest):
            self._check_same(manifest, earlier)
        if yanked and not early:
            self._target.mark_yanked(self._spec)
