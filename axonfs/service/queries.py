"""Read-only operations: which models exist, what is local, and the state of the mount.

They need no lock on the cache. Scans of the index run in worker threads, since they take long if
the cache knows thousands of versions.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import trio

from axonfs.catalog.search import search_hub, search_registries
from axonfs.catalog.tree import Tree, Version
from axonfs.errors import AxonError, UnavailableError, UsageError
from axonfs.formats.listing import Listing
from axonfs.formats.listing import search as matching
from axonfs.formats.manifest import Manifest
from axonfs.names import OCI, Spec, parse_spec, printable, version_key
from axonfs.service.context import Context, Event, resolve, versions_of
from axonfs.sources import Hub
from axonfs.store import ObjectInfo, Pin, Store
from axonfs.versions import parse_wanted

log = logging.getLogger(__name__)

REGISTRY = "registry"  # stands for all registries in the `sources` of a search
REPAIR = "axonfs verify --repair fetches it again"
MOST_MANIFESTS = 50  # manifests that `versions` fetches at most


async def ping(context: Context, request: Event) -> Event:
    """Answer with the worker's pid, so that a command knows that the mount is alive."""
    return {"worker": os.getpid()}


async def status(context: Context, request: Event) -> Event:
    """The mount's state, or the cache's if nothing is mounted.

    Unlike the mount's status file, it has the pins and the file names of quarantined objects, which
    take a while to find.
    """
    state = context.live()
    state["pins"] = await trio.to_thread.run_sync(_pins, context.store)
    if state.get("quarantined"):
        files = await trio.to_thread.run_sync(first_files, context.store)
        state["quarantined"] = [
            {**item, "file": files.get(item["sha256"], "")} for item in state["quarantined"]
        ]
    return {"status": state}


def _pins(store: Store) -> dict[str, Any]:
    pins = store.pins()
    incomplete = sorted(str(pin.spec) for pin in pins if not pin.complete)
    return {"count": len(pins), "incomplete": incomplete}


def pin_counts(store: Store) -> dict[str, int]:
    """How many pins are complete, and how many are not; blocks."""
    found = Counter("complete" if pin.complete else "incomplete" for pin in store.pins())
    return {state: found[state] for state in ("complete", "incomplete")}


def quarantine(store: Store) -> list[dict[str, Any]]:
    """The quarantined objects, which are not served: the cause, and what to do."""
    return [
        {"sha256": digest, "cause": cause, "hint": REPAIR}
        for digest, cause in sorted(store.quarantined().items())
    ]


async def search(context: Context, request: Event) -> Event:
    """Listings that match `query`, best first; if an index is not known, local versions too.

    `sources` says where to search: `registry`, or the names of hubs.

    Raises:
        UnavailableError: nothing matches, but a registry did not answer.
    """
    query, tree = _sendable(str(request.get("query", ""))), context.tree
    sources = [str(name) for name in request.get("sources") or (REGISTRY,)]
    found = await search_registries(tree, query) if REGISTRY in sources else []
    if REGISTRY in sources and not tree.offline:
        found += await _search_oci(context, query)
    found += await _search_hubs(tree, query, [name for name in sources if name != REGISTRY])
    if tree.offline or tree.outages.fault():
        local = await trio.to_thread.run_sync(_local_listings, context.store)
        known = {listing.spec for listing in found}
        found += [item for item in matching(local, query) if item.spec not in known]
    errors = tree.outages.errors
    if errors and not found and REGISTRY in sources:
        raise UnavailableError(errors[0], hint="no local version matches")
    if tree.offline and sources != [REGISTRY]:
        errors.append("offline, so no hub was searched")
    for error in errors:
        await context.note(error)
    listed = await trio.to_thread.run_sync(_listings, context.store, found)
    return {"models": listed, "registries": len(tree.registries) + len(oci_of(tree))}


def _sendable(query: str) -> str:
    """Replace bytes that are not UTF-8 by `?`, since a URL cannot have them."""
    return query.encode(errors="replace").decode()


async def _search_oci(context: Context, query: str) -> list[Listing]:
    """What OCI registries have; one that does not answer, or lists nothing, leads to a note."""
    found = []
    for name in oci_of(context.tree):
        try:
            found += await search_hub(context.tree, name, query)
        except AxonError as exc:
            await context.note(str(exc))
    return found


def oci_of(tree: Tree) -> list[str]:
    """The names of the OCI registries."""
    return [name for name, hub in tree.hubs.items() if hub.namespace == OCI]


