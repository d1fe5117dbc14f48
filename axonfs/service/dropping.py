"""cache_versions, cache_rm and cache_prune: what each local version takes, and what of it can go.

Pinned objects and open ones are never dropped here, and those of another local version neither.
Each operation that drops has a plan, which answers the same and drops nothing. Trio thread; scans
of the index run in worker threads.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from axonfs.errors import AxonError, NotFoundError, UsageError
from axonfs.formats.manifest import Manifest
from axonfs.names import Spec
from axonfs.service.cache import drop
from axonfs.service.context import MANY, Context, Event, resolve_local, wanted_of
from axonfs.service.queries import local_versions
from axonfs.service.unpin import forget_version
from axonfs.store import ObjectInfo, Store
from axonfs.versions import Wanted


@dataclass(frozen=True, slots=True)
class _Local:
    """What is in the cache: objects by the digest of their content, and the versions that have
    bytes of their own or a pin."""

    infos: dict[str, list[ObjectInfo]]
    versions: Mapping[Spec, Manifest]
    pins: Mapping[Spec, bool]  # whether it is complete
    pinned: set[str]
    opened: set[str]

    @classmethod
    def read(cls, store: Store, opened: set[str]) -> _Local:
        """The state now; blocks."""
        infos: dict[str, list[ObjectInfo]] = {}
        for info in store.infos():
            infos.setdefault(info.content, []).append(info)
        versions = {manifest.spec: manifest for manifest, _, _ in local_versions(store)}
        pins = {pin.spec: pin.complete for pin in store.pins()}
        return cls(infos, versions, pins, store.pinned_digests(), opened)

    def size(self, digests: Iterable[str]) -> int:
        """The local bytes of objects."""
        return sum(info.present_bytes for each in digests for info in self.infos.get(each, ()))

    def users(self, specs: Collection[Spec]) -> dict[str, list[Spec]]:
        """The other local versions that have an object, by its digest."""
        found: dict[str, list[Spec]] = {}
        for spec, manifest in self.versions.items():
            if spec not in specs:
                for digest in _digests(manifest):
                    found.setdefault(digest, []).append(spec)
        return found


def _digests(manifest: Manifest) -> set[str]:
    return {entry.digest for entry in manifest.files}


async def _read(context: Context) -> _Local:
    opened = {feed.entry.digest for feed in context.fetcher.feeds()}
    return await trio.to_thread.run_sync(_Local.read, context.store, opened)


async def cache_versions(context: Context, request: Event) -> Event:
    """The local versions; `own` is what no other one has, `used` the last use of any file.

    `loose` is what no known version has.
    """
    local = await _read(context)
    known = await trio.to_thread.run_sync(_named, context.store)
    counts = Counter(
        digest for manifest in local.versions.values() for digest in _digests(manifest)
    )
    loose = local.infos.keys() - known
    return {
        "versions": [
            {
                "spec": str(spec),
                "size": manifest.size,
                "local": local.size(digests := _digests(manifest)),
                "own": local.size(digest for digest in digests if counts[digest] == 1),
                "used": _used(local, digests),
                "pinned": _pinned(local.pins.get(spec)),
                "open": not digests.isdisjoint(local.opened),
            }
            for spec, manifest in local.versions.items()
        ],
        "loose": {"objects": len(loose), "bytes": local.size(loose)},
    }


def _pinned(complete: bool | None) -> str:
    return "" if complete is None else "complete" if complete else "incomplete"


def _used(local: _Local, digests: Iterable[str]) -> float:
    infos = (info for digest in digests for info in local.infos.get(digest, ()))
    return max((info.accessed for info in infos if info.present_bytes), default=0.0)


def _named(store: Store) -> set[str]:
    """The objects that any known version has, or a pin; blocks."""
    stored = filter(None, map(store.manifest, store.specs()))
    return store.pinned_digests().union(*(_digests(each.manifest) for each in stored))


async def cache_rm(context: Context, request: Event, *, plan: bool = False) -> Event:
    """Drop the bytes of `specs` that nothing else needs.

    Raises:
        NotFoundError: nothing of one of them is local.
        AxonError: one of them is pinned. Nothing is dropped.
    """
    local = await _read(context)
    wanted = wanted_of(request)
    if not wanted:
        raise UsageError("cache rm needs a spec")
    specs = list(dict.fromkeys([await _local_version(context, local, item) for item in wanted]))
    shared, answers = local.users(specs), []
    for spec in specs:
        digests = _digests(local.versions[spec])
        stay = {digest: _why(local, shared, digest) for digest in digests}
        goes = sorted(digest for digest, why in stay.items() if not why)
        freed = local.size(goes)
        if not plan:
            freed, _, late = await drop(context, _keys(local, goes))  # late: opened meanwhile
            await forget_version(context, spec, late)
        for digest in goes:  # which two of these versions may share
            local.infos.pop(digest, None)
        answers.append({"spec": str(spec), "freed": freed, "kept": _kept(local, shared, stay)})
    return {"specs": answers}


def _keys(local: _Local, digests: Iterable[str]) -> list[str]:
    return [info.digest for digest in digests for info in local.infos.get(digest, ())]


async def _local_version(context: Context, local: _Local, wanted: Wanted) -> Spec:
    """The local version that the user named, which may go; without a version the only one."""
    model = wanted.spec.model
    versions = [spec.version for spec in local.versions if spec.model == model]
    if not (wanted.exact or wanted.constraint) and len(versions) == 1:
        spec = Spec(wanted.spec.namespace, wanted.spec.name, versions[0])
    elif not (wanted.exact or wanted.constraint) and len(versions) > 1:
        several = ", ".join(versions[-MANY:])
        raise UsageError("several versions are local", spec=model, hint=f"name one: {several}")
    else:
        spec = await resolve_local(context, wanted, versions)
    if spec not in local.versions:
        raise NotFoundError("nothing of it is local", spec=str(spec), hint="see axonfs cache ls")
    if spec in local.pins:
        hint = f"axonfs uninstall {spec} unpins it and drops its bytes"
        raise AxonError("is pinned, so nothing was dropped", spec=str(spec), hint=hint)
    return spec


def _why(local: _Local, shared: Mapping[str, list[Spec]], digest: str) -> str:
    """Why an object stays; empty if it goes."""
    if digest in local.opened:
        return "open"
    return "shared" if digest in shared or digest in local.pinned else ""


def _kept(
    local: _Local, shared: Mapping[str, list[Spec]], stay: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What stays of a version, by the reason; only what has bytes."""
    found = []
    for reason in ("shared", "open"):
        digests = [each for each, why in stay.items() if why == reason and local.size([each])]
        if digests:
            users = sorted({str(spec) for digest in digests for spec in shared.get(digest, ())})
            size = local.size(digests)
            found.append({"why": reason, "files": len(digests), "bytes": size, "by": users})
    return found


