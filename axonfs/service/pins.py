"""pin, pin_check and update: make versions complete, keep them, and check that they are.

A pin is written as incomplete before the first byte is fetched, so that its bytes are not evicted
meanwhile or after an interruption. At the end it is written again as a receipt, which is complete
only if every chunk of every file passed the check in proof.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from shutil import disk_usage
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
    """Fetch the missing bytes of `specs` and pin them."""
    include, exclude = texts_of(request, "include"), texts_of(request, "exclude")
    wanted = wanted_of(request)
    if not wanted:
        raise UsageError("pin needs a spec")
    specs = dict.fromkeys([await resolve(context, item) for item in wanted])
    selections = [select(await context.tree.version(spec), include, exclude) for spec in specs]
    return {"pins": await keep(context, selections)}


async def keep(context: Context, selections: Sequence[Selection]) -> list[dict[str, Any]]:
    """Pin the selections one after the other, if there is room for all of them."""
    await _check_room(context, selections)
    return [await _keep_one(context, selection) for selection in selections]


async def _check_room(context: Context, selections: Sequence[Selection]) -> None:
    open_digests = {feed.entry.digest for feed in context.fetcher.feeds()}
    free = disk_usage(context.settings.cache).free
    limit = context.engine.evictor.limit()
    room = await trio.to_thread.run_sync(
        measure, context.store, selections, open_digests, limit, free
    )
    room.check(", ".join(str(selection.version.spec) for selection in selections))


async def _keep_one(context: Context, selection: Selection) -> dict[str, Any]:
    store, spec = context.store, selection.version.spec
    await context.tree.admission.keep(selection.version)  # a later rule, offline, may need them
    receipt = await trio.to_thread.run_sync(_receipt, store, selection)
    bulks = [await _fetch_missing(context, selection, receipt)]
    proof = await _prove(context, selection, receipt)
    if _lost(proof, selection):  # an eviction that began before the pin dropped some
        bulks.append(await _fetch_missing(context, selection, receipt))
        proof = await _prove(context, selection, receipt)
    receipt = await trio.to_thread.run_sync(_write_receipt, store, receipt, proof)
    for item in _lost(proof, selection):
        what = f"was lost while it was being pinned: {item['why']}"
        raise AxonError(what, spec=str(spec), path=item["path"], hint="pin it again")
    for item in proof.missing:
        await context.note(f"{spec} {item['path']}: {item['why']}; an earlier pin has this file")
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


async def _fetch_missing(context: Context, selection: Selection, receipt: Pin) -> Bulk:
    """Write the pin, so that local bytes are not evicted, and fetch the missing ones."""
    made = await trio.to_thread.run_sync(pin_work.begin, context, selection)
    with closing(made) as bulk:
        missing = bulk.missing(selection.objects)
        before = await trio.to_thread.run_sync(_write_incomplete, context.store, receipt, missing)
        try:
            await pin_work.fetch(context, selection, bulk)
        except BaseException as exc:
            if isinstance(exc, Exception):
                await context.events.send(pin_work.progress(selection, bulk))
            with trio.CancelScope(shield=True):
                args = (context.store, receipt, before, bulk.fetched)
                await trio.to_thread.run_sync(_undo_if_empty, *args)
            raise
    return bulk


def _undo_if_empty(store: Store, receipt: Pin, before: Pin | None, fetched: int) -> None:
    """Undo a pin of which no byte was fetched."""
    if receipt not in store.pins():  # another command unpinned it, or pinned it whole
        return
    if before is not None:
        if not fetched:
            store.put_pin(before)
    elif not any(info.present_bytes for info in map(store.peek, receipt.files) if info):
        store.drop_pin(receipt.spec)


def _write_incomplete(store: Store, receipt: Pin, missing: int) -> Pin | None:
    """Write the incomplete pin, unless nothing is missing and the same pin exists.

    Return the version's previous pin.
    """
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
    """The missing files among those that are being pinned."""
    paths = {entry.path for entry in selection.entries}
    return [item for item in proof.missing if item["path"] in paths]


def _shown(receipt: Pin) -> dict[str, Any]:
    """A receipt for answers; sizes in bytes, `time` in unix seconds."""
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
    """The incomplete pin. Files that were pinned before stay in it, so `--include` only adds."""
    manifest = selection.version.manifest
    before = next((pin for pin in store.pins() if pin.spec == manifest.spec), None)
    kept = before.files if before and before.manifest_digest == manifest.digest else ()
    files = tuple(dict.fromkeys((*kept, *selection.digests)))
    # A pin that was complete once keeps its count, so that a check fails while bytes are missing.
    chunks = before.chunks if before and kept == files else 0
    return Pin(manifest.spec, manifest.digest, files, time.time(), False, chunks)


def _write_receipt(store: Store, pin: Pin, proof: Proof) -> Pin:
    """Write the receipt with the result of the check, and sync it to disk."""
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
    """Check from the cache alone that `specs` (without specs, every pin) are complete."""
    include, exclude = texts_of(request, "include"), texts_of(request, "exclude")
    pins = {pin.spec: pin for pin in await trio.to_thread.run_sync(context.store.pins)}
    specs = [await pinned_version(context, pins, item) for item in wanted_of(request)]
    chosen = specs or sorted(pins)
    return {
        "pins": [
            await check_pin(context, spec, pins.get(spec), include, exclude) for spec in chosen
        ]
    }


async def pinned_version(context: Context, pins: Iterable[Spec], wanted: Wanted) -> Spec:
    """The pinned version that the user named; if none is pinned, the spec, to be reported."""
    versions = [pin.version for pin in pins if pin.model == wanted.spec.model]
    return await resolve_local(context, wanted, versions) if versions else wanted.spec


async def check_pin(
    context: Context, spec: Spec, pin: Pin | None, include: list[str], exclude: list[str]
) -> dict[str, Any]:
    """The answer about one pin."""
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
        if refusal := await context.tree.admission.refusal(version):
            proof.lack("", refusal.what)
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
    """Whether the pin was ever complete, whether it is partial, and how many bytes are local."""
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
    # Without globs check the pin's own files, which may be a part of the version.
    chosen = [entry for entry in selection.entries if include or entry.digest in pin.files]
    proof = await prove(context, version, [item for item in chosen if item.digest in pin.files])
    for entry in chosen:
        if entry.digest not in pin.files:
            proof.files += 1
            proof.lack(entry.path, "is not part of the pin")
    partial = include or exclude
    if context.store.writable and not partial and pin.complete == bool(proof.missing):
        await trio.to_thread.run_sync(_correct_receipt, context.store, pin, not proof.missing)
    return proof


def _correct_receipt(store: Store, pin: Pin, complete: bool) -> None:
    """Correct a receipt that does not match the result of the check."""
    if pin in store.pins():  # it may have been unpinned meanwhile
        store.put_pin(replace(pin, complete=complete))


async def update(context: Context, request: Event) -> Event:
    """Pin the newest version of `spec`'s model, or of every pinned model; the old pins stay.

    If a pin is partial, the new one has the files with the same paths.
    """
    pins = await trio.to_thread.run_sync(context.store.pins)
    models = sorted({pin.spec.model for pin in pins})
    if request.get("spec"):
        models = [str(request["spec"])]
    wanted = [parse_wanted(model) for model in models]
    context.tree.invalidate()
    if any(not context.tree.hub(item.spec.model) for item in wanted):
        await _ask_again(context)
    changes = [await _update(context, pins, item) for item in wanted]
    return {"changes": changes}


async def _ask_again(context: Context) -> None:
    """Refresh the index; report sources that failed, since the newest version is then uncertain."""
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
    if begun and not begun.complete:  # the last update did not finish: resume it
        del old[version.spec]
    before = _before(context, old)
    pin = old.get(replace(wanted.spec, version=before)) if before else None
    change = {"model": model, "old": before, "new": version.spec.version, "fetched": 0}
    if version.spec not in old:
        paths = await trio.to_thread.run_sync(_pinned_paths, context.store, begun or pin)
        selection = select(version, [], [])
        entries = tuple(item for item in selection.entries if paths is None or item.path in paths)
        if not entries:
            raise NotFoundError("has none of the pinned files", spec=str(version.spec))
        (kept,) = await keep(context, [replace(selection, entries=entries)])
        change["fetched"] = kept["fetched"]
    stored = await trio.to_thread.run_sync(context.store.manifest, pin.spec) if pin else None
    return {**change, **_differences(stored.manifest.files if stored else (), version.manifest)}


def _before(context: Context, pins: Mapping[Spec, Pin]) -> str | None:
    """The pinned version to update from: the newest, or for commits the one pinned last."""
    if any(context.tree.hub(spec.model) for spec in pins):
        return max(pins.values(), key=lambda pin: pin.pinned_at).spec.version
    return newest([spec.version for spec in pins])


def _differences(before: Iterable[FileEntry], manifest: Manifest) -> dict[str, int]:
    """The numbers of files that were added, changed and removed since the version before."""
    old = {entry.path: entry.digest for entry in before}
    new = {entry.path: entry.digest for entry in manifest.files}
    both = old.keys() & new.keys()
    return {
        "added": len(new) - len(both),
        "changed": sum(old[path] != new[path] for path in both),
        "removed": len(old) - len(both),
    }


def _pinned_paths(store: Store, pin: Pin | None) -> set[str] | None:
    """The paths of a partial pin; None if the pin has all files of the version."""
    stored = store.manifest(pin.spec) if pin else None
    if pin is None or stored is None:
        return None
    files = stored.manifest.files
    paths = {entry.path for entry in files if entry.digest in pin.files}
    return None if len(paths) == len(files) else paths
