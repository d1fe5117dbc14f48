"""pin, pin_check and update: versions that are whole, are kept, and prove it.

A pin is written incomplete before the first byte is fetched, so that nothing of it is evicted
while it grows or after it was interrupted. What is written at the end is a receipt: it is complete
only if every chunk of every file was found fit to be served (proof.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import trio

from axonfs.ahead.bulk import Bulk
from axonfs.catalog.tree import Version
from axonfs.errors import (
    ADD_REGISTRY,
    AxonError,
    NoRegistryError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from axonfs.formats.manifest import FileEntry, Manifest
from axonfs.names import Spec, newest
from axonfs.service import pin_work
from axonfs.service.context import Context, Event, resolve, resolve_local, texts_of, wanted_of
from axonfs.service.proof import Proof, prove
from axonfs.service.selection import Selection, measure, select
from axonfs.store import Pin, Store
from axonfs.versions import Wanted, parse_wanted


async def pin(context: Context, request: Event) -> Event:
    """Fetch what is missing of `specs` and keep it."""
    include, exclude = texts_of(request, "include"), texts_of(request, "exclude")
    wanted = wanted_of(request)
    if not wanted:
        raise UsageError("pin needs a spec")
    specs = dict.fromkeys([await resolve(context, item) for item in wanted])
    selections = [select(await context.tree.version(spec), include, exclude) for spec in specs]
    return {"pins": await keep(context, selections)}


async def keep(context: Context, selections: Sequence[Selection]) -> list[dict[str, Any]]:
    """Pin the selections, one after the other; there is room for all or none is begun."""
    await _check_room(context, selections)
    return [await _keep_one(context, selection) for selection in selections]


async def _check_room(context: Context, selections: Sequence[Selection]) -> None:
    open_digests = {feed.entry.digest for feed in context.fetcher.feeds()}
    disk = os.statvfs(context.settings.cache)
    free = disk.f_bavail * disk.f_frsize
    limit = context.engine.evictor.limit()
    room = await trio.to_thread.run_sync(
        measure, context.store, selections, open_digests, limit, free
    )
    room.check(", ".join(str(selection.version.spec) for selection in selections))


async def _keep_one(context: Context, selection: Selection) -> dict[str, Any]:
    store, spec = context.store, selection.version.spec
    receipt = await trio.to_thread.run_sync(_receipt, store, selection)
    bulks = [await _bring(context, selection, receipt)]
    proof = await _prove(context, selection, receipt)
    if _lost(proof, selection):  # to an eviction that had chosen it before it was pinned
        bulks.append(await _bring(context, selection, receipt))
        proof = await _prove(context, selection, receipt)
    receipt = await trio.to_thread.run_sync(_settle, store, receipt, proof)
    for item in _lost(proof, selection):
        what = f"was lost while it was being pinned: {item['why']}"
        raise AxonError(what, spec=str(spec), path=item["path"], hint="pin it again")
    for item in proof.missing:
        await context.note(f"{spec} {item['path']}: {item['why']}; it was pinned earlier")
    return {
        "spec": str(spec),
        "manifest": receipt.manifest_digest,
        "files": len(selection.entries),
        "total": selection.size,
        "fetched": sum(bulk.fetched - bulk.copied for bulk in bulks),
        "copied": sum(bulk.copied for bulk in bulks),
        "receipt": _shown(receipt),
        "path": context.path_of(spec),
    }


async def _bring(context: Context, selection: Selection, receipt: Pin) -> Bulk:
    """Have the pin noted, so that no eviction takes what is local, and the rest fetched."""
    made = await trio.to_thread.run_sync(pin_work.begin, context, selection)
    with closing(made) as bulk:
        missing = bulk.missing(selection.objects)
        before = await trio.to_thread.run_sync(_note, context.store, receipt, missing)
        try:
            await pin_work.fetch(context, selection, bulk)
        except BaseException as exc:
            if isinstance(exc, Exception):
                await context.events.send(pin_work.progress(selection, bulk))
            with trio.CancelScope(shield=True):
                args = (context.store, receipt, before, bulk.fetched)
                await trio.to_thread.run_sync(_undo_if_bare, *args)
            raise
    return bulk


def _undo_if_bare(store: Store, receipt: Pin, before: Pin | None, fetched: int) -> None:
    """Leave no trace of a pin of which nothing came: there is nothing to keep."""
    if receipt not in store.pins():  # another command unpinned it, or pinned it whole
        return
    if before is not None:
        if not fetched:
            store.put_pin(before)
    elif not any(info.present_bytes for info in map(store.peek, receipt.files) if info):
        store.drop_pin(receipt.spec)


def _note(store: Store, receipt: Pin, missing: int) -> Pin | None:
    """Write the pin to be, unless nothing is missing and one says the same; the one before it."""
    before = next((pin for pin in store.pins() if pin.spec == receipt.spec), None)
    same = before and _extent_of(before) == _extent_of(receipt)
    if missing or not same:
        store.put_pin(receipt)
    return before


def _extent_of(pin: Pin) -> tuple[str, tuple[str, ...]]:
    return pin.manifest_digest, pin.files


async def _prove(context: Context, selection: Selection, receipt: Pin) -> Proof:
    entries = selection.version.manifest.files
    pinned = [entry for entry in entries if entry.digest in receipt.files]
    return await prove(context, selection.version, pinned)


def _lost(proof: Proof, selection: Selection) -> list[dict[str, str]]:
    """What is missing of the files that are being pinned."""
    paths = {entry.path for entry in selection.entries}
    return [item for item in proof.missing if item["path"] in paths]


def _shown(receipt: Pin) -> dict[str, Any]:
    """A receipt as answers have it; sizes in bytes, `time` in unix seconds."""
    doubt = {"unverified": receipt.unverified} if receipt.unverified else {}
    return {
        "complete": receipt.complete,
        "manifest": receipt.manifest_digest,
        "objects": len(receipt.files),
        "chunks": receipt.chunks,
        "bytes": receipt.size,
        **doubt,
        "time": receipt.pinned_at,
    }


def _receipt(store: Store, selection: Selection) -> Pin:
    """The pin to be: files pinned before stay in it, so `--include` adds and never takes away."""
    manifest = selection.version.manifest
    before = next((pin for pin in store.pins() if pin.spec == manifest.spec), None)
    kept = before.files if before and before.manifest_digest == manifest.digest else ()
    files = tuple(dict.fromkeys((*kept, *selection.digests)))
    # One that was whole once goes on to fail a check while something is missing.
    chunks = before.chunks if before and kept == files else 0
    return Pin(manifest.spec, manifest.digest, files, time.time(), False, chunks)


def _settle(store: Store, pin: Pin, proof: Proof) -> Pin:
    """Write what was proven, for good."""
    receipt = replace(
        pin,
        pinned_at=time.time(),
        complete=not proof.missing,
        chunks=proof.chunks,
        size=proof.size,
        unverified=proof.unverified,
    )
    store.put_pin(receipt)
    store.sync()
    return receipt


async def pin_check(context: Context, request: Event) -> Event:
    """Prove from the cache alone that `specs` (every pin if there are none) are whole."""
    include, exclude = texts_of(request, "include"), texts_of(request, "exclude")
    pins = {pin.spec: pin for pin in await trio.to_thread.run_sync(context.store.pins)}
    specs = [await pinned_version(context, pins, item) for item in wanted_of(request)]
    chosen = specs or sorted(pins)
    return {
        "pins": [
            await _check_pin(context, spec, pins.get(spec), include, exclude) for spec in chosen
        ]
    }


async def pinned_version(context: Context, pins: Iterable[Spec], wanted: Wanted) -> Spec:
    """The pinned version that is meant; `latest` stays where none is, to be found missing."""
    versions = [pin.version for pin in pins if pin.model == wanted.spec.model]
    return await resolve_local(context, wanted, versions) if versions else wanted.spec


async def _check_pin(
    context: Context, spec: Spec, pin: Pin | None, include: list[str], exclude: list[str]
) -> dict[str, Any]:
    proof = Proof()
    stored = await trio.to_thread.run_sync(context.store.manifest, spec)
    if pin is None:
        proof.lack("", "is not pinned")
    elif stored is None:
        proof.lack("", "its manifest is not local")
    elif stored.manifest.digest != pin.manifest_digest:
        proof.lack("", "its manifest is not the one that was pinned")
    else:
        source = context.tree.source_of(spec, stored.base)
        version = Version(stored.manifest, stored.base, source)
        proof = await _check_files(context, version, pin, include, exclude)
    return {
        "spec": str(spec),
        "files": proof.files,
        "chunks": proof.chunks,
        "total": proof.size,
        "whole": not proof.missing,
        "unverified": proof.unverified,
        "missing": proof.missing,
        "receipt": _shown(pin) if pin else None,
        **(await trio.to_thread.run_sync(_extent, context.store, spec, pin)),
    }


def _extent(store: Store, spec: Spec, pin: Pin | None) -> dict[str, Any]:
    """Whether the pin ever was whole, whether it is of some files, and how many bytes are here."""
    stored = store.manifest(spec)
    files = stored.manifest.files if stored and pin else ()
    sizes = {entry.digest: entry.size for entry in files if pin and entry.digest in pin.files}
    infos = [store.peek(digest) for digest in sizes]
    return {
        "ended": pin is not None and (pin.complete or pin.chunks > 0),
        "partial": len(sizes) < len({entry.digest for entry in files}),
        "wanted": sum(sizes.values()),
        "local": sum(info.present_bytes for info in infos if info is not None),
    }


async def _check_files(
    context: Context, version: Version, pin: Pin, include: list[str], exclude: list[str]
) -> Proof:
    selection = select(version, include, exclude)
    # Without globs the pin's own files are meant: it may have been of a part of the version.
    chosen = [entry for entry in selection.entries if include or entry.digest in pin.files]
    proof = await prove(context, version, [item for item in chosen if item.digest in pin.files])
    for entry in chosen:
        if entry.digest not in pin.files:
            proof.files += 1
            proof.lack(entry.path, "is not part of the pin")
    partial = include or exclude
    if context.store.writable and not partial and pin.complete == bool(proof.missing):
        await trio.to_thread.run_sync(_amend, context.store, pin, not proof.missing)
    return proof


def _amend(store: Store, pin: Pin, complete: bool) -> None:
    """The receipt said something else than what is there now."""
    if pin in store.pins():  # unpinned meanwhile it is to stay so
        store.put_pin(replace(pin, complete=complete))


async def update(context: Context, request: Event) -> Event:
    """Pin the newest version of `spec`'s model, or of every pinned model; the old pins stay.

    A pin of some files of a version becomes one of the files with the same paths.
    """
    pins = await trio.to_thread.run_sync(context.store.pins)
    models = sorted({pin.spec.model for pin in pins})
    if request.get("spec"):
        models = [str(request["spec"])]
    wanted = [parse_wanted(model) for model in models]
    context.tree.invalidate()
    if any(item.spec.namespace not in context.tree.hubs for item in wanted):
        await _ask_again(context)
    changes = [await _update(context, pins, item) for item in wanted]
    return {"changes": changes}


async def _ask_again(context: Context) -> None:
    """Refresh the index; what could not be asked is said, since `newest` may not be true then."""
    await context.tree.catalog(fresh=True)
    errors, registries = context.tree.outages.errors, context.tree.registries
    if not registries:
        raise NoRegistryError("no registry is configured", hint=ADD_REGISTRY)
    if len(errors) == len(registries):
        raise UnavailableError(errors[0], hint="nothing was updated")
    for error in errors:
        await context.note(error)


async def _update(context: Context, pins: list[Pin], wanted: Wanted) -> dict[str, Any]:
    model = wanted.spec.model
    old = {pin.spec: pin for pin in pins if pin.spec.model == model}
    version = await context.tree.version(await resolve(context, wanted, fresh=True))
    begun = old.get(version.spec)
    if begun and not begun.complete:  # the last update did not end: this one goes on with it
        del old[version.spec]
    before = _before(context, old)
    pin = old.get(replace(wanted.spec, version=before)) if before else None
    change = {"model": model, "old": before, "new": version.spec.version, "fetched": 0}
    if version.spec not in old:
        paths = await trio.to_thread.run_sync(_pinned_paths, context.store, begun or pin)
        selection = select(version, [], [])
        entries = tuple(item for item in selection.entries if paths is None or item.path in paths)
        if not entries:
            raise NotFoundError("has none of the files that are pinned", spec=str(version.spec))
        (kept,) = await keep(context, [replace(selection, entries=entries)])
        change["fetched"] = kept["fetched"]
    stored = await trio.to_thread.run_sync(context.store.manifest, pin.spec) if pin else None
    return {**change, **_differences(stored.manifest.files if stored else (), version.manifest)}


def _before(context: Context, pins: Mapping[Spec, Pin]) -> str | None:
    """The version of a model that was pinned; of several commits, which have no order, the last."""
    if any(spec.namespace in context.tree.hubs for spec in pins):
        return max(pins.values(), key=lambda pin: pin.pinned_at).spec.version
    return newest([spec.version for spec in pins])


def _differences(before: Iterable[FileEntry], manifest: Manifest) -> dict[str, int]:
    """How many files of a version are not those of the one before, and how."""
    old = {entry.path: entry.digest for entry in before}
    new = {entry.path: entry.digest for entry in manifest.files}
    both = old.keys() & new.keys()
    return {
        "added": len(new) - len(both),
        "changed": sum(old[path] != new[path] for path in both),
        "removed": len(old) - len(both),
    }


def _pinned_paths(store: Store, pin: Pin | None) -> set[str] | None:
    """The paths that a partial pin is of; None if it is of the whole version."""
    stored = store.manifest(pin.spec) if pin else None
    if pin is None or stored is None:
        return None
    files = stored.manifest.files
    paths = {entry.path for entry in files if entry.digest in pin.files}
    return None if len(paths) == len(files) else paths
