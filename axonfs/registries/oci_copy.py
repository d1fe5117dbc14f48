"""`copy` where one side, or both, is an OCI registry.

A model that was copied from a registry of files has that version's own manifest with it, so the way
back gives the very same version. Any other model becomes a version as `publish` would make it of
the same files. Blocking; a few threads read the files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from axonfs.errors import AxonError, NotFoundError, UsageError
from axonfs.http_client import Limits, Trust
from axonfs.names import LATEST, Spec
from axonfs.oci import place_of
from axonfs.oci.place import version_of
from axonfs.oci.uploads import connected
from axonfs.publish.registry import Registry
from axonfs.registries.adoption import Adoption
from axonfs.registries.copy import Copied, Progress, VersionCopy, each, found, listing, yanked
from axonfs.registries.copy import copy as copy_files
from axonfs.registries.oci_reader import OciOrigin, OciReader
from axonfs.registries.oci_target import OciTarget, load_from, load_of
from axonfs.registries.places import storage_of
from axonfs.registries.reader import Clients, Reader, clients
from axonfs.settings.settings import Settings


@contextlib.contextmanager
def sides(
    settings: Settings, source: str, target: str
) -> Iterator[tuple[Reader | OciReader, Registry | OciTarget]]:
    """Both sides of a copy, by their URLs, until the end of the block."""
    with clients(settings, source, target) as made:
        reader = _oci(source, made) if source.startswith("oci:") else made.reader(source)
        if not target.startswith("oci:"):
            yield reader, Registry(storage_of(target, settings))
            return
        to = _oci(target, made)
        if to.place.mirrors:
            raise UsageError("the target of a copy has no mirror", source=to.name)
        limits = Limits.within(settings.deadline, settings.retries)
        with connected(limits, Trust(settings.ca_bundle)) as calls:
            yield reader, OciTarget(to, made.signers.oci_host(to.place.host), calls)


def _oci(url: str, made: Clients) -> OciReader:
    return OciReader(place_of(url), made)


def copy(
    reader: Reader | OciReader,
    target: Registry | OciTarget,
    specs: Iterable[Spec],
    *,
    copied: Callable[[Copied], object],
    failed: Callable[[AxonError], object],
    progress: Progress = lambda spec, done, total: None,
) -> None:
    """Copy versions from the registry of `reader` into `target`; as `copy_files`."""
    if isinstance(target, OciTarget):
        step = _into_oci(reader, target, progress)
        each(specs, step, copied=copied, failed=failed)
    elif isinstance(reader, OciReader):
        _from_oci(reader, target, specs, copied=copied, failed=failed, progress=progress)
    else:
        copy_files(reader, target, specs, copied=copied, failed=failed, progress=progress)


def _into_oci(
    reader: Reader | OciReader, target: OciTarget, progress: Progress
) -> Callable[[Spec], Copied]:
    """Copies one version."""
    if isinstance(reader, OciReader):
        return lambda spec: target.put(load_from(_found(reader, spec)), progress)
    hidden = yanked(reader)

    def one(spec: Spec) -> Copied:
        manifest, base = found(reader, spec)
        return target.put(load_of(reader, manifest, base, yanked=spec in hidden), progress)

    return one


def _from_oci(
    reader: OciReader,
    target: Registry,
    specs: Iterable[Spec],
    *,
    copied: Callable[[Copied], object],
    failed: Callable[[AxonError], object],
    progress: Progress,
) -> None:
    def one(spec: Spec) -> Copied:
        origin = _found(reader, spec)
        if version := origin.found.version:
            copy = VersionCopy(origin, target, version.manifest.spec, progress)
            return copy.run(yanked=version.yanked)
        return Adoption(origin, target, progress).run()

    target.storage.prepare()
    with listing(target) as entered:
        each(specs, one, copied=lambda done: (entered(done.spec), copied(done)), failed=failed)


def _found(reader: OciReader, spec: Spec) -> OciOrigin:
    """
    Raises:
        UsageError: the tag is no version.
        NotFoundError: there is no such tag.
    """
    if spec.version == LATEST:
        what = "its only tag is latest, which is no version"
        hint = "give the model another tag in the OCI registry"
        raise UsageError(what, source=reader.name, hint=hint)
    tagged = reader.tagged(spec)
    if tagged is None:
        raise NotFoundError("the registry does not have this version", source=reader.name)
    version = version_of(tagged.reference.tag)
    return OciOrigin(reader, Spec(spec.namespace, spec.name, version), tagged)