async def _search_hubs(tree: Tree, query: str, names: list[str]) -> list[Listing]:
    found = []
    for name in names:
        if name not in tree.hubs:
            raise UsageError(f"{printable(name)} is not a configured hub", hint=_SOURCES_HINT)
        if not tree.offline:
            found += await search_hub(tree, name, query)
    return found


_SOURCES_HINT = "see axonfs config get sources"


def _local_listings(store: Store) -> list[Listing]:
    return [
        Listing(
            manifest.spec,
            manifest.description,
            manifest.framework,
            manifest.license,
            manifest.tags,
            manifest.size,
            manifest.created,
        )
        for manifest, _, _ in local_versions(store)
    ]


def _listings(store: Store, found: Iterable[Listing]) -> list[dict[str, Any]]:
    """`unverified` is the number of files without a digest; None if the manifest is not local."""
    items = []
    for listing in found:
        stored = store.manifest(listing.spec)
        unverified = stored.manifest.unverified if stored else None
        items.append({**_listing(listing), "unverified": unverified})
    return items


def _listing(listing: Listing) -> dict[str, Any]:
    return {
        **_names(listing.spec),
        "description": listing.description,
        "framework": listing.framework,
        "license": listing.license,
        "tags": list(listing.tags),
        "size": listing.size,
        "published": listing.published,
    }


def _names(spec: Spec) -> dict[str, Any]:
    return {
        "spec": str(spec),
        "namespace": spec.namespace,
        "name": spec.name,
        "version": spec.version,
    }


async def version_of(context: Context, request: Event) -> Version:
    """The version that the `spec` of a request names; a constraint and `latest` are resolved."""
    wanted = parse_wanted(str(request.get("spec")))
    return await context.tree.version(await resolve(context, wanted))


async def version(context: Context, request: Event) -> Event:
    """What is local of the version `spec`, if it may be read: less than `info`, and without a
    request where the version is named exactly and known."""
    return {"version": await _state_of(context, await version_of(context, request))}


async def _state_of(context: Context, version: Version) -> dict[str, Any]:
    manifest = version.manifest
    files = await trio.to_thread.run_sync(_files, context.store, manifest)
    pin = await trio.to_thread.run_sync(_pin_of, context.store, manifest.spec)
    return {
        **_names(manifest.spec),
        "source": version.base,
        "pinned": _pin_state(pin),
        "size": manifest.size,
        "local": sum(item["local"] for item in files),
        "files": files,
    }


async def info(context: Context, request: Event) -> Event:
    """Everything about the version `spec`, whoever signed it."""
    wanted = parse_wanted(str(request.get("spec")))
    version = await context.tree.unchecked(await resolve(context, wanted))
    manifest = version.manifest
    state = await _state_of(context, version)
    hub = context.tree.hub(manifest.spec.model)
    return {
        "version": {
            **_names(manifest.spec),
            "description": manifest.description,
            "license": manifest.license,
            "framework": manifest.framework,
            "format": manifest.format,
            "execution_format": manifest.execution_format,
            "tags": list(manifest.tags),
            "created": manifest.created,
            "digest": manifest.digest,
            "source": version.base,
            "path": context.path_of(manifest.spec),
            "pinned": state["pinned"],
            "yanked": await _is_yanked(context, manifest.spec),
            "size": manifest.size,
            "local": state["local"],
            "facts": await _facts(hub, manifest.spec, context.tree.offline) if hub else {},
            "unverified": manifest.unverified,
            "unverified_allowed": bool(
                version.source and version.source.allows_unverified(version.base)
            ),
            "signatures": await context.tree.admission.describe(version),
            "signature_required": bool(context.tree.admission.required(version)),
            "files": state["files"],
            "left_out": list(manifest.left_out),
        }
    }


async def _is_yanked(context: Context, spec: Spec) -> bool:
    """Whether a registry has yanked this version; False if none answers."""
    try:
        return spec.version in (await context.tree.versions(spec.model)).yanked
    except AxonError:
        return False


async def _facts(hub: Hub, spec: Spec, offline: bool) -> dict[str, str | int]:
    try:
        return dict(await hub.facts(spec, offline=offline))
    except AxonError:
        return {}  # show the version without them


def _files(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "path": entry.path,
            "size": entry.size,
            **entry.proof,
            "local": _local(store.peek(entry.digest)),
        }
        for entry in manifest.files
    ]


def _local(info: ObjectInfo | None) -> int:
    return info.present_bytes if info is not None and info.quarantined is None else 0


