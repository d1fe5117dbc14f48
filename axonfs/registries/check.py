"""`check`: compare everything that a registry's manifests name with its digests, and repair it.

A manifest has no digest of its own: it is right if it is valid and of its version. Each object is
read once, however many versions have it. Blocking; a few threads read the objects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    ChangedError,
    CorruptError,
    MalformedError,
    NotFoundError,
    UntrustedError,
    UnverifiedError,
    VanishedError,
)
from axonfs.formats.layout import INDEX, manifest_key, signatures_key, versions_key
from axonfs.formats.listing import Versions
from axonfs.formats.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest
from axonfs.names import Spec
from axonfs.publish.faults import disk_faults
from axonfs.publish.registry import Registry
from axonfs.publish.signatures import add, checked
from axonfs.registries.objects import bring, check_named, put_table, verify
from axonfs.registries.reader import Reader
from axonfs.registries.transfer import Progress, Transfer
from axonfs.settings.signers import SignatureRules
from axonfs.signatures.verdict import judge

# Faults of what the registry has. Any other says that it does not answer, and ends the check.
WRONG = (
    ChangedError,
    CorruptError,
    MalformedError,
    NotFoundError,
    UntrustedError,
    UnverifiedError,
    VanishedError,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a registry.

    Args:
        repaired: whether it is right now.
        unrepaired: why it is still wrong, if a repair was tried.
    """

    error: AxonError
    repaired: bool = False
    unrepaired: AxonError | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found; an object that several versions have counts once."""

    faults: tuple[Fault, ...]
    versions: int
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Repair:
    """Brings what is wrong from `origin` into `registry`, which is the one that is checked."""

    origin: Reader
    registry: Registry

    def manifest(self, spec: Spec) -> None:
        found = self.origin.manifest(spec)
        if found is None:
            raise NotFoundError("it does not have this version", source=self.origin.name)
        storage, key = self.registry.storage, manifest_key(spec)
        storage.replace(key, found[0].raw, storage.read(key, MAX_MANIFEST_BYTES))
        self.lists(spec)

    def lists(self, spec: Spec) -> None:
        self.registry.mend_lists(spec)

    def signatures(self, manifest: Manifest) -> None:
        """Keep the signatures that are of this manifest, and add those of `origin`."""
        found = self.origin.manifest(manifest.spec)
        body = self.origin.signatures(found[1], manifest) if found else None
        signatures = checked(body, manifest) if body else []
        try:
            add(self.registry, manifest, signatures)
        except MalformedError:  # the file is larger than any that is read
            self.registry.storage.delete(signatures_key(manifest.spec))
            add(self.registry, manifest, signatures)

    def table(self, entry: FileEntry) -> None:
        if table := self.origin.table(self.origin.url, entry):
            put_table(self.registry, entry.digest, table)

    def object(self, entry: FileEntry) -> None:
        url = self.origin.url
        table = self.origin.table(url, entry) if entry.size else None
        bring(self.origin, url, entry, table, self.registry, Transfer())


Remedy = Callable[[Repair], None]


@dataclass(frozen=True, slots=True)
class _Item:
    """An object to check, and the first file that has it."""

    spec: Spec
    base: str
    entry: FileEntry


def check(
    reader: Reader,
    registry: Registry | None = None,
    origin: Reader | None = None,
    *,
    rules: SignatureRules | None = None,
    found: Callable[[Fault], object] = bool,
    progress: Progress = lambda done, total: None,
) -> Checked:
    """Check the registry of `reader`.

    Args:
        registry: the same registry, if its storage can be reached. Then versions that its lists
            do not name are found as well.
        origin: the registry that replaces what is wrong; needs `registry`.
        rules: who has to have signed which versions.
        found: called with each fault, as soon as it is known.

    Raises:
        AxonError: a registry does not answer.
    """
    repair = Repair(origin, registry) if origin and registry else None
    return _Check(reader, registry, repair, rules or SignatureRules(), found).run(progress)


class _Check:
    def __init__(
        self,
        reader: Reader,
        registry: Registry | None,
        repair: Repair | None,
        rules: SignatureRules,
        found: Callable[[Fault], object],
    ) -> None:
        self._reader = reader
        self._registry = registry
        self._repair = repair
        self._rules = rules
        self._found = found
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def run(self, progress: Progress) -> Checked:
        if self._repair:
            self._repair.registry.storage.prepare()
        indexed, published = self._indexed(), self._published()
        items: dict[object, _Item] = {}
        for spec in sorted({**indexed, **published}):
            for item in self._items(spec):
                items.setdefault((item.entry.digest, item.entry.size, item.entry.chunks), item)
        self._check_lists(indexed, published)
        total = sum(item.entry.size for item in items.values())
        work = Transfer(total, progress)
        work.run([partial(self._check_object, item, work) for item in items.values()])
        return Checked(tuple(self._faults), len({**indexed, **published}), len(items), total)

    def _indexed(self) -> dict[Spec, bool]:
        try:
            return self._reader.specs()
        except WRONG as exc:
            if self._registry is None:
                raise
            first = min(self._published(), default=None)
            self._add(exc, (lambda repair: repair.lists(first)) if first else None)
            return {}

    def _published(self) -> dict[Spec, bool]:
        """The versions whose manifests the storage lists."""
        try:
            return self._registry.specs() if self._registry else {}
        except AccessDeniedError:
            return {}

    def _items(self, spec: Spec) -> Iterator[_Item]:
        found = self._manifest(spec)
        if found:
            self._check_signatures(*found)
        for entry in found[0].files if found else ():
            try:
                check_named(entry)
            except UnverifiedError as exc:
                self._add(exc.located(spec=str(spec), path=entry.path), None)
            else:
                yield _Item(spec, found[1] if found else "", entry)

    def _manifest(self, spec: Spec) -> tuple[Manifest, str] | None:
        try:
            if found := self._reader.manifest(spec):
                return found
            what = "the index names this version, which has no manifest"
            hint = "axonfs registry remove-version ends an interrupted removal"
            raise VanishedError(what, hint=hint)
        except WRONG as exc:
            mended = self._add(exc.located(spec=str(spec)), lambda repair: repair.manifest(spec))
            return self._reader.manifest(spec) if mended else None

    def _check_signatures(self, manifest: Manifest, base: str) -> None:
        try:
            body = self._reader.signatures(base, manifest)
            if body:
                checked(body, manifest)
            groups = self._rules.required(manifest.spec, base, [self._reader.url])
            if groups and (refusal := judge(body, manifest, groups).refusal):
                raise refusal
        except WRONG as exc:
            where = exc.located(spec=str(manifest.spec))
            self._add(where, lambda repair: repair.signatures(manifest))

    def _check_lists(self, indexed: dict[Spec, bool], published: dict[Spec, bool]) -> None:
        models: dict[str, dict[str, bool]] = {}
        for spec, yanked in sorted(published.items()):
            models.setdefault(spec.model, {})[spec.version] = yanked
            if indexed.get(spec) != yanked:
                self._add_list(INDEX, spec)
        for spec in {spec.model: spec for spec in published}.values():
            listed = self._reader.versions(spec.model) or Versions((), None)
            named = dict.fromkeys(listed.versions, False) | dict.fromkeys(listed.yanked, True)
            if named != models[spec.model]:
                self._add_list(versions_key(spec.model), spec)

    def _add_list(self, key: str, spec: Spec) -> None:
        what = f"{key} does not say of it what the manifests say"
        error = AxonError(what, spec=spec.model if key != INDEX else str(spec))
        self._add(error, lambda repair: repair.lists(spec))

    def _check_object(self, item: _Item, work: Transfer) -> None:
        spec, entry = str(item.spec), item.entry
        table = None
        try:
            table = self._reader.table(item.base, entry)
        except WRONG as exc:
            where = exc.located(spec=spec, path=entry.path)
            self._add(where, lambda repair: repair.table(entry))
        try:
            verify(self._reader, item.base, entry, table, work)
        except WRONG as exc:
            where = exc.located(spec=spec, path=entry.path)
            self._add(where, lambda repair: repair.object(entry))

    def _add(self, error: AxonError, remedy: Remedy | None) -> bool:
        """Note a fault, after an attempt to repair it; return whether it is repaired."""
        fault = Fault(error)
        if self._repair and remedy:
            try:
                with disk_faults(self._repair.registry.storage.name, "run the command"):
                    remedy(self._repair)
                fault = Fault(error, repaired=True)
            except AxonError as exc:
                fault = Fault(error, unrepaired=exc)
        with self._lock:
            self._faults.append(fault)
            self._found(fault)
        return fault.repaired