async def cache_prune(context: Context, request: Event, *, plan: bool = False) -> Event:
    """Drop the objects that no known version has; with `incomplete` also those of which a part is
    local, and with `older_than` those that nothing used for so many seconds."""
    local = await _read(context)
    named = await trio.to_thread.run_sync(_named, context.store)
    chosen = partial(_chosen, named, time.time(), request)
    reasons = {
        info.digest: reason
        for infos in local.infos.values()
        for info in infos
        if (reason := chosen(info))
    }
    infos = {info.digest: info for each in local.infos.values() for info in each}
    stay = {
        digest
        for digest in reasons
        if infos[digest].content in local.pinned or infos[digest].content in local.opened
    }
    goes = sorted(reasons.keys() - stay)
    freed, dropped, late = sum(infos[digest].present_bytes for digest in goes), len(goes), 0
    why = Counter[str]()
    for digest in goes:
        why[reasons[digest]] += infos[digest].present_bytes
    if not plan:
        freed, dropped, late = await drop(context, goes)
    return {"freed": freed, "objects": dropped, "kept": len(stay) + late, "why": dict(why)}


def _chosen(named: set[str], now: float, request: Event, info: ObjectInfo) -> str:
    """Why an object is to go; empty if it is not."""
    older_than = request.get("older_than")
    if info.content not in named:
        return "unreferenced"
    if not info.present_bytes:
        return ""
    if older_than is not None and now - info.accessed > float(older_than):
        return "unused"
    return "incomplete" if request.get("incomplete") and not info.complete else ""


cache_rm_plan = partial(cache_rm, plan=True)
cache_prune_plan = partial(cache_prune, plan=True)