def _pin_of(store: Store, spec: Spec) -> Pin | None:
    return next((pin for pin in store.pins() if pin.spec == spec), None)


def _pin_state(pin: Pin | None) -> str:
    """The value of `pinned` in answers: complete, incomplete, or empty."""
    if pin is None:
        return ""
    return "complete" if pin.complete else "incomplete"


async def versions(context: Context, request: Event) -> Event:
    """All versions of `model`, oldest first, with sizes where they are known."""
    spec = parse_spec(str(request.get("model")))
    found = await versions_of(context, spec.model)
    every = sorted({*found.versions, *found.yanked}, key=version_key)
    if not every:
        raise context.tree.outages.not_found(spec.model)
    listed = await _listed_sizes(context)
    named = [Spec(spec.namespace, spec.name, version) for version in every]
    if not context.tree.hub(spec.model):  # a hub has many commits, and counts requests
        await _fetch_manifests(
            context, [item for item in named if not listed.get(item)][-MOST_MANIFESTS:]
        )
    items = await trio.to_thread.run_sync(_version_items, context.store, named, listed)
    for item in items:
        names = (name for name, version in found.aliases.items() if version == item["version"])
        item["aliases"] = sorted(names)
        item["yanked"] = item["version"] in found.yanked
    return {"model": spec.model, "latest": found.latest, "versions": items}


async def _fetch_manifests(context: Context, specs: Iterable[Spec]) -> None:
    """Fetch the manifests of versions whose sizes no index has; ignore failures."""
    async with trio.open_nursery() as nursery:
        for spec in specs:
            nursery.start_soon(_fetch_manifest, context, spec)


async def _fetch_manifest(context: Context, spec: Spec) -> None:
    try:
        await context.tree.unchecked(spec)
    except AxonError as exc:
        log.info("the size of a version is unknown: %s", exc)


async def _listed_sizes(context: Context) -> dict[Spec, int]:
    try:
        catalog = await context.tree.catalog()
    except AxonError:
        return {}  # the versions are known, but not their sizes
    return {listing.spec: listing.size for listing in catalog.listings}


def _version_items(
    store: Store, specs: Iterable[Spec], listed: dict[Spec, int]
) -> list[dict[str, Any]]:
    pins = {pin.spec: pin for pin in store.pins()}
    items = []
    for spec in specs:
        stored = store.manifest(spec)
        files = _files(store, stored.manifest) if stored else []
        items.append(
            {
                "version": spec.version,
                "size": stored.manifest.size if stored else listed.get(spec) or None,
                "local": sum(item["local"] for item in files),
                "pinned": _pin_state(pins.get(spec)),
                "unverified": stored.manifest.unverified if stored else None,
            }
        )
    return items


async def list_local(context: Context, request: Event) -> Event:
    """The versions that are local, completely or partly."""
    items = await trio.to_thread.run_sync(local_versions, context.store)
    return {
        "models": [
            {
                **_names(manifest.spec),
                "size": manifest.size,
                "local": local,
                "pinned": _pin_state(pin),
                "path": context.path_of(manifest.spec),
            }
            for manifest, local, pin in items
        ]
    }


def local_versions(store: Store) -> list[tuple[Manifest, int, Pin | None]]:
    """Each version with a pin or local bytes of its own, by name and version; blocks.

    Bytes that a pinned version shares do not count: they do not mean that the other version was
    used.
    """
    local = {info.digest: _local(info) for info in store.infos()}
    pins = {pin.spec: pin for pin in store.pins()}
    shared = {digest for pin in pins.values() for digest in pin.files}
    found = []
    for spec in sorted(store.specs(), key=lambda spec: (spec.model, version_key(spec.version))):
        stored = store.manifest(spec)
        if stored is None:
            continue
        present = {entry.digest: local.get(entry.digest, 0) for entry in stored.manifest.files}
        if spec in pins or any(present[digest] for digest in present.keys() - shared):
            total = sum(present[entry.digest] for entry in stored.manifest.files)
            found.append((stored.manifest, total, pins.get(spec)))
    return found


def first_files(store: Store) -> dict[str, str]:
    """`spec path` for each object; the first one if several files have the same content."""
    files: dict[str, str] = {}
    for spec in sorted(store.specs()):
        stored = store.manifest(spec)
        for entry in stored.manifest.files if stored else ():
            files.setdefault(entry.digest, f"{spec} {entry.path}")
    return files
